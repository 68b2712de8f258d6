"""Forward process, posterior, and the algebra between residual, noise and clean image.

All functions are pure and act on NHWC batches with values in [-1, 1]. The residual is ``R = I_in -
I_0``; for generation the degraded image is nothing, ``I_in = 0``. The schedules at a time
come as a `Level`, so that the same functions serve training (one time per image) and sampling
(one time for all).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.models.rddm.process.schedule import RDDMSchedule

_TINY = 1e-12


class Level(NamedTuple):
    """Both schedules at a time: scalars, or arrays that broadcast with the images."""

    alpha: Array  # running sum of alpha: share of the residual
    beta: Array  # standard deviation of the noise
    rest: Array  # 1 - alpha, as the divisor of "clean image from noise"


def level_at(schedule: RDDMSchedule, t: Int[Array, " b"]) -> Level:
    """The level of each image of a batch, shaped (b, 1, 1, 1)."""

    def pick(values: Array) -> Array:
        return jnp.asarray(values)[t][:, None, None, None]

    return Level(
        pick(schedule.alphas_cumsum),
        pick(schedule.betas_cumsum),
        pick(schedule.one_minus_alphas_cumsum),
    )


def to_signed(image: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """[0, 1] to [-1, 1]."""
    return image * 2 - 1


def to_unit(image: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """[-1, 1] to [0, 1]; values outside are not cut."""
    return (image + 1) * 0.5


def q_sample(
    clean: Float[Array, "b h w c"],
    residual: Float[Array, "b h w c"],
    noise: Float[Array, "b h w c"],
    level: Level,
) -> Float[Array, "b h w c"]:
    """Image at a time: ``I_0 + alpha R + beta e``."""
    return clean + level.alpha * residual + level.beta * noise


def noise_from_residual(
    x: Float[Array, "b h w c"],
    degraded: Float[Array, "b h w c"],
    residual: Float[Array, "b h w c"],
    level: Level,
) -> Float[Array, "b h w c"]:
    """``(I_t - I_in + (1 - alpha) R) / beta``, and 0 where there is no noise.

    The released code divides by zero there (time 0 of its second schedule).
    """
    numerator = x - degraded - (level.alpha - 1) * residual
    present = level.beta > 0
    return jnp.where(present, numerator / jnp.where(present, level.beta, 1), 0)


def clean_from_noise(
    x: Float[Array, "b h w c"],
    degraded: Float[Array, "b h w c"],
    noise: Float[Array, "b h w c"],
    level: Level,
) -> Float[Array, "b h w c"]:
    """``(I_t - alpha I_in - beta e) / (1 - alpha)``."""
    numerator = x - level.alpha * degraded - level.beta * noise
    return numerator / jnp.maximum(level.rest, _TINY)


def clean_from_both(
    x: Float[Array, "b h w c"],
    residual: Float[Array, "b h w c"],
    noise: Float[Array, "b h w c"],
    level: Level,
) -> Float[Array, "b h w c"]:
    """``I_t - alpha R - beta e``."""
    return x - level.alpha * residual - level.beta * noise


class Posterior(NamedTuple):
    """A normal law per pixel."""

    mean: Array
    variance: Array
    log_variance: Array  # of the variance, but at least 1e-20


def q_posterior(
    x: Float[Array, "b h w c"],
    residual: Float[Array, "b h w c"],
    clean: Float[Array, "b h w c"],
    level: Level,
    before: Level,
) -> Posterior:
    """Law of the image at an earlier time, given that at a later one, the residual and the clean.

    The product of the law of the earlier image given clean image and residual, and the law of the
    step between the two times. With one time between them it is the released code's
    ``q_posterior``.

    Args:
      x: images at the later time.
      residual: ``I_in - I_0``.
      clean: ``I_0``.
      level: of the later time.
      before: of the earlier time; ``Level(0, 0, 1)`` is the clean image.
    """
    total, share = jnp.square(level.beta), jnp.square(before.beta)
    present = total > 0
    divisor = jnp.where(present, total, 1)
    step_a, step_b2 = level.alpha - before.alpha, total - share
    first = jnp.where(present, share / divisor, 0)
    second = jnp.where(present, (step_b2 * before.alpha - share * step_a) / divisor, before.alpha)
    third = jnp.where(present, step_b2 / divisor, 1)
    variance = jnp.where(present, step_b2 * share / divisor, 0)
    mean = first * x + second * residual + third * clean
    return Posterior(mean, variance, jnp.log(jnp.maximum(variance, 1e-20)))


def network_input(
    x: Float[Array, "b h w c"],
    *,
    degraded: Float[Array, "b h w c"] | None = None,
    condition: Float[Array, "b h w m"] | None = None,
    self_condition: Float[Array, "b h w c"] | None = None,
) -> Float[Array, "b h w i"]:
    """Channels as the networks expect them: self conditioning, I_t, I_in, further conditions.

    The released code fills absent self conditioning with zeros of the wrong number of channels;
    here the caller gives zeros of the image's.
    """
    given = {"I_t": x, "self conditioning": self_condition, "I_in": degraded}
    for name, part in (given | {"conditions": condition}).items():
        if part is None:
            continue
        if part.ndim != 4 or part.shape[:-1] != x.shape[:-1]:
            raise UserError(
                f"Expected {name} of shape ({', '.join(map(str, x.shape[:-1]))}, channels), as "
                f"I_t has, found {tuple(part.shape)}."
            )
        if not jnp.issubdtype(part.dtype, jnp.floating):
            raise UserError(f"Expected {name} as floating-point numbers, found {part.dtype}.")
    parts = (self_condition, x, degraded, condition)
    return jnp.concatenate([p for p in parts if p is not None], axis=-1)


def network_times(
    t: Int[Array, " b"], schedule: RDDMSchedule, conditioning: str, count: int
) -> tuple[Float[Array, " b"], ...]:
    """The times that each of ``count`` networks takes.

    With "index" all take the index. With "cumulative" the first takes ``alphas_cumsum[t] T`` and
    the second ``betas_cumsum[t] T``, which makes the networks independent of the schedule; a
    single network takes the first only, as in the released code.
    """
    if conditioning == "index":
        return (t.astype(jnp.float32),) * count
    sums = (schedule.alphas_cumsum, schedule.betas_cumsum)
    return tuple(jnp.asarray(s)[t] * len(schedule) for s in sums[:count])


def noise_like(key: Array, x: Array) -> Array:
    """Standard normal noise of the shape and type of ``x``."""
    return jax.random.normal(key, x.shape, x.dtype)
