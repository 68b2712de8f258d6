"""Linen layers that two or more networks share, and what builds networks from them."""

from jaxcore.nn.conv import (
    Conv,
    ConvKernel,
    ConvTranspose,
    ConvWeights,
    DepthwiseConv,
    DepthwiseSplit,
    Filter,
    PointwiseConv,
    PointwiseSplit,
    appended_parts,
)
from jaxcore.nn.drop import drop_out, drop_path
from jaxcore.nn.edits import (
    AttentionEdit,
    edit_scores,
    edit_weights,
    edited_attention,
    layers_of,
)
from jaxcore.nn.encoder import Encoder
from jaxcore.nn.initialise import Normal, Uniform, init_params, init_shapes, torch_uniform
from jaxcore.nn.linear import Linear, SwiGLU
from jaxcore.nn.norm import BatchNorm, ChannelNorm, RMSNorm
from jaxcore.nn.stack import apply_block, apply_stack, in_loops
from jaxcore.nn.taps import capture, intervene, tap
from jaxcore.nn.types import Types

__all__ = [
    "AttentionEdit",
    "BatchNorm",
    "ChannelNorm",
    "Conv",
    "ConvKernel",
    "ConvTranspose",
    "ConvWeights",
    "DepthwiseConv",
    "DepthwiseSplit",
    "Encoder",
    "Filter",
    "Linear",
    "Normal",
    "PointwiseConv",
    "PointwiseSplit",
    "RMSNorm",
    "SwiGLU",
    "Types",
    "Uniform",
    "appended_parts",
    "apply_block",
    "apply_stack",
    "capture",
    "drop_out",
    "drop_path",
    "edit_scores",
    "edit_weights",
    "edited_attention",
    "in_loops",
    "init_params",
    "init_shapes",
    "intervene",
    "layers_of",
    "tap",
    "torch_uniform",
]
