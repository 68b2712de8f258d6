"""How far a violated assumption could move the estimate.

If the treatment model has an interaction of Z with the unmeasured confounder, or effects depend on
it, the true effect differs from the estimate by ``E[Gamma(X)/D(X)]``. This module bounds that for
``|Gamma| <= G``.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators import influence
from jaxcore.estimators.compiling import QUICKLY
from jaxcore.estimators.estimate import aggregate_repeats
from jaxcore.estimators.selective_iv.moment import Nuisances, variance_contrast
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.estimators.variance import quantile, variance


class Sensitivity(NamedTuple):
    """Bounds on the effect for a violation of at most G, and the violation needed to explain it."""

    G: float | Array
    nu: Float[Array, ""]  # E[1/|D|]
    nu_se: Float[Array, ""]
    nu_if: Float[Array, " n"]
    bounds: Float[Array, "2"]
    limits: Float[Array, "2"]  # confidence limits of the bounds
    robustness_value: Float[Array, ""]  # smallest G at which the limits cover zero
    share_negative_D: Float[Array, ""]  # must be 0 or 1 for the bounds to hold


def sensitivity_bounds(
    u: Float[Array, "*r n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    nuisances: Nuisances,
    G: float,
    *,
    level: float = 0.95,
    min_abs_D: float = 0.0,
    units: Units = INDEPENDENT,
    how: str = "median",
) -> Sensitivity:
    """Bounds ``theta -+ G nu`` with ``nu = E[1/|D|]`` estimated in one step from its own score.

    Moments and nuisances may have a leading axis over repeated partitions: nu, both bounds and
    their errors are then aggregated as estimates are, see `aggregate_repeats`.

    Args:
      u: moment of every unit.
      A: treatment.
      Z: instrument.
      nuisances: pi, mu1 and mu0 are used.
      G: largest |Gamma|, in units of treatment times outcome.
      level: coverage of the limits.
      min_abs_D: floor of |D|.
      units: observation weights and clusters.
      how: "median" or "mean" over the partitions.
    """
    critical = quantile(level, units.df)
    found = _bounds(u, A, Z, nuisances, G, units, z=critical, min_abs_D=min_abs_D, how=how)
    return found._replace(G=G)


@functools.partial(jax.jit, static_argnames=("min_abs_D", "how"), compiler_options=QUICKLY)
def _bounds(
    u: Float[Array, "*r n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    nuisances: Nuisances,
    G: float | Array,
    units: Units,
    *,
    z: float | Array,
    min_abs_D: float,
    how: str,
) -> Sensitivity:
    n = u.shape[-1]
    w = units.weights_like(A)
    d = variance_contrast(nuisances.mu1, nuisances.mu0, min_abs_D)
    Z, A, w = (jnp.broadcast_to(v, u.shape) for v in (Z, A, w))
    mu = jnp.where(Z > 0.5, nuisances.mu1, nuisances.mu0)
    s = 1 / d - influence.signed_weight(nuisances.pi, Z) * (1 - 2 * mu) * (A - mu) / d**2
    negative = jnp.mean(d, axis=-1, keepdims=True) < 0
    s = jnp.where(negative, -1.0, 1.0).astype(s.dtype) * s

    def mean_and_se(x: Array) -> tuple[Array, Array]:
        x = x.reshape(-1, n)
        mean = jnp.mean(w.reshape(-1, n) * x, axis=1)
        psi = (w.reshape(-1, n) * (x - mean[:, None])).T
        return aggregate_repeats(mean, jnp.sqrt(variance(psi, units)), how=how)

    nu, nu_se = mean_and_se(s)
    low, low_se = mean_and_se(u - G * s)
    high, high_se = mean_and_se(u + G * s)

    def nearest_limit(g: Array) -> Array:
        """The confidence limit that moves towards zero as G grows, positive before it is there."""
        centre, se = mean_and_se(sign * u - g * s)
        return centre - z * se

    sign = jnp.where(low + high < 0, -1.0, 1.0).astype(u.dtype)
    s_mean = jnp.mean(w * s, axis=-1, keepdims=True)
    return Sensitivity(
        G,
        nu,
        nu_se,
        jnp.mean((s - s_mean).reshape(-1, n), axis=0),
        jnp.stack([low, high]),
        jnp.stack([low - z * low_se, high + z * high_se]),
        _first_zero(nearest_limit, jnp.abs(low + high) / nu),
        jnp.mean((d < 0).astype(u.dtype)),
    )


def _first_zero(falling: Callable[[Array], Array], ahead: Float[Array, ""]) -> Float[Array, ""]:
    """Where a function that falls from a positive value crosses zero, by bisection.

    Zero if it is not positive at zero, infinity if it still is at ``ahead``, where the bound
    itself (without its error) has crossed if nu is positive.
    """
    zero = jnp.zeros_like(ahead)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        left, right = ends
        middle = (left + right) / 2
        positive = falling(middle) > 0
        return jnp.where(positive, middle, left), jnp.where(positive, right, middle)

    left, right = jax.lax.fori_loop(0, 60, halve, (zero, ahead))
    found = jnp.where(falling(ahead) > 0, jnp.inf, (left + right) / 2)
    return jnp.where(falling(zero) > 0, found, 0.0)
