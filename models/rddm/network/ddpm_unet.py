"""The U-Net of `denoising-diffusion-pytorch` (the line from which RDDM's own U-Net came).

Its weights are the most common third-party ones, and RDDM samples from them (see `interop` and
`ddim`). Against RDDM's U-Net: root-mean-square norms instead of group and layer norms, plain
convolutions instead of weight-standardised ones, a few learnt keys and values in every attention,
two-by-two blocks of pixels taken together instead of a strided convolution. Layout NHWC.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.bounds import Count
from jaxcore.errors import UserError
from jaxcore.models.base import check_images, drawn, shapes_of
from jaxcore.models.config import DType, NetworkConfig
from jaxcore.models.rddm.network.blocks import TimeEmbedding, Upsample
from jaxcore.nn import Conv, PointwiseConv, PointwiseSplit, Types
from jaxcore.typing import Key, Params

MEMORY = 4
"""Learnt keys and values of each head."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPMUnetConfig(NetworkConfig):
    """Sizes; the defaults are the package's.

    >>> DDPMUnetConfig(dim=32).levels
    4
    """

    title: ClassVar[str] = "The DDPM U-Net"

    dim: Count = 64
    init_dim: Count | None = None  # channels at full resolution; None is dim
    dim_mults: tuple[Count, ...] = (1, 2, 4, 8)
    channels: Count = 3
    out_channels: Count = 3  # 6 where the variance is learnt
    self_condition: bool = False
    full_attention: tuple[bool, ...] | None = None  # per level; None: the last only
    heads: Count = 4
    dim_head: Count = 32
    learned_frequencies: Count | None = None  # of Fourier features of the time; None: sinusoids
    dtype: DType = "float32"
    param_dtype: DType = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.full_attention is not None and len(self.full_attention) != self.levels:
            raise UserError(
                f"Expected full_attention for {self.levels} levels, found "
                f"{len(self.full_attention)}."
            )

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.dim_mults)

    @property
    def multiple(self) -> int:
        """Height and width of an input must be multiples of this."""
        return 2 ** (self.levels - 1)

    @property
    def input_channels(self) -> int:
        """Self conditioning, if any, and the image."""
        return self.channels * (2 if self.self_condition else 1)

    @property
    def attends(self) -> tuple[bool, ...]:
        """Whether each level has full attention."""
        return self.full_attention or (False,) * (self.levels - 1) + (True,)


class RMSNorm(nn.Module, kw_only=True):
    """Each pixel's channels divided by their root mean square. Parameter: ``scale`` (c,)."""

    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], film: Sequence[Array] | None = None) -> Array:
        """Normalise; with ``film = (s, t)`` the result is ``norm(x) (s + 1) + t``."""
        wide = ops.accumulation_dtype(x.dtype)
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.dtype(self.types.param_dtype))
        scale = scale.astype(wide).reshape((1,) * (x.ndim - 1) + shape)
        x = x.astype(wide)
        square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        # The package divides by the norm, but by no less than 1e-12.
        factor = jax.lax.rsqrt(jnp.maximum(square, 1e-24 / x.shape[-1]))
        if film is None:
            return (x * factor * scale).astype(self.types.dtype)
        weight, shift = (f.astype(wide)[:, None, None, :] for f in film)
        return (x * factor * (scale * (weight + 1)) + shift).astype(self.types.dtype)


class ResnetBlock(nn.Module, kw_only=True):
    """Two of convolution, norm and SiLU, the first modulated by the time; and a shortcut."""

    features: int
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], time: Float[Array, "b d"]) -> Array:
        """Apply the block."""
        types, width = self.types, self.features
        dense = PointwiseSplit(features=(width, width), use_bias=True, types=types, name="mlp")
        film: Sequence[Array] | None = dense(jax.nn.silu(time))
        h = x
        for i in (1, 2):
            h = Conv(features=width, use_bias=True, types=types, name=f"block{i}_proj")(h)
            h = jax.nn.silu(RMSNorm(types=types, name=f"block{i}_norm")(h, film))
            film = None
        if x.shape[-1] != width:
            x = PointwiseConv(features=width, use_bias=True, types=types, name="res_conv")(x)
        return h + x


class Attention(nn.Module, kw_only=True):
    """``x + attention(norm(x))``, linear or full, with learnt keys and values.

    Parameters: ``norm``, ``to_qkv``, ``to_out``, ``memory`` (2, heads, dim_head, 4) or, full,
    (2, heads, 4, dim_head), and, linear, ``out_norm``.
    """

    full: bool = False
    heads: int = 4
    dim_head: int = 32
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Attend across all pixels."""
        types, inner = self.types, self.heads * self.dim_head
        last = (MEMORY, self.dim_head) if self.full else (self.dim_head, MEMORY)
        draw, shape = nn.initializers.normal(1.0), (2, self.heads, *last)
        memory = self.param("memory", draw, shape, jnp.dtype(self.types.param_dtype))
        normed = RMSNorm(types=types, name="norm")(x)
        q, k, v = PointwiseSplit(features=(inner,) * 3, types=types, name="to_qkv")(normed)
        attend = _full if self.full else _linear
        out = attend(q, k, v, memory.astype(q.dtype))
        out = PointwiseConv(features=x.shape[-1], use_bias=True, types=types, name="to_out")(out)
        return x + (out if self.full else RMSNorm(types=types, name="out_norm")(out))


def _linear(q: Array, k: Array, v: Array, memory: Array) -> Array:
    """As `blocks.linear_attention`, with learnt keys and values among those of the pixels."""
    heads, size = memory.shape[1:3]
    inner, wide = q.shape[-1], ops.accumulation_dtype(q.dtype)
    per_head = q.reshape(*q.shape[:-1], heads, size).astype(wide)
    q = jax.nn.softmax(per_head, axis=-1).astype(q.dtype).reshape(q.shape)
    key, value = (m.reshape(inner, MEMORY).astype(wide) for m in memory)
    top = jnp.maximum(jnp.max(k, axis=(1, 2)).astype(wide), jnp.max(key, axis=1)[None])
    top = jax.lax.stop_gradient(top)
    weights = jnp.exp(k.astype(wide) - top[:, None, None, :])
    learnt = jnp.exp(key[None] - top[:, :, None])
    total = jnp.sum(weights, axis=(1, 2)) + jnp.sum(learnt, axis=2)
    context = ops.product_over_pixels(weights.astype(k.dtype), v, batch=1, dtype=wide)
    context = context + jnp.einsum("bdn,en->bde", learnt, value)
    context = context * (size**-0.5 / total)[:, :, None]
    head = np.arange(inner) // size
    context = jnp.where((head[:, None] == head[None, :])[None], context, 0)
    return jnp.einsum("bhwd,bde->bhwe", q, context.astype(q.dtype))


def _full(q: Array, k: Array, v: Array, memory: Array) -> Array:
    heads, size = memory.shape[1], memory.shape[3]
    wide = ops.accumulation_dtype(q.dtype)

    def split(a: Array, learnt: Array | None = None) -> Array:
        a = a.reshape(a.shape[0], -1, heads, size)
        if learnt is None:
            return a
        shape = (a.shape[0], MEMORY, heads, size)
        return jnp.concatenate([jnp.broadcast_to(learnt.swapaxes(0, 1), shape), a], axis=1)

    keys, values = split(k, memory[0]), split(v, memory[1])
    logits = jnp.einsum("bihd,bjhd->bhij", split(q * size**-0.5), keys, preferred_element_type=wide)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("bhij,bjhd->bihd", weights, values).reshape(q.shape)


class DDPMUnet(nn.Module):
    """The whole network.

    Attributes:
      cfg: sizes.
    """

    cfg: DDPMUnetConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], time: Float[Array, " b"]) -> Array:
        """See :func:`apply`."""
        cfg, types = self.cfg, Types.of(self.cfg)
        conv = functools.partial(Conv, use_bias=True, types=types)
        pointwise = functools.partial(PointwiseConv, use_bias=True, types=types)
        embed = TimeEmbedding(
            dim=cfg.dim, frequencies=cfg.learned_frequencies, types=types, name="time_mlp"
        )
        embedded = embed(time).astype(cfg.dtype)
        start = cfg.init_dim or cfg.dim
        first = x = conv(features=start, kernel_size=7, name="init_conv")(x)
        widths = (start, *(cfg.dim * m for m in cfg.dim_mults))
        skips = []
        for i in range(cfg.levels):
            narrow, wide = widths[i], widths[i + 1]
            x = self._block(f"downs_{i}_block_0", narrow)(x, embedded)
            skips.append(x)
            x = self._block(f"downs_{i}_block_1", narrow)(x, embedded)
            x = self._attention(f"downs_{i}_attn", cfg.attends[i])(x)
            skips.append(x)
            if i < cfg.levels - 1:
                x = ops.pixel_unshuffle(x, 2)
                x = pointwise(features=wide, name=f"downs_{i}_down")(x)
            else:
                x = conv(features=wide, name=f"downs_{i}_conv")(x)
        x = self._block("mid_block1", widths[-1])(x, embedded)
        x = self._attention("mid_attn", True)(x)
        x = self._block("mid_block2", widths[-1])(x, embedded)
        for i, level in enumerate(reversed(range(cfg.levels))):
            narrow, wide = widths[level], widths[level + 1]
            for j in (0, 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = self._block(f"ups_{i}_block_{j}", wide)(x, embedded)
            x = self._attention(f"ups_{i}_attn", cfg.attends[level])(x)
            if level > 0:
                x = Upsample(features=narrow, types=types, name=f"ups_{i}_up")(x)
            else:
                x = conv(features=narrow, name=f"ups_{i}_conv")(x)
        x = self._block("final_res_block", start)(jnp.concatenate([x, first], axis=-1), embedded)
        x = pointwise(features=cfg.out_channels, name="final_conv")(x)
        return x.astype(ops.accumulation_dtype(cfg.dtype))

    def _block(self, name: str, width: int) -> ResnetBlock:
        return ResnetBlock(features=width, types=Types.of(self.cfg), name=name)

    def _attention(self, name: str, full: bool) -> Attention:
        cfg = self.cfg
        return Attention(
            full=full, heads=cfg.heads, dim_head=cfg.dim_head, types=Types.of(cfg), name=name
        )


def draw(key: Key, cfg: DDPMUnetConfig) -> Params:
    """Parameters by the initialisers of the modules."""
    side = cfg.multiple
    x = jnp.zeros((1, side, side, cfg.input_channels), jnp.float32)
    variables: Any = DDPMUnet(cfg).init(key, x, jnp.zeros((1,), jnp.float32))
    return variables["params"]


def param_shapes(cfg: DDPMUnetConfig) -> Params:
    """Shape and type of every parameter, without computing any.

    >>> shapes = param_shapes(DDPMUnetConfig(dim=64))
    >>> sum(leaf.size for leaf in jax.tree.leaves(shapes))
    35711491
    """
    return shapes_of(draw, cfg)


def init(key: Key, cfg: DDPMUnetConfig) -> Params:
    """Random parameters with PyTorch's initialisation."""
    return drawn(draw, key, cfg)


def apply(
    params: Params, x: Float[Array, "b h w i"], time: Float[Array, " b"], cfg: DDPMUnetConfig
) -> Float[Array, "b h w c"]:
    """Run the network. Pure.

    Args:
      params: from :func:`init` or `interop.from_ddpm_torch`.
      x: self conditioning, if any, and image in [-1, 1]; sides are multiples of ``cfg.multiple``.
      time: index of the time of each image.
      cfg: sizes.

    Raises:
      UserError: the shape of ``x`` does not fit.
    """
    check_images(cfg.title, x, channels=cfg.input_channels, multiple=cfg.multiple, values="[-1, 1]")
    out: Any = DDPMUnet(cfg).apply({"params": params}, x, time)
    return out
