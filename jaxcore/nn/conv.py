"""Convolutions with PyTorch's initialisation; the arithmetic is in `jaxcore.ops`."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.nn.initialise import torch_uniform
from jaxcore.nn.types import Types


class Filter(nn.Module, kw_only=True):
    """What all convolutions share: the types, the kernel and the bias.

    Attributes:
      use_bias: add a bias.
      types: of activations and parameters.
    """

    use_bias: bool = False
    types: Types = Types()

    def kernel(self, shape: tuple[int, ...], fan_in: int) -> Array:
        """The parameter ``kernel``."""
        return self._parameter("kernel", shape, fan_in)

    def bias(self, width: int, fan_in: int) -> Array:
        """The parameter ``bias``."""
        return self._parameter("bias", (width,), fan_in)

    def _parameter(self, name: str, shape: tuple[int, ...], fan_in: int) -> Array:
        # Flax traces the initialiser of a parameter that is there too, to compare shapes.
        draw = torch_uniform(fan_in) if self.is_initializing() else nn.initializers.zeros
        return self.param(name, draw, shape, jnp.dtype(self.types.param_dtype))

    def with_bias(
        self, maps: Sequence[Array], fan_in: int, widths: Sequence[int] | None = None
    ) -> tuple[Array, ...]:
        """Add the bias, if there is one, to maps whose channels follow each other.

        Args:
          maps: the results.
          fan_in: of the filter.
          widths: channels of each that count, where zeros were appended; None: all.
        """
        if not self.use_bias:
            return tuple(maps)
        widths, ndim = widths or [y.shape[-1] for y in maps], maps[0].ndim
        bias = self.bias(sum(widths), fan_in).astype(maps[0].dtype)
        parts = _columns(bias.reshape((1,) * (ndim - 1) + bias.shape), widths)
        return tuple(y + _appended(b, y.shape[-1]) for y, b in zip(maps, parts, strict=True))


class Conv(Filter, kw_only=True):
    """Dense convolution with zero padding, by default ``kernel_size // 2``.

    Parameters: ``kernel`` (k, k, in, out) and, with ``use_bias``, ``bias`` (out,).

    >>> import jax
    >>> x = jnp.zeros((1, 8, 6, 2))
    >>> Conv(features=4, stride=2).init_with_output(jax.random.key(0), x)[0].shape
    (1, 4, 3, 4)
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Convolve NHWC images."""
        size, channels = self.kernel_size, x.shape[-1]
        fan_in = size * size * channels
        kernel = self.kernel((size, size, channels, self.features), fan_in)
        y = ops.conv2d(x.astype(self.types.dtype), kernel, stride=self.stride, padding=self.padding)
        return self.with_bias([y], fan_in)[0]


class ConvTranspose(Filter, kw_only=True):
    """Transposed 3x3 convolution that doubles height and width.

    Parameters: ``kernel`` (3, 3, out, in), that of the strided convolution it transposes, and,
    with ``use_bias``, ``bias`` (out,).
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Convolve NHWC images."""
        # PyTorch too takes the channels of the result for the fan-in.
        fan_in = 9 * self.features
        kernel = self.kernel((3, 3, self.features, x.shape[-1]), fan_in)
        y = ops.conv_transpose2d(x.astype(self.types.dtype), kernel)
        return self.with_bias([y], fan_in)[0]


class ConvWeights(Filter, kw_only=True):
    """Kernel and bias of a convolution that its owner computes in a form of its own.

    Parameters: ``kernel`` of the given shape (kh, kw, in, out) and ``bias`` (out,).
    """

    shape: tuple[int, int, int, int]

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """The two parameters, in their own type."""
        fan_in = math.prod(self.shape[:-1])
        return self.kernel(self.shape, fan_in), self.bias(self.shape[-1], fan_in)


class ConvKernel(Filter, kw_only=True):
    """`ConvWeights` without bias, for any shape (..., in, out)."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> Array:
        """The parameter ``kernel``, in its own type."""
        return self.kernel(self.shape, math.prod(self.shape[:-1]))


class DepthwiseSplit(Filter, kw_only=True):
    """`DepthwiseConv` of several maps that stand for one: their channels follow each other.

    Attributes:
      features: channels of each that count, where zeros were appended; None: all.
    """

    kernel_size: int = 3
    features: tuple[int, ...] | None = None

    @nn.compact
    def __call__(self, *maps: Float[Array, "b h w _"]) -> tuple[Float[Array, "b h w _"], ...]:
        """Convolve NHWC images; one result for each, also of a joined map."""
        size, types = self.kernel_size, self.types
        widths = self.features or [x.shape[-1] for x in maps]
        kernel = self.kernel((size, size, 1, sum(widths)), size * size)
        if len(maps) < len(widths):
            out = list(ops.filter_split(maps[0].astype(types.dtype), kernel, len(widths)))
        else:
            out = [
                ops.depthwise_conv(x.astype(types.dtype), _appended(part, x.shape[-1]))
                for x, part in zip(maps, _columns(kernel, widths), strict=True)
            ]
        return self.with_bias(out, size * size, widths)


class DepthwiseConv(Filter, kw_only=True):
    """One ``k x k`` filter per channel, by default with zero padding ``kernel_size // 2``.

    Parameters: ``kernel`` (k, k, 1, c) and, with ``use_bias``, ``bias`` (c,).
    """

    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """Convolve NHWC images."""
        size, step = self.kernel_size, self.stride
        kernel = self.kernel((size, size, 1, x.shape[-1]), size * size)
        y = ops.depthwise_conv(x.astype(self.types.dtype), kernel, padding=self.padding)
        return self.with_bias([y[:, ::step, ::step]], size * size)[0]


class PointwiseSplit(Filter, kw_only=True):
    """`PointwiseConv` with several results, from consecutive columns of one kernel.

    To slice the kernel is free; to slice a map costs a pass over memory, forward and backward.

    >>> import jax
    >>> layer = PointwiseSplit(features=(4, 8))
    >>> outputs, variables = layer.init_with_output(jax.random.key(0), jnp.zeros((5, 2)))
    >>> [y.shape for y in outputs], variables["params"]["kernel"].shape
    ([(5, 4), (5, 8)], (2, 12))

    Attributes:
      features: channels of each result.
      multiple: zeros are appended to the channels of each result up to a multiple of it.
      joined: a single result, with the channels of all side by side.
    """

    features: tuple[int, ...]
    multiple: int = 1
    joined: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> tuple[Float[Array, "*b _"], ...]:
        """Mix the channels of every pixel; one result for each of ``features``."""
        channels, x = x.shape[-1], x.astype(self.types.dtype)
        kernel = self.kernel((channels, sum(self.features)), channels)
        widths = [-(-width // self.multiple) * self.multiple for width in self.features]
        parts = appended_parts(kernel, self.features, widths)
        if not self.joined:
            return self.with_bias(
                [ops.pointwise(x, part) for part in parts], channels, self.features
            )
        y = ops.pointwise(x, jnp.concatenate(parts, axis=-1))
        if not self.use_bias:
            return (y,)
        bias = self.bias(sum(self.features), channels).astype(y.dtype)
        return (y + jnp.concatenate(appended_parts(bias, self.features, widths)),)


class PointwiseConv(Filter, kw_only=True):
    """1x1 convolution.

    Parameters: ``kernel`` (in, out) and, with ``use_bias``, ``bias`` (out,).

    Attributes:
      features: channels of the result.
      inputs: channels of ``x`` that count, where zeros were appended; None: all.
    """

    features: int
    inputs: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        """Mix the channels of every pixel."""
        channels = self.inputs or x.shape[-1]
        kernel = self.kernel((channels, self.features), channels)
        kernel = jnp.pad(kernel, ((0, x.shape[-1] - channels), (0, 0)))
        return self.with_bias([ops.pointwise(x.astype(self.types.dtype), kernel)], channels)[0]


def _appended(a: Array, width: int) -> Array:
    """``a`` with zeros after its last channel, up to ``width`` channels."""
    return jnp.pad(a, ((0, 0),) * (a.ndim - 1) + ((0, width - a.shape[-1]),))


def appended_parts(a: Array, widths: Sequence[int], wider: Sequence[int]) -> list[Array]:
    """The parts of ``a`` along its channels, each with zeros appended."""
    return [_appended(part, n) for part, n in zip(_columns(a, widths), wider, strict=True)]


def _columns(a: Array, widths: Sequence[int]) -> list[Array]:
    return jnp.split(a, np.cumsum(widths)[:-1], axis=-1)
