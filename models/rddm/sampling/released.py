"""The samplers of Liu et al., "Residual Denoising Diffusion Models", CVPR 2024, as released.

A step leads from time t to an earlier time s. ``a`` and ``b`` are the running sums
``alphas_cumsum`` and ``betas_cumsum``; R, e and I_0 what the networks predict of residual, noise
and clean image; z is fresh noise. ``eta`` in [0, 1] multiplies its *variance* (in DDIM's papers the
standard deviation), ``sigma^2 = eta (b_t^2 - b_s^2) b_s^2 / b_t^2``. The last step of every sampler
gives the predicted clean image.

All functions take the schedule and the number of steps, the calls of the networks (in each pass,
where there are two). ``clip`` cuts the predictions, see `RDDMObjective`.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

from jaxcore.errors import UserError
from jaxcore.models.rddm.process.schedule import RDDMSchedule, posterior_coefficients
from jaxcore.models.rddm.sampling.table import (
    SamplingTable,
    Spacing,
    Steps,
    Weight,
    chained,
    divided,
    make_table,
    steps_of,
)

Part = Literal["residual", "noise"]


def sampling_table(
    schedule: RDDMSchedule, steps: int, *, eta: float | None = None, clip: bool = True
) -> SamplingTable:
    """The sampler that the released code takes: `ancestral` with as many steps as times.

    With fewer steps, or if ``eta`` is given, it is `generalised`.

    >>> table = sampling_table(RDDMSchedule.polynomial(), 5)
    >>> table.rows.index.tolist()
    [999.0, 799.0, 599.0, 399.0, 199.0]
    """
    if steps == len(schedule) and eta is None:
        return ancestral(schedule, steps, clip=clip)
    return generalised(schedule, steps, eta=eta or 0.0, clip=clip)


def generalised(
    schedule: RDDMSchedule,
    steps: int,
    *,
    eta: float = 0.0,
    spacing: Spacing = "linear",
    clip: bool = True,
) -> SamplingTable:
    """The generalised reverse process in the form of the residual and the noise.

    ``I_s = I_t - (a_t - a_s) R - (b_t - sqrt(b_s^2 - sigma^2)) e + sigma z``,
    "use_pred_noise" in the released code and its default; deterministic for ``eta`` 0.

    Raises:
      UserError: more steps than times, or a value out of range.

    >>> rows = generalised(RDDMSchedule.polynomial(), 2).rows
    >>> rows.residual.tolist(), rows.clean.tolist()
    ([-0.2502497434616089, 0.0], [0.0, 1.0])
    """
    at = steps_of(schedule, steps, spacing)
    return make_table(schedule, at, moves(at, at.variance(eta)), clip=clip)


def moves(at: Steps, variance: Float[np.ndarray, " s"]) -> dict[str, Weight]:
    """Weights of `generalised`, for fresh noise of any variance."""
    return {
        "x": 1.0,
        "residual": at.a_s - at.a_t,
        "noise": at.kept(variance) - at.b_t,
        "sigma": np.sqrt(variance),
    }


def generalised_clean(
    schedule: RDDMSchedule,
    steps: int,
    *,
    eta: float = 0.0,
    spacing: Spacing = "linear",
    clip: bool = True,
) -> SamplingTable:
    """The generalised reverse process in the form of the residual and the clean image.

    ``I_s = k I_t + (1 - k) I_0 + (a_s - k a_t) R + sigma z`` with
    ``k = sqrt(b_s^2 - sigma^2) / b_t``, "use_x_start" in the released code. The same step as
    `generalised` wherever the predicted clean image was not cut.

    Raises:
      UserError: more steps than times, or a value out of range.
    """
    at = steps_of(schedule, steps, spacing)
    variance = at.variance(eta)
    k = divided(at.kept(variance), at.b_t)
    weights = {"x": k, "clean": 1 - k, "residual": at.a_s - at.a_t * k, "sigma": np.sqrt(variance)}
    return make_table(schedule, at, weights, clip=clip)


def ancestral(schedule: RDDMSchedule, steps: int, *, clip: bool = True) -> SamplingTable:
    """Draws from the posterior of neighbouring times, s = t - 1.

    ``I_s = c_1 I_t + c_2 R + c_3 I_0 + sigma z`` with ``c_1 = b_s^2 / b_t^2``,
    ``c_2 = (beta_t^2 a_s - b_s^2 alpha_t) / b_t^2``, ``c_3 = beta_t^2 / b_t^2`` and
    ``sigma^2 = beta_t^2 b_s^2 / b_t^2``: mean and variance of q(I_s | I_t, I_0, R).

    Args:
      schedule: both schedules.
      steps: as many as the schedule has times.
      clip: cut the predictions.

    Raises:
      UserError: another number of steps.
    """
    if steps != len(schedule):
        raise UserError(f"Expected {len(schedule)} ancestral steps, found {steps}.")
    at = steps_of(schedule, steps)
    sums = np.asarray(schedule.alphas_cumsum), np.square(schedule.betas_cumsum)
    arrays = [np.asarray(v, np.float64) for v in (schedule.alphas, schedule.betas2, *sums)]
    (first, second, third), variance = posterior_coefficients(*arrays)
    weights = {"x": first, "residual": second, "clean": third, "sigma": np.sqrt(variance)}
    return make_table(
        schedule, at, {name: values[at.t] for name, values in weights.items()}, clip=clip
    )


def residual_then_noise(
    schedule: RDDMSchedule, steps: int, *, eta: float = 0.0, clip: bool = True
) -> SamplingTable:
    """Two passes over the same times, as released with experiment 0.

    The first has ``I_s = I_t - (a_t - a_s) R + sigma z``, the second
    ``I_s = I_t - (b_t - sqrt(b_s^2 - sigma^2)) e + sigma z``. Both end with the predicted clean
    image, and the second starts from that as if it were at the last time.

    Raises:
      UserError: more steps than times, or a value out of range.

    >>> len(residual_then_noise(RDDMSchedule.polynomial(), 5))
    10
    """
    return _two_passes(schedule, steps, eta, clip, "residual", "noise")


def noise_then_residual(
    schedule: RDDMSchedule, steps: int, *, eta: float = 0.0, clip: bool = True
) -> SamplingTable:
    """`residual_then_noise` with the passes in the other order.

    Raises:
      UserError: more steps than times, or a value out of range.
    """
    return _two_passes(schedule, steps, eta, clip, "noise", "residual")


def _two_passes(
    schedule: RDDMSchedule, steps: int, eta: float, clip: bool, first: Part, second: Part
) -> SamplingTable:
    at = steps_of(schedule, steps)
    weights = moves(at, at.variance(eta))
    # Each pass leaves the part of the other alone.
    passes = [
        make_table(schedule, at, weights | {other: 0.0}, clip=clip) for other in (second, first)
    ]
    return chained(*passes)


def along_path(
    schedule: RDDMSchedule,
    steps: int,
    *,
    first: Part = "residual",
    eta: float = 0.0,
    clip: bool = True,
) -> SamplingTable:
    """Ours: two passes that stay on a path of the forward process.

    The first pass removes one part altogether, ``I_s = I_t - (a_t - a_s) R`` or
    ``I_s = I_t - (b_t - sqrt(b_s^2 - sigma^2)) e + sigma z``, while the other is untouched; the
    second removes the other. The networks take the levels of that path, which makes sense for
    "cumulative" conditioning.

    Args:
      schedule: both schedules.
      steps: calls of the networks in each pass.
      first: the part that is removed first.
      eta: fresh noise in the pass of the noise.
      clip: cut the predictions.

    Raises:
      UserError: more steps than times, or a value out of range.
    """
    at = steps_of(schedule, steps)
    weights = moves(at, at.variance(eta))
    residual, noise = weights | {"noise": 0.0, "sigma": 0.0}, weights | {"residual": 0.0}
    if first == "residual":
        start = make_table(
            schedule, at, residual, clip=clip, end="step", alpha=at.a_t, beta=at.b_t[0]
        )
        return chained(start, make_table(schedule, at, noise, clip=clip, alpha=0.0))
    start = make_table(schedule, at, noise, clip=clip, end="step", alpha=at.a_t[0])
    return chained(start, make_table(schedule, at, residual, clip=clip, alpha=at.a_t, beta=0.0))
