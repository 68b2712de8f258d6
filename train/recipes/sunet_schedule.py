"""The learning rate of the released code of SUNet and of the deconvolution made from it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcore.train.schedules import Schedule, ScheduleConfig

_EPOCHS, _WARMUP = 400, 3


def sunet_official(
    peak: float,
    steps_per_epoch: int,
    *,
    floor: float,
    epochs: int = _EPOCHS,
    warmup_epochs: int = _WARMUP,
) -> Schedule:
    """The rate per epoch that the released code really uses (quirk included).

    With epochs ``e`` from 1, ``w`` of warm-up and ``T = epochs - w``: ``peak e / w`` up to ``w``,
    then ``floor + (peak - floor) (1 + cos(pi (e - w - 1) / T)) / (1 + cos(pi / T))``, so that the
    peak is passed by a trifle in epoch ``w + 1`` and met in the next one.

    >>> rate = sunet_official(1e-3, 10, floor=1e-5)
    >>> [round(float(rate(10 * epoch)), 6) for epoch in (0, 1, 2, 4, 399)]
    [0.000333, 0.000667, 0.001, 0.001, 1e-05]
    """
    e, left = np.arange(1, epochs + 1, dtype=np.float64), max(1, epochs - warmup_epochs)
    wave = (1 + np.cos(np.pi * (e - warmup_epochs - 1) / left)) / (1 + np.cos(np.pi / left))
    table = np.where(e <= warmup_epochs, peak * e / warmup_epochs, floor + (peak - floor) * wave)

    def rate(step: ArrayLike) -> jax.Array:
        epoch = jnp.minimum(jnp.asarray(step) // steps_per_epoch, epochs - 1)
        return jnp.asarray(table, float)[epoch]

    return rate


def make_official(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """`sunet_official`; without ``steps_per_epoch`` the run has the published 400 epochs."""
    per_epoch = config.steps_per_epoch or max(1, total_steps // _EPOCHS)
    epochs = max(_WARMUP + 2, -(-total_steps // per_epoch))
    return sunet_official(peak, per_epoch, floor=config.floor, epochs=epochs)
