"""Learning-rate schedules: pure functions of the update number, usable inside and outside ``jit``.

Updates are counted from 0. Every schedule returns the rate used *during* update ``step``, in the
default float type (float32, or float64 under ``jax.enable_x64``).
"""

import dataclasses
import importlib
import math
from collections.abc import Callable
from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcore.bounds import AtLeast, Below, Count, Index, OneOf
from jaxcore.errors import UserError
from jaxcore.serial import Serial

Schedule: TypeAlias = Callable[[ArrayLike], jax.Array]


# Open to more: schedules that belong to one paper stand beside its recipe.
SCHEDULES: "dict[str, Maker]" = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Serial):
    """Shape of the learning rate over a run; the peak is ``OptimConfig.learning_rate``.

    >>> ScheduleConfig(name="cosine", floor=1e-6).to_dict()["floor"]
    1e-06
    """

    # constant, cosine, warmup_cosine, AdaIR's adair_official and fixed, SUNet's sunet_official,
    # causalimages, cnn2023 and image_simulation for propensities, or another of `SCHEDULES`
    name: Annotated[str, OneOf(SCHEDULES)] = "constant"
    floor: Annotated[float, AtLeast(0)] = 0.0  # rate of the last update (cosines, sunet_official)
    warmup_steps: Index | None = None  # None: warmup_share for warmup_cosine, 1/12 for fixed
    # warmup_cosine where warmup_steps is None: share of the run
    warmup_share: Annotated[float, AtLeast(0), Below(1)] = 0.0
    # adair_official and sunet_official; None: 1/150 and 1/400 of the run, as published
    steps_per_epoch: Count | None = None

    @property
    def has_floor(self) -> bool:
        """Whether ``floor`` counts."""
        return self.name in ("cosine", "warmup_cosine", "sunet_official")


def constant(value: float) -> Schedule:
    """The same rate at every update.

    >>> float(constant(0.5)(7))
    0.5
    """

    def rate(step: ArrayLike) -> jax.Array:
        return jnp.full(jnp.shape(step), value)

    return rate


def cosine(peak: float, total_steps: int, *, floor: float = 0.0) -> Schedule:
    """Half a cosine per update, from just under ``peak`` to exactly ``floor`` at the last update.

    With ``t = step + 1`` in 1..T: ``floor + (peak - floor) (1 + cos(pi t / T)) / 2``, the form of
    DEA-Net's training code. Written with ``sin^2`` of the remaining part, which keeps its relative
    precision in float32 when the rate is almost 0.

    >>> [round(float(cosine(1.0, 4)(step)), 6) for step in range(4)]
    [0.853553, 0.5, 0.146447, 0.0]
    """

    def rate(step: ArrayLike) -> jax.Array:
        t = jnp.asarray(step).astype(float) + 1.0
        left = jnp.clip((total_steps - t) / total_steps, 0.0, 1.0)
        return floor + (peak - floor) * jnp.sin(left * (math.pi / 2)) ** 2

    return rate


def warmup_cosine(
    peak: float, total_steps: int, *, warmup_steps: int = 0, floor: float = 0.0
) -> Schedule:
    """Linear warm-up that starts with update 0, then `cosine` over the rest of the run.

    Update ``s < warmup_steps`` uses ``peak (s + 1) / warmup_steps``: no update is wasted at rate 0.

    >>> schedule = warmup_cosine(1.0, 6, warmup_steps=2)
    >>> [round(float(schedule(s)), 3) for s in range(6)]
    [0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if warmup_steps == 0:
        return cosine(peak, total_steps, floor=floor)
    decay = cosine(peak, max(1, total_steps - warmup_steps), floor=floor)

    def rate(step: ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        rising = peak * ((step.astype(float) + 1.0) / warmup_steps)
        return jnp.where(step < warmup_steps, rising, decay(step - warmup_steps))

    return rate


def _warmup(config: ScheduleConfig, total_steps: int) -> int:
    if config.warmup_steps is None:
        return int(config.warmup_share * total_steps)
    return config.warmup_steps


def _lazily(module: str, name: str) -> "Maker":
    def make(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
        return getattr(importlib.import_module(module), name)(config, peak, total_steps)

    return make


Maker: TypeAlias = Callable[[ScheduleConfig, float, int], Schedule]
"""From the shape, the highest rate and the updates of the whole run to the schedule."""

SCHEDULES |= {
    "constant": lambda config, peak, total_steps: constant(peak),
    "cosine": lambda config, peak, total_steps: cosine(peak, total_steps, floor=config.floor),
    "warmup_cosine": lambda config, peak, total_steps: warmup_cosine(
        peak, total_steps, warmup_steps=_warmup(config, total_steps), floor=config.floor
    ),
    "adair_official": _lazily("jaxcore.train.recipes.adair_schedule", "make_official"),
    "fixed": _lazily("jaxcore.train.recipes.adair_schedule", "make_fixed"),
    "sunet_official": _lazily("jaxcore.train.recipes.sunet_schedule", "make_official"),
    "causalimages": _lazily("jaxcore.train.recipes.propensity_schedule", "make_causalimages"),
    "cnn2023": _lazily("jaxcore.train.recipes.propensity_schedule", "make_cnn2023"),
    "image_simulation": _lazily("jaxcore.train.recipes.propensity_schedule", "make_simulation"),
}


def check_length(config: ScheduleConfig, total_steps: int) -> None:
    """Refuse a warm-up that is longer than the run, which would never reach its peak.

    Args:
      config: shape of the schedule.
      total_steps: updates of the whole run.

    Raises:
      UserError: names both.

    >>> check_length(ScheduleConfig(name="warmup_cosine", warmup_steps=20), 10)
    Traceback (most recent call last):
    jaxcore.errors.UserError: --train.optim.schedule.warmup-steps must be at most the 10 updates \
of the run, found 20.
    """
    if config.name in ("warmup_cosine", "fixed") and (config.warmup_steps or 0) > total_steps:
        raise UserError(
            f"--train.optim.schedule.warmup-steps must be at most the {total_steps} updates of the "
            f"run, found {config.warmup_steps}."
        )


def make_schedule(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """Build the schedule that a config names.

    Args:
      config: shape of the schedule.
      peak: highest rate.
      total_steps: updates of the whole run, at least 1.

    >>> schedule = make_schedule(ScheduleConfig(name="cosine"), 2.0, 10)
    >>> round(float(schedule(4)), 6)
    1.0
    """
    return SCHEDULES[config.name](config, peak, total_steps)
