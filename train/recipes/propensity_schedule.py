"""Learning rates of the released code for propensities from images, of three times.

The package `causalimages` of 2025; its form of 2023; and the simulation of the paper
(Jerzak, Johansson, Daoud, arXiv:2301.12985).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcore.train.schedules import Schedule, ScheduleConfig


def causalimages(peak: float, total_steps: int) -> Schedule:
    """From a hundredth of the peak up in 5 % of the steps, down by a cosine until 95 %, then flat.

    >>> rate = causalimages(1.0, 100)
    >>> [round(float(rate(step)), 2) for step in (0, 5, 50, 95, 99)]
    [0.01, 1.0, 0.5, 0.01, 0.01]
    """
    step, low = np.arange(total_steps + 1), peak / 100
    warm, end = max(1, int(0.05 * total_steps)), max(2, int(0.95 * total_steps))
    rising = low + (peak - low) * step / warm
    share = np.clip((step - warm) / max(1, end - warm), 0, 1)
    falling = low + (peak - low) * (1 + np.cos(np.pi * share)) / 2
    return _looked_up(np.where(step < warm, rising, falling))


def cnn2023(peak: float, total_steps: int) -> Schedule:
    """Half of the steps ``|cos(50 i / n)|``, then ``(i - n / 2 + 1)^(-0.3)``; i counts from 1.

    >>> round(float(cnn2023(1.0, 100)(99)), 4)
    0.3074
    """
    i, half = np.arange(1, total_steps + 1), total_steps / 2
    later = np.maximum(i - half, 0) + 1
    wave = np.abs(np.cos(50 * i / total_steps))
    return _looked_up(peak * np.where(i < half, wave, later**-0.3))


def simulation(peak: float, total_steps: int) -> Schedule:
    """Half of the steps ``|cos(25 i / n)|``, then ``1 / (0.001 + (i - n / 2)^0.2)``.

    >>> round(float(simulation(1.0, 100)(99)), 4)
    0.4571
    """
    i, half = np.arange(1, total_steps + 1), total_steps / 2
    later = 0.001 + np.maximum(i - half, 0) ** 0.2
    wave = np.abs(np.cos(25 * i / total_steps))
    return _looked_up(peak * np.where(i <= half, wave, 1 / later))


def _looked_up(table: np.ndarray) -> Schedule:
    def rate(step: ArrayLike) -> jax.Array:
        return jnp.asarray(table, float)[jnp.minimum(jnp.asarray(step), len(table) - 1)]

    return rate


def make_causalimages(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """`causalimages`."""
    return causalimages(peak, total_steps)


def make_cnn2023(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """`cnn2023`."""
    return cnn2023(peak, total_steps)


def make_simulation(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """`simulation`."""
    return simulation(peak, total_steps)
