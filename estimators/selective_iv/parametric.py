"""Parametric multiply robust estimator with sandwich standard errors."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcore.errors import UserError
from jaxcore.estimators import influence, linear_algebra
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance.penalised import NewtonResult, newton_logistic
from jaxcore.estimators.selective_iv import one_sided as one_sided_fit
from jaxcore.estimators.selective_iv.moment import Nuisances, variance_contrast
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.estimators.variance import covariance, variance


class Bases(NamedTuple):
    """Design matrices of the five nuisances, constant columns included."""

    pi: Float[Array, "n q_pi"]
    mu: Float[Array, "n q_mu"]  # at the observed Z
    mu1: Float[Array, "n q_mu"]  # with Z set to 1
    mu0: Float[Array, "n q_mu"]  # with Z set to 0
    g: Float[Array, "n q_g"]  # at the observed Z
    delta: Float[Array, "n q_d"]
    rho: Float[Array, "n q_r"]


class Coefficients(NamedTuple):
    """Fitted coefficients, in the order of the stacked estimating equations."""

    alpha: Float[Array, " q_pi"]  # pi, log-odds
    beta: Float[Array, " q_mu"]  # mu, log-odds
    psi: Float[Array, " q_d"]  # delta
    kappa: Float[Array, " q_g"]  # g
    eta: Float[Array, " q_r"]  # rho
    theta: Float[Array, ""]


def solve_linear_blocks(
    Bg: Float[Array, "n q_g"],
    Bd: Float[Array, "n q_d"],
    Br: Float[Array, "n q_r"],
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    e: Float[Array, " n"],
    h: Float[Array, " n"],
    w: Float[Array, " n"],
) -> tuple[Float[Array, " q_d"], Float[Array, " q_g"], Float[Array, " q_r"]]:
    """Solve the three linear equations for delta, g and rho at once.

    Args:
      Bg: basis of g.
      Bd: basis of delta.
      Br: basis of rho.
      Y: outcome.
      A: treatment.
      e: A - mu.
      h: Z - pi.
      w: weights.

    Returns:
      Coefficients of delta, g, rho.
    """
    wg, we = w[:, None] * Bg, (w * e)[:, None] * Br
    wh = (w * h)[:, None] * Bd
    whe = wh * e[:, None]
    Ad = A[:, None] * Bd
    zero = jnp.zeros((Bg.shape[1], Br.shape[1]), Y.dtype)
    system = jnp.block(
        [
            [wg.T @ Bg, wg.T @ Ad, zero],
            [we.T @ Bg, we.T @ Ad, (w[:, None] * Br).T @ Br],
            [whe.T @ Bg, whe.T @ Ad, wh.T @ Br],
        ]
    )
    right = jnp.concatenate([wg.T @ Y, we.T @ Y, whe.T @ Y])
    scale = jnp.sum(w)
    x = linear_algebra.solve(system / scale, right / scale)
    q_g, q_d = Bg.shape[1], Bd.shape[1]
    return x[q_g : q_g + q_d], x[:q_g], x[q_g + q_d :]


class _Problem(NamedTuple):
    """Data, designs and weights; one-sided: those of mu and g count among Z=1 only."""

    Y: Float[Array, " n"]
    A: Float[Array, " n"]
    Z: Float[Array, " n"]
    bases: Bases
    w: Float[Array, " n"]
    one_sided: bool

    def values(self, c: Coefficients) -> Nuisances:
        """Nuisances at the units."""
        b = self.bases
        mu1 = jax.nn.sigmoid(b.mu1 @ c.beta)
        zero = jnp.zeros_like(mu1)
        return Nuisances(
            pi=jax.nn.sigmoid(b.pi @ c.alpha),
            mu1=mu1,
            mu0=zero if self.one_sided else jax.nn.sigmoid(b.mu0 @ c.beta),
            g=b.g @ c.kappa,
            delta=b.delta @ c.psi,
            rho=zero if self.one_sided else b.rho @ c.eta,
        )

    def residuals(self, c: Coefficients) -> tuple[list[tuple[Array, Array]], Float[Array, " n"]]:
        """Every estimating equation as (basis, residual per row), and u."""
        (Y, A, Z, b), nu = self[:4], self.values(c)
        e, h = A - jnp.where(Z > 0.5, nu.mu1, nu.mu0), Z - nu.pi
        r = Y - A * nu.delta - nu.g
        d = variance_contrast(nu.mu1, nu.mu0)
        u = influence.multiply_robust_signal(nu.pi, Z, nu.delta, e * r - nu.rho, d)
        if self.one_sided:  # g and delta by least squares of Y on [A Bd, Bg] among Z = 1
            return [(b.pi, h), (b.mu, Z * e), (b.g, Z * r), (b.delta, Z * A * r)], u
        last = e * r - nu.rho
        return [(b.pi, h), (b.mu, e), (b.g, r), (b.rho, last), (b.delta, h * last)], u

    def mean(self, c: Coefficients) -> Float[Array, " q"]:
        """Means of the stacked equations, the last one that of theta."""
        equations, u = self.residuals(c)
        parts = [B.T @ (self.w * r) for B, r in equations] + [jnp.sum(self.w * (u - c.theta))[None]]
        return jnp.concatenate(parts) / u.shape[0]

    def rows(self, c: Coefficients) -> Float[Array, "n q"]:
        """The stacked equations of every unit."""
        equations, u = self.residuals(c)
        parts = [B * (self.w * r)[:, None] for B, r in equations]
        return jnp.concatenate([*parts, (self.w * (u - c.theta))[:, None]], axis=1)

    def fit(self, ridge: float | Array) -> tuple[Coefficients, Bool[Array, ""]]:
        """Coefficients but for theta, and whether the logistic regressions converged."""
        Y, A, Z, bases, w = self[:5]

        def logistic(B: Array, y: Array, weight: Array) -> NewtonResult:
            return newton_logistic(B, y, weight, penalty=jnp.full(B.shape[1], ridge, B.dtype))

        a = logistic(bases.pi, Z, w)
        b = logistic(bases.mu, A, w * Z if self.one_sided else w)
        if self.one_sided:
            psi, kappa = one_sided_fit.least_squares(Y, A, bases.delta, bases.g, w * Z)
            eta = jnp.zeros(bases.rho.shape[1], Y.dtype)
        else:
            e = A - jax.nn.sigmoid(bases.mu @ b.coef)
            h = Z - jax.nn.sigmoid(bases.pi @ a.coef)
            psi, kappa, eta = solve_linear_blocks(bases.g, bases.delta, bases.rho, Y, A, e, h, w)
        zero = jnp.zeros((), Y.dtype)
        return Coefficients(a.coef, b.coef, psi, kappa, eta, zero), a.converged & b.converged


@functools.partial(jax.jit, static_argnames=("se", "one_sided"))
def mr_parametric(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    bases: Bases,
    *,
    se: str = "sandwich",
    one_sided: bool = False,
    ridge: float = 0.0,
    units: Units = INDEPENDENT,
) -> Estimate:
    """Parametric multiply robust, locally efficient estimate of the average treatment effect.

    Logistic working models for pi and mu, linear ones for delta, g and rho.

    Args:
      Y: outcome.
      A: treatment, 0 or 1.
      Z: instrument, 0 or 1.
      bases: design matrices. If ``one_sided``, those of mu and g are used among Z=1 only and must
        not contain Z.
      se: "sandwich" (right whenever the estimate is) or "if" (right if all models are).
      one_sided: nobody with Z=0 is treated: mu0 = rho = 0, and g = 0 where Z = 0.
      ridge: penalty of the two logistic regressions (added to the mean log-likelihood).
      units: observation weights and clusters.

    Returns:
      The estimate; its diagnostics hold ``u``, ``nuisances``, ``coefficients``, the covariance
      ``cov`` in the order [alpha, beta, psi, kappa, eta, theta], ``se_if``, ``se_sandwich`` and
      ``converged`` (of the logistic regressions).
    """
    if se not in ("sandwich", "if"):
        raise UserError(f"Expected se='sandwich' or 'if', found {se!r}.")
    w = units.weights_like(Y)
    problem = _Problem(Y, A, Z, bases, w, one_sided)
    c, converged = problem.fit(ridge)
    if one_sided:  # g is zero where Z = 0; the design says so from here on
        problem = problem._replace(bases=bases._replace(g=bases.g * Z[:, None]))
    u = problem.residuals(c)[1]
    c = c._replace(theta=jnp.mean(w * u))
    psi_if = w * (u - c.theta)
    stacked, at = problem, c
    if one_sided:  # rho has no equation
        stacked = problem._replace(bases=problem.bases._replace(rho=bases.rho[:, :0]))
        at = c._replace(eta=c.eta[:0])
    every = influence.stacked(stacked.mean, stacked.rows, at)
    full = every[:, -1]
    psi = full if se == "sandwich" else psi_if
    diagnostics = {
        "u": u,
        "nuisances": problem.values(c),
        "coefficients": c,
        "cov": covariance(every),
        "influence_full": full,
        "se_if": jnp.sqrt(variance(psi_if)),
        "se_sandwich": jnp.sqrt(variance(full)),
        "converged": converged,
    }
    return Estimate.from_psi(
        c.theta,
        psi,
        units=units,
        diagnostics=diagnostics,
        names=("ATE",),
        estimator="multiply robust, parametric" + (", one-sided" if one_sided else ""),
    )
