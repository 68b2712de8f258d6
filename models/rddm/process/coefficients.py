"""Named shapes of RDDM's coefficients, DDPM's variances, and the times at which a sampler stops.

Computed once, on the host, in NumPy, with the roundings of the released code.
"""

from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from jaxcore.errors import UserError

Shape = Literal["increased", "decreased", "average", "normal"]
Version = Literal["v1", "v2"]
DDPMName = Literal["linear", "scaled_linear", "cosine"]
Precision = Literal["float32", "float64"]


def coefficients(
    steps: int,
    shape: Shape,
    *,
    ratio: float = 1.0,
    version: Version = "v2",
    precision: Precision | None = None,
) -> Float[np.ndarray, " t"]:
    """Non-negative coefficients with sum one.

    Both versions are published. "v1" (deraining) is ``i / (T(T+1)/2)`` for i = 1..T in float64;
    "v2" (the other experiments) is ``linspace(0, 1, T) ** ratio`` normalised, in float32, so that
    the first entry of "increased" is exactly 0. The paper writes P(x, a) for "increased" with
    ratio a, and P(1-x, a) for "decreased".

    Args:
      steps: length T.
      shape: "increased", "decreased", "average", or "normal" (v2: a bell).
      ratio: exponent of v2.
      version: "v1" or "v2".
      precision: of the arithmetic; None takes float64 for v1 and float32 for v2.

    Raises:
      UserError: an unknown name, or a ratio or length out of range.

    >>> coefficients(4, "increased", version="v1").tolist()
    [0.1, 0.2, 0.3, 0.4]
    >>> coefficients(3, "decreased", ratio=2.0).tolist()
    [0.800000011920929, 0.20000000298023224, 0.0]
    """
    check_choice("version", version, Version)
    check_choice("schedule shape", shape, Shape)
    check_steps(steps)
    if version == "v1":
        if shape == "normal":
            raise UserError("Expected version='v2' for the shape 'normal', found 'v1'.")
        if ratio != 1:
            raise UserError(f"Expected ratio 1 with version='v1', found {ratio}.")
        rising = np.arange(1, steps + 1, dtype=np.float64) / (steps * (steps + 1) / 2)
        table = {"increased": rising, "decreased": rising[::-1], "average": np.full(steps, 1.0)}
        values = table[shape] if shape != "average" else table[shape] / steps
        return np.ascontiguousarray(values, precision or "float64")
    if not ratio > 0 or not np.isfinite(ratio):
        raise UserError(f"Expected a positive ratio, found {ratio}.")
    dtype = np.dtype(precision or "float32")
    if shape == "average":
        return np.full(steps, 1 / steps, dtype)
    if shape == "normal":
        bell = np.exp(-(np.linspace(-3, 3, steps) ** 2) / 2)
        return (bell / bell.sum()).astype(dtype)
    rising = _linspace(0.0, 1.0, steps, dtype) ** dtype.type(ratio)
    rising = rising / rising.sum()
    return rising if shape == "increased" else np.ascontiguousarray(rising[::-1])


def ddpm_betas(name: DDPMName, steps: int = 1000) -> Float[np.ndarray, " t"]:
    """Noise variances of DDPM, as diffusion libraries define them (float32).

    Args:
      name: "linear" (1e-4 to 0.02), "scaled_linear" (linear in the square root) or "cosine".
      steps: length T.

    >>> ddpm_betas("linear", 3).round(5).tolist() == np.float32([1e-4, 0.01005, 0.02]).tolist()
    True
    """
    check_choice("DDPM schedule", name, DDPMName)
    check_steps(steps)
    if name == "linear":
        return _linspace(1e-4, 0.02, steps, np.dtype(np.float32))
    if name == "scaled_linear":
        return _linspace(1e-4**0.5, 0.02**0.5, steps, np.dtype(np.float32)) ** 2
    left = np.cos((np.linspace(0, 1, steps + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.clip(1 - left[1:] / left[:-1], 0, 0.999).astype(np.float32)


def sampling_times(total: int, steps: int) -> Int[np.ndarray, " s+1"]:
    """Times of a sampler, falling from ``total - 1`` to -1, which stands for the clean image.

    The released code truncates a float32 ``linspace``; for 84 of the 999 numbers of steps at
    T = 1000 that differs from exact arithmetic, and its rounding is repeated here.

    Raises:
      UserError: ``steps`` is not in 1..total.

    >>> sampling_times(1000, 5).tolist()
    [999, 799, 599, 399, 199, -1]
    """
    check_sampling_steps(total, steps)
    step = np.float32(total) / np.float32(steps)
    i = np.arange(steps + 1)
    # Products in float64 and one rounding to float32: what a fused multiply-add gives.
    low, high = -1 + np.float64(step) * i, total - 1 - np.float64(step) * (steps - i)
    times = np.where(i < (steps + 1) // 2, low, high).astype(np.float32)
    return times.astype(np.int32)[::-1].copy()


def leading_times(total: int, steps: int) -> Int[np.ndarray, " s+1"]:
    """Times of DDIM in the spacing called "leading": multiples of ``total // steps``, then -1.

    >>> leading_times(1000, 4).tolist()
    [750, 500, 250, 0, -1]
    """
    check_sampling_steps(total, steps)
    return np.append(np.arange(steps)[::-1] * (total // steps), -1).astype(np.int32)


def check_sampling_steps(total: int, steps: int) -> None:
    """Refuse a number of steps that the schedule does not have."""
    if not isinstance(steps, int | np.integer) or not 1 <= steps <= total:
        raise UserError(f"Expected between 1 and {total} sampling steps, found {steps}.")


def _linspace(start: float, end: float, count: int, dtype: np.dtype) -> np.ndarray:
    """PyTorch's linspace to the last bit in float32: from both ends towards the middle."""
    if dtype != np.float32 or count == 1:
        return np.linspace(start, end, count, dtype=dtype)
    low, high = np.float32(start), np.float32(end)
    step = np.float64((high - low) / np.float32(count - 1))
    i = np.arange(count)
    rising, falling = np.float64(low) + i * step, np.float64(high) - (count - 1 - i) * step
    return np.where(i < count // 2, rising, falling).astype(np.float32)


def check_choice(what: str, value: Any, choices: Any) -> None:
    """Refuse a value that is not among those of a ``Literal``."""
    if value not in get_args(choices):
        raise UserError(
            f"Unknown {what} {value!r}: expected one of {', '.join(get_args(choices))}."
        )


def check_steps(steps: int) -> None:
    """Refuse a length that no schedule can have."""
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or steps < 2:
        raise UserError(f"Expected a schedule of at least 2 times, found {steps}.")
