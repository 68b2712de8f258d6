"""What every network can be asked for, written once; a network adds what is its own."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore import tiling
from jaxcore.compiling import compiler_options
from jaxcore.convert import Rule, from_state_dict, to_state_dict
from jaxcore.errors import UserError
from jaxcore.models.config import computed_like
from jaxcore.nn import init_params, init_shapes
from jaxcore.serial import Serial
from jaxcore.typing import Key, Params, StateDict

C = TypeVar("C", bound=Serial)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Network(Generic[C]):
    """A network and all that commands, trainings and loaders need to know of it.

    Attributes:
      name: how it is called in `jaxcore.registry`, in runs and in weight files.
      package: module with its functions, such as ``jaxcore.models.adair``.
      config_class: sizes and options.
      draw: parameters by the initialisers of its Linen module, from a key and a configuration.
      apply: ``apply(params, x, ..., cfg, **options)``, pure.
      channels: of an image that goes in.
      multiple: height and width of an input must be multiples of this.
      least: smallest height and width of an input.
      tiny: a configuration as small as the network can be, for tests.
      task: name in `jaxcore.registry` of the task that trains it.
      recipes: module with its training recipes; empty where there is none.
      presets: published configurations by name, for weights that do not hold theirs.
      rules: our parameter path -> official key, or a function from a configuration to that table.
        Without official weights, the path is the key.
      config_from_state_dict: configuration read from official weights; None if it is not in them.
      trainable: tree of bools, False for parameters that never learn; None if all do.
      start: configuration of a training that starts from weights: from theirs and the one it
        would have without them. Refuses, by a `UserError`, weights that cannot be a start.
      deploy: parameters and configuration with merged what is apart only for training.
      apart: for a training whose configuration comes last, parameters and configuration in which
        what `deploy` merged is apart again; None where nothing is merged.
      restores: whether a configuration restores images.
      restore_options: further options of `restore`: steps, seed or condition.
      restore_changes: fields of the configuration that may be changed in order to restore.
      searching: whether a configuration is the search for another one.
      chosen: parameters and configuration of a search -> the configuration it found, or None.
    """

    name: str
    package: str
    config_class: type[C]
    draw: Callable[[Key, C], Params]
    apply: Callable[..., Any]
    channels: Callable[[C], int]
    multiple: Callable[[C], int]
    tiny: Callable[[], C]
    task: str
    least: Callable[[C], int] = lambda cfg: 1
    recipes: str = ""
    presets: Mapping[str, Callable[[], C]] = dataclasses.field(default_factory=dict)
    rules: Sequence[Rule] | Callable[[C], Sequence[Rule]] = (Rule(r"(.+)", r"\1"),)
    config_from_state_dict: Callable[[StateDict], C] | None = None
    trainable: Callable[[Params, C], Any] = lambda params, cfg: None
    start: Callable[[C, C], C] = computed_like
    deploy: Callable[[Params, C], tuple[Params, C]] | None = None
    apart: Callable[[Params, C, C], tuple[Params, C]] | None = None
    restores: Callable[[C], bool] = lambda cfg: False
    restore_options: tuple[str, ...] = ()
    restore_changes: tuple[str, ...] = ()
    searching: Callable[[C], bool] = lambda cfg: False
    chosen: Callable[[Params, C], C | None] = lambda params, cfg: None

    @property
    def module(self) -> ModuleType:
        """The module with its functions."""
        return importlib.import_module(self.package)

    def init(self, key: Key, cfg: C) -> Params:
        """Random parameters with the official initialisation.

        Args:
          key: from ``jax.random.key``.
          cfg: sizes and options.

        Returns:
          Nested dict of arrays of type ``cfg.param_dtype``.

        >>> from jaxcore.models import adair
        >>> params = adair.init(jax.random.key(0), adair.AdaIRConfig.tiny(decoder=False))
        >>> params["encoder_level1"]["attn"]["qkv"]["kernel"].shape
        (1, 16, 48)
        """
        return drawn(self.draw, key, cfg)

    def param_shapes(self, cfg: C) -> Params:
        """Shape and type of every parameter, without computing any.

        >>> from jaxcore.models import adair
        >>> shapes = adair.param_shapes(adair.AdaIRConfig.five_task())
        >>> sum(leaf.size for leaf in jax.tree.leaves(shapes))
        28784824
        """
        return shapes_of(self.draw, cfg)

    def from_torch(self, state_dict: StateDict, cfg: C) -> Params:
        """Official weights as our parameters; strict, nothing is left out.

        Args:
          state_dict: official key -> array. The prefixes of Lightning and of data-parallel
            wrappers (``net.``, ``module.``) are removed when every key has them.
          cfg: configuration of the same sizes; see ``config_from_state_dict``.

        Raises:
          UserError: missing, unexpected or mis-shaped keys, all named in one sentence.
        """
        return from_state_dict(state_dict, self._table(cfg), self.param_shapes(cfg))

    def to_torch(self, params: Params, cfg: C) -> dict[str, np.ndarray]:
        """Exact inverse of :meth:`from_torch`: official key -> array in PyTorch's layout.

        Args:
          params: from :meth:`init`, :meth:`from_torch` or training.
          cfg: their configuration.

        Raises:
          UserError: the parameters do not belong to ``cfg``.
        """
        return to_state_dict(params, self._table(cfg), self.param_shapes(cfg))

    def _table(self, cfg: C) -> Sequence[Rule]:
        return self.rules(cfg) if callable(self.rules) else self.rules

    def restore(
        self, params: Params, image: Float[np.ndarray, "*b h w c"], cfg: C, **options: Any
    ) -> Float[np.ndarray, "*b h w c"]:
        """Restore an image of any size; see `ImageNetwork.restore`.

        Raises:
          UserError: the network does not restore images.
        """
        raise UserError(f"Expected a network that restores images, found {self.name}.")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TokenNetwork(Network[C]):
    """A network that reads tokens, with or without images."""

    channels: Callable[[C], int] = lambda cfg: 0
    multiple: Callable[[C], int] = lambda cfg: 1
    task: str = ""


@functools.partial(jax.jit, static_argnums=(0, 2))
def drawn(draw: Callable[[Key, Any], Params], key: Key, cfg: Serial) -> Params:
    """`Network.init` of ``draw``."""
    return init_params(lambda key: draw(key, cfg), key)


@functools.lru_cache(maxsize=32)
def shapes_of(draw: Callable[[Key, Any], Params], cfg: Serial) -> Params:
    """`Network.param_shapes` of ``draw``."""
    return init_shapes(lambda key: draw(key, cfg))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageNetwork(Network[C]):
    """A network from images in [0, 1] to images of the same size."""

    task: str = "restoration"
    restores: Callable[[C], bool] = lambda cfg: True

    def restore(  # type: ignore[override]  # names the options
        self,
        params: Params,
        image: Float[np.ndarray, "*b h w c"],
        cfg: C,
        *,
        tile: int | None = None,
        overlap: int = 32,
        blend: tiling.Blend = "linear",
        ensemble: bool = False,
        bucket: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Float[np.ndarray, "*b h w c"]:
        """Restore an image, or a batch of images of one size.

        Parameters of a training form are merged first. Attention and pools see everything they
        are given at once: tiles (which bound memory) and, slightly, padding to a bucket give
        another result than the whole image.

        Args:
          params: from `init`, `from_torch` or training.
          image: degraded, floats in [0, 1], any size; HWC or NHWC.
          cfg: configuration of the parameters.
          tile: side of tiles in pixels, a multiple of what the network needs (256 to 512 is
            sensible); None for the whole image.
          overlap: pixels shared by neighbouring tiles.
          blend: "linear" or "uniform" weights where tiles overlap.
          ensemble: average over the eight flips and quarter turns.
          bucket: pad to multiples of this, itself a multiple of what the network needs, to bound
            recompilation over a folder of many sizes; 64 is sensible.
          progress: called with (network calls done, network calls in all).

        Returns:
          float32 array of the shape of ``image``, on the host, not clipped to [0, 1].

        Raises:
          UserError: the image or an option does not fit.

        >>> from jaxcore.models import dea_net
        >>> cfg = dea_net.DEANetConfig.tiny()
        >>> params = dea_net.init(jax.random.key(0), cfg)
        >>> dea_net.restore(params, np.zeros((5, 50, 3), np.float32), cfg).shape
        (5, 50, 3)
        """
        if self.deploy is not None:
            params, cfg = self.deploy(params, cfg)
        return tiling.restore(
            functools.partial(_compiled(), self.apply, params, cfg=cfg),
            image,
            multiple=self.multiple(cfg),
            least=self.least(cfg),
            tile=tile,
            overlap=overlap,
            blend=blend,
            ensemble=ensemble,
            bucket=bucket,
            progress=progress,
        )


@functools.cache
def _compiled() -> Callable[..., Array]:
    options = compiler_options()
    return jax.jit(_apply, static_argnames=("apply", "cfg"), compiler_options=options)


def _apply(apply: Callable[..., Array], params: Params, images: Array, cfg: Serial) -> Array:
    return apply(params, images, cfg)


def check_images(
    title: str,
    x: Array,
    *,
    channels: int,
    multiple: int,
    least: int = 1,
    what: str = "",
    values: str = "[0, 1]",
) -> None:
    """Refuse what cannot be images for a network.

    Args:
      title: the network's name in messages.
      x: images.
      channels: that the network takes.
      multiple: of height and width.
      least: smallest height and width.
      what: which channels these are, where that is not plain.
      values: range of the values.

    Raises:
      UserError: shape or type of ``x`` do not fit.

    >>> check_images("AdaIR", jnp.zeros((1, 12, 16, 3)), channels=3, multiple=8)
    Traceback (most recent call last):
    jaxcore.errors.UserError: AdaIR expects a height and width that are positive multiples of 8, \
found 12 and 16.
    """
    if x.ndim != 4 or x.shape[-1] != channels or x.shape[0] == 0:
        named = f" with the channels {what}" if what else ""
        raise UserError(
            f"{title} expects images of shape (batch, height, width, {channels}){named}, found "
            f"{tuple(x.shape)}."
        )
    height, width = x.shape[1:3]
    if height % multiple or width % multiple or min(height, width) < max(1, least):
        kind = f"multiples of {multiple} and at least {least}"
        if multiple == 1:
            kind = f"at least {least}"
        elif least <= multiple:
            kind = f"positive multiples of {multiple}"
        raise UserError(
            f"{title} expects a height and width that are {kind}, found {height} and {width}."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise UserError(f"{title} expects floating-point images in {values}, found {x.dtype}.")
