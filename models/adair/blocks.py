"""Channel attention, gated feed-forward, resampling."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.nn import (
    ChannelNorm,
    Conv,
    ConvKernel,
    DepthwiseConv,
    DepthwiseSplit,
    PointwiseConv,
    PointwiseSplit,
    Types,
    appended_parts,
)


def _temperature(module: "MDTA | ChannelCrossAttention") -> Array:
    """Factor of the logits of each head, 1 at the start."""
    shape, dtype = (module.num_heads,), jnp.dtype(module.types.param_dtype)
    return module.param("temperature", nn.initializers.ones, shape, dtype)


class MDTA(nn.Module, kw_only=True):
    """Self-attention across channels ("multi-Dconv head transposed attention").

    Attributes:
      num_heads: heads; divides the number of channels.
      use_bias: bias in the three convolutions.
      window: side in pixels of the windows of local statistics, None for the whole map.
      types: of activations and parameters.
    """

    num_heads: int
    use_bias: bool = False
    window: int | None = None
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Attend across the channels of ``x``."""
        width = x.shape[-1]
        bias, types = self.use_bias, self.types
        heat = _temperature(self)
        shared = {"features": (width,) * 3, "use_bias": bias, "types": types}
        joined = ops.joining_pays(width, types.dtype)
        qkv = PointwiseSplit(joined=joined, name="qkv", **shared)(x)
        q, k, v = DepthwiseSplit(name="qkv_dwconv", **shared)(*qkv)
        out = ops.channel_attention(q, k, v, heat, window=self.window)
        project = PointwiseConv(features=width, use_bias=bias, types=types, name="project_out")
        return project(out)


class ChannelCrossAttention(nn.Module, kw_only=True):
    """Attention across channels with the query from one map, key and value from another.

    Attributes:
      num_heads: heads; divides the number of channels.
      use_bias: bias in the convolutions.
      window: side in pixels of the windows of local statistics, None for the whole map.
      types: of activations and parameters.
    """

    num_heads: int
    use_bias: bool = False
    window: int | None = None
    types: Types = Types()

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
        bias, types = self.use_bias, self.types
        heat = _temperature(self)
        kv = PointwiseSplit(features=(width,) * 2, use_bias=bias, types=types, name="kv")(source)
        k, v = DepthwiseSplit(use_bias=bias, types=types, name="kv_dwconv")(*kv)
        if query is None:
            per_head = v.reshape(*v.shape[:-1], heads, width // heads)
            wide = ops.accumulation_dtype(v.dtype)
            mean = jnp.mean(per_head, axis=-1, keepdims=True, dtype=wide).astype(v.dtype)
            out = jnp.broadcast_to(mean, per_head.shape).reshape(v.shape)
        else:
            q = PointwiseConv(features=width, use_bias=bias, types=types, name="q")(query)
            q = DepthwiseConv(use_bias=bias, types=types, name="q_dwconv")(q)
            out = ops.channel_attention(q, k, v, heat, window=self.window)
        project = PointwiseConv(features=width, use_bias=bias, types=types, name="project_out")
        return project(out)


def _aligned() -> int:
    """Multiple of hidden channels that suits the device.

    GPUs are slow at the published widths, 127 and its kind, to compile and to run: with 128 a block
    takes half the time. Processors are slower with powers of two; TPUs fill up by themselves.
    """
    return 8 if jax.default_backend() == "gpu" else 1


class GDFN(nn.Module, kw_only=True):
    """Gated feed-forward network with a depthwise convolution.

    Attributes:
      expansion: hidden channels per input channel; the product is truncated.
      multiple: zeros are appended to the hidden channels up to a multiple of it, which changes no
        value and no parameter; None: what suits the device.
      use_bias: bias in the three convolutions.
      types: of activations and parameters.
    """

    expansion: float = 2.66
    multiple: int | None = None
    use_bias: bool = False
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Transform every pixel with its 3x3 neighbourhood."""
        hidden = int(x.shape[-1] * self.expansion)
        shared = {"use_bias": self.use_bias, "types": self.types}
        both, multiple = (hidden, hidden), self.multiple or _aligned()
        filled, types = -(-hidden // multiple) * multiple, self.types
        joined = ops.joining_pays(filled, types.dtype) and not self.use_bias
        widen = PointwiseSplit(
            features=both, multiple=multiple, joined=joined, name="project_in", **shared
        )
        if joined:
            kernel = ConvKernel(shape=(3, 3, 1, 2 * hidden), name="dwconv", types=types)()
            last = ConvKernel(shape=(hidden, x.shape[-1]), name="project_out", types=types)()
            kernel = jnp.concatenate(appended_parts(kernel, both, (filled, filled)), axis=-1)
            last = jnp.pad(last, ((0, filled - hidden), (0, 0)))
            (wide,) = widen(x)
            return ops.gated_product(wide, kernel, last)
        filters = DepthwiseSplit(features=both, name="dwconv", **shared)
        narrow = PointwiseConv(features=x.shape[-1], inputs=hidden, name="project_out", **shared)
        return narrow(ops.gelu_gate(*filters(*widen(x))))


class TransformerBlock(nn.Module, kw_only=True):
    """``x + MDTA(norm(x))``, then ``x + GDFN(norm(x))``.

    Attributes:
      num_heads: heads of the attention.
      expansion: hidden channels of the feed-forward part per input channel.
      use_bias: bias in the convolutions.
      norm_bias: layer norm with bias and mean subtraction; False for the bias-free form.
      window: side in pixels of the windows of local statistics, None for the whole map.
      types: of activations and parameters.
    """

    num_heads: int
    expansion: float = 2.66
    use_bias: bool = False
    norm_bias: bool = True
    window: int | None = None
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Apply the block."""
        bias, types = self.use_bias, self.types
        x = x.astype(types.dtype)
        attention = MDTA(
            num_heads=self.num_heads, use_bias=bias, window=self.window, types=types, name="attn"
        )
        feed_forward = GDFN(expansion=self.expansion, use_bias=bias, types=types, name="ffn")
        x = x + attention(ChannelNorm(use_bias=self.norm_bias, types=types, name="norm1")(x))
        return x + feed_forward(ChannelNorm(use_bias=self.norm_bias, types=types, name="norm2")(x))


class Downsample(nn.Module, kw_only=True):
    """Half the resolution, twice the channels: 3x3 convolution and pixel unshuffle."""

    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Shrink ``x``, whose height and width are even."""
        x = Conv(features=x.shape[-1] // 2, types=self.types, name="conv")(x)
        return ops.pixel_unshuffle(x, 2)


class Upsample(nn.Module, kw_only=True):
    """Twice the resolution, half the channels: 3x3 convolution and pixel shuffle."""

    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """Enlarge ``x``."""
        x = Conv(features=x.shape[-1] * 2, types=self.types, name="conv")(x)
        return ops.pixel_shuffle(x, 2)
