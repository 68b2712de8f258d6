"""Encoders of images by vision transformers; see README.md beside this file."""

from jaxcore.models.clip.config import CLIPConfig
from jaxcore.models.clip.entry import NETWORK, from_torch, init, param_shapes, to_torch
from jaxcore.models.clip.model import CLIP, Block, Seen, apply, features
from jaxcore.models.clip.params import config_from_state_dict, rules

__all__ = [
    "CLIP",
    "NETWORK",
    "Block",
    "CLIPConfig",
    "Seen",
    "apply",
    "config_from_state_dict",
    "features",
    "from_torch",
    "init",
    "param_shapes",
    "rules",
    "to_torch",
]
