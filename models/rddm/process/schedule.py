"""The two schedules of RDDM: how much residual and how much noise an image holds at each time.

``alpha`` weighs the residual ``R = I_in - I_0`` and ``beta`` the noise, independently of each
other: ``I_t = I_0 + alphas_cumsum[t] R + betas_cumsum[t] e``. Everything here is computed once, on
the host, in NumPy: the official buffers are float32 arrays whose running sums and products were
accumulated in float64 and rounded entry by entry, and other orders of rounding move a sample by
more than the tolerance of the parity files. A `RDDMSchedule` is a pytree of arrays, so that
functions compiled for one schedule run with every other of the same length.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np
from jaxtyping import Float

from jaxcore.errors import UserError
from jaxcore.models.rddm.process.coefficients import (
    DDPMName,
    Shape,
    Version,
    check_steps,
    coefficients,
    ddpm_betas,
)

_FLOOR = 1e-6  # least 1 - alphas_cumsum that a division sees
_SUM_TOLERANCE = 1e-4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class RDDMSchedule:
    """Both schedules over T times, as float32 arrays; build it with a constructor below.

    >>> schedule = RDDMSchedule.polynomial(steps=1000)
    >>> len(schedule), round(float(schedule.alphas_cumsum[499]), 5)
    (1000, 0.74975)
    """

    alphas: Any  # (T,) residual added at each time
    betas2: Any  # (T,) noise variance added at each time
    alphas_cumsum: Any  # (T,)
    betas_cumsum: Any  # (T,) square root of the running sum of betas2
    one_minus_alphas_cumsum: Any  # (T,) divisor of "clean image from noise"
    start_scale: Any  # standard deviation of the noise on the degraded image at the start

    def __len__(self) -> int:
        return self.alphas_cumsum.shape[0]

    @classmethod
    def polynomial(
        cls,
        steps: int = 1000,
        *,
        alpha: Shape = "decreased",
        beta: Shape = "increased",
        ratio_a: float = 1.0,
        ratio_b: float = 1.0,
        sum_scale: float = 1.0,
        version: Version = "v1",
        compat_last_one_minus_alpha: bool = False,
    ) -> Self:
        """Named shapes for alpha and for beta squared; see `coefficients`.

        Args:
          steps: length T.
          alpha: shape of alpha.
          beta: shape of beta squared.
          ratio_a: exponent of alpha (v2).
          ratio_b: exponent of beta squared (v2).
          sum_scale: variance of the noise at the end, in (0, 1]; the released restoration
            scripts use 1, the class of the released code defaults to 0.01.
          version: "v1" or "v2".
          compat_last_one_minus_alpha: see `from_cumulative`.

        Raises:
          UserError: an unknown name or a value out of range.
        """
        _check_sum_scale(sum_scale)
        alphas = coefficients(steps, alpha, ratio=ratio_a, version=version)
        betas2 = coefficients(steps, beta, ratio=ratio_b, version=version)
        return cls._build(
            alphas, _scaled(betas2, sum_scale), sum_scale, compat_last_one_minus_alpha
        )

    @classmethod
    def from_coefficients(
        cls,
        alphas: Any,
        betas2: Any,
        *,
        sum_scale: float = 1.0,
        compat_last_one_minus_alpha: bool = False,
    ) -> Self:
        """Coefficients of one's own.

        Args:
          alphas: non-negative, with sum one.
          betas2: non-negative, with sum ``sum_scale``.
          sum_scale: variance of the noise at the end, in (0, 1].
          compat_last_one_minus_alpha: see `from_cumulative`.

        Raises:
          UserError: a negative entry, another sum, or unequal lengths.

        >>> len(RDDMSchedule.from_coefficients([0.5, 0.5], [0.2, 0.8]))
        2
        """
        _check_sum_scale(sum_scale)
        alphas, betas2 = np.asarray(alphas, np.float64), np.asarray(betas2, np.float64)
        if alphas.ndim != 1 or alphas.shape != betas2.shape:
            raise UserError(
                "Expected alphas and betas2 as vectors of equal length, found shapes "
                f"{alphas.shape} and {betas2.shape}."
            )
        check_steps(len(alphas))
        for name, values, total in (("alphas", alphas, 1.0), ("betas2", betas2, sum_scale)):
            if not (values >= 0).all():
                raise UserError(f"Expected {name} of at least 0, found {values.min()}.")
            if abs(values.sum() - total) > _SUM_TOLERANCE * total:
                which = "one" if name == "alphas" else f"sum_scale = {sum_scale}"
                raise UserError(
                    f"Expected {name} whose sum is {which}, found the sum {values.sum():.6g}."
                )
        return cls._build(alphas, betas2, sum_scale, compat_last_one_minus_alpha)

    @classmethod
    def from_cumulative(
        cls,
        alphas_cumsum: Any,
        betas_cumsum: Any,
        *,
        compat_last_one_minus_alpha: bool = False,
    ) -> Self:
        """Schedules given by their running sums, which need not reach one.

        Args:
          alphas_cumsum: in [0, 1], not falling.
          betas_cumsum: square roots of the running sum of beta squared; in [0, 1], not falling.
          compat_last_one_minus_alpha: the released code sets the last entry of
            ``1 - alphas_cumsum`` to 1e-6 whatever it is, which saturates the clean image predicted
            from noise at the last time of DDPM's schedules. True repeats that, for parity with
            the released code; False keeps the true value, and at least 1e-6 everywhere.

        Raises:
          UserError: values out of range, falling, or of unequal lengths.
        """
        alphas_cumsum = np.asarray(alphas_cumsum, np.float32)
        betas_cumsum = np.asarray(betas_cumsum, np.float32)
        if alphas_cumsum.ndim != 1 or alphas_cumsum.shape != betas_cumsum.shape:
            raise UserError(
                "Expected two running sums as vectors of equal length, found shapes "
                f"{alphas_cumsum.shape} and {betas_cumsum.shape}."
            )
        check_steps(len(alphas_cumsum))
        for name, sums in (("alphas_cumsum", alphas_cumsum), ("betas_cumsum", betas_cumsum)):
            if not (np.diff(sums) >= 0).all() or not 0 <= sums[0] <= sums[-1] <= 1:
                raise UserError(f"Expected {name} that rises within [0, 1], found other values.")
        squares = np.square(betas_cumsum.astype(np.float64))
        return cls._from_sums(
            np.diff(alphas_cumsum, prepend=np.float32(0)),
            np.diff(squares, prepend=0.0),
            alphas_cumsum,
            betas_cumsum,
            1.0,
            compat_last_one_minus_alpha,
        )

    @classmethod
    def from_ddpm(
        cls,
        betas: DDPMName | np.ndarray = "linear",
        steps: int = 1000,
        *,
        compat_last_one_minus_alpha: bool = False,
    ) -> Self:
        """The schedule with which RDDM is DDPM (or DDIM), for images degraded to nothing.

        With DDPM's running product ``a``: ``alphas_cumsum = 1 - sqrt(a)`` and ``betas_cumsum =
        sqrt(1 - a)``. The forward marginals agree exactly, and so do deterministic steps; the
        ancestral steps do not (RDDM's variance is DDIM's times the ``a`` of the next time).

        Args:
          betas: a name of `ddpm_betas`, or DDPM's noise variances.
          steps: length T of a named schedule.
          compat_last_one_minus_alpha: see `from_cumulative`.

        >>> schedule = RDDMSchedule.from_ddpm("linear")
        >>> round(float(schedule.alphas_cumsum[-1]), 6), round(float(schedule.betas_cumsum[-1]), 5)
        (0.993647, 0.99998)
        """
        b = ddpm_betas(betas, steps) if isinstance(betas, str) else np.asarray(betas, np.float32)
        if b.ndim != 1 or not ((b > 0) & (b < 1)).all():
            raise UserError("Expected DDPM variances as a vector inside (0, 1), found others.")
        check_steps(len(b))
        one = np.float32(1)
        a = np.cumprod((one - b).astype(np.float64)).astype(np.float32)
        alphas_cumsum, betas2_cumsum = one - np.sqrt(a), one - a
        return cls._from_sums(
            np.diff(alphas_cumsum, prepend=alphas_cumsum[:1]),  # entry 0 is 0, as published
            np.diff(betas2_cumsum, prepend=betas2_cumsum[:1]),
            alphas_cumsum,
            np.sqrt(betas2_cumsum),
            1.0,
            compat_last_one_minus_alpha,
        )

    def reschedule(
        self,
        *,
        alpha: Shape | None = None,
        beta: Shape | None = None,
        ratio_a: float = 1.0,
        ratio_b: float = 1.0,
    ) -> "RDDMSchedule":
        """Another schedule of the same length and noise variance, for sampling only.

        Only networks that take the running sums instead of the index ("cumulative" conditioning)
        make sense of it.

        Args:
          alpha: new shape (v2) of alpha; None keeps alpha.
          beta: new shape (v2) of beta squared; None keeps it.
          ratio_a: exponent of the new alpha.
          ratio_b: exponent of the new beta squared.

        >>> schedule = RDDMSchedule.from_ddpm("linear").reschedule(alpha="average", beta="average")
        >>> round(float(schedule.alphas_cumsum[499]), 4)
        0.5
        """
        steps, scale = len(self), float(self.start_scale) ** 2
        alphas, alphas_cumsum = self.alphas, self.alphas_cumsum
        betas2, betas_cumsum = self.betas2, self.betas_cumsum
        if alpha is not None:
            alphas = coefficients(steps, alpha, ratio=ratio_a)
            alphas_cumsum = _running_sum(alphas)
        if beta is not None:
            betas2 = _scaled(coefficients(steps, beta, ratio=ratio_b), scale)
            betas_cumsum = np.sqrt(_running_sum(betas2))
        return self._from_sums(alphas, betas2, alphas_cumsum, betas_cumsum, scale, False)

    @classmethod
    def _build(cls, alphas: np.ndarray, betas2: np.ndarray, sum_scale: float, compat: bool) -> Self:
        sums = _running_sum(alphas), np.sqrt(_running_sum(betas2))
        return cls._from_sums(alphas, betas2, *sums, sum_scale, compat)

    @classmethod
    def _from_sums(
        cls,
        alphas: np.ndarray,
        betas2: np.ndarray,
        alphas_cumsum: np.ndarray,
        betas_cumsum: np.ndarray,
        sum_scale: float,
        compat: bool,
    ) -> Self:
        rest = 1 - alphas_cumsum
        if compat:
            rest[-1] = _FLOOR
        else:
            rest = np.maximum(rest, _FLOOR)
        arrays = (alphas, betas2, alphas_cumsum, betas_cumsum, rest)
        given = tuple(np.asarray(a, np.float32) for a in arrays)
        return cls(*given, start_scale=np.float32(sum_scale**0.5))


def official_buffers(
    schedule: RDDMSchedule, *, before_testing: bool = False
) -> dict[str, Float[np.ndarray, " t"]]:
    """The twelve buffers that the released diffusion class stores, for checking a checkpoint.

    The schedule must have been built with ``compat_last_one_minus_alpha=True``.

    Args:
      schedule: both schedules.
      before_testing: repeat what the released code does to DDPM's schedule before it tests: the
        first alpha and beta become the second.
    """
    alphas, betas2 = (np.array(v, np.float64) for v in (schedule.alphas, schedule.betas2))
    if before_testing:
        alphas[0], betas2[0] = alphas[1], betas2[1]
    alphas_cumsum = np.asarray(schedule.alphas_cumsum, np.float64)
    betas2_cumsum = np.square(np.asarray(schedule.betas_cumsum, np.float64))
    mean, variance = posterior_coefficients(alphas, betas2, alphas_cumsum, betas2_cumsum)
    buffers: Mapping[str, np.ndarray] = {
        "alphas": alphas,
        "alphas_cumsum": alphas_cumsum,
        "one_minus_alphas_cumsum": schedule.one_minus_alphas_cumsum,
        "betas2": betas2,
        "betas": np.sqrt(betas2),
        "betas2_cumsum": betas2_cumsum,
        "betas_cumsum": schedule.betas_cumsum,
        "posterior_mean_coef1": mean[0],
        "posterior_mean_coef2": mean[1],
        "posterior_mean_coef3": mean[2],
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
    }
    return {name: np.asarray(values, np.float32) for name, values in buffers.items()}


def posterior_coefficients(
    alphas: np.ndarray, betas2: np.ndarray, alphas_cumsum: np.ndarray, betas2_cumsum: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Weights of (I_t, R, I_0) in the mean of q(I_{t-1} | I_t, I_0, R), and its variance.

    At time 0 the posterior is the clean image: weights (0, 0, 1), variance 0.
    """
    before_a = np.concatenate([[1.0], alphas_cumsum[:-1]])
    before_b2 = np.concatenate([[1.0], betas2_cumsum[:-1]])
    divisor = np.where(betas2_cumsum > 0, betas2_cumsum, 1.0)
    first = before_b2 / divisor
    second = (betas2 * before_a - before_b2 * alphas) / divisor
    third = betas2 / divisor
    variance = betas2 * before_b2 / divisor
    first[0], second[0], third[0], variance[0] = 0, 0, 1, 0
    return (first, second, third), variance


def _scaled(betas2: np.ndarray, sum_scale: float) -> np.ndarray:
    return betas2 * betas2.dtype.type(sum_scale)


def _running_sum(values: np.ndarray) -> np.ndarray:
    """Running sum in float64, each entry rounded to the type of ``values`` and cut to [0, 1]."""
    sums = np.cumsum(values, dtype=np.float64).astype(values.dtype)
    return np.clip(sums, 0, 1)


def _check_sum_scale(sum_scale: float) -> None:
    if not 0 < sum_scale <= 1:
        raise UserError(f"Expected sum_scale above 0 and at most 1, found {sum_scale}.")
