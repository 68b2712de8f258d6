"""Linen layers that two or more networks share, and what builds networks from them."""

from jaxcore.nn.conv import (
    Conv,
    ConvTranspose,
    ConvWeights,
    DepthwiseConv,
    DepthwiseSplit,
    Filter,
    PointwiseConv,
    PointwiseSplit,
)
from jaxcore.nn.initialise import Normal, Uniform, init_params, init_shapes, torch_uniform
from jaxcore.nn.norm import ChannelNorm
from jaxcore.nn.stack import apply_block, apply_stack
from jaxcore.nn.taps import capture, intervene, tap
from jaxcore.nn.types import Types

__all__ = [
    "ChannelNorm",
    "Conv",
    "ConvTranspose",
    "ConvWeights",
    "DepthwiseConv",
    "DepthwiseSplit",
    "Filter",
    "Normal",
    "PointwiseConv",
    "PointwiseSplit",
    "Types",
    "Uniform",
    "apply_block",
    "apply_stack",
    "capture",
    "init_params",
    "init_shapes",
    "intervene",
    "tap",
    "torch_uniform",
]
