"""Pure array functions. Images are NHWC unless a docstring says otherwise."""

from jaxcore.ops.conv import conv2d, pointwise
from jaxcore.ops.depthwise import depthwise_conv
from jaxcore.ops.shuffle import pixel_shuffle, pixel_unshuffle

__all__ = ["conv2d", "depthwise_conv", "pixel_shuffle", "pixel_unshuffle", "pointwise"]
