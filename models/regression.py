"""Networks from images, and columns of a table, to numbers: log-odds, means, features."""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.bounds import AtLeast, Below, Count, Index
from jaxcore.errors import UserError
from jaxcore.models.base import Network, check_images
from jaxcore.models.config import DType, NetworkConfig
from jaxcore.nn import Encoder, PointwiseConv, Types
from jaxcore.typing import Key, Params

Temporal: TypeAlias = Literal["concatenate", "difference", "variance", "transformer"]
"""How the features of the images of a sequence become those of the sequence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionConfig(NetworkConfig):
    """What the networks from images to numbers share."""

    in_channels: Count = 3  # bands of an image
    covariates: Index = 0  # columns of the table that comes with the images
    outputs: Count = 1  # numbers per unit

    dtype: DType = "float32"  # of activations; norms, softmax and statistics are not narrower
    param_dtype: DType = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceConfig(RegressionConfig):
    """What those share that take single images or sequences, and end in dense layers."""

    frames: Count | None = None  # images of a sequence; None: single images
    temporal: Temporal = "transformer"
    temporal_depth: Count = 3  # blocks of that transformer
    head_depth: Count = 1  # dense layers behind the features
    head_width: Count = 64  # between them
    dropout: Annotated[float, AtLeast(0), Below(1)] = 0.1  # in training


C = TypeVar("C", bound=RegressionConfig)


class Learned(NamedTuple):
    """What a network gives in training."""

    outputs: Float[Array, "b o"]
    collections: dict[str, Any]  # new values of what is carried beside the parameters


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RegressionNetwork(Network[C], Generic[C]):
    """A network from images and covariates to numbers, one row of them for each unit.

    ``apply(params, x, covariates, cfg)`` gives the numbers. Trees of parameters may hold sub-trees
    that no gradient changes, such as running statistics: `split` takes them apart for a training,
    `join` puts them back.

    >>> from jaxcore.models import vit
    >>> cfg = vit.ViTConfig.tiny(covariates=0)
    >>> params = vit.init(jax.random.key(0), cfg)
    >>> vit.apply(params, jnp.zeros((5, 9, 9, 3)), None, cfg).shape
    (5, 1)

    Attributes:
      features: ``features(params, x, covariates, cfg)``, the numbers before the last layers.
      learn: ``learn(params, x, covariates, cfg, key)`` in training: with random numbers and with
        statistics of the batch; gives `Learned`.
      collections: names, at the top of the tree, of what training carries and does not learn.
    """

    features: Callable[..., Array]
    learn: Callable[..., Learned]
    collections: tuple[str, ...] = ()
    task: str = "propensity"

    def split(self, params: Params) -> tuple[Params, dict[str, Any]]:
        """Learned parameters, and the collections that a train state carries.

        >>> from jaxcore.models import convnet
        >>> cfg = convnet.ConvNetConfig.tiny()
        >>> learned, carried = convnet.NETWORK.split(convnet.param_shapes(cfg))
        >>> sorted(carried), "batch_stats" in learned
        (['batch_stats'], False)
        """
        learned = {k: v for k, v in params.items() if k not in self.collections}
        return learned, {k: params[k] for k in self.collections if k in params}

    def join(self, learned: Params, carried: dict[str, Any]) -> Params:
        """Inverse of `split`; other collections that a train state carries are left out."""
        return {**learned, **{k: carried[k] for k in self.collections if k in carried}}


def frames_of(cfg: RegressionConfig, x: Array, covariates: Array | None, least: int) -> Array:
    """Images one by one, after a look at all that goes into a network.

    Args:
      cfg: sizes and options.
      x: images (b, h, w, c), or sequences of them (b, t, h, w, c).
      covariates: (b, p), or None where the configuration has none.
      least: smallest height and width.

    Returns:
      Images (b, h, w, c), or (b t, h, w, c).

    Raises:
      UserError: shape or type do not fit.
    """
    frames, batch = getattr(cfg, "frames", None), x.shape[0] if x.ndim else 0
    if frames is not None:
        if x.ndim != 5 or x.shape[1] != frames:
            raise UserError(
                f"{cfg.title} expects sequences of shape (batch, {frames}, height, width, "
                f"{cfg.in_channels}), found {tuple(x.shape)}."
            )
        x = x.reshape(-1, *x.shape[2:])
    check_images(
        cfg.title,
        x,
        channels=cfg.in_channels,
        multiple=1,
        least=least,
        values="standard deviations from the mean",
    )
    found = None if covariates is None else tuple(covariates.shape)
    wanted = (batch, cfg.covariates) if cfg.covariates else None
    if found != wanted:
        raise UserError(f"{cfg.title} expects covariates of shape {wanted}, found {found}.")
    if covariates is not None and not jnp.issubdtype(covariates.dtype, jnp.floating):
        raise UserError(f"{cfg.title} expects floating-point covariates, found {covariates.dtype}.")
    return x


def blank(cfg: RegressionConfig, side: int) -> tuple[Array, Array | None]:
    """Zeros that can go into a network: one unit, with images of that side."""
    frames = getattr(cfg, "frames", None)
    shape = (1, *(() if frames is None else (frames,)), side, side, cfg.in_channels)
    covariates = jnp.zeros((1, cfg.covariates), jnp.float32) if cfg.covariates else None
    return jnp.zeros(shape, jnp.float32), covariates


class OverTime(nn.Module):
    """Features of sequences from those of their images; as they are without sequences.

    Attributes:
      cfg: sizes and options.
      drop_path: rate of leaving updates of the transformer out.
    """

    cfg: SequenceConfig
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "b e"]:
        """Join the features of ``cfg.frames`` consecutive rows."""
        cfg = self.cfg
        if cfg.frames is None:
            return x
        x = x.reshape(-1, cfg.frames, x.shape[-1])
        match cfg.temporal:
            case "concatenate":
                return x.reshape(x.shape[0], -1)
            case "difference":
                # The mean of first differences is the last minus the first.
                step = (x[:, -1] - x[:, 0]) / max(cfg.frames - 1, 1)
                return jnp.concatenate([jnp.mean(x, axis=1), step], axis=-1)
            case "variance":
                return jnp.concatenate([jnp.mean(x, axis=1), jnp.var(x, axis=1)], axis=-1)
            case "transformer":
                return Encoder(
                    depth=cfg.temporal_depth,
                    num_heads=math.gcd(x.shape[-1], 8),
                    drop_path=self.drop_path,
                    dropout=cfg.dropout,
                    types=Types.of(cfg),
                    name="encoder",
                )(x)


class Head(nn.Module):
    """Dense layers with swish between them.

    Attributes:
      cfg: sizes and options.
    """

    cfg: SequenceConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b o"]:
        """Numbers from features."""
        cfg = self.cfg
        for i in range(1, cfg.head_depth + 1):
            last = i == cfg.head_depth
            width = cfg.outputs if last else cfg.head_width
            layer = PointwiseConv(
                features=width, use_bias=True, types=Types.of(cfg), name=f"Dense{i}"
            )
            x = layer(x) if last else jax.nn.silu(layer(x))
        return x


def with_covariates(x: Float[Array, "b d"], covariates: Array | None) -> Float[Array, "b e"]:
    """Features with the columns of the table behind them, where there are any."""
    if covariates is None:
        return x
    return jnp.concatenate([x, covariates.astype(x.dtype)], axis=-1)


def functions(
    make: Callable[..., nn.Module], collections: tuple[str, ...] = ()
) -> tuple[Callable[..., Array], Callable[..., Array], Callable[..., Learned]]:
    """``apply``, ``features`` and ``learn`` of a module that returns features and numbers.

    Args:
      make: ``make(cfg, train=...)``.
      collections: names of what it carries beside its parameters.
    """

    def variables(params: Params) -> dict[str, Any]:
        learned = {k: v for k, v in params.items() if k not in collections}
        return {"params": learned, **{k: params[k] for k in collections}}

    def run(params: Params, x: Array, covariates: Array | None, cfg: Any) -> Any:
        return make(cfg, train=False).apply(variables(params), x, covariates)

    def apply(params: Params, x: Array, covariates: Array | None, cfg: Any) -> Array:
        """Numbers, such as log-odds of treatment, for images and covariates.

        Pure: can be jitted (``cfg`` static), mapped, differentiated, sharded.

        Args:
          params: from ``init``, ``from_torch`` or training.
          x: images (b, h, w, c), each band in standard deviations from its mean; sequences
            (b, t, h, w, c) where ``cfg.frames`` is set.
          covariates: (b, p), standardised too; None where ``cfg.covariates`` is 0.
          cfg: sizes and options.

        Returns:
          (b, ``cfg.outputs``), float32 (float64 if ``cfg.dtype`` is).

        Raises:
          UserError: shape or type do not fit.
        """
        return run(params, x, covariates, cfg)[1]

    def features(params: Params, x: Array, covariates: Array | None, cfg: Any) -> Array:
        """What `apply` computes its numbers from, (b, d); the arguments are its."""
        return run(params, x, covariates, cfg)[0]

    def learn(
        params: Params, x: Array, covariates: Array | None, cfg: Any, key: Key | None
    ) -> Learned:
        """`apply` in training: statistics are those of the batch, and ``key`` drops parts out.

        Args:
          params: learned parameters with what is carried beside them.
          x: as in `apply`.
          covariates: as in `apply`.
          cfg: sizes and options.
          key: None drops nothing out.

        Returns:
          The numbers, and new values of what is carried.
        """
        rngs = None if key is None else {"dropout": key}
        (_, out), changed = make(cfg, train=True).apply(
            variables(params), x, covariates, rngs=rngs, mutable=list(collections)
        )
        return Learned(out, dict(changed))

    return apply, features, learn
