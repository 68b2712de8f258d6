"""Layers of RDDM's U-Nets: weight-standardised convolutions, two attentions, time embeddings."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.nn import Conv, Filter, PointwiseConv, PointwiseSplit, Types

STANDARDISED = "standardised"
"""Name of a kernel that has been standardised beforehand, see `standardise`."""


def standardise_kernel(
    kernel: Float[Array, "kh kw i o"], epsilon: float
) -> Float[Array, "kh kw i o"]:
    """Mean 0 and (population) variance 1 of the weights of every output channel."""
    wide = kernel.astype(ops.accumulation_dtype(kernel.dtype))
    centred = wide - jnp.mean(wide, axis=(0, 1, 2), keepdims=True)
    variance = jnp.mean(centred * centred, axis=(0, 1, 2), keepdims=True)
    return (centred * jax.lax.rsqrt(variance + epsilon)).astype(kernel.dtype)


class StandardisedConv(Conv, kw_only=True):
    """Convolution whose kernel is standardised at every call, unless that was done beforehand.

    Attributes:
      epsilon: added to the variance of the weights.
    """

    epsilon: float = 1e-5

    def kernel(self, shape: tuple[int, ...], fan_in: int) -> Array:
        """The standardised kernel."""
        if self.has_variable("params", STANDARDISED):
            return self.get_variable("params", STANDARDISED)
        return standardise_kernel(super().kernel(shape, fan_in), self.epsilon)


class GroupNorm(nn.Module, kw_only=True):
    """Group norm whose scale and shift may be modulated by a time embedding.

    Parameters: ``scale`` (c,), ``bias`` (c,).
    """

    groups: int
    epsilon: float = 1e-5
    types: Types = Types()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], film: Sequence[Float[Array, "b c"]] | None = None
    ) -> Float[Array, "b h w c"]:
        """Normalise; with ``film = (s, t)`` the result is ``norm(x) (s + 1) + t``."""
        shape, dtype = (x.shape[-1],), jnp.dtype(self.types.param_dtype)
        wide = ops.accumulation_dtype(x.dtype)
        scale = self.param("scale", nn.initializers.ones, shape, dtype).astype(wide)[None]
        bias = self.param("bias", nn.initializers.zeros, shape, dtype).astype(wide)[None]
        if film is not None:  # one product and one sum per pixel instead of two
            factor, shift = film[0].astype(wide) + 1, film[1].astype(wide)
            scale, bias = scale * factor, bias * factor + shift
        return ops.group_norm(x, scale, bias, self.groups, self.epsilon)


class LayerNorm(nn.Module, kw_only=True):
    """Layer norm over the channels of each pixel without bias. Parameter: ``scale`` (c,)."""

    epsilon: float = 1e-5
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Normalise ``x`` over its last axis."""
        shape, dtype = (x.shape[-1],), jnp.dtype(self.types.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, dtype)
        # A bias of zeros, since without one the norm would be Restormer's, which keeps the mean.
        normed: Array = ops.channel_norm(x, scale, jnp.zeros(shape, dtype), self.epsilon)
        return normed.astype(self.types.dtype)


class Block(nn.Module, kw_only=True):
    """Weight-standardised 3x3 convolution, group norm, SiLU."""

    features: int
    groups: int = 8
    eps: float = 1e-5
    types: Types = Types()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], film: Sequence[Float[Array, "b o"]] | None = None
    ) -> Float[Array, "b h w o"]:
        """Apply the block; see `GroupNorm` for ``film``."""
        types = self.types
        conv = StandardisedConv(
            features=self.features, use_bias=True, epsilon=self.eps, types=types, name="proj"
        )
        norm = GroupNorm(groups=self.groups, types=types, name="norm")
        return jax.nn.silu(norm(conv(x), film))


class ResnetBlock(nn.Module, kw_only=True):
    """Two blocks, the first modulated by the time, and a shortcut."""

    features: int
    groups: int = 8
    eps: float = 1e-5
    types: Types = Types()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], time: Float[Array, "b d"]
    ) -> Float[Array, "b h w o"]:
        """Apply the block.

        Args:
          x: maps.
          time: embedding of the time.
        """
        types, width = self.types, self.features
        x = x.astype(self.types.dtype)
        dense = PointwiseSplit(
            features=(width, width), use_bias=True, types=_time_types(types), name="mlp"
        )
        film = dense(jax.nn.silu(time))
        block = functools.partial(
            Block, features=width, groups=self.groups, eps=self.eps, types=types
        )
        h = block(name="block1")(x, film)
        h = block(name="block2")(h)
        if x.shape[-1] != width:
            x = PointwiseConv(features=width, use_bias=True, types=types, name="res_conv")(x)
        return h + x


class LinearAttention(nn.Module, kw_only=True):
    """Attention whose cost is proportional to the pixels, with a layer norm at the end."""

    heads: int = 4
    dim_head: int = 32
    eps: float = 1e-5
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Attend across all pixels."""
        types, inner = self.types, self.heads * self.dim_head
        q, k, v = PointwiseSplit(features=(inner,) * 3, types=types, name="to_qkv")(x)
        out = linear_attention(q, k, v, self.heads)
        project = PointwiseConv(features=x.shape[-1], use_bias=True, types=types, name="to_out")
        return LayerNorm(epsilon=self.eps, types=types, name="out_norm")(project(out))


def linear_attention(
    q: Float[Array, "b h w d"], k: Float[Array, "b h w d"], v: Float[Array, "b h w d"], heads: int
) -> Float[Array, "b h w d"]:
    """Softmax of queries over the features of a head, of keys over pixels; ``q (k^T v)``.

    Channels are head-major. The products of all heads with all heads are formed, of which the
    diagonal blocks are kept: one matrix product over the maps as they lie in memory, where one
    per head needs them transposed; at the published width it fills a 128x128 matrix unit.

    >>> a = jnp.ones((1, 4, 6, 8))
    >>> linear_attention(a, a, a, 2).shape
    (1, 4, 6, 8)
    """
    inner, pixels = q.shape[-1], q.shape[1] * q.shape[2]
    size, wide = inner // heads, ops.accumulation_dtype(q.dtype)
    per_head = q.reshape(*q.shape[:-1], heads, size).astype(wide)
    q = jax.nn.softmax(per_head, axis=-1).astype(q.dtype).reshape(q.shape)
    # Softmax over pixels, normalised after the product, where there is less to divide.
    top = jax.lax.stop_gradient(jnp.max(k, axis=(1, 2), keepdims=True))
    weights = jnp.exp(k.astype(wide) - top.astype(wide))
    total = jnp.sum(weights, axis=(1, 2))
    context = ops.product_over_pixels(weights.astype(k.dtype), v, batch=1, dtype=wide)
    context = context * (size**-0.5 / (pixels * total))[:, :, None]
    head = np.arange(inner) // size
    context = jnp.where((head[:, None] == head[None, :])[None], context, 0)
    return jnp.einsum("bhwd,bde->bhwe", q, context.astype(q.dtype))


class Attention(nn.Module, kw_only=True):
    """Attention of every pixel to every pixel; for the coarsest level."""

    heads: int = 4
    dim_head: int = 32
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Attend across all pixels."""
        types, inner = self.types, self.heads * self.dim_head
        q, k, v = PointwiseSplit(features=(inner,) * 3, types=types, name="to_qkv")(x)

        def split(a: Array) -> Array:
            return a.reshape(a.shape[0], -1, self.heads, self.dim_head)

        wide = ops.accumulation_dtype(x.dtype)
        logits = jnp.einsum(
            "bihd,bjhd->bhij", split(q * self.dim_head**-0.5), split(k), preferred_element_type=wide
        )
        weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        out = jnp.einsum("bhij,bjhd->bihd", weights, split(v)).reshape(q.shape)
        project = PointwiseConv(features=x.shape[-1], use_bias=True, types=types, name="to_out")
        return project(out)


class AttentionLayer(nn.Module, kw_only=True):
    """``x + attention(norm(x))``.

    Attributes:
      full: attention of every pixel to every pixel instead of the linear one.
      heads: heads of the attention.
      dim_head: channels of a head.
      eps: of the norms.
      types: of activations and parameters.
    """

    full: bool = False
    heads: int = 4
    dim_head: int = 32
    eps: float = 1e-5
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Apply the layer."""
        kind = Attention if self.full else functools.partial(LinearAttention, eps=self.eps)
        attention = kind(
            heads=self.heads, dim_head=self.dim_head, types=self.types, name="attention"
        )
        return x + attention(LayerNorm(epsilon=self.eps, types=self.types, name="norm")(x))


class Downsample(nn.Module, kw_only=True):
    """Half the resolution: 4x4 convolution with stride 2."""

    features: int
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Shrink ``x``, whose height and width are even."""
        conv = Conv(
            features=self.features,
            kernel_size=4,
            stride=2,
            padding=1,
            use_bias=True,
            types=self.types,
            name="conv",
        )
        return conv(x)


class RepeatedConv(Filter, kw_only=True):
    """3x3 convolution of a map whose pixels are repeated 2x2. Parameters as of `Conv`."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Enlarge and convolve NHWC maps."""
        fan_in = 9 * x.shape[-1]
        kernel = self.kernel((3, 3, x.shape[-1], self.features), fan_in)
        y = ops.repeated_conv2d(x.astype(self.types.dtype), kernel)
        return self.with_bias([y], fan_in)[0]


class Upsample(nn.Module, kw_only=True):
    """Twice the resolution: every pixel repeated, then a 3x3 convolution."""

    features: int
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Enlarge ``x``."""
        conv = RepeatedConv(features=self.features, use_bias=True, types=self.types, name="conv")
        return conv(x)


def frequencies(dim: int) -> Float[np.ndarray, " f"]:
    """The ``dim / 2`` frequencies of `sinusoidal`, rounded as in the released code.

    A time is multiplied by them, so that one unit in the last place reaches 6e-5 at time 999.
    """
    half = dim // 2
    step = np.float32(-np.log(10000) / (half - 1))
    exponents = (np.arange(half, dtype=np.float32) * step).astype(np.float64)
    return np.exp(exponents).astype(np.float32)


def sinusoidal(t: Float[Array, " b"], dim: int) -> Float[Array, "b d"]:
    """Sines, then cosines, of the time (which may be fractional) at ``dim / 2`` frequencies.

    >>> sinusoidal(jnp.zeros(2), 8)[0].tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    """
    angles = t.astype(jnp.float32)[:, None] * frequencies(dim)[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def fourier_features(t: Float[Array, " b"], weights: Float[Array, " f"]) -> Float[Array, "b d"]:
    """The time, and sines and cosines of ``2 pi t w``.

    >>> fourier_features(jnp.zeros(2), jnp.ones(3)).shape
    (2, 7)
    """
    t = t.astype(weights.dtype)[:, None]
    angles = t * weights[None] * (2 * np.pi)
    return jnp.concatenate([t, jnp.sin(angles), jnp.cos(angles)], axis=-1)


class TimeEmbedding(nn.Module, kw_only=True):
    """Features of the time, then two dense layers with a GELU between.

    Attributes:
      dim: channels of the network at full resolution; the result has four times as many.
      frequencies: of Fourier features; None takes fixed sinusoids.
      types: of activations and parameters.
    """

    dim: int
    frequencies: int | None = None
    types: Types = Types()

    @nn.compact
    def __call__(self, t: Float[Array, " b"]) -> Float[Array, "b d"]:
        """Embed times."""
        types = _time_types(self.types)
        if self.frequencies is None:
            features = sinusoidal(t, self.dim)
        else:
            shape, dtype = (self.frequencies,), jnp.dtype(self.types.param_dtype)
            weights = self.param("frequencies", nn.initializers.normal(1.0), shape, dtype)
            features = fourier_features(t, weights.astype(types.dtype))
        dense = functools.partial(PointwiseConv, features=4 * self.dim, use_bias=True, types=types)
        hidden = jax.nn.gelu(dense(name="dense_1")(features), approximate=False)
        return dense(name="dense_3")(hidden)


def _time_types(types: Types) -> Types:
    """The time is computed in float32 also where activations are not."""
    return Types(str(ops.accumulation_dtype(types.dtype)), types.param_dtype)
