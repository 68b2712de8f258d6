"""Variances of influence functions, and the quantile that makes an interval of them."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError


def normal_quantile(level: float) -> float:
    """Two-sided standard normal critical value of a confidence level in (0, 1).

    >>> round(normal_quantile(0.95), 6)
    1.959964
    """
    if not 0 < level < 1:
        raise UserError(f"Expected a confidence level between 0 and 1, found {level}.")
    return statistics.NormalDist().inv_cdf(0.5 + level / 2)


def variance(psi: Float[Array, "n *q"]) -> Float[Array, "*q"]:
    """Variance of the estimate: ``mean(psi**2) / n``.

    >>> import jax.numpy as jnp
    >>> float(variance(jnp.array([1.0, -1.0])))
    0.5
    """
    return jnp.mean(psi**2, axis=0) / psi.shape[0]


def covariance(psi: Float[Array, "n q"]) -> Float[Array, "q q"]:
    """Covariance matrix of several estimates."""
    return psi.T @ psi / psi.shape[0] ** 2


def cluster_sums(
    psi: Float[Array, "n *q"], clusters: Int[Array, " n"], *, n_clusters: int | None = None
) -> Float[Array, "g *q"]:
    """Sum of ``psi`` within each cluster.

    Args:
      psi: influence values.
      clusters: cluster number 0, 1, ... of each unit.
      n_clusters: number of clusters; needed only under ``jit``.
    """
    if n_clusters is None:
        n_clusters = int(np.max(np.asarray(clusters))) + 1
    return jax.ops.segment_sum(psi, clusters, num_segments=n_clusters)


def cluster_variance(
    psi: Float[Array, "n *q"],
    clusters: Int[Array, " n"],
    *,
    n_clusters: int | None = None,
    small_sample: bool = False,
) -> Float[Array, "*q"]:
    """Variance of the estimate when units of a cluster depend on each other.

    Args:
      psi: influence values.
      clusters: cluster number 0, 1, ... of each unit.
      n_clusters: number of clusters; needed only under ``jit``.
      small_sample: multiply by g / (g - 1).

    >>> import jax.numpy as jnp
    >>> float(cluster_variance(jnp.array([1.0, 1.0, -1.0, -1.0]), jnp.array([0, 0, 1, 1])))
    0.5
    """
    sums = cluster_sums(psi, clusters, n_clusters=n_clusters)
    factor = sums.shape[0] / (sums.shape[0] - 1) if small_sample else 1.0
    return factor * jnp.sum(sums**2, axis=0) / psi.shape[0] ** 2
