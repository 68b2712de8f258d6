"""LLaVA-1.5; see README.md beside this file."""

from jaxcore.models.llava.config import LlavaConfig
from jaxcore.models.llava.entry import NETWORK, from_torch, init, param_shapes, to_torch
from jaxcore.models.llava.model import (
    Projector,
    apply,
    check_places,
    checked_prompt,
    embed,
    image_features,
    merge,
    project,
    tower,
)
from jaxcore.models.llava.params import (
    Layout,
    config_from_state_dict,
    official_keys,
    released,
    rules,
)
from jaxcore.models.llava.sharding import sharding_rules

__all__ = [
    "NETWORK",
    "Layout",
    "LlavaConfig",
    "Projector",
    "apply",
    "check_places",
    "checked_prompt",
    "config_from_state_dict",
    "embed",
    "from_torch",
    "image_features",
    "init",
    "merge",
    "official_keys",
    "param_shapes",
    "project",
    "released",
    "rules",
    "sharding_rules",
    "to_torch",
    "tower",
]
