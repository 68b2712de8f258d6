"""A vision transformer from images and covariates to numbers; see README.md beside this file."""

from jaxcore.models.vit.config import ViTConfig
from jaxcore.models.vit.entry import NETWORK, from_torch, init, param_shapes, to_torch
from jaxcore.models.vit.model import ViT, apply, features, learn
from jaxcore.models.vit.params import RULES, config_from_state_dict

__all__ = [
    "NETWORK",
    "RULES",
    "ViT",
    "ViTConfig",
    "apply",
    "config_from_state_dict",
    "features",
    "from_torch",
    "init",
    "learn",
    "param_shapes",
    "to_torch",
]
