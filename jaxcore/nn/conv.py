"""Convolutions with PyTorch's initialisation; the arithmetic is in `jaxcore.ops`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
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
    """What all convolutions share: the types, and the bias."""

    use_bias: bool = False
    dtype: str = "float32"
    param_dtype: str = "float32"

    def kernel(self, *shape: int) -> Array:
        return self.param("kernel", torch_uniform, shape, jnp.dtype(self.param_dtype))

    def bias(self, width: int, fan_in: int) -> Array:
        return self.param("bias", _bias_init(fan_in), (width,), jnp.dtype(self.param_dtype))

    def with_bias(self, maps: list[Array], fan_in: int) -> Any:
        """Add the bias to maps whose channels follow each other; one map comes back as such."""
        if self.use_bias:
            widths, ndim = [y.shape[-1] for y in maps], maps[0].ndim
            bias = self.bias(sum(widths), fan_in).astype(maps[0].dtype)
            parts = _columns(bias.reshape((1,) * (ndim - 1) + bias.shape), widths)
            maps = [y + part for y, part in zip(maps, parts, strict=True)]
        return maps[0] if len(maps) == 1 else tuple(maps)


class Conv(_Filter):
    """Dense convolution with zero padding, by default ``kernel_size // 2``.

    Parameters: ``kernel`` (k, k, in, out) and, with ``use_bias``, ``bias`` (out,).
    """

    features: int = 0
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Convolve NHWC images."""
        size, channels = self.kernel_size, x.shape[-1]
        kernel = self.kernel(size, size, channels, self.features)
        y = ops.conv2d(x.astype(self.dtype), kernel, stride=self.stride, padding=self.padding)
        return self.with_bias([y], size * size * channels)


class ConvTranspose(_Filter):
    """Transposed 3x3 convolution that doubles height and width.

    Parameters: ``kernel`` (3, 3, out, in), that of the strided convolution it transposes, and,
    with ``use_bias``, ``bias`` (out,).
    """

    features: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Convolve NHWC images."""
        kernel = self.kernel(3, 3, self.features, x.shape[-1])
        # PyTorch too takes the channels of the result for the fan-in.
        return self.with_bias(
            [ops.conv_transpose2d(x.astype(self.dtype), kernel)], 9 * self.features
        )


class ConvWeights(_Filter):
    """Kernel and bias of a convolution that its owner computes in a form of its own.

    Parameters: ``kernel`` of the given shape (kh, kw, in, out) and ``bias`` (out,).
    """

    shape: tuple[int, int, int, int] = (1, 1, 1, 1)

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """The two parameters, in their own type."""
        bias = self.bias(self.shape[-1], math.prod(self.shape[:-1]))
        return self.kernel(*self.shape), bias


class DepthwiseConv(_Filter):
    """One ``k x k`` filter per channel, zero padding ``kernel_size // 2``.

    Parameters: ``kernel`` (k, k, 1, c) and, with ``use_bias``, ``bias`` (c,).
    """

    kernel_size: int = 3

    @nn.compact
    def __call__(self, *maps: Float[Array, "b h w _"]) -> Any:
        """Convolve NHWC images.

        Args:
          *maps: one array, or several that stand for one: their channels follow each other.

        Returns:
          One array, or a tuple with one for each of several.
        """
        size, widths = self.kernel_size, [x.shape[-1] for x in maps]
        kernel = self.kernel(size, size, 1, sum(widths))
        out = [
            ops.depthwise_conv(x.astype(self.dtype), part)
            for x, part in zip(maps, _columns(kernel, widths), strict=True)
        ]
        return self.with_bias(out, size * size)


class PointwiseConv(_Filter):
    """1x1 convolution.

    Parameters: ``kernel`` (in, out) and, with ``use_bias``, ``bias`` (out,).

    Attributes:
      features: channels of the result. A tuple asks for several results, which come from
        consecutive columns of one kernel: to slice the kernel is free, to slice a map costs a
        pass over memory, forward and backward.
    """

    features: int | tuple[int, ...] = 0

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Any:
        """Mix the channels of every pixel.

        Returns:
          One array ``(*b, features)``, or a tuple of them if ``features`` is one.
        """
        channels, x = x.shape[-1], x.astype(self.dtype)
        widths = (self.features,) if isinstance(self.features, int) else self.features
        kernel = self.kernel(channels, sum(widths))
        out = [ops.pointwise(x, part) for part in _columns(kernel, widths)]
        return self.with_bias(out, channels)


def _columns(a: Array, widths: Sequence[int]) -> list[Array]:
    return jnp.split(a, np.cumsum(widths)[:-1], axis=-1)
