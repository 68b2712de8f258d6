"""Samplers: one module per family, the tables they make, and the loop that runs them."""

from jaxcore.models.rddm.sampling.ddim import ddim
from jaxcore.models.rddm.sampling.released import (
    ancestral,
    generalised,
    noise_then_residual,
    residual_then_noise,
)
from jaxcore.models.rddm.sampling.second_order import dpm_solver

SAMPLERS = {
    "euler": generalised,
    "ancestral": ancestral,
    "dpm2": dpm_solver,
    "ddim_exact": ddim,
    "residual_then_noise": residual_then_noise,
    "noise_then_residual": noise_then_residual,
}
"""Name on the command line -> function of a schedule and a number of steps."""
