"""The networks of RDDM: one U-Net, two, or two decoders behind one encoder.

Liu, Wang, Fan, Wang, Tang, Qu, CVPR 2024. Layout NHWC. Level i of the U-Net has ``dim_mults[i]``
times ``dim`` channels at half the resolution of the level before.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.errors import UserError
from jaxcore.models.rddm.config import RDDMConfig
from jaxcore.models.rddm.network.blocks import (
    STANDARDISED,
    AttentionLayer,
    Downsample,
    ResnetBlock,
    TimeEmbedding,
    Upsample,
    standardise_kernel,
)
from jaxcore.models.rddm.process.selector import START
from jaxcore.nn import Conv, PointwiseConv, init_params, types_of
from jaxcore.typing import Key, Params

Times = tuple[Float[Array, " b"], ...]
"""One time per network."""


class Unet(nn.Module):
    """One encoder and one decoder, or two decoders.

    With two, the first sees no maps of the encoder but the last one.

    Attributes:
      cfg: sizes and options.
      decoders: 1 or 2.
    """

    cfg: RDDMConfig
    decoders: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], time: Float[Array, " b"]
    ) -> tuple[tuple[Float[Array, "b h w c"], ...], dict[str, Array]]:
        """One output per decoder, and the intermediate maps by their official names."""
        cfg, seen = self.cfg, {}
        learned = None if cfg.time_embedding == "sinusoidal" else cfg.learned_frequencies
        embed = TimeEmbedding(cfg.dim, learned, name="time_mlp", **self._types)
        told = seen["time_mlp"] = embed(time)
        stem = Conv(features=cfg.dim, kernel_size=7, use_bias=True, name="init_conv", **self._types)
        first = x = seen["init_conv"] = stem(x)
        widths = (cfg.dim, *(cfg.dim * m for m in cfg.dim_mults))
        skips: list[Array] = []
        for i, (narrow, wide) in enumerate(itertools.pairwise(widths)):
            last = i == len(cfg.dim_mults) - 1
            for j in (0, 1):
                x = self._block(f"downs_{i}_block_{j}", narrow, x, told)
                seen[f"downs.{i}.{j}"] = x
                if j:
                    x = seen[f"downs.{i}.2"] = self._attention(f"downs_{i}_attn", x)
                skips.append(x)
            x = seen[f"downs.{i}.3"] = self._resample(f"downs_{i}", wide, not last, Downsample)(x)
        x = seen["mid_block1"] = self._block("mid_block1", widths[-1], x, told)
        x = seen["mid_attn"] = self._attention("mid_attn", x, full=True)
        x = seen["mid_block2"] = self._block("mid_block2", widths[-1], x, told)
        decode = functools.partial(self._decode, x, told, widths, seen)
        if self.decoders == 1:
            return (decode("ups", [first, *skips], ""),), seen
        return (decode("ups_no_skip", None, "_1"), decode("ups", [first, *skips], "_2")), seen

    def _decode(
        self,
        x: Array,
        told: Array,
        widths: Sequence[int],
        seen: dict[str, Array],
        side: str,
        skips: list[Array] | None,
        ending: str,
    ) -> Array:
        """A decoder: to full resolution, and to the channels of an image in float32."""

        def join(x: Array) -> Array:
            return x if skips is None else jnp.concatenate([x, skips.pop()], axis=-1)

        levels = range(len(widths) - 1)
        for i, level in enumerate(reversed(levels)):
            narrow, wide = widths[level], widths[level + 1]
            for j in (0, 1):
                x = self._block(f"{side}_{i}_block_{j}", wide, join(x), told)
                seen[f"{side}.{i}.{j}"] = x
            x = seen[f"{side}.{i}.2"] = self._attention(f"{side}_{i}_attn", x)
            x = self._resample(f"{side}_{i}", narrow, i < len(levels) - 1, Upsample)(x)
            seen[f"{side}.{i}.3"] = x
        x = self._block(f"final_res_block{ending}", self.cfg.dim, join(x), told)
        seen[f"final_res_block{ending}"] = x
        last = PointwiseConv(
            features=self.cfg.channels, use_bias=True, name=f"final_conv{ending}", **self._types
        )
        return last(x).astype(ops.accumulation_dtype(self.cfg.dtype))

    @property
    def _types(self) -> dict[str, Any]:
        return types_of(self.cfg)

    def _block(self, name: str, width: int, x: Array, told: Array) -> Array:
        block = nn.remat(ResnetBlock) if self.cfg.remat else ResnetBlock
        options = {"groups": self.cfg.groups, "eps": self.cfg.eps}
        return block(width, name=name, **options, **self._types)(x, told)

    def _attention(self, name: str, x: Array, *, full: bool = False) -> Array:
        layer = nn.remat(AttentionLayer) if self.cfg.remat else AttentionLayer
        cfg = self.cfg
        options = {"heads": cfg.heads, "dim_head": cfg.dim_head, "eps": cfg.eps, **self._types}
        return layer(full, name=name, **options)(x)

    def _resample(
        self, level: str, width: int, halfway: bool, kind: type[Downsample | Upsample]
    ) -> Callable[[Array], Array]:
        """To the next level; the outermost keeps its resolution."""
        if halfway:
            return kind(width, name=f"{level}_resample", **self._types)
        return Conv(features=width, use_bias=True, name=f"{level}_conv", **self._types)


class _Networks(nn.Module):
    """All networks of a configuration."""

    cfg: RDDMConfig

    @nn.compact
    def __call__(self, x: Array, times: Times) -> tuple[tuple[Array, ...], dict[str, Array]]:
        cfg = self.cfg
        if cfg.share_encoder:
            return Unet(cfg, 2, name="shared")(x, times[0])
        outputs, seen = (), {}
        for i, time in enumerate(times):
            name = f"unet{i}"
            output, maps = Unet(cfg, name=name)(x, time)
            outputs += output
            seen |= {f"{name}.{key}": value for key, value in maps.items()}
        return outputs, seen


def _linen_init(key: Key, cfg: RDDMConfig) -> Any:
    side = cfg.multiple
    x = jnp.zeros((1, side, side, cfg.input_channels), jnp.float32)
    times = (jnp.zeros((1,), jnp.float32),) * cfg.num_unet
    params: Any = _Networks(cfg).init(key, x, times)["params"]
    if cfg.searching:
        return {"network": params, "weight": jnp.full((), START, jnp.float32)}
    return params


@functools.partial(jax.jit, static_argnames="cfg")
def _init(key: Key, cfg: RDDMConfig) -> Params:
    return init_params(functools.partial(_linen_init, cfg=cfg), key)


@functools.lru_cache(maxsize=16)
def param_shapes(cfg: RDDMConfig) -> Params:
    """Shape and type of every parameter, without computing any.

    >>> shapes = param_shapes(RDDMConfig.deraining())
    >>> sum(leaf.size for leaf in jax.tree.leaves(shapes))
    72522374
    """
    return jax.eval_shape(functools.partial(_linen_init, cfg=cfg), jax.random.key(0))


def init(key: Key, cfg: RDDMConfig) -> Params:
    """Random parameters with the official initialisation.

    Weights and biases of convolutions and dense layers are uniform in ``+-1/sqrt(fan_in)``, norm
    scales 1 and biases 0, frequencies of Fourier features normal.

    Args:
      key: from ``jax.random.key``.
      cfg: sizes and options.

    Returns:
      ``{"unet0": ...}``, with ``"unet1"`` for two networks, or ``{"shared": ...}``; while the
      objective is searched (AOSA), ``{"network": {"unet0": ...}, "weight": 0.5}``.

    >>> sorted(init(jax.random.key(0), RDDMConfig.tiny()))
    ['unet0']
    """
    return _init(key, cfg)


def trainable(params: Params, cfg: RDDMConfig) -> Any:
    """True for every parameter that learns: all but the frequencies of random Fourier features."""
    if cfg.time_embedding != "random":
        return None
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "frequencies", params)


def standardise(params: Params, cfg: RDDMConfig) -> Params:
    """Parameters for inference, whose kernels need no standardisation at every call.

    The result computes the same and is accepted wherever parameters are applied; it cannot be
    trained or exported.

    >>> cfg = RDDMConfig.tiny()
    >>> block = standardise(init(jax.random.key(0), cfg), cfg)["unet0"]["mid_block1"]["block1"]
    >>> sorted(block["proj"])
    ['bias', 'standardised']
    """

    def walk(node: Any, name: str) -> Any:
        if not isinstance(node, dict):
            return node
        if name == "proj" and "kernel" in node:
            rest = {key: value for key, value in node.items() if key != "kernel"}
            return {STANDARDISED: standardise_kernel(node["kernel"], cfg.eps), **rest}
        return {key: walk(child, key) for key, child in node.items()}

    return walk(params, "")


@overload
def apply(
    params: Params,
    x: Array,
    time: Times | Array,
    cfg: RDDMConfig,
    *,
    return_intermediates: Literal[False] = False,
) -> tuple[Array, ...]: ...
@overload
def apply(
    params: Params,
    x: Array,
    time: Times | Array,
    cfg: RDDMConfig,
    *,
    return_intermediates: Literal[True],
) -> tuple[tuple[Array, ...], dict[str, Array]]: ...
def apply(
    params: Params,
    x: Float[Array, "b h w i"],
    time: Times | Array,
    cfg: RDDMConfig,
    *,
    return_intermediates: bool = False,
) -> Any:
    """Run the networks. Pure: can be jitted (``cfg`` static), mapped, differentiated, sharded.

    Args:
      params: from :func:`init`, `from_torch` or :func:`standardise`.
      x: channels in the order self conditioning, I_t, I_in, conditions, images in [-1, 1]; height
        and width multiples of ``cfg.multiple``. See `network_input`.
      time: one time per network, or one for all.
      cfg: sizes and options.
      return_intermediates: also return a dict with the maps of every level.

    Returns:
      One output per network or decoder, float32 (float64 if ``cfg.dtype`` is).

    Raises:
      UserError: shape or type of ``x`` or the number of times do not fit.

    >>> cfg = RDDMConfig.tiny()
    >>> params = init(jax.random.key(0), cfg)
    >>> x, time = jnp.zeros((2, 4, 6, 6)), jnp.array([3.0, 7.5])
    >>> [y.shape for y in jax.jit(apply, static_argnames="cfg")(params, x, time, cfg=cfg)]
    [(2, 4, 6, 3)]
    """
    times = time if isinstance(time, tuple) else (time,) * cfg.num_unet
    _check_input(x, times, cfg)
    if "network" in params:
        params = params["network"]
    out: Any = _Networks(cfg).apply({"params": params}, x, times)
    return out if return_intermediates else out[0]


def _check_input(x: Array, times: Times, cfg: RDDMConfig) -> None:
    if x.ndim != 4 or x.shape[-1] != cfg.input_channels:
        raise UserError(
            f"RDDM expects an input of shape (batch, height, width, {cfg.input_channels}) with "
            f"the channels {cfg.input_description}, found {tuple(x.shape)}."
        )
    if x.shape[1] % cfg.multiple or x.shape[2] % cfg.multiple or 0 in x.shape:
        raise UserError(
            f"RDDM expects a height and width that are positive multiples of {cfg.multiple}, "
            f"found {x.shape[1]} and {x.shape[2]}."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise UserError(f"RDDM expects floating-point images in [-1, 1], found {x.dtype}.")
    shapes = [tuple(time.shape) for time in times]
    if shapes != [x.shape[:1]] * cfg.num_unet:
        raise UserError(
            f"RDDM expects {cfg.num_unet} vector(s) of times, one entry per image, found shapes "
            f"{shapes} for {x.shape[0]} images."
        )
