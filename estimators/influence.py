"""Influence functions: scores, their variance, and a derivative check.

A linear score is ``psi(theta) = psi_a * theta + psi_b`` (the names of DoubleML); its root is
``theta = -mean(psi_b) / mean(psi_a)`` and the influence function is ``psi / -mean(psi_a)``.

Called on values, scores and `solve` compute in float64 and return NumPy; under ``jit`` and ``vmap``
in the precision of what they are given. On values they refuse what is missing or infinite, and an
estimate that is not finite; nothing else is checked.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxcore.estimators import linear_algebra
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.units import INDEPENDENT, Units


class LinearScore(NamedTuple):
    """The two parts of a score linear in theta, one row per unit."""

    psi_a: Float[Array, " n"]
    psi_b: Float[Array, " n"]


# --- scores -------------------------------------------------------------------------------------


def signed_weight(ps: Float[Array, "*n"], a: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """``A/ps - (1-A)/(1-ps)``: the inverse-probability weight with its sign."""
    return a / ps - (1 - a) / (1 - ps)


def _constant(value: float, like: Float[Array, " n"]) -> Float[Array, " n"]:
    return jnp.full_like(like, value)


@in_double
def ipw(y: Float[Array, " n"], a: Float[Array, " n"], ps: Float[Array, " n"]) -> LinearScore:
    """Inverse-probability weighting (Horvitz-Thompson) score of the average treatment effect.

    Args:
      y: outcome.
      a: treatment, 0 or 1.
      ps: propensity P(A=1|X), in (0, 1).

    >>> import jax.numpy as jnp
    >>> y, a = jnp.array([3.0, 1.0]), jnp.array([1.0, 0.0])
    >>> float(solve(ipw(y, a, jnp.full(2, 0.5))).theta)
    2.0
    """
    return LinearScore(_constant(-1.0, y), signed_weight(ps, a) * y)


@in_double
def hajek(
    y: Float[Array, " n"],
    a: Float[Array, " n"],
    ps: Float[Array, " n"],
    *,
    weights: Float[Array, " n"] | None = None,
) -> LinearScore:
    """IPW with weights normalised to mean one in each arm (Hajek).

    The propensity counts as known. ``psi_b`` is already linearised at the sample weights, so the
    observation ``weights`` must be the ones later given to `solve`.

    >>> import jax.numpy as jnp
    >>> y, a = jnp.array([3.0, 1.0, 5.0]), jnp.array([1.0, 0.0, 1.0])
    >>> round(float(solve(hajek(y, a, jnp.array([0.5, 0.5, 0.25]))).theta), 4)
    3.3333
    """
    w = jnp.ones_like(y) if weights is None else weights

    def mean(x: Float[Array, " n"]) -> Float[Array, ""]:
        return jnp.sum(w * x) / jnp.sum(w)

    w1, w0 = a / ps, (1 - a) / (1 - ps)
    w1, w0 = w1 / mean(w1), w0 / mean(w0)
    m1, m0 = mean(w1 * y), mean(w0 * y)
    return LinearScore(_constant(-1.0, y), w1 * (y - m1) + m1 - w0 * (y - m0) - m0)


@in_double
def aipw(
    y: Float[Array, " n"],
    a: Float[Array, " n"],
    ps: Float[Array, " n"],
    m0: Float[Array, " n"],
    m1: Float[Array, " n"],
) -> LinearScore:
    """Augmented IPW score of the average treatment effect (doubly robust, efficient).

    Args:
      y: outcome.
      a: treatment, 0 or 1.
      ps: propensity P(A=1|X), in (0, 1).
      m0: E[Y|A=0,X].
      m1: E[Y|A=1,X].

    References:
      Robins, Rotnitzky and Zhao (1994).

    >>> import jax.numpy as jnp
    >>> y, a, half = jnp.array([3.0, 1.0]), jnp.array([1.0, 0.0]), jnp.full(2, 0.5)
    >>> float(solve(aipw(y, a, half, jnp.ones(2), jnp.full(2, 3.0))).theta)
    2.0
    """
    residual = y - jnp.where(a > 0.5, m1, m0)
    return LinearScore(_constant(-1.0, y), m1 - m0 + signed_weight(ps, a) * residual)


@in_double
def treated(
    y: Float[Array, " n"], a: Float[Array, " n"], ps: Float[Array, " n"], m0: Float[Array, " n"]
) -> LinearScore:
    """Doubly robust score of the average effect on the treated.

    Args:
      y: outcome.
      a: treatment, 0 or 1.
      ps: propensity P(A=1|X), below 1.
      m0: E[Y|A=0,X].

    References:
      Hahn (1998); Chernozhukov et al. (2018), section 5.1.

    >>> import jax.numpy as jnp
    >>> y, a, half = jnp.array([3.0, 1.0]), jnp.array([1.0, 0.0]), jnp.full(2, 0.5)
    >>> float(solve(treated(y, a, half, jnp.ones(2))).theta)
    2.0
    """
    return LinearScore(-a, (a - (1 - a) * ps / (1 - ps)) * (y - m0))


@in_double
def potential_mean(
    y: Float[Array, " n"], at: Float[Array, " n"], ps: Float[Array, " n"], m: Float[Array, " n"]
) -> LinearScore:
    """Doubly robust score of the mean outcome if everybody had one treatment level.

    Args:
      y: outcome.
      at: whether the unit has that level, 0 or 1.
      ps: probability of that level given X, above 0.
      m: E[Y|that level, X].

    References:
      Cattaneo (2010).
    """
    return LinearScore(_constant(-1.0, y), m + at / ps * (y - m))


@in_double
def partially_linear(
    y: Float[Array, " n"], d: Float[Array, " n"], l: Float[Array, " n"], m: Float[Array, " n"]
) -> LinearScore:
    """Partialling-out score of ``Y = theta D + g(X) + e``.

    Args:
      y: outcome.
      d: treatment, any real.
      l: E[Y|X].
      m: E[D|X].

    References:
      Robinson (1988); Chernozhukov et al. (2018), equation 4.4.

    >>> import jax.numpy as jnp
    >>> d, zero = jnp.array([1.0, 2.0, -1.0]), jnp.zeros(3)
    >>> float(solve(partially_linear(2 * d, d, zero, zero)).theta)
    2.0
    """
    v = d - m
    return LinearScore(-v * v, (y - l) * v)


@in_double
def partially_linear_iv(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    z: Float[Array, " n"],
    l: Float[Array, " n"],
    m: Float[Array, " n"],
    r: Float[Array, " n"],
) -> LinearScore:
    """Partialling-out score of the partially linear model with an instrument (PLIV).

    Args:
      y: outcome.
      d: treatment, any real.
      z: instrument, any real.
      l: E[Y|X].
      m: E[Z|X].
      r: E[D|X].

    >>> import jax.numpy as jnp
    >>> z, zero = jnp.array([1.0, 2.0, -1.0]), jnp.zeros(3)
    >>> float(solve(partially_linear_iv(6 * z, 2 * z, z, zero, zero, zero)).theta)
    3.0
    """
    w = z - m
    return LinearScore(-(d - r) * w, (y - l) * w)


@in_double
def late(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    z: Float[Array, " n"],
    m: Float[Array, " n"],
    g0: Float[Array, " n"],
    g1: Float[Array, " n"],
    r0: Float[Array, " n"],
    r1: Float[Array, " n"],
) -> LinearScore:
    """Interactive-IV score of the local average treatment effect (ratio of two AIPW scores).

    Args:
      y: outcome.
      d: treatment, 0 or 1.
      z: instrument, 0 or 1.
      m: P(Z=1|X).
      g0: E[Y|Z=0,X].
      g1: E[Y|Z=1,X].
      r0: E[D|Z=0,X]; zeros if nobody takes the treatment without the instrument.
      r1: E[D|Z=1,X]; ones if everybody takes it with the instrument.

    References:
      Chernozhukov et al. (2018), section 5.2.
    """
    numerator = aipw(y, z, m, g0, g1).psi_b
    denominator = aipw(d, z, m, r0, r1).psi_b
    return LinearScore(-denominator, numerator)


@in_double
def multiply_robust(
    y: Float[Array, " n"],
    a: Float[Array, " n"],
    z: Float[Array, " n"],
    pi: Float[Array, " n"],
    mu: Float[Array, " n"],
    g: Float[Array, " n"],
    delta: Float[Array, " n"],
    rho: Float[Array, " n"],
    d: Float[Array, " n"],
) -> LinearScore:
    """Score of the average treatment effect with an instrument that may act on the outcome.

    The average of ``psi_b`` is unbiased when one of {pi, mu}, {pi, delta, g}, {mu, delta, rho} or
    {delta, rho, g} is right.

    Args:
      y: outcome.
      a: treatment.
      z: instrument, 0 or 1.
      pi: P(Z=1|X), in (0, 1).
      mu: E[A|Z,X] at the observed Z.
      g: E[Y - delta(X) A|Z,X] at the observed Z.
      delta: conditional treatment effect.
      rho: E[(A-mu)(Y - delta A - g)|X].
      d: Var(A|Z=1,X) - Var(A|Z=0,X), non-zero.

    References:
      Sun, Cui and Tchetgen Tchetgen (2022), Selective machine learning of the average treatment
      effect with an invalid instrumental variable.
    """
    u = multiply_robust_signal(pi, z, delta, (a - mu) * (y - delta * a - g) - rho, d)
    return LinearScore(_constant(-1.0, y), u)


def multiply_robust_signal(
    pi: Float[Array, "*n"],
    z: Float[Array, "*n"],
    delta: Float[Array, "*n"],
    residual: Float[Array, "*n"],
    d: Float[Array, "*n"],
) -> Float[Array, "*n"]:
    """``delta + (2z-1)/(f(z) d) residual``: the moment of every unit, for shapes that broadcast.

    ``residual`` is ``(A-mu)(Y - delta A - g) - rho``, of mean zero given X.
    """
    return delta + signed_weight(pi, z) / d * residual


@in_double
def solve(
    score: LinearScore,
    units: Units = INDEPENDENT,
    **fields: Any,
) -> Estimate:
    """Root of a linear score as an `Estimate` (population standard deviation, ddof 0).

    Args:
      score: the two parts of the score.
      units: observation weights, and clusters for clustered standard errors.
      **fields: further fields of the estimate (names, estimator, diagnostics).
    """
    a, b = score
    w = units.weights_like(b)
    theta = -jnp.mean(w * b) / jnp.mean(w * a)
    psi = w * (a * theta + b) / -jnp.mean(w * a)
    return Estimate.from_psi(theta, psi, units=units, **fields)


def stacked(
    mean: Callable[[Any], Float[Array, " q"]],
    rows: Callable[[Any], Float[Array, "n q"]],
    params: Any,
) -> Float[Array, "n q"]:
    """Influence functions of the root of stacked estimating equations (an M-estimator).

    Args:
      mean: from parameters (a pytree with q numbers) to the mean of the q equations; must be
        differentiable.
      rows: from parameters to the equations of every unit.
      params: the root.

    Returns:
      ``-rows J^-T``, columns in the order of the flattened parameters; its `covariance` is the
      sandwich.
    """
    flat, unravel = ravel_pytree(params)
    jacobian = jax.jacfwd(lambda v: mean(unravel(v)))(flat)
    # The inverse is q x q; a solve with the n rows as right-hand sides is ten times slower.
    inverse = linear_algebra.solve(jacobian, jnp.eye(flat.shape[0], dtype=flat.dtype))
    return -rows(params) @ inverse.T


# --- derivative check ---------------------------------------------------------------------------


def gateaux(
    functional: Callable[[Float[Array, " s"]], Float[Array, ""]], p: Float[Array, " s"]
) -> Float[Array, " s"]:
    """Derivatives of a functional of a discrete law toward each of its support points.

    ``d/dt functional((1-t) p + t delta_s)`` at t = 0, by automatic differentiation. This is the
    influence function at the support points, which makes it a check of any claimed one.

    Args:
      functional: from probabilities to a number; need not normalise its argument.
      p: probabilities of the support points.

    >>> import jax.numpy as jnp
    >>> y, p = jnp.array([0.0, 1.0, 4.0]), jnp.array([0.5, 0.25, 0.25])
    >>> gateaux(lambda q: jnp.sum(q * y) / jnp.sum(q), p).tolist()
    [-1.25, -0.25, 2.75]
    """
    gradient = jax.grad(functional)(p)
    return gradient - jnp.sum(gradient * p)
