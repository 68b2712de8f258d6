"""Variances of influence functions, and the quantile that makes an interval of them."""

import statistics

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators.units import INDEPENDENT, Units


def normal_quantile(level: float) -> float:
    """Two-sided standard normal critical value of a confidence level in (0, 1).

    >>> round(normal_quantile(0.95), 6)
    1.959964
    """
    if not 0 < level < 1:
        raise UserError(f"Expected a confidence level between 0 and 1, found {level}.")
    return statistics.NormalDist().inv_cdf(0.5 + level / 2)


def variance(
    psi: Float[Array, "n *q"], units: Units = INDEPENDENT, *, small_sample: bool = False
) -> Float[Array, "*q"]:
    """Variance of the estimate: ``mean(psi**2) / n``, or that of sums within clusters.

    Args:
      psi: centred influence values, observation weights included.
      units: their clusters are used, their weights must be in ``psi``.
      small_sample: with g clusters, multiply by g / (g - 1).

    >>> import jax.numpy as jnp
    >>> float(variance(jnp.array([1.0, -1.0])))
    0.5
    >>> two = Units(clusters=jnp.array([0, 0, 1, 1]))
    >>> float(variance(jnp.array([1.0, 1.0, -1.0, -1.0]), two))
    0.5
    """
    n = psi.shape[0]
    if units.clusters is None:
        return jnp.mean(psi**2, axis=0) / n
    sums = units.sums(psi)
    factor = sums.shape[0] / (sums.shape[0] - 1) if small_sample else 1.0
    return factor * jnp.sum(sums**2, axis=0) / n**2


def covariance(psi: Float[Array, "n q"]) -> Float[Array, "q q"]:
    """Covariance matrix of several estimates."""
    return psi.T @ psi / psi.shape[0] ** 2
