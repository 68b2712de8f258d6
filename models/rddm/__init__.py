"""RDDM: residual denoising diffusion models; see README.md beside this file."""

from jaxcore.models.rddm.config import PRESETS, RDDMConfig, ScheduleConfig
from jaxcore.models.rddm.model import apply, init, param_shapes, standardise, trainable
from jaxcore.models.rddm.network.config import UnetConfig
from jaxcore.models.rddm.network.unet import Unet
from jaxcore.models.rddm.params import RULES, config_from_state_dict, from_torch, to_torch
from jaxcore.models.rddm.pipeline import apply_fn, chosen, objective_of, restore, selector
from jaxcore.models.rddm.process.coefficients import sampling_times
from jaxcore.models.rddm.process.forward import (
    Level,
    clean_from_both,
    clean_from_noise,
    level_at,
    noise_from_residual,
    q_posterior,
    q_sample,
    to_signed,
    to_unit,
)
from jaxcore.models.rddm.process.losses import rddm_loss
from jaxcore.models.rddm.process.objectives import ObjectiveConfig, Prediction, RDDMObjective
from jaxcore.models.rddm.process.schedule import RDDMSchedule, official_buffers
from jaxcore.models.rddm.process.selector import ObjectiveSelector
from jaxcore.models.rddm.sampling.ddim import (
    DDIMNetwork,
    adjust_alpha,
    ddim_step,
    ddim_step_as_rddm,
    ddim_table,
)
from jaxcore.models.rddm.sampling.sampler import Trajectory, sample
from jaxcore.models.rddm.sampling.solvers import SamplingTable, sampling_table

__all__ = [
    "PRESETS",
    "RULES",
    "DDIMNetwork",
    "Level",
    "ObjectiveConfig",
    "ObjectiveSelector",
    "Prediction",
    "RDDMConfig",
    "RDDMObjective",
    "RDDMSchedule",
    "SamplingTable",
    "ScheduleConfig",
    "Trajectory",
    "Unet",
    "UnetConfig",
    "adjust_alpha",
    "apply",
    "apply_fn",
    "chosen",
    "clean_from_both",
    "clean_from_noise",
    "config_from_state_dict",
    "ddim_step",
    "ddim_step_as_rddm",
    "ddim_table",
    "from_torch",
    "init",
    "level_at",
    "noise_from_residual",
    "objective_of",
    "official_buffers",
    "param_shapes",
    "q_posterior",
    "q_sample",
    "rddm_loss",
    "restore",
    "sample",
    "sampling_table",
    "sampling_times",
    "selector",
    "standardise",
    "to_signed",
    "to_torch",
    "to_unit",
    "trainable",
]
