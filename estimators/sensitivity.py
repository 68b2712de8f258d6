"""Omitted variables: how strong would they have to be to change the conclusion?

The bias of an estimate that leaves out confounders is at most
``|rho| sqrt(cf_y cf_d / (1 - cf_d)) S``, where ``cf_y`` is the share of the outcome's residual
variance they would explain, ``cf_d`` the share of the variance of the weights (the Riesz
representer) they would add, ``rho`` how well both go together, and ``S`` is estimated
(Chernozhukov, Cinelli, Newey, Sharma and Syrgkanis 2022, Long story short). Everything is a pure
function of influence values and nuisances, for one partition; `jax.vmap` takes it over several.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.estimators.variance import normal_quantile, variance


class Elements(NamedTuple):
    """Residual variance of the outcome and mean square of the weights, with influence values.

    Observation weights are in the influence values.
    """

    sigma2: Float[Array, ""]
    nu2: Float[Array, ""]
    psi_sigma2: Float[Array, " n"]
    psi_nu2: Float[Array, " n"]

    def scale(self) -> tuple[Float[Array, ""], Float[Array, " n"]]:
        """The largest bias per unit of strength, and its influence values."""
        largest = jnp.sqrt(self.sigma2 * self.nu2)
        psi = self.sigma2 * self.psi_nu2 + self.nu2 * self.psi_sigma2
        return largest, psi / (2 * largest)


class Bounds(NamedTuple):
    """Lower and upper bound of the effect for one strength of confounding."""

    theta: Float[Array, "2"]
    se: Float[Array, "2"]
    limits: Float[Array, "2"]  # one-sided confidence limits of the two bounds


class Robustness(NamedTuple):
    """Strength of confounding (``cf_y = cf_d``) that would take an effect to a given value."""

    rv: Float[Array, ""]  # where the bound reaches it
    rva: Float[Array, ""]  # where the confidence limit of the bound reaches it; 0 if it has already


class Benchmark(NamedTuple):
    """Strength of confounders that would add as much as a group of observed covariates adds.

    As DoubleML has it: the gain in explained variance over what is left with all covariates, the
    gain in the mean square of the weights over that without the group; both at most one.
    """

    cf_y: Float[Array, ""]
    cf_d: Float[Array, ""]
    rho: Float[Array, ""]
    change: Float[Array, ""]  # of the estimate when they are left out


# --- elements of the models ---------------------------------------------------------------------


@in_double
def plr_elements(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    l: Float[Array, " n"],
    m: Float[Array, " n"],
    theta: Float[Array, ""],
    units: Units = INDEPENDENT,
) -> Elements:
    """Of the partially linear model, from outcome, treatment, E[Y|X], E[D|X] and the estimate."""
    w = units.weights_like(y)
    square = (d - m) ** 2
    nu2 = 1 / jnp.mean(w * square)
    sigma2, psi_sigma2 = _mean(w, (y - l - theta * (d - m)) ** 2)
    return Elements(sigma2, nu2, psi_sigma2, w * nu2 - w * square * nu2**2)


@in_double
def irm_elements(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    m: Float[Array, " n"],
    g0: Float[Array, " n"],
    g1: Float[Array, " n"],
    units: Units = INDEPENDENT,
    *,
    target: str = "ATE",
) -> Elements:
    """Of the interactive model, from outcome, 0/1 treatment, propensity and E[Y|D=d,X].

    ``target`` is "ATE" or "ATT".
    """
    if target not in ("ATE", "ATT"):
        raise UserError(f"Expected target='ATE' or 'ATT', found {target!r}.")
    w = units.weights_like(y)
    one = jnp.ones_like(y)
    of, share = (one, one) if target == "ATE" else (d, m)  # weight of a unit, and its mean given X
    size = jnp.mean(w * of)
    of, share = of / size, share / size
    sigma2, psi_sigma2 = _mean(w, (y - jnp.where(d > 0.5, g1, g0)) ** 2)
    riesz = share * (d / m - (1 - d) / (1 - m))
    nu2, psi_nu2 = _mean(w, 2 * of * share * (1 / m + 1 / (1 - m)) - riesz**2)
    return Elements(sigma2, nu2, psi_sigma2, psi_nu2)


def _mean(w: Float[Array, " n"], x: Float[Array, " n"]) -> tuple[Array, Array]:
    mean = jnp.mean(w * x)
    return mean, w * (x - mean)


# --- bounds and robustness values ---------------------------------------------------------------


def strength(
    cf_y: float | Array, cf_d: float | Array, rho: float | Array = 1.0
) -> Float[Array, ""]:
    """What the three sensitivity parameters multiply the largest bias with.

    >>> round(float(strength(0.03, 0.03)), 5)
    0.03046
    """
    return abs(rho) * jnp.sqrt(cf_y * cf_d / (1 - cf_d))


@in_double
def bounds(
    theta: Float[Array, ""],
    psi: Float[Array, " n"],
    elements: Elements,
    cf_y: float | Array = 0.03,
    cf_d: float | Array = 0.03,
    rho: float | Array = 1.0,
    *,
    level: float = 0.95,
    units: Units = INDEPENDENT,
) -> Bounds:
    """Bounds of the effect if confounders of a given strength were left out.

    Args:
      theta: the estimate.
      psi: its influence values.
      elements: of its model.
      cf_y: share of the outcome's residual variance that they explain, in [0, 1).
      cf_d: share of the variance of the weights that they add, in [0, 1).
      rho: correlation of both, in [-1, 1]; 1 is the worst case.
      level: of each one-sided limit.
      units: clusters of the units.
    """
    normal_quantile(level)  # refuses levels outside (0, 1)
    return _bounds(theta, psi, elements, strength(cf_y, cf_d, rho), _one_sided(level, units), units)


@in_double
def robustness_value(
    theta: Float[Array, ""],
    psi: Float[Array, " n"],
    elements: Elements,
    *,
    null: float = 0.0,
    rho: float = 1.0,
    level: float = 0.95,
    units: Units = INDEPENDENT,
) -> Robustness:
    """Smallest ``cf_y = cf_d`` at which the bound, or its limit, includes ``null``.

    The first is in closed form, the second by bisection.

    Args:
      theta: the estimate.
      psi: its influence values.
      elements: of its model.
      null: value of the effect that would change the conclusion.
      rho: see `bounds`; not zero.
      level: of the one-sided limit.
      units: clusters of the units.
    """
    largest = elements.scale()[0]
    needed = jnp.abs(theta - null) / (largest * abs(rho))
    rv = _share(needed)
    side = jnp.where(theta > null, 0, 1)
    z = _one_sided(level, units)

    def passed(cf: Array) -> Array:
        limit = _bounds(theta, psi, elements, strength(cf, cf, rho), z, units).limits[side]
        return jnp.where(theta > null, limit <= null, limit >= null)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        there = passed(middle)
        return jnp.where(there, low, middle), jnp.where(there, middle, high)

    ends = jax.lax.fori_loop(0, 60, halve, (jnp.zeros_like(rv), rv))
    rva = jnp.where(passed(jnp.zeros_like(rv)), 0, ends[1])
    return Robustness(rv, rva)


def _share(needed: Float[Array, ""]) -> Float[Array, ""]:
    """The r with ``r / sqrt(1 - r) = needed``."""
    return 2 * needed / (needed + jnp.sqrt(needed**2 + 4))


def _bounds(
    theta: Float[Array, ""],
    psi: Float[Array, " n"],
    elements: Elements,
    strong: Float[Array, ""],
    z: float,
    units: Units,
) -> Bounds:
    largest, psi_largest = elements.scale()
    sign = jnp.asarray([-1.0, 1.0], psi.dtype)
    centre = theta + sign * strong * largest
    rows = psi[:, None] + sign[None] * (strong * psi_largest)[:, None]
    se = jnp.sqrt(variance(rows, units))
    return Bounds(centre, se, centre + sign * z * se)


def _one_sided(level: float, units: Units) -> float:
    from scipy.special import ndtri, stdtrit

    return float(ndtri(level) if units.df is None else stdtrit(units.df, level))


# --- benchmarks and pictures --------------------------------------------------------------------


@in_double
def benchmark(
    y: Float[Array, " n"],
    long: tuple[Float[Array, ""], Elements],
    short: tuple[Float[Array, ""], Elements],
    units: Units = INDEPENDENT,
) -> Benchmark:
    """Strength of covariates from two fits: with all of them, and with some left out.

    Args:
      y: outcome.
      long: estimate and elements with all covariates.
      short: estimate and elements without the group.
      units: observation weights.
    """
    w = units.weights_like(y)
    spread = jnp.mean(w * (y - jnp.mean(w * y)) ** 2)
    (theta, e), (theta_short, f) = long, short
    r2, r2_short = 1 - e.sigma2 / spread, 1 - f.sigma2 / spread
    cf_y = jnp.clip((r2 - r2_short) / (1 - r2), 0, 1)
    ratio = f.nu2 / e.nu2
    cf_d = jnp.clip((1 - ratio) / ratio, 0, 1)
    change = theta_short - theta
    gains = (f.sigma2 - e.sigma2) * (e.nu2 - f.nu2)
    possible = (f.sigma2 > e.sigma2) & (e.nu2 > f.nu2)
    size = jnp.where(possible, jnp.abs(change) / jnp.sqrt(jnp.where(possible, gains, 1)), 1)
    return Benchmark(cf_y, cf_d, jnp.sign(change) * jnp.clip(size, 0, 1), change)


def benchmarks(
    fit: Callable[[Float[Array, "n p"]], tuple[Estimate, Elements]],
    y: Float[Array, " n"],
    X: Float[Array, "n p"],
    groups: Mapping[str, Sequence[int]],
    units: Units = INDEPENDENT,
) -> dict[str, Benchmark]:
    """Strength of each group of covariates, by fitting without it.

    Args:
      fit: from covariates to estimate and elements (same folds and learners every time).
      y: outcome.
      X: covariates.
      groups: name of a group -> columns of ``X``.
      units: observation weights.

    Raises:
      UserError: a group is empty, has columns that do not exist, or is all there is.
    """
    p = X.shape[1]
    for name, columns in groups.items():
        if not columns or not all(0 <= j < p for j in columns) or len(set(columns)) == p:
            raise UserError(
                f"Expected some but not all of the columns 0 to {p - 1} in group {name!r}, found "
                f"{list(columns)}."
            )
    whole, elements = fit(X)
    out = {}
    for name, columns in groups.items():
        rest = np.array([j for j in range(p) if j not in set(columns)])
        found, without = fit(X[:, rest])
        out[name] = benchmark(y, (whole.theta, elements), (found.theta, without), units)
    return out


@in_double
def contour(
    theta: Float[Array, ""],
    psi: Float[Array, " n"],
    elements: Elements,
    *,
    rho: float = 1.0,
    level: float = 0.95,
    largest: float = 0.15,
    points: int = 50,
    side: str = "lower",
    limit: bool = False,
    units: Units = INDEPENDENT,
) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
    """A bound of the effect over a grid of strengths, for `plots.sensitivity_contour`.

    Args:
      theta: the estimate.
      psi: its influence values.
      elements: of its model.
      rho: see `bounds`.
      level: of the one-sided limit.
      largest: end of both axes.
      points: on each axis, from zero.
      side: "lower" or "upper" bound.
      limit: its confidence limit in place of the bound.
      units: clusters of the units.

    Returns:
      The grid of both axes, and the bound with ``cf_d`` along rows and ``cf_y`` down columns.
    """
    if side not in ("lower", "upper"):
        raise UserError(f"Expected side='lower' or 'upper', found {side!r}.")
    if not 0 < largest < 1:
        raise UserError(f"Expected a largest strength between 0 and 1, found {largest}.")
    z, place = _one_sided(level, units), ("lower", "upper").index(side)
    grid = jnp.linspace(0, largest, points, dtype=psi.dtype)

    def one(cf_y: Array, cf_d: Array) -> Array:
        found = _bounds(theta, psi, elements, strength(cf_y, cf_d, rho), z, units)
        return (found.limits if limit else found.theta)[place]

    over = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
    return grid, over(grid, grid)
