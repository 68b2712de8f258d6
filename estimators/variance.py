"""Variances of influence functions, and the quantile that makes an interval of them.

With g clusters the variance of sums over clusters is multiplied by g / (g - 1), and intervals take
the quantiles of Student's t with g - 1 degrees of freedom (Bell and McCaffrey 2002; Cameron and
Miller 2015). Clusters of several kinds are those of Cameron, Gelbach and Miller (2011).
"""

import statistics

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators.units import INDEPENDENT, Units

FEW_CLUSTERS = 40
"""Below this number a word is said: errors tend to be too small even with the correction."""


def normal_quantile(level: float) -> float:
    """Two-sided standard normal critical value of a confidence level in (0, 1).

    >>> round(normal_quantile(0.95), 6)
    1.959964
    """
    if not 0 < level < 1:
        raise UserError(f"Expected a confidence level between 0 and 1, found {level}.")
    return statistics.NormalDist().inv_cdf(0.5 + level / 2)


def quantile(level: float, df: int | None = None) -> float:
    """Two-sided critical value of Student's t; of the normal law without degrees of freedom.

    >>> round(quantile(0.95, 4), 6), round(quantile(0.95), 6)
    (2.776445, 1.959964)
    """
    z = normal_quantile(level)
    if df is None:
        return z
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + level / 2))


def tail(t: Float[np.ndarray, "*q"], df: int | None = None) -> Float[np.ndarray, "*q"]:
    """Two-sided p-values of t-statistics (normal without degrees of freedom), on the host."""
    from scipy.special import ndtr, stdtr

    low = -np.abs(np.asarray(t, np.float64))
    return 2 * (ndtr(low) if df is None else stdtr(df, low))


def degrees_of_freedom(clusters: Int[Array | np.ndarray, "n *ways"] | None) -> int | None:
    """Clusters less one, of the kind with the fewest; None without clusters.

    >>> degrees_of_freedom(np.array([[0, 0], [0, 1], [1, 2]]))
    1
    """
    if clusters is None:
        return None
    columns = np.asarray(clusters).reshape(len(clusters), -1).T
    return min(len(np.unique(column)) for column in columns) - 1


def variance(
    psi: Float[Array, "n *q"], units: Units = INDEPENDENT, *, small_sample: bool = True
) -> Float[Array, "*q"]:
    """Variance of the estimate: ``mean(psi**2) / n``, or that of sums within clusters.

    With clusters of several kinds: the variances by each kind, less those by two at once, and so
    on. Where that is not positive, the largest of those by one kind.

    Args:
      psi: centred influence values, observation weights included.
      units: their clusters are used, their weights must be in ``psi``.
      small_sample: with g clusters, multiply by g / (g - 1), each kind by its own.

    >>> import jax.numpy as jnp
    >>> float(variance(jnp.array([1.0, -1.0])))
    0.5
    >>> two = Units(clusters=jnp.array([0, 0, 1, 1]))
    >>> float(variance(jnp.array([1.0, 1.0, -1.0, -1.0]), two))
    1.0
    """
    n = psi.shape[0]
    if units.clusters is None:
        return jnp.mean(psi**2, axis=0) / n
    if units.multiway:
        parts = [
            (sign, variance(psi, way, small_sample=small_sample)) for sign, way in units.crossings()
        ]
        total = sum(sign * part for sign, part in parts)
        largest = jnp.max(jnp.stack([part for _, part in parts[: len(units.ways())]]), axis=0)
        return jnp.where(total > 0, total, largest)
    sums = units.sums(psi)
    return _factor(units, small_sample, sums) * jnp.sum(sums**2, axis=0) / n**2


def covariance(
    psi: Float[Array, "n q"], units: Units = INDEPENDENT, *, small_sample: bool = True
) -> Float[Array, "q q"]:
    """Covariance matrix of several estimates, clustered as in `variance`.

    With clusters of several kinds, negative eigenvalues are set to zero (Cameron, Gelbach and
    Miller 2011, section 2.3).

    >>> import jax.numpy as jnp
    >>> covariance(jnp.array([[1.0, 2.0], [-1.0, -2.0]])).tolist()
    [[0.5, 1.0], [1.0, 2.0]]
    """
    n = psi.shape[0]
    if units.clusters is None:
        return psi.T @ psi / n**2
    if units.multiway:
        total = jnp.zeros((psi.shape[1], psi.shape[1]), psi.dtype)
        for sign, way in units.crossings():
            total = total + sign * covariance(psi, way, small_sample=small_sample)
        values, vectors = jnp.linalg.eigh((total + total.T) / 2)
        return (vectors * jnp.maximum(values, 0)[None]) @ vectors.T
    sums = units.sums(psi)
    return _factor(units, small_sample, sums) * sums.T @ sums / n**2


def _factor(units: Units, small_sample: bool, like: Array) -> Float[Array, ""]:
    if not small_sample:
        return jnp.ones((), like.dtype)
    g = units.count().astype(like.dtype)
    return g / (g - 1)


def words_on_clusters(clusters: Int[Array | np.ndarray, "n *ways"] | None) -> tuple[str, ...]:
    """A notice if there are few clusters; nothing otherwise.

    >>> words_on_clusters(np.arange(6) // 2)[0][:38]
    'standard errors rest on 3 clusters onl'
    """
    df = degrees_of_freedom(clusters)
    if df is None or df + 1 >= FEW_CLUSTERS:
        return ()
    return (
        f"standard errors rest on {df + 1} clusters only: intervals take Student's t with {df} "
        "degrees of freedom and may still be too short; a wild cluster bootstrap is safer",
    )
