"""Checkpoint files of other frameworks, in and out."""

from jaxcore.convert.statedict import (
    CONV,
    CONV_TRANSPOSE,
    DEPTHWISE,
    IDENTITY,
    LINEAR,
    POINTWISE,
    VECTOR,
    WRAPPERS,
    Rule,
    Transform,
    channel_vector,
    from_state_dict,
    official_shapes,
    select_prefix,
    strip_prefix,
    to_state_dict,
)

__all__ = [
    "CONV",
    "CONV_TRANSPOSE",
    "DEPTHWISE",
    "IDENTITY",
    "LINEAR",
    "POINTWISE",
    "VECTOR",
    "WRAPPERS",
    "Rule",
    "Transform",
    "channel_vector",
    "from_state_dict",
    "official_shapes",
    "select_prefix",
    "strip_prefix",
    "to_state_dict",
]
