"""How far a violated assumption could move the estimate.

If the treatment model has an interaction of Z with the unmeasured confounder, or effects depend on
it, the true effect differs from the estimate by ``E[Gamma(X)/D(X)]``. This module bounds that for
``|Gamma| <= G``.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators.base import normal_quantile
from jaxcore.estimators.selective_iv.moment import Nuisances, variance_contrast


class Sensitivity(NamedTuple):
    """Bounds on the effect for a violation of at most G, and the violation needed to explain it."""

    G: float
    nu: Float[Array, ""]  # E[1/|D|]
    nu_se: Float[Array, ""]
    nu_if: Float[Array, " n"]
    bounds: Float[Array, "2"]
    limits: Float[Array, "2"]  # confidence limits of the bounds
    robustness_value: Float[Array, ""]  # smallest G at which the limits cover zero
    share_negative_D: Float[Array, ""]  # must be 0 or 1 for the bounds to hold


def sensitivity_bounds(
    u: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    nuisances: Nuisances,
    G: float,
    *,
    level: float = 0.95,
    min_abs_D: float = 0.0,
    weights: Float[Array, " n"] | None = None,
) -> Sensitivity:
    """Bounds ``theta -+ G nu`` with ``nu = E[1/|D|]`` estimated in one step from its own score.

    Args:
      u: moment of every unit.
      A: treatment.
      Z: instrument.
      nuisances: pi, mu1 and mu0 are used.
      G: largest |Gamma|, in units of treatment times outcome.
      level: coverage of the limits.
      min_abs_D: floor of |D|.
      weights: observation weights.
    """
    w = jnp.ones_like(u) if weights is None else weights / jnp.mean(weights)
    d = variance_contrast(nuisances.mu1, nuisances.mu0, min_abs_D)
    mu = jnp.where(Z > 0.5, nuisances.mu1, nuisances.mu0)
    sign_over_f = Z / nuisances.pi - (1 - Z) / (1 - nuisances.pi)
    s = 1 / d - sign_over_f * (1 - 2 * mu) * (A - mu) / d**2
    s = jnp.where(jnp.mean(d) < 0, -1.0, 1.0).astype(s.dtype) * s
    n, z = u.shape[0], normal_quantile(level)

    def mean_and_se(x):
        mean = jnp.mean(w * x)
        return mean, jnp.sqrt(jnp.mean((w * (x - mean)) ** 2) / n)

    nu, nu_se = mean_and_se(s)
    low, low_se = mean_and_se(u - G * s)
    high, high_se = mean_and_se(u + G * s)
    return Sensitivity(
        G,
        nu,
        nu_se,
        s - nu,
        jnp.stack([low, high]),
        jnp.stack([low - z * low_se, high + z * high_se]),
        _robustness_value(w, u, s, z),
        jnp.mean((d < 0).astype(u.dtype)),
    )


def _robustness_value(w, u, s, z):
    """Smallest G >= 0 with ``|theta| - G nu = z se``: the first root of a quadratic."""
    n, k = u.shape[0], z**2
    theta, nu = jnp.mean(w * u), jnp.mean(w * s)
    sign = jnp.where(theta < 0, -1.0, 1.0).astype(u.dtype)
    x, y = w * (u - theta) * sign, w * (s - nu)
    theta = theta * sign
    c2 = nu**2 - k * jnp.mean(y * y) / n
    c1 = -2 * (theta * nu - k * jnp.mean(x * y) / n)
    c0 = theta**2 - k * jnp.mean(x * x) / n
    root = jnp.sqrt(jnp.maximum(c1**2 - 4 * c2 * c0, 0))
    candidates = jnp.stack([(-c1 - root) / (2 * c2), (-c1 + root) / (2 * c2)])
    first = jnp.min(jnp.where(candidates > 0, candidates, jnp.inf))
    return jnp.where(c0 <= 0, 0.0, first)
