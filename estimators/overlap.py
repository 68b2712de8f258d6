"""Overlap: how many probabilities were clipped, how many units carry an inverse-weighted mean."""

from collections.abc import Mapping

import numpy as np

HEAVY_SHARE = 0.1  # effective sample size relative to n
WEAK_T = 3.16  # first-stage F of 10


LEFT = 0.005  # share of a treatment's variance that the covariates must leave


def effective_size(load: np.ndarray) -> float:
    """Units of equal weight that would be as precise: ``(sum w)^2 / sum w^2``.

    >>> effective_size(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    return float(np.sum(load) ** 2 / np.sum(load**2))


def notices(clipped: Mapping[str, int], effective: float, n: int) -> list[str]:
    """What the user must know of overlap before the estimate is used.

    Args:
      clipped: symbol of a probability -> units at its bounds.
      effective: `effective_size` of the weights.
      n: units.

    >>> notices({"P(A=1|X)": 3}, 90.0, 100)
    ['P(A=1|X) was clipped for 3 of 100 units']
    """
    out = []
    for symbol, count in clipped.items():
        if count:
            told = f"{symbol} was clipped for {count} of {n} units"
            if 2 * count > n:
                told += ": hardly any overlap, which the standard error does not show"
            out.append(told)
    if effective < HEAVY_SHARE * n:
        out.append(f"few units carry the estimate: effective sample size {effective:.0f} of {n}")
    return out
