"""Convolutional networks from images to numbers; see README.md beside this file."""

from jaxcore.models.convnet.config import ConvNetConfig
from jaxcore.models.convnet.entry import NETWORK, from_torch, init, param_shapes, to_torch
from jaxcore.models.convnet.model import ConvNet, apply, features, learn, random_features
from jaxcore.models.convnet.params import RULES, config_from_state_dict

__all__ = [
    "NETWORK",
    "RULES",
    "ConvNet",
    "ConvNetConfig",
    "apply",
    "config_from_state_dict",
    "features",
    "from_torch",
    "init",
    "learn",
    "param_shapes",
    "random_features",
    "to_torch",
]
