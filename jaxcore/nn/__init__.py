"""Linen layers that two or more networks share."""

from jaxcore.nn.conv import (
    Conv,
    ConvTranspose,
    ConvWeights,
    DepthwiseConv,
    PointwiseConv,
    torch_uniform,
)
from jaxcore.nn.initialise import init_params
from jaxcore.nn.norm import ChannelNorm
from jaxcore.nn.stack import apply_stack
from jaxcore.nn.types import types_of

__all__ = [
    "ChannelNorm",
    "Conv",
    "ConvTranspose",
    "ConvWeights",
    "DepthwiseConv",
    "PointwiseConv",
    "apply_stack",
    "init_params",
    "torch_uniform",
    "types_of",
]
