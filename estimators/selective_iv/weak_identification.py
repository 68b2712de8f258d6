"""Confidence sets of a constant effect that stay valid when the moment barely identifies it."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcore.estimators.base import normal_quantile


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


def robust_set(a: Float[Array, " n"], b: Float[Array, " n"], level: float = 0.95) -> RobustSet:
    """All ``t`` not rejected by ``n mean(b - t a)^2 / var(b - t a) <= chi-square``.

    Args:
      a: slope part of the score.
      b: constant part of the score.
      level: coverage.
    """
    n, k = a.shape[0], normal_quantile(level) ** 2
    ma, mb = jnp.mean(a), jnp.mean(b)
    va, vb = jnp.mean((a - ma) ** 2), jnp.mean((b - mb) ** 2)
    cab = jnp.mean((a - ma) * (b - mb))
    q = jnp.stack([n * ma**2 - k * va, -2 * (n * ma * mb - k * cab), n * mb**2 - k * vb])
    root = jnp.sqrt(q[1] ** 2 - 4 * q[0] * q[2])
    roots = jnp.sort(jnp.stack([(-q[1] - root), (-q[1] + root)]) / (2 * q[0]))
    return RobustSet(q, roots, q[0] > 0)


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
