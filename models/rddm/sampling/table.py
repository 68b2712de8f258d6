"""Sampling tables: every sampler of this library as rows of weights.

Between two times an image becomes a weighted sum of itself, of the degraded image, of what the
networks predict (residual, noise, clean image), of the clean image predicted a step before, and
of fresh noise. All samplers differ only in these weights, which are computed once, on the host, in
float64. A table is an argument of the compiled sampler, so that another schedule, another amount
of noise, another order or another solver of the same number of rows compiles nothing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxcore.errors import UserError
from jaxcore.models.rddm.process.coefficients import (
    check_choice,
    check_sampling_steps,
    leading_times,
    sampling_times,
)
from jaxcore.models.rddm.process.schedule import RDDMSchedule

Spacing = Literal["linear", "leading", "log_snr"]
Weight = Float[np.ndarray, " s"] | float

_LEAST_LOG_SNR = -5.0


class Rows(NamedTuple):
    """One row per call of the networks; vectors, in the order of the calls."""

    index: Any  # time index of the call
    alpha: Any  # level of the call: see process.forward.Level
    beta: Any
    rest: Any
    x: Any  # weight of the image in the next image; and so on
    degraded: Any
    residual: Any
    noise: Any
    clean: Any
    previous: Any  # of the clean image predicted by the call before
    sigma: Any  # of fresh noise
    draw: Any  # which of the injected noises is this row's; -1 where it takes none


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class SamplingTable:
    """All steps of a sampler; made by one of the functions that are named for samplers."""

    rows: Rows
    start_scale: Any  # standard deviation of the noise on the degraded image at the start
    total: Any  # length of the schedule
    clip: bool = dataclasses.field(default=True, metadata={"static": True})

    def __len__(self) -> int:
        return self.rows.index.shape[0]


class Steps(NamedTuple):
    """Where the steps lead, each from a time t to an earlier time s; float64."""

    times: Int[np.ndarray, " s+1"]  # -1 is the clean image
    a_t: Float[np.ndarray, " s"]  # alphas_cumsum
    a_s: Float[np.ndarray, " s"]
    b_t: Float[np.ndarray, " s"]  # betas_cumsum
    b_s: Float[np.ndarray, " s"]

    @property
    def t(self) -> Int[np.ndarray, " s"]:
        """Time index at the beginning of each step."""
        return self.times[:-1]

    def variance(self, eta: float) -> Float[np.ndarray, " s"]:
        """Of fresh noise: ``eta`` times that of the posterior, ``(b_t^2 - b_s^2) b_s^2 / b_t^2``.

        Raises:
          UserError: ``eta`` is not in [0, 1].
        """
        check_eta(eta)
        return eta * np.maximum(self.b_t**2 - self.b_s**2, 0) * self.share

    @property
    def share(self) -> Float[np.ndarray, " s"]:
        """``b_s^2 / b_t^2``, and 0 where there is no noise."""
        return divided(self.b_s**2, self.b_t**2)

    def kept(self, variance: Float[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
        """Standard deviation of the noise at s that is not fresh: ``sqrt(b_s^2 - variance)``."""
        return np.sqrt(np.maximum(self.b_s**2 - variance, 0))


def steps_of(schedule: RDDMSchedule, steps: int, spacing: Spacing = "linear") -> Steps:
    """The steps of a sampler; the last ends at the clean image.

    Args:
      schedule: both schedules.
      steps: how many.
      spacing: "linear" is the released code's; "leading" DDIM's; "log_snr" is equidistant in
        log((1 - alpha) / beta), for solvers of higher order.

    Raises:
      UserError: more steps than times, or an unknown spacing.
    """
    check_choice("spacing", spacing, Spacing)
    check_sampling_steps(len(schedule), steps)
    if spacing == "log_snr":
        times = log_snr_times(schedule, steps)
    else:
        times = (sampling_times if spacing == "linear" else leading_times)(len(schedule), steps)
    (a_t, a_s), (b_t, b_s) = (
        along(sums, times, 0.0) for sums in (schedule.alphas_cumsum, schedule.betas_cumsum)
    )
    return Steps(times, a_t, a_s, b_t, b_s)


def along(
    values: Any, times: Int[np.ndarray, " s+1"], end: float
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """Values at the beginning and at the end of every step; ``end`` at time -1."""
    padded = np.append(np.asarray(values, np.float64), end)
    return padded[times[:-1]], padded[times[1:]]


def divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a / b``, and 0 where ``b`` is 0."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def make_table(
    schedule: RDDMSchedule,
    at: Steps,
    weights: Mapping[str, Weight],
    *,
    clip: bool = True,
    end: Literal["clean", "step"] = "clean",
    alpha: Weight | None = None,
    beta: Weight | None = None,
) -> SamplingTable:
    """A table from weights; those not named are 0.

    Args:
      schedule: both schedules.
      at: the steps.
      weights: of each part of the next image, see `Rows`.
      clip: cut what is predicted.
      end: the last step gives the predicted clean image, or is a step like the others.
      alpha: running sums that the networks take as their level instead of those of the times.
      beta: likewise.
    """
    count = len(at.t)
    columns: dict[str, Weight] = {}
    for name in ("x", "degraded", "residual", "noise", "clean", "previous", "sigma"):
        column = np.array(np.broadcast_to(weights.get(name, 0.0), count), np.float64)
        if end == "clean":
            column[-1] = float(name == "clean")
        columns[name] = column
    rest = np.asarray(schedule.one_minus_alphas_cumsum)[at.t]
    if alpha is not None:
        rest = np.maximum(1 - alpha, 1e-6)
    columns |= {"index": at.t, "rest": rest}
    columns["alpha"] = at.a_t if alpha is None else alpha
    columns["beta"] = at.b_t if beta is None else beta
    rows = Rows(
        **{
            name: np.array(np.broadcast_to(values, count), np.float32)
            for name, values in columns.items()
        },
        draw=np.append(np.arange(count - 1), -1).astype(np.int32),  # the last takes no noise
    )
    return SamplingTable(rows, np.float32(schedule.start_scale), np.float32(len(schedule)), clip)


def chained(first: SamplingTable, second: SamplingTable) -> SamplingTable:
    """One sampler after the other, over the same schedule."""
    later = second.rows.draw
    later = np.where(later < 0, later, later + draws(first)).astype(np.int32)
    pairs = zip(first.rows, second.rows._replace(draw=later), strict=True)
    return dataclasses.replace(first, rows=Rows(*(np.concatenate(pair) for pair in pairs)))


def padded(table: SamplingTable, length: int) -> SamplingTable:
    """The same sampler with rows after it that leave the image alone.

    Tables of equal length share one compiled sampler. The networks are called in vain in the
    added rows.

    Raises:
      UserError: the table is longer.

    >>> from jaxcore.models.rddm import sampling_table
    >>> len(padded(sampling_table(RDDMSchedule.polynomial(), 2), 5))
    5
    """
    more = length - len(table)
    if more < 0:
        raise UserError(f"Expected a length of at least {len(table)}, found {length}.")
    level = ("index", "alpha", "beta", "rest")

    def extend(name: str, values: np.ndarray) -> np.ndarray:
        if name in level:
            return np.append(values, np.repeat(values[-1:], more))
        blank = {"x": 1, "draw": -1}.get(name, 0)
        return np.append(values, np.full(more, blank, values.dtype))

    rows = {name: extend(name, values) for name, values in table.rows._asdict().items()}
    return dataclasses.replace(table, rows=Rows(**rows))


def draws(table: SamplingTable) -> int:
    """How many fresh noises the table can take after that of the start."""
    return int(np.max(table.rows.draw)) + 1


def check_eta(eta: float) -> None:
    """Refuse an amount of fresh noise outside of [0, 1]."""
    if not 0 <= eta <= 1:
        raise UserError(f"Expected eta between 0 and 1, found {eta}.")


def log_snr_times(schedule: RDDMSchedule, steps: int) -> Int[np.ndarray, " s+1"]:
    """Times equidistant in log((1 - alpha) / beta), as far as the schedule's times allow.

    After the first they begin at -5: below, an image is noise and nothing happens.

    >>> log_snr_times(RDDMSchedule.polynomial(100), 4).tolist()
    [99, 68, 19, 0, -1]
    """
    alphas = np.asarray(schedule.alphas_cumsum, np.float64)
    betas = np.asarray(schedule.betas_cumsum, np.float64)
    with np.errstate(divide="ignore"):
        snr = np.log(np.maximum(1 - alphas, 0)) - np.log(betas)
    finite = np.flatnonzero(np.isfinite(snr))
    low, high = finite[0], finite[-1]
    wanted = np.linspace(max(snr[high], _LEAST_LOG_SNR), snr[low], steps)
    times = np.interp(-wanted, -snr[low : high + 1], np.arange(low, high + 1)).round().astype(int)
    times[0] = len(schedule) - 1
    for i in range(1, steps):
        times[i] = min(times[i], times[i - 1] - 1)
    times = np.maximum(times, np.arange(steps)[::-1])
    return np.append(times, -1).astype(np.int32)
