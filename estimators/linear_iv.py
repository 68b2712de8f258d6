"""Linear regression with and without an instrument; sets robust to a weak one."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcore.errors import UserError
from jaxcore.estimators import two_stage
from jaxcore.estimators.arguments import on_values
from jaxcore.estimators.checks import independent_columns
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.influence import LinearScore
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.estimators.variance import covariance, quantile


def _check_rank(given: Mapping[str, Any]) -> None:
    """Refuse regressors and instruments that are linear combinations of others."""
    A, W = given["A"], given["W"]
    w = given["units"].weights_like(A)
    for last, name in ((A, "treatment"), (given.get("Z", A), "instrument")):
        free = independent_columns(np.column_stack([W, last]), w)
        if free.all():
            continue
        place = int(np.argmin(free))
        told = f"column {place} of W" if place < W.shape[1] else f"the {name}"
        raise UserError(
            "Expected regressors that are no linear combinations of each other (with a constant "
            f"once), found that {told} is one."
        )


@on_values(numbers=["Y", "A", "Z"], tables=["W"], also=_check_rank)
@jax.jit
def tsls(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    W: Float[Array, "n q"],
    units: Units = INDEPENDENT,
) -> Estimate:
    """Two-stage least squares of ``Y`` on ``A`` and ``W`` with instrument ``Z`` (HC0 errors).

    Args:
      Y: outcome.
      A: treatment.
      Z: instrument, assumed valid.
      W: exogenous regressors, constant included.
      units: observation weights and clusters.

    Raises:
      UserError: outside of ``jit``: values that are not finite, or columns that are linear
        combinations of others.

    >>> import jax.numpy as jnp
    >>> z = jnp.array([0.0, 1.0, 0.0, 1.0])
    >>> round(float(tsls(1 + 4 * z, 2 * z, z, jnp.ones((4, 1))).theta), 4)
    2.0
    """
    return _just_identified(Y, A, Z, W, "2SLS", units)


@on_values(numbers=["Y", "A"], tables=["W"], also=_check_rank)
@jax.jit
def ols(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    W: Float[Array, "n q"],
    units: Units = INDEPENDENT,
) -> Estimate:
    """Coefficient of ``A`` in the regression of ``Y`` on ``A`` and ``W`` (HC0 errors).

    Put the instrument among the columns of ``W`` to adjust for it.
    """
    return _just_identified(Y, A, A, W, "OLS", units)


def _just_identified(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    W: Float[Array, "n q"],
    name: str,
    units: Units,
) -> Estimate:
    parts = two_stage.stages(Y, A[:, None], Z[:, None], W, units)
    found = two_stage.least_squares(parts, units)
    coefficients = jnp.concatenate([found.theta, found.diagnostics["exogenous"]])
    return Estimate.from_psi(
        found.theta[0],
        found.psi[:, 0],
        units=units,
        names=("effect",),
        estimator=name,
        diagnostics={"coefficients": coefficients},
    )


class RobustSet(NamedTuple):
    """Confidence set ``{t: q0 t^2 + q1 t + q2 <= 0}`` of one partition.

    An interval between the roots if ``is_interval``; else the two rays outside the roots, or the
    whole line where the roots are not real (NaN). It is never empty.
    """

    quadratic: Float[Array, "3"]
    roots: Float[Array, "2"]  # ascending
    is_interval: Bool[Array, ""]

    def pieces(self) -> "ConfidenceSet":
        """The set as intervals (outside of ``jit``)."""
        low, high = float(self.roots[0]), float(self.roots[1])
        if bool(self.is_interval):
            return ConfidenceSet(((low, high),))
        if low != low:
            return ConfidenceSet(((-np.inf, np.inf),))
        return ConfidenceSet(((-np.inf, low), (high, np.inf)))


class ConfidenceSet(NamedTuple):
    """Disjoint closed intervals, ascending; infinite ends stand for rays."""

    intervals: tuple[tuple[float, float], ...]

    def __contains__(self, value: Any) -> bool:
        """Whether a number lies in the set."""
        return any(low <= value <= high for low, high in self.intervals)

    def describe(self) -> str:
        """The set in words.

        >>> ConfidenceSet(((-np.inf, 1.0), (2.0, np.inf))).describe()
        '(-inf, 1] and [2, inf)'
        """
        if self.intervals == ((-np.inf, np.inf),):
            return "the whole line"
        if not self.intervals:
            return "empty (the partitions disagree)"
        return " and ".join(
            f"{'(' if low == -np.inf else '['}{low:.6g}, {high:.6g}{')' if high == np.inf else ']'}"
            for low, high in self.intervals
        )


@in_double
def robust_set(
    a: Float[Array, " n"],
    b: Float[Array, " n"],
    level: float = 0.95,
    units: Units = INDEPENDENT,
    *,
    centred: bool = True,
) -> RobustSet:
    """All ``t`` not rejected by ``mean(b - t a)^2 / var(mean(b - t a)) <= critical value^2``.

    Args:
      a: slope part of the score.
      b: constant part of the score.
      level: coverage.
      units: observation weights and clusters; with clusters the critical value is Student's t.
      centred: the variance is that around the mean; False takes the mean square in its place,
        which is larger, as DoubleML does.
    """
    parts = jnp.stack([a, b], axis=1) * units.weights_like(a)[:, None]
    mean = jnp.mean(parts, axis=0)
    cov = covariance(parts - mean[None] if centred else parts, units)
    k = quantile(level, units.df) ** 2
    # times n, as the released code has it, which changes no root
    inside = len(a) * (mean[:, None] * mean[None] - k * cov)
    q = jnp.stack([inside[0, 0], -2 * inside[0, 1], inside[1, 1]])
    root = jnp.sqrt(q[1] ** 2 - 4 * q[0] * q[2])
    roots = jnp.sort(jnp.stack([(-q[1] - root), (-q[1] + root)]) / (2 * q[0]))
    return RobustSet(q, roots, q[0] > 0)


@in_double
def anderson_rubin(
    score: LinearScore,
    units: Units = INDEPENDENT,
    *,
    level: float = 0.95,
    centred: bool = True,
) -> RobustSet:
    """Confidence set of a linear score that stays valid when its slope is near zero.

    With the scores of `influence.partially_linear_iv` and `influence.late` it is that of
    Anderson and Rubin: valid however weak the instrument is. It is an interval, two rays or the
    whole line (`RobustSet.pieces`), and is never empty, since it holds the estimate.

    Args:
      score: the two parts of the score at cross-fitted nuisances.
      units: observation weights and clusters.
      level: coverage.
      centred: see `robust_set`.

    References:
      Anderson and Rubin (1949); Chernozhukov, Hansen and Spindler (2015); Takatsu, Levis, Kennedy,
      Kelz and Keele (2023).

    >>> import jax.numpy as jnp
    >>> z = jnp.array([1.0, -1.0, 1.0, -1.0])
    >>> weak = LinearScore(-jnp.array([1.0, -1.0, 0.5, -0.5]), z)
    >>> anderson_rubin(weak).pieces().describe()
    'the whole line'
    """
    return robust_set(-score.psi_a, score.psi_b, level, units, centred=centred)


def majority(sets: Sequence[ConfidenceSet]) -> ConfidenceSet:
    """Values that lie in at least half of the sets: those whose median test is not rejected.

    >>> majority([ConfidenceSet(((0.0, 2.0),)), ConfidenceSet(((1.0, 3.0),)),
    ...           ConfidenceSet(((1.5, 9.0),))]).intervals
    ((1.0, 3.0),)
    """
    inner = sorted({e for s in sets for piece in s.intervals for e in piece if np.isfinite(e)})
    ends = [-np.inf, *inner, np.inf]
    kept: list[tuple[float, float]] = []
    for low, high in itertools.pairwise(ends):
        if low == -np.inf:
            middle = high - 1 if high != np.inf else 0.0
        else:
            middle = low + 1 if high == np.inf else (low + high) / 2
        if 2 * sum(middle in s for s in sets) < len(sets):
            continue
        if kept and kept[-1][1] == low:
            low = kept.pop()[0]
        kept.append((low, high))
    return ConfidenceSet(tuple(kept))
