"""Convolutions with PyTorch's initialisation; the arithmetic is in `jaxcore.ops`."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops

torch_uniform = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
"""PyTorch's default for convolutions: uniform in +-1/sqrt(fan_in)."""


def _bias_init(fan_in: int) -> Callable[..., Array]:
    def init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class _Filter(nn.Module):
    """What the three convolutions share: the types, and the bias."""

    use_bias: bool = False
    dtype: str = "float32"
    param_dtype: str = "float32"

    def kernel(self, *shape: int) -> Array:
        return self.param("kernel", torch_uniform, shape, jnp.dtype(self.param_dtype))

    def with_bias(self, y: Array, fan_in: int) -> Array:
        if not self.use_bias:
            return y
        shape, dtype = (y.shape[-1],), jnp.dtype(self.param_dtype)
        bias = self.param("bias", _bias_init(fan_in), shape, dtype)
        return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + shape)


class Conv(_Filter):
    """Dense convolution with zero padding ``kernel_size // 2``.

    Parameters: ``kernel`` (k, k, in, out) and, with ``use_bias``, ``bias`` (out,).
    """

    features: int = 0
    kernel_size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Convolve NHWC images."""
        size, channels = self.kernel_size, x.shape[-1]
        kernel = self.kernel(size, size, channels, self.features)
        y = ops.conv2d(x.astype(self.dtype), kernel, stride=self.stride)
        return self.with_bias(y, size * size * channels)


class DepthwiseConv(_Filter):
    """One ``k x k`` filter per channel, zero padding ``kernel_size // 2``.

    Parameters: ``kernel`` (k, k, 1, c) and, with ``use_bias``, ``bias`` (c,).
    """

    kernel_size: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Convolve NHWC images."""
        size = self.kernel_size
        kernel = self.kernel(size, size, 1, x.shape[-1])
        return self.with_bias(ops.depthwise_conv(x.astype(self.dtype), kernel), size * size)


class PointwiseConv(_Filter):
    """1x1 convolution.

    Parameters: ``kernel`` (in, out) and, with ``use_bias``, ``bias`` (out,).
    """

    features: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        """Mix the channels of every pixel."""
        channels = x.shape[-1]
        y = ops.pointwise(x.astype(self.dtype), self.kernel(channels, self.features))
        return self.with_bias(y, channels)
