"""The convolutional network of the paper of 2023; see README.md one folder up."""

from jaxcore.models.convnet.cnn2023.config import CNN2023Config
from jaxcore.models.convnet.cnn2023.entry import NETWORK, from_torch, init, param_shapes, to_torch
from jaxcore.models.convnet.cnn2023.model import CNN2023, apply, features, learn
from jaxcore.models.convnet.cnn2023.params import RULES, config_from_state_dict

__all__ = [
    "CNN2023",
    "NETWORK",
    "RULES",
    "CNN2023Config",
    "apply",
    "config_from_state_dict",
    "features",
    "from_torch",
    "init",
    "learn",
    "param_shapes",
    "to_torch",
]
