"""RDDM: residual denoising diffusion models; see README.md beside this file."""

from jaxcore.models.rddm.config import PRESETS, RDDMConfig, ScheduleConfig
from jaxcore.models.rddm.entry import NETWORK, init, param_shapes
from jaxcore.models.rddm.model import apply, standardise, trainable
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
    ddim,
    ddim_step,
    ddim_step_as_rddm,
    ddim_table,
)
from jaxcore.models.rddm.sampling.released import (
    along_path,
    ancestral,
    generalised,
    generalised_clean,
    noise_then_residual,
    residual_then_noise,
    sampling_table,
)
from jaxcore.models.rddm.sampling.sampler import Trajectory, sample
from jaxcore.models.rddm.sampling.second_order import dpm_solver
from jaxcore.models.rddm.sampling.table import SamplingTable, padded

__all__ = [
    "NETWORK",
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
    "along_path",
    "ancestral",
    "apply",
    "apply_fn",
    "chosen",
    "clean_from_both",
    "clean_from_noise",
    "config_from_state_dict",
    "ddim",
    "ddim_step",
    "ddim_step_as_rddm",
    "ddim_table",
    "dpm_solver",
    "from_torch",
    "generalised",
    "generalised_clean",
    "init",
    "level_at",
    "noise_from_residual",
    "noise_then_residual",
    "objective_of",
    "official_buffers",
    "padded",
    "param_shapes",
    "q_posterior",
    "q_sample",
    "rddm_loss",
    "residual_then_noise",
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
