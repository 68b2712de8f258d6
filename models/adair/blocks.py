"""Channel attention, gated feed-forward, resampling."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.nn import ChannelNorm, Conv, DepthwiseConv, PointwiseConv, types_of


def _temperature(module: "MDTA | ChannelCrossAttention") -> Array:
    """Factor of the logits of each head, 1 at the start."""
    shape, dtype = (module.num_heads,), jnp.dtype(module.param_dtype)
    return module.param("temperature", nn.initializers.ones, shape, dtype)


class MDTA(nn.Module):
    """Self-attention across channels ("multi-Dconv head transposed attention").

    Attributes:
      num_heads: heads; divides the number of channels.
      use_bias: bias in the three convolutions.
      window: side in pixels of the windows of local statistics, None for the whole map.
      dtype: type of activations.
      param_dtype: type of the stored parameters.
    """

    num_heads: int
    use_bias: bool = False
    window: int | None = None
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Attend across the channels of ``x``."""
        width = x.shape[-1]
        types = types_of(self, use_bias=self.use_bias)
        heat = _temperature(self)
        qkv = PointwiseConv(features=(width,) * 3, name="qkv", **types)(x)
        q, k, v = DepthwiseConv(name="qkv_dwconv", **types)(*qkv)
        out = ops.channel_attention(q, k, v, heat, window=self.window)
        return PointwiseConv(features=width, name="project_out", **types)(out)


class ChannelCrossAttention(nn.Module):
    """Attention across channels with the query from one map, key and value from another.

    Attributes:
      num_heads: heads; divides the number of channels.
      use_bias: bias in the convolutions.
      window: side in pixels of the windows of local statistics, None for the whole map.
      dtype: type of activations.
      param_dtype: type of the stored parameters.
    """

    num_heads: int
    use_bias: bool = False
    window: int | None = None
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(
        self, query: Float[Array, "b h w c"] | None, source: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w c"]:
        """Attend to ``source``.

        Args:
          query: map of the queries. None stands for a map of zeros and costs nothing; it is
            allowed without biases only, where the softmax is then uniform: each channel of a
            head becomes the mean of that head's values.
          source: map of keys and values.
        """
        width, heads = source.shape[-1], self.num_heads
        types = types_of(self, use_bias=self.use_bias)
        heat = _temperature(self)
        kv = PointwiseConv(features=(width,) * 2, name="kv", **types)(source)
        k, v = DepthwiseConv(name="kv_dwconv", **types)(*kv)
        if query is None:
            per_head = v.reshape(*v.shape[:-1], heads, width // heads)
            wide = ops.accumulation_dtype(v.dtype)
            mean = jnp.mean(per_head, axis=-1, keepdims=True, dtype=wide).astype(v.dtype)
            out = jnp.broadcast_to(mean, per_head.shape).reshape(v.shape)
        else:
            q = PointwiseConv(features=width, name="q", **types)(query)
            q = DepthwiseConv(name="q_dwconv", **types)(q)
            out = ops.channel_attention(q, k, v, heat, window=self.window)
        return PointwiseConv(features=width, name="project_out", **types)(out)


class GDFN(nn.Module):
    """Gated feed-forward network with a depthwise convolution.

    Attributes:
      expansion: hidden channels per input channel; the product is truncated.
      use_bias: bias in the three convolutions.
      dtype: type of activations.
      param_dtype: type of the stored parameters.
    """

    expansion: float = 2.66
    use_bias: bool = False
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Transform every pixel with its 3x3 neighbourhood."""
        hidden = int(x.shape[-1] * self.expansion)
        types = types_of(self, use_bias=self.use_bias)
        y = PointwiseConv(features=(hidden,) * 2, name="project_in", **types)(x)
        a, b = DepthwiseConv(name="dwconv", **types)(*y)
        y = ops.gelu_gate(a, b)
        return PointwiseConv(features=x.shape[-1], name="project_out", **types)(y)


class TransformerBlock(nn.Module):
    """``x + MDTA(norm(x))``, then ``x + GDFN(norm(x))``.

    Attributes:
      num_heads: heads of the attention.
      expansion: hidden channels of the feed-forward part per input channel.
      use_bias: bias in the convolutions.
      norm_bias: layer norm with bias and mean subtraction; False for the bias-free form.
      window: side in pixels of the windows of local statistics, None for the whole map.
      dtype: type of activations.
      param_dtype: type of the stored parameters.
    """

    num_heads: int
    expansion: float = 2.66
    use_bias: bool = False
    norm_bias: bool = True
    window: int | None = None
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Apply the block."""
        x = x.astype(self.dtype)
        types = types_of(self)
        attention = MDTA(self.num_heads, self.use_bias, self.window, name="attn", **types)
        feed_forward = GDFN(self.expansion, self.use_bias, name="ffn", **types)
        x = x + attention(ChannelNorm(self.norm_bias, name="norm1", **types)(x))
        return x + feed_forward(ChannelNorm(self.norm_bias, name="norm2", **types)(x))


class Downsample(nn.Module):
    """Half the resolution, twice the channels: 3x3 convolution and pixel unshuffle."""

    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Shrink ``x``, whose height and width are even."""
        types = types_of(self)
        x = Conv(features=x.shape[-1] // 2, name="conv", **types)(x)
        return ops.pixel_unshuffle(x, 2)


class Upsample(nn.Module):
    """Twice the resolution, half the channels: 3x3 convolution and pixel shuffle."""

    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Enlarge ``x``."""
        types = types_of(self)
        x = Conv(features=x.shape[-1] * 2, name="conv", **types)(x)
        return ops.pixel_shuffle(x, 2)
