"""Linen layers that two or more networks share."""

from jaxcore.nn.conv import Conv, DepthwiseConv, PointwiseConv, torch_uniform
from jaxcore.nn.initialise import init_params
from jaxcore.nn.norm import ChannelNorm
from jaxcore.nn.types import types_of

__all__ = [
    "ChannelNorm",
    "Conv",
    "DepthwiseConv",
    "PointwiseConv",
    "init_params",
    "torch_uniform",
    "types_of",
]
