"""Blocks of SUNet: windowed attention, Swin blocks, halving, and dual up-sampling."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.models.sunet.windows import merge, partition, relative_index, shift_mask
from jaxcore.nn import ChannelNorm, Normal, PointwiseConv, Types, drop_path, tap

STD = 0.02  # of the first weights of dense layers and of the tables of biases


class Linear(PointwiseConv):
    """Dense layer over channels, with first weights of a normal distribution and biases of 0."""

    def kernel(self, shape: tuple[int, ...], fan_in: int) -> Array:
        """The parameter ``kernel``."""
        return self.param("kernel", Normal(STD), shape, jnp.dtype(self.types.param_dtype))

    def bias(self, width: int, fan_in: int) -> Array:
        """The parameter ``bias``."""
        dtype = jnp.dtype(self.types.param_dtype)
        return self.param("bias", nn.initializers.zeros, (width,), dtype)


class WindowAttention(nn.Module, kw_only=True):
    """Multi-head attention among the tokens of a window, with a bias for relative positions.

    Attributes:
      num_heads: divides the width.
      window: side of a window in tokens.
      scale: factor of the queries; None for one over the root of a head's width.
      types: of activations and parameters.
    """

    num_heads: int
    window: int
    scale: float | None = None
    types: Types = Types()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n t c"], mask: Float[Array, "n t t"] | None = None
    ) -> Float[Array, "b n t c"]:
        """Attend.

        Args:
          x: windows of tokens.
          mask: added to the logits of each window; see `shift_mask`.
        """
        batch, count, tokens, width = x.shape
        heads, wide = self.num_heads, ops.accumulation_dtype(self.types.dtype)
        qkv = Linear(features=3 * width, use_bias=True, types=self.types, name="qkv")(x)
        parts = qkv.reshape(batch, count, tokens, 3, heads, width // heads)
        q, k, v = (parts[..., i, :, :] for i in range(3))
        scale = (width // heads) ** -0.5 if self.scale is None else self.scale
        # Queries that are eight times as long make logits too large for half precision.
        logits = jnp.einsum(
            "bnthd,bnshd->bnhts", q.astype(wide) * scale, k.astype(wide), precision="highest"
        )
        added = self._bias(wide)[None]
        if mask is not None:
            added = added + mask.astype(wide)[:, None]
        logits = logits + added[None]
        # A softmax whose division comes last, on less numbers: ten times as fast on a CPU.
        highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        weights = jnp.exp(logits - highest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        out = jnp.einsum("bnhts,bnshd->bnhtd", weights.astype(v.dtype), v)
        out = (out.astype(wide) / total).astype(v.dtype).swapaxes(2, 3).reshape(x.shape)
        return Linear(features=width, use_bias=True, types=self.types, name="proj")(out)

    def _bias(self, wide: Any) -> Array:
        """One number for every head, query and key."""
        size = (2 * self.window - 1) ** 2
        dtype = jnp.dtype(self.types.param_dtype)
        table = self.param("table", Normal(STD), (size, self.num_heads), dtype)
        return jnp.moveaxis(table[relative_index(self.window)], -1, 0).astype(wide)


class MLP(nn.Module, kw_only=True):
    """Two dense layers with an exact GELU between them."""

    hidden: int
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Apply to every token."""
        y = Linear(features=self.hidden, use_bias=True, types=self.types, name="fc1")(x)
        y = jax.nn.gelu(y, approximate=False)
        return Linear(features=x.shape[-1], use_bias=True, types=self.types, name="fc2")(y)


class SwinBlock(nn.Module, kw_only=True):
    """Attention in windows and an MLP, each behind a norm and added to its input.

    Attributes:
      num_heads: of the attention.
      window: side of a window in tokens.
      shift: by how many tokens the windows are shifted.
      mlp_ratio: width inside the MLP over that outside.
      qk_scale: see `WindowAttention`.
      types: of activations and parameters.
    """

    num_heads: int
    window: int
    shift: int = 0
    mlp_ratio: float = 4.0
    qk_scale: float | None = None
    types: Types = Types()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], rate: Float[Array, ""] | float = 0.0
    ) -> Float[Array, "b h w c"]:
        """Transform a map of tokens whose sides are multiples of the window.

        Args:
          x: tokens.
          rate: of leaving the block out for an image, where random numbers are given.
        """
        height, width = x.shape[1:3]
        y = self._norm("norm1")(x)
        mask = None
        if self.shift:
            y = jnp.roll(y, (-self.shift, -self.shift), (1, 2))
            mask = shift_mask(height, width, self.window, self.shift)
        attention = WindowAttention(
            num_heads=self.num_heads,
            window=self.window,
            scale=self.qk_scale,
            types=self.types,
            name="attn",
        )
        y = merge(attention(partition(y, self.window), mask), height, width)
        if self.shift:
            y = jnp.roll(y, (self.shift, self.shift), (1, 2))
        x = x + drop_path(self, y, rate)
        hidden = int(x.shape[-1] * self.mlp_ratio)
        mlp = MLP(hidden=hidden, types=self.types, name="mlp")
        return x + drop_path(self, mlp(self._norm("norm2")(x)), rate)

    def _norm(self, name: str) -> ChannelNorm:
        return ChannelNorm(types=self.types, name=name)


class SwinPair(nn.Module, kw_only=True):
    """A block with plain windows and one with shifted windows; the fields are those of the blocks.

    Attributes:
      shift: of the second block; 0 where one window holds the whole map.
    """

    num_heads: int
    window: int
    shift: int
    mlp_ratio: float = 4.0
    qk_scale: float | None = None
    types: Types = Types()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], rates: Float[Array, "2"]
    ) -> Float[Array, "b h w c"]:
        """Apply both; ``rates`` are theirs."""
        for i, name in enumerate(("plain", "shifted")):
            block = SwinBlock(
                num_heads=self.num_heads,
                window=self.window,
                shift=self.shift * i,
                mlp_ratio=self.mlp_ratio,
                qk_scale=self.qk_scale,
                types=self.types,
                name=name,
            )
            x = block(x, rates[i])
        return x


class PatchMerging(nn.Module, kw_only=True):
    """Half the sides, twice the channels: four neighbours side by side, a norm, a dense layer."""

    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Merge 2x2 tokens, in the order (0, 0), (1, 0), (0, 1), (1, 1) of row and column."""
        phases = [x[:, row::2, col::2] for row, col in ((0, 0), (1, 0), (0, 1), (1, 1))]
        y = ChannelNorm(types=self.types, name="norm")(jnp.concatenate(phases, axis=-1))
        return Linear(features=2 * x.shape[-1], types=self.types, name="reduction")(y)


class PReLU(nn.Module, kw_only=True):
    """``x`` where it is positive, a learned share of it elsewhere; one share for all channels."""

    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Apply to every number."""
        first = nn.initializers.constant(0.25)
        slope = self.param("slope", first, (1,), jnp.dtype(self.types.param_dtype))
        return jnp.where(x > 0, x, slope[0].astype(x.dtype) * x)


class DualUp(nn.Module, kw_only=True):
    """Larger sides from pixel shuffling and from bilinear interpolation, side by side.

    Twice the sides come with half the channels, four times the sides with the same channels.

    Taps: the two branches, ``up_p`` and ``up_b``.

    Attributes:
      factor: 2 or 4.
      types: of activations and parameters.
    """

    factor: int = 2
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Enlarge."""
        height, width, channels = x.shape[1:]
        out = channels // 2 if self.factor == 2 else channels
        shuffled = self._conv("p_first", out * self.factor**2)(x)
        shuffled = ops.pixel_shuffle(PReLU(types=self.types, name="p_prelu")(shuffled), self.factor)
        shuffled = tap(self, "up_p", self._conv("p_last", out)(shuffled))
        smooth = self._conv("b_first", channels, use_bias=True)(x)
        smooth = PReLU(types=self.types, name="b_prelu")(smooth)
        # A 1x1 convolution before the interpolation costs less, and gives the same.
        smooth = self._conv("b_last", out)(smooth)
        smooth = ops.resize_bilinear(smooth, (height * self.factor, width * self.factor))
        both = jnp.concatenate([shuffled, tap(self, "up_b", smooth)], axis=-1)
        return self._conv("conv", out)(both)

    def _conv(self, name: str, features: int, use_bias: bool = False) -> PointwiseConv:
        return PointwiseConv(features=features, use_bias=use_bias, types=self.types, name=name)
