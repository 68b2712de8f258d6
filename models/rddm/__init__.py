"""RDDM: residual denoising diffusion models; see README.md beside this file."""

# Networks.
from jaxcore.models.rddm.config import PRESETS, RDDMConfig
from jaxcore.models.rddm.params import RULES, config_from_state_dict, from_torch, to_torch
from jaxcore.models.rddm.pipeline import apply_fn, chosen, objective_of, restore, selector
from jaxcore.models.rddm.unet import Unet, apply, init, param_shapes, standardise, trainable

__all__ = [
    "PRESETS",
    "RULES",
    "RDDMConfig",
    "Unet",
    "apply",
    "apply_fn",
    "chosen",
    "config_from_state_dict",
    "from_torch",
    "init",
    "objective_of",
    "param_shapes",
    "restore",
    "selector",
    "standardise",
    "to_torch",
    "trainable",
]
