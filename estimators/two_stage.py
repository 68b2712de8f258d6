"""Several regressors, as many instruments or more: least squares in two stages and what tests it.

Everything follows from one QR factorisation of exogenous regressors and instruments: what it leaves
of outcome and regressors, and the coordinates of these along the instruments.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.estimators import linear_algebra
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.units import INDEPENDENT, Units


class Stages(NamedTuple):
    """Outcome, regressors and instruments once exogenous regressors are taken out.

    Rows are multiplied by the roots of their weights.
    """

    y: Float[Array, " n"]
    c: Float[Array, "n p"]
    q: Float[Array, "n m"]  # orthonormal basis of the instruments
    cy: Float[Array, " m"]  # coordinates of the outcome in it
    cc: Float[Array, "m p"]  # of the regressors
    exogenous: Float[Array, "w p1"]  # coefficients of the outcome and the regressors on these

    @property
    def free(self) -> int:
        """Rows less columns of exogenous regressors and instruments."""
        return self.y.shape[0] - self.exogenous.shape[0] - self.q.shape[1]


def stages(
    Y: Float[Array, " n"],
    C: Float[Array, "n p"],
    Z: Float[Array, "n m"],
    W: Float[Array, "n w"],
    units: Units = INDEPENDENT,
) -> Stages:
    """Take exogenous regressors out.

    Args:
      Y: outcome.
      C: regressors.
      Z: instruments, at least as many; ``C`` itself for least squares.
      W: exogenous regressors, constant included; may have no column.
      units: observation weights.
    """
    root = jnp.sqrt(units.weights_like(Y))[:, None]
    q, r = jnp.linalg.qr(jnp.concatenate([W, Z], axis=1) * root)
    k = W.shape[1]
    left = jnp.concatenate([Y[:, None], C], axis=1) * root
    if k:
        along = q[:, :k].T @ left
        left = left - q[:, :k] @ along
        coef = jax.lax.linalg.triangular_solve(r[:k, :k], along, left_side=True)
    else:
        coef = jnp.zeros((0, left.shape[1]), left.dtype)
    basis = q[:, k:]
    inside = basis.T @ left
    return Stages(left[:, 0], left[:, 1:], basis, inside[:, 0], inside[:, 1:], coef)


def least_squares(
    parts: Stages, units: Units = INDEPENDENT, *, theta: Array | None = None, **fields: Any
) -> Estimate:
    """Coefficients of the regressors by two-stage least squares, with influence values (HC0).

    Args:
      parts: see `stages`.
      units: clusters.
      theta: other coefficients to take the influence values at, as those of `liml`.
      **fields: further fields of the estimate; diagnostics gain the coefficients of the exogenous
        regressors as ``exogenous``.
    """
    cc = parts.cc if theta is None else linear_algebra.after(parts.cc, theta)
    inner, upper = jnp.linalg.qr(cc)

    def back(b: Array, **more: Any) -> Array:
        return jax.lax.linalg.triangular_solve(upper, b, left_side=True, **more)

    if theta is None:
        theta = back((inner.T @ parts.cy)[:, None])[:, 0]
    rows = parts.q @ back(inner.T, transpose_a=False).T  # of the fitted regressors' pseudo-inverse
    residual = parts.y - parts.c @ theta
    psi = parts.y.shape[0] * residual[:, None] * rows
    exogenous = parts.exogenous[:, 0] - parts.exogenous[:, 1:] @ theta
    told = {"exogenous": exogenous, **fields.pop("diagnostics", {})}
    return Estimate.from_psi(theta, psi, units, diagnostics=told, **fields)


def liml_kappa(parts: Stages) -> Float[Array, ""]:
    """The factor of limited-information maximum likelihood, at least 1; 1 is two-stage.

    References:
      Anderson and Rubin (1949); Davidson and MacKinnon (1993), section 18.5.
    """
    both = jnp.concatenate([parts.y[:, None], parts.c], axis=1)
    inside = jnp.concatenate([parts.cy[:, None], parts.cc], axis=1)
    outside = _apart(both, parts.q, inside)
    whole = both.T @ both
    return _generalised(whole, outside.T @ outside)[0]


def liml(parts: Stages) -> Float[Array, " p"]:
    """Coefficients by limited-information maximum likelihood, less biased with weak instruments."""
    kappa = liml_kappa(parts)
    left = parts.c.T @ parts.c
    out = _apart(parts.c, parts.q, parts.cc)
    y_out = _apart(parts.y[:, None], parts.q, parts.cy[:, None])[:, 0]
    matrix = left - kappa * out.T @ out
    return jnp.linalg.solve(matrix, parts.c.T @ parts.y - kappa * out.T @ y_out)


def first_stage_f(parts: Stages) -> Float[Array, " p"]:
    """F statistic of the instruments in the first stage of every regressor."""
    out = _apart(parts.c, parts.q, parts.cc)
    explained = jnp.sum(parts.cc**2, axis=0) / parts.q.shape[1]
    return explained / (jnp.sum(out**2, axis=0) / parts.free)


def cragg_donald(parts: Stages) -> Float[Array, ""]:
    """The smallest F statistic over all linear combinations of the regressors.

    References:
      Cragg and Donald (1993); Stock and Yogo (2005).
    """
    out = _apart(parts.c, parts.q, parts.cc)
    smallest = _generalised(parts.cc.T @ parts.cc, out.T @ out)[0]
    return smallest * (parts.free / parts.q.shape[1])


class ChiSquared(NamedTuple):
    """A statistic that is chi-squared with ``df`` degrees of freedom under the null."""

    statistic: Float[Array, ""]
    df: int

    def pvalue(self) -> float:
        """Probability of a larger statistic under the null, on the host."""
        from scipy.special import chdtrc

        return float(chdtrc(self.df, np.maximum(self.statistic, 0))) if self.df else float("nan")


def sargan(parts: Stages, theta: Float[Array, " p"]) -> ChiSquared:
    """Overidentification under equal variances, at two-stage coefficients."""
    inside = parts.cy - parts.cc @ theta
    residual = parts.y - parts.c @ theta
    n = parts.y.shape[0]
    return ChiSquared(n * inside @ inside / (residual @ residual), _extra(parts))


def hansen(parts: Stages, theta: Float[Array, " p"], units: Units = INDEPENDENT) -> ChiSquared:
    """Overidentification by efficient GMM, robust to unequal variances and clusters.

    References:
      Hansen (1982).
    """
    spread = _moment_spread(parts, theta, units)
    weighted = jnp.linalg.solve(spread, jnp.concatenate([parts.cc, parts.cy[:, None]], axis=1))
    efficient = jnp.linalg.solve(parts.cc.T @ weighted[:, :-1], parts.cc.T @ weighted[:, -1])
    inside = parts.cy - parts.cc @ efficient
    return ChiSquared(inside @ jnp.linalg.solve(spread, inside), _extra(parts))


def anderson_rubin_test(
    parts: Stages, theta: Float[Array, " p"], units: Units = INDEPENDENT
) -> ChiSquared:
    """Whether the coefficients are ``theta``; valid however weak the instruments are.

    References:
      Anderson and Rubin (1949); Chernozhukov and Hansen (2008) for unequal variances.
    """
    spread = _moment_spread(parts, theta, units)
    inside = parts.cy - parts.cc @ theta
    return ChiSquared(inside @ jnp.linalg.solve(spread, inside), parts.q.shape[1])


def _moment_spread(parts: Stages, theta: Array, units: Units) -> Float[Array, "m m"]:
    """Variance of the moments ``q' residual``."""
    moments = units.sums((parts.y - parts.c @ theta)[:, None] * parts.q)
    return moments.T @ moments


def _extra(parts: Stages) -> int:
    return parts.q.shape[1] - parts.c.shape[1]


def _apart(x: Array, basis: Array, inside: Array) -> Array:
    """What instruments do not explain."""
    return x - basis @ inside


def _generalised(a: Array, b: Array) -> Float[Array, " p"]:
    """Eigenvalues of ``b^-1 a``, ascending; both symmetric, ``b`` positive definite."""
    lower = jnp.linalg.cholesky(b)
    half = jax.lax.linalg.triangular_solve(lower, a, left_side=True, lower=True)
    whole = jax.lax.linalg.triangular_solve(
        lower, half, left_side=False, lower=True, transpose_a=True
    )
    return jnp.linalg.eigvalsh((whole + whole.T) / 2)
