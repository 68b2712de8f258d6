"""Checkpoint files of other frameworks, in and out.

One table per network maps its parameter tree to the official keys (`Rule`, `from_state_dict`,
`to_state_dict`); `read_state_dict`, `write_safetensors` and `write_torch` do the files, without
PyTorch and without running anything a file contains.
"""

from jaxcore.convert.files import (
    PREFERRED,
    Selection,
    StateFile,
    find_state_dict,
    read_state_dict,
)
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
from jaxcore.convert.writers import write_safetensors, write_torch

__all__ = [
    "CONV",
    "CONV_TRANSPOSE",
    "DEPTHWISE",
    "IDENTITY",
    "LINEAR",
    "POINTWISE",
    "PREFERRED",
    "VECTOR",
    "WRAPPERS",
    "Rule",
    "Selection",
    "StateFile",
    "Transform",
    "channel_vector",
    "find_state_dict",
    "from_state_dict",
    "official_shapes",
    "read_state_dict",
    "select_prefix",
    "strip_prefix",
    "to_state_dict",
    "write_safetensors",
    "write_torch",
]
