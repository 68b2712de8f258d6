"""Content-guided attention, its fusion of two maps, and the blocks."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.models.dea_net.config import BRANCHES, Form
from jaxcore.models.dea_net.deconv import DEConv
from jaxcore.nn import Conv, ConvWeights, PointwiseConv, Types

_SIDE = 7  # of the filters of spatial and pixel attention


def _reflected(x: Array) -> Array:
    reach = _SIDE // 2
    return jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")


class SpatialAttention(nn.Module, kw_only=True):
    """One map of weights for all channels, from their mean and maximum; no sigmoid.

    Attributes:
      types: of activations and parameters.
    """

    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w 1"]:
        """Weigh the pixels of ``x``, at least four on each side."""
        wide = ops.accumulation_dtype(x.dtype)
        mean = jnp.mean(x, axis=-1, keepdims=True, dtype=wide).astype(x.dtype)
        both = jnp.concatenate([mean, jnp.max(x, axis=-1, keepdims=True)], axis=-1)
        conv = Conv(
            features=1, kernel_size=_SIDE, padding=0, use_bias=True, types=self.types, name="sa"
        )
        return conv(_reflected(both))


class ChannelAttention(nn.Module, kw_only=True):
    """One weight per channel, from the means over all pixels; no sigmoid.

    Attributes:
      reduction: by which the hidden layer is narrower, rounded down.
      types: of activations and parameters.
    """

    reduction: int = 8
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 1 1 c"]:
        """Weigh the channels of ``x``."""
        width, types = x.shape[-1], self.types
        narrow = max(width // self.reduction, 1)
        wide = ops.accumulation_dtype(x.dtype)
        mean = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=wide).astype(x.dtype)
        reduce = PointwiseConv(features=narrow, use_bias=True, types=types, name="reduce")
        expand = PointwiseConv(features=width, use_bias=True, types=types, name="expand")
        return expand(jax.nn.relu(reduce(mean)))


class PixelAttention(nn.Module, kw_only=True):
    """A map of weights in (0, 1) for every channel, from that channel and a coarse map.

    In the paper the coarse map is the sum of spatial and channel attention, and one grouped
    convolution sees each channel next to its coarse map. A filter over a map that is the same for
    all channels, plus a constant per channel, needs neither: here the spatial part is one dense
    convolution of one map and the channel part a product. Exact, since reflection keeps constants.

    Parameters: ``kernel`` (7, 7, 2, c), whose index 0 acts on ``x`` and 1 on the coarse map, and
    ``bias`` (c,).

    Attributes:
      types: of activations and parameters.
    """

    types: Types = Types()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        spatial: Float[Array, "b h w 1"],
        channel: Float[Array, "b 1 1 c"],
    ) -> Float[Array, "b h w c"]:
        """Weights of ``x``, given the results of spatial and channel attention."""
        shape = (_SIDE, _SIDE, 2, x.shape[-1])
        kernel, bias = ConvWeights(shape=shape, types=self.types, name="pa")()
        own = ops.depthwise_conv(_reflected(x), kernel[:, :, :1], padding=0)
        coarse = ops.conv2d(_reflected(spatial), kernel[:, :, 1:], padding=0)
        gain = jnp.sum(kernel[:, :, 1], axis=(0, 1)).astype(x.dtype)[None, None, None, :]
        constant = channel * gain + bias.astype(x.dtype)[None, None, None, :]
        return jax.nn.sigmoid(own + coarse + constant)


class ContentGuidedAttention(nn.Module, kw_only=True):
    """Spatial and channel attention, refined to a map per channel by pixel attention.

    Attributes:
      reduction: of the channel attention.
      types: of activations and parameters.
    """

    reduction: int = 8
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Weights of ``x``, in (0, 1)."""
        types = self.types
        spatial = SpatialAttention(types=types, name="spatial")(x)
        channel = ChannelAttention(reduction=self.reduction, types=types, name="channel")(x)
        return PixelAttention(types=types, name="pixel")(x, spatial, channel)


class DEBlock(nn.Module, kw_only=True):
    """Two convolutions with residuals, of which the first is detail-enhanced.

    Attributes:
      form: "train" stores the first convolution as branches, "deploy" as their sum.
      branches: difference convolutions of the training form.
      attention: weigh the result by content-guided attention.
      reduction: of that attention.
      types: of activations and parameters.
    """

    form: Form = "train"
    branches: tuple[str, ...] = BRANCHES
    attention: bool = False
    reduction: int = 8  # of the attention
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Transform ``x``; the shape stays."""
        plain = functools.partial(Conv, features=x.shape[-1], use_bias=True, types=self.types)
        if self.form == "train":
            first: Callable[[Array], Array] = DEConv(
                branches=self.branches, types=self.types, name="conv1"
            )
        else:
            first = plain(name="conv1")
        y = plain(name="conv2")(jax.nn.relu(first(x)) + x)
        if self.attention:
            attention = ContentGuidedAttention(
                reduction=self.reduction, types=self.types, name="cga"
            )
            y = y * attention(y)
        return y + x


class DEABlock(DEBlock, kw_only=True):
    """`DEBlock` with content-guided attention."""

    attention: bool = True


class CGAFusion(nn.Module, kw_only=True):
    """Fuse a map of the encoder with one of the decoder.

    Attributes:
      reduction: of the channel attention.
      mixup: False adds the two maps, without attention.
      double_sigmoid: a second sigmoid over the weights, which then lie in (0.5, 0.7311), as in
        the released code.
      types: of activations and parameters.
    """

    reduction: int = 8
    mixup: bool = True
    double_sigmoid: bool = True
    types: Types = Types()

    @nn.compact
    def __call__(
        self, low: Float[Array, "b h w c"], high: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w c"]:
        """Fuse ``low``, of the encoder, with ``high``, of the decoder."""
        types = self.types
        y = low + high
        if self.mixup:
            attention = ContentGuidedAttention(reduction=self.reduction, types=types, name="cga")
            weight = attention(y)
            if self.double_sigmoid:
                weight = jax.nn.sigmoid(weight)
            y = y + weight * low + (1 - weight) * high
        project = PointwiseConv(features=y.shape[-1], use_bias=True, types=types, name="conv")
        return project(y)
