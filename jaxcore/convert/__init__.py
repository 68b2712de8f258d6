"""Checkpoint files of other frameworks, in and out.

One table per network maps its parameter tree to the official keys (`Rule`, `from_state_dict`,
`to_state_dict`); `read_state_dict`, `write_safetensors` and `write_torch` do the files, without
PyTorch and without running anything a file contains.
"""

from jaxcore.convert.files import StateFile, read_sets, read_state_dict
from jaxcore.convert.find import PREFERRED, Selection, find_state_dict
from jaxcore.convert.lazy import LazyTensor
from jaxcore.convert.prefixes import LEFTOVERS, WRAPPERS, select_prefix, strip_prefix
from jaxcore.convert.rules import Rule, nested, official_shapes
from jaxcore.convert.statedict import (
    choose_layout,
    from_state_dict,
    lazy_state_dict,
    to_state_dict,
)
from jaxcore.convert.transforms import (
    CONV,
    CONV_TRANSPOSE,
    DEPTHWISE,
    IDENTITY,
    LINEAR,
    POINTWISE,
    VECTOR,
    Transform,
    channel_vector,
)
from jaxcore.convert.writers import write_safetensors, write_torch

__all__ = [
    "CONV",
    "CONV_TRANSPOSE",
    "DEPTHWISE",
    "IDENTITY",
    "LEFTOVERS",
    "LINEAR",
    "POINTWISE",
    "PREFERRED",
    "VECTOR",
    "WRAPPERS",
    "LazyTensor",
    "Rule",
    "Selection",
    "StateFile",
    "Transform",
    "channel_vector",
    "choose_layout",
    "find_state_dict",
    "from_state_dict",
    "lazy_state_dict",
    "nested",
    "official_shapes",
    "read_sets",
    "read_state_dict",
    "select_prefix",
    "strip_prefix",
    "to_state_dict",
    "write_safetensors",
    "write_torch",
]
