"""Sampling tables: every sampler of this library as rows of weights.

Between two times an image becomes a weighted sum of itself, of the degraded image, of what the
networks predict (residual, noise, clean image), of the clean image predicted a step before, and
of fresh noise. All samplers differ only in these weights, which are computed here once, on the
host, in float64. A table is an argument of the compiled sampler, so that another schedule, another
amount of noise, another order or another solver of the same number of rows compiles nothing.

Published: the deterministic and stochastic steps, in both forms; the ancestral loop; removing the
residual before the noise. Ours: the order the other way round as a named option, ``ddim_exact``,
the second-order solver and times equidistant in the logarithm of the signal-to-noise ratio.
"""

import dataclasses
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from jaxtyping import Int

from jaxcore.errors import UserError
from jaxcore.models.rddm.process.coefficients import (
    check_sampling_steps,
    leading_times,
    sampling_times,
)
from jaxcore.models.rddm.process.schedule import RDDMSchedule, posterior_coefficients

Method = Literal["euler", "ancestral", "dpm2"]
Order = Literal["simultaneous", "residual_then_noise", "noise_then_residual"]
ClipMode = Literal["official", "ddim_exact", "none"]
Form = Literal["noise", "clean"]
Spacing = Literal["linear", "leading", "log_snr"]
Variance = Literal["rddm", "ddim"]
Final = Literal["clean", "step"]
Passes = Literal["official", "path"]


_LEAST_LOG_SNR = -5.0


class Rows(NamedTuple):
    """One row per call of the networks; vectors, in the order of the calls."""

    index: Any  # time index of the call
    alpha: Any  # level of the call: see forward.Level
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
    """All steps of a sampler; made by `sampling_table`."""

    rows: Rows
    start_scale: Any  # standard deviation of the noise on the degraded image at the start
    total: Any  # length of the schedule
    clip: bool = dataclasses.field(default=True, metadata={"static": True})

    def __len__(self) -> int:
        return self.rows.index.shape[0]


class _Pairs(NamedTuple):
    """Levels of all steps, from (t) to (s)."""

    t: np.ndarray
    a_t: np.ndarray
    b_t: np.ndarray
    a_s: np.ndarray
    b_s: np.ndarray
    sigma: np.ndarray
    keep: np.ndarray  # noise of the image at s that is not fresh

    @property
    def ratio(self) -> np.ndarray:
        """Share of the noise that is kept; 0 where there is none."""
        return np.divide(self.keep, self.b_t, out=np.zeros_like(self.keep), where=self.b_t > 0)


def sampling_table(
    schedule: RDDMSchedule,
    steps: int,
    *,
    method: Method | None = None,
    eta: float | None = None,
    order: Order = "simultaneous",
    form: Form = "noise",
    clip_mode: ClipMode = "official",
    spacing: Spacing = "linear",
    variance: Variance = "rddm",
    final: Final = "clean",
    passes: Passes = "official",
) -> SamplingTable:
    """Weights of all steps.

    Args:
      schedule: both schedules.
      steps: calls of the networks (of each pass, where residual and noise go one after the other).
      method: "euler" takes the published steps; "ancestral" draws from the posterior of
        neighbouring times, which needs as many steps as the schedule has times; "dpm2" is
        DPM-Solver++(2M) on what is left after the degraded image's share, of second order and
        without fresh noise. None is the published rule: ancestral where the steps are as many as
        the times (unless an option it does not have is given), else Euler.
      eta: fresh noise, 0 to 1; None is 0. RDDM's multiplies the variance. Not for "ancestral",
        which has all of it, nor for "dpm2".
      order: remove residual and noise together, or one after the other in two passes.
      form: "noise" moves by residual and noise, the default of the released code; "clean" by
        residual and clean image. They differ where the clean image was cut.
      clip_mode: "official" cuts what is predicted but starts each step from the image as it is;
        "ddim_exact" starts from an image made of the cut predictions, as DDIM does; "none".
      spacing: "linear" is the released code's; "leading" DDIM's; "log_snr" is equidistant in
        log((1 - alpha) / beta), for "dpm2".
      variance: what ``eta`` multiplies: "rddm" the posterior's variance; "ddim" the standard
        deviation of DDIM's (a schedule from DDPM).
      final: the last step gives the predicted clean image ("clean"), or is a step like the others
        ("step", as in the released conversion of DDIM).
      passes: what two passes do. "official": each runs over the same times, ends with the
        predicted clean image, and the second starts from that as if it were at the last time.
        "path" is ours: the first ends where its part is gone and the other is untouched, and the
        networks are told the levels they are at, which makes sense for "cumulative" conditioning.

    Raises:
      UserError: a value out of range, an unknown name, or options that exclude each other.

    >>> table = sampling_table(RDDMSchedule.polynomial(), 5)
    >>> table.rows.index.tolist()
    [999.0, 799.0, 599.0, 399.0, 199.0]
    """
    total = len(schedule)
    _check_names(
        method=(method, Method), order=(order, Order), form=(form, Form),
        clip_mode=(clip_mode, ClipMode), spacing=(spacing, Spacing),
        variance=(variance, Variance), final=(final, Final), passes=(passes, Passes),
    )  # fmt: skip
    check_sampling_steps(total, steps)
    asked = {"form": form, "clip_mode": clip_mode, "spacing": spacing, "variance": variance}
    method = _method(method, steps, total, order, eta, asked)
    times = _TIMES[spacing](schedule, steps)
    if len(times) != steps + 1:
        raise UserError(f"Expected at most {len(times) - 1} {spacing} steps, found {steps}.")
    pairs = _pairs(schedule, times, eta or 0.0, variance)
    weights = _weights(schedule, pairs, method, form, clip_mode)
    legs = [_Leg(_ended(weights, final), pairs.a_t, pairs.b_t, _rest(schedule, pairs))]
    if order != "simultaneous":
        if form != "noise" or clip_mode == "ddim_exact" or final != "clean":
            raise UserError(
                "Expected form='noise', final='clean' and no exact clipping where residual and "
                "noise are removed one after the other, found others."
            )
        legs = _two_legs(schedule, pairs, weights, order, passes)
    return _table(schedule, pairs, legs, clip=clip_mode != "none")


# What steps of their own leave no room for: the options a method takes, where not all of them.
_TAKES: dict[Method, dict[str, tuple[str, ...]]] = {
    "euler": {},
    "ancestral": {
        "form": ("noise",),
        "clip_mode": ("official", "none"),
        "spacing": ("linear",),
        "variance": ("rddm",),
    },
    "dpm2": {"form": ("noise",), "clip_mode": ("official", "none"), "variance": ("rddm",)},
}


def _method(
    method: Method | None,
    steps: int,
    total: int,
    order: Order,
    eta: float | None,
    asked: dict[str, str],
) -> Method:
    def refused(method: Method) -> list[str]:
        return [name for name, taken in _TAKES[method].items() if asked[name] not in taken]

    if method is None:
        plain = order == "simultaneous" and eta is None and not refused("ancestral")
        method = "ancestral" if steps == total and plain else "euler"
    if method != "euler":
        if order != "simultaneous":
            raise UserError(
                f"Expected order='simultaneous' for method {method!r}, found {order!r}."
            )
        if eta is not None and eta != (1 if method == "ancestral" else 0):
            raise UserError(f"Expected no eta for method {method!r}, found {eta}.")
    if method == "ancestral" and steps != total:
        raise UserError(f"Expected {total} steps for method 'ancestral', found {steps}.")
    for name in refused(method):
        raise UserError(
            f"Expected {name} {' or '.join(map(repr, _TAKES[method][name]))} for method "
            f"{method!r}, found {asked[name]!r}."
        )
    if eta is not None and not 0 <= eta <= 1:
        raise UserError(f"Expected eta between 0 and 1, found {eta}.")
    return method


def _pairs(schedule: RDDMSchedule, times: np.ndarray, eta: float, variance: Variance) -> _Pairs:
    def levels(sums: Any, clean: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        padded = np.append(np.asarray(sums, np.float64), clean)  # time -1 is the clean image
        return padded[times[:-1]], padded[times[1:]]

    (a_t, a_s), (b_t, b_s) = levels(schedule.alphas_cumsum), levels(schedule.betas_cumsum)
    share = np.divide(b_s**2, b_t**2, out=np.zeros_like(b_s), where=b_t > 0)
    added = np.maximum(b_t**2 - b_s**2, 0)
    if variance == "ddim":
        # DDPM's running product is the square of 1 - alpha, in its unadjusted form.
        a, after = (np.square(rest) for rest in levels(schedule.one_minus_alphas_cumsum, 1.0))
        if (np.abs(a + b_t**2 - 1) > 1e-3).any():
            raise UserError("Expected a schedule from DDPM for variance='ddim', found another.")
        exact = np.where(after > 0.5, added, after - a)  # whichever float32 holds with more digits
        squared = eta**2 * share * exact / after
    else:
        squared = eta * added * share
    keep = np.sqrt(np.maximum(b_s**2 - squared, 0))
    return _Pairs(times[:-1], a_t, b_t, a_s, b_s, np.sqrt(squared), keep)


def _weights(
    schedule: RDDMSchedule, pairs: _Pairs, method: Method, form: Form, clip_mode: ClipMode
) -> dict[str, Any]:
    """Column -> weights; columns that are not named have weight 0."""
    if method == "dpm2":
        return _second_order(pairs)
    if method == "ancestral":
        sums = np.asarray(schedule.alphas_cumsum), np.square(schedule.betas_cumsum)
        arrays = [np.asarray(v, np.float64) for v in (schedule.alphas, schedule.betas2, *sums)]
        (first, second, third), variance = posterior_coefficients(*arrays)
        columns = {"x": first, "residual": second, "clean": third, "sigma": np.sqrt(variance)}
        return {name: values[pairs.t] for name, values in columns.items()}
    if clip_mode == "ddim_exact":
        return {"clean": 1.0, "residual": pairs.a_s, "noise": pairs.keep, "sigma": pairs.sigma}
    if form == "clean":
        k = pairs.ratio
        residual = pairs.a_s - pairs.a_t * k
        return {"x": k, "clean": 1 - k, "residual": residual, "sigma": pairs.sigma}
    return {
        "x": 1.0,
        "residual": pairs.a_s - pairs.a_t,
        "noise": pairs.keep - pairs.b_t,
        "sigma": pairs.sigma,
    }


def _second_order(pairs: _Pairs) -> dict[str, Any]:
    """DPM-Solver++(2M) on ``I_t - alpha I_in = (1 - alpha) I_0 + beta e``.

    The step is of first order where the one before or this one has no finite length in the
    logarithm of the signal-to-noise ratio: at pure noise and at the clean image.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        start = np.log(1 - pairs.a_t) - np.log(pairs.b_t)
        end = np.log(1 - pairs.a_s) - np.log(pairs.b_s)
        length = end - start
        before = np.concatenate([[np.inf], length[:-1]])
        lean = length / (2 * before)
    lean = np.where(np.isfinite(lean) & np.isfinite(length), lean, 0.0)
    ratio = pairs.ratio
    weight = (1 - pairs.a_s) - (1 - pairs.a_t) * ratio
    return {
        "x": ratio,
        "degraded": pairs.a_s - ratio * pairs.a_t,
        "clean": weight * (1 + lean),
        "previous": -weight * lean,
    }


_WEIGHTS = ("x", "degraded", "residual", "noise", "clean", "previous", "sigma")


def _ended(weights: dict[str, Any], final: Final) -> dict[str, Any]:
    """Weights whose last row gives the predicted clean image, if so wanted."""
    length = max(np.size(v) for v in weights.values())
    full = {
        name: np.array(np.broadcast_to(weights.get(name, 0.0), length), np.float64)
        for name in _WEIGHTS
    }
    if final == "clean":
        for name in _WEIGHTS:
            full[name][-1] = float(name == "clean")
    return full


class _Leg(NamedTuple):
    """One pass over the times: weights, and the levels of the calls."""

    weights: dict[str, np.ndarray]
    alpha: np.ndarray
    beta: np.ndarray
    rest: np.ndarray


def _rest(schedule: RDDMSchedule, pairs: _Pairs) -> np.ndarray:
    return np.asarray(schedule.one_minus_alphas_cumsum)[pairs.t]


def _two_legs(
    schedule: RDDMSchedule,
    pairs: _Pairs,
    weights: dict[str, Any],
    order: Order,
    passes: Passes,
) -> list[_Leg]:
    """Residual and noise removed one after the other."""
    names = ["residual", "noise"] if order == "residual_then_noise" else ["noise", "residual"]
    other = {"residual": "noise", "noise": "residual"}
    alone = [weights | {other[name]: 0.0} for name in names]
    if passes == "official":
        levels = pairs.a_t, pairs.b_t, _rest(schedule, pairs)
        return [_Leg(_ended(w, "clean"), *levels) for w in alone]
    legs, same = [], np.ones_like(pairs.a_t)
    for place, (name, own) in enumerate(zip(names, alone, strict=True)):
        if name == "residual":
            own = own | {"sigma": 0.0}
            alpha, beta = pairs.a_t, same * (pairs.b_t[0] if place == 0 else 0)
        else:
            alpha, beta = same * (pairs.a_t[0] if place == 0 else 0), pairs.b_t
        rest = np.maximum(1 - alpha, 1e-6)
        legs.append(_Leg(_ended(own, "step" if place == 0 else "clean"), alpha, beta, rest))
    return legs


def _table(schedule: RDDMSchedule, pairs: _Pairs, legs: list[_Leg], *, clip: bool) -> SamplingTable:
    repeat, steps = len(legs), len(pairs.t)
    # The last step of a pass takes no noise.
    draw = [
        i * (steps - 1) + k if k < steps - 1 else -1 for i in range(repeat) for k in range(steps)
    ]
    columns = {name: np.concatenate([leg.weights[name] for leg in legs]) for name in _WEIGHTS}
    for name in ("alpha", "beta", "rest"):
        columns[name] = np.concatenate([getattr(leg, name) for leg in legs])
    columns["index"] = np.tile(pairs.t, repeat)
    rows = Rows(
        **{name: np.asarray(values, np.float32) for name, values in columns.items()},
        draw=np.asarray(draw, np.int32),
    )
    return SamplingTable(rows, np.float32(schedule.start_scale), np.float32(len(schedule)), clip)


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


_TIMES = {
    "linear": lambda schedule, steps: sampling_times(len(schedule), steps),
    "leading": lambda schedule, steps: leading_times(len(schedule), steps),
    "log_snr": log_snr_times,
}


def padded(table: SamplingTable, length: int) -> SamplingTable:
    """The same sampler with rows after it that leave the image alone.

    Tables of equal length share one compiled sampler. The networks are called in vain in the
    added rows.

    Raises:
      UserError: the table is longer.

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


def _check_names(**options: tuple[Any, Any]) -> None:
    for name, (value, allowed) in options.items():
        names = get_args(allowed)
        if value is not None and value not in names:
            raise UserError(f"Unknown {name} {value!r}: expected one of {', '.join(names)}.")
