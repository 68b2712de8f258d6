"""Qwen2-VL; see README.md beside this file."""

from jaxcore.models.llava.sharding import sharding_rules
from jaxcore.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from jaxcore.models.qwen2_vl.entry import NETWORK, from_torch, init, param_shapes, to_torch
from jaxcore.models.qwen2_vl.model import (
    Block,
    Merger,
    Tower,
    apply,
    embed,
    image_features,
    project,
    tower,
)
from jaxcore.models.qwen2_vl.params import (
    Layout,
    config_from_state_dict,
    official_keys,
    released,
    rules,
)
from jaxcore.models.qwen2_vl.positions import (
    Patches,
    image_tokens,
    join_patches,
    position_ids,
)

__all__ = [
    "NETWORK",
    "Block",
    "Layout",
    "Merger",
    "Patches",
    "Qwen2VLConfig",
    "Tower",
    "VisionConfig",
    "apply",
    "config_from_state_dict",
    "embed",
    "from_torch",
    "image_features",
    "image_tokens",
    "init",
    "join_patches",
    "official_keys",
    "param_shapes",
    "position_ids",
    "project",
    "released",
    "rules",
    "sharding_rules",
    "to_torch",
    "tower",
]
