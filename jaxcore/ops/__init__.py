"""Pure array functions. Images are NHWC unless a docstring says otherwise."""

from jaxcore.ops.attention import channel_attention
from jaxcore.ops.attention_edits import (
    edit_language_attention,
    uniform_attention,
)
from jaxcore.ops.conv import conv2d, conv_transpose2d, pointwise, repeated_conv2d
from jaxcore.ops.cross_entropy import chunked_cross_entropy
from jaxcore.ops.depthwise import depthwise_conv
from jaxcore.ops.fourier import band, signed_frequencies, soft_band, spectral_split
from jaxcore.ops.gate import gelu_gate, silu_gate
from jaxcore.ops.joined import filter_split, gated_product, joining_pays
from jaxcore.ops.linear import linear, project_rows
from jaxcore.ops.norm import channel_norm, group_norm, rms_norm
from jaxcore.ops.pool import adaptive_pool, global_max
from jaxcore.ops.precision import accumulation_dtype
from jaxcore.ops.products import product_over_pixels
from jaxcore.ops.resize import resize_bilinear
from jaxcore.ops.rotary import Turns, llama3_rates, rotary, rotary_rates, rotary_turns
from jaxcore.ops.shuffle import pixel_shuffle, pixel_unshuffle
from jaxcore.ops.token_attention import (
    attention_scores,
    attention_weights,
    masked_softmax,
    token_attention,
    weighted_values,
)
from jaxcore.ops.vision_edits import edit_vision_attention, patch_weights
from jaxcore.ops.windows import extract_windows, local_max, local_mean, merge_windows

__all__ = [
    "Turns",
    "accumulation_dtype",
    "adaptive_pool",
    "attention_scores",
    "attention_weights",
    "band",
    "channel_attention",
    "channel_norm",
    "chunked_cross_entropy",
    "conv2d",
    "conv_transpose2d",
    "depthwise_conv",
    "edit_language_attention",
    "edit_vision_attention",
    "extract_windows",
    "filter_split",
    "gated_product",
    "gelu_gate",
    "global_max",
    "group_norm",
    "joining_pays",
    "linear",
    "llama3_rates",
    "local_max",
    "local_mean",
    "masked_softmax",
    "merge_windows",
    "patch_weights",
    "pixel_shuffle",
    "pixel_unshuffle",
    "pointwise",
    "product_over_pixels",
    "project_rows",
    "repeated_conv2d",
    "resize_bilinear",
    "rms_norm",
    "rotary",
    "rotary_rates",
    "rotary_turns",
    "signed_frequencies",
    "silu_gate",
    "soft_band",
    "spectral_split",
    "token_attention",
    "uniform_attention",
    "weighted_values",
]
