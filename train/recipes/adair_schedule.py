"""The learning rate of AdaIR's released code, and the one it was meant to be."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcore.train.schedules import Schedule, ScheduleConfig, warmup_cosine

# The published shape: 15 warm-up epochs of a 180-epoch cosine, of which 150 epochs are run.
_WARMUP, _MAX, _RUN = 15, 180, 150


def adair_official(
    peak: float, steps_per_epoch: int, *, warmup_epochs: int = _WARMUP, max_epochs: int = _MAX
) -> Schedule:
    """The rate per epoch that AdaIR's released training code really uses (quirk included).

    With ``w`` warm-up epochs of ``T`` (15 of 180) and ``f(k) = peak k / (w - 1)`` for ``k < w``,
    else ``peak/2 (1 + cos(pi (k - w) / (T - w)))``: epoch 0 has rate 0 and epoch ``e >= 1`` has
    ``f(e - 1)``, so two epochs run at rate 0 and the 150 published epochs end at 9 % of the peak.

    >>> float(adair_official(2e-4, 10)(15)), float(adair_official(2e-4, 10)(150)) == 2e-4
    (0.0, False)
    """
    k = np.maximum(np.arange(max_epochs) - 1, 0).astype(np.float64)
    rising = peak * k / (warmup_epochs - 1)
    angle = np.pi * (k - warmup_epochs) / (max_epochs - warmup_epochs)
    table = np.where(k < warmup_epochs, rising, 0.5 * peak * (1.0 + np.cos(angle)))

    def rate(step: ArrayLike) -> jax.Array:
        epoch = jnp.minimum(jnp.asarray(step) // steps_per_epoch, max_epochs - 1)
        return jnp.asarray(table)[epoch]

    return rate


def fixed(peak: float, total_steps: int, *, warmup_steps: int | None = None) -> Schedule:
    """AdaIR's intended shape without the quirks: warm-up from update 0, down to 0 at the real end.

    Args:
      peak: rate at the end of the warm-up.
      total_steps: updates of the whole run.
      warmup_steps: None stands for the published share, 15 of 180.

    >>> float(fixed(1.0, 120)(9)), float(fixed(1.0, 120)(119))
    (1.0, 0.0)
    """
    if warmup_steps is None:
        warmup_steps = round(total_steps * _WARMUP / _MAX)
    return warmup_cosine(peak, total_steps, warmup_steps=warmup_steps)


def make_official(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """`adair_official`; without ``steps_per_epoch`` the run has the published 150 epochs."""
    return adair_official(peak, config.steps_per_epoch or max(1, total_steps // _RUN))


def make_fixed(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """`fixed`."""
    return fixed(peak, total_steps, warmup_steps=config.warmup_steps)
