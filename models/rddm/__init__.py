"""RDDM: residual denoising diffusion models; see README.md beside this file."""

# Networks.
from jaxcore.models.rddm.config import PRESETS, RDDMConfig
from jaxcore.models.rddm.params import RULES, config_from_state_dict, from_torch, to_torch
from jaxcore.models.rddm.unet import Unet, apply, init, param_shapes, standardise, trainable

__all__ = [
    "PRESETS",
    "RULES",
    "RDDMConfig",
    "Unet",
    "apply",
    "config_from_state_dict",
    "from_torch",
    "init",
    "param_shapes",
    "standardise",
    "to_torch",
    "trainable",
]
