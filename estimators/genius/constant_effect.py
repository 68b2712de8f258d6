"""Constant-effect relatives: GENIUS, and its orthogonal partially linear form.

References:
  Tchetgen Tchetgen, Sun and Walter (2021), The GENIUS approach to robust Mendelian randomization
  inference; Lewbel (2012).
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators import influence, linear_algebra
from jaxcore.estimators.arguments import on_values
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.linear_iv import robust_set
from jaxcore.estimators.nuisance.penalised import newton_logistic
from jaxcore.estimators.units import INDEPENDENT, Units

KINDS = ("logistic", "linear")


def _mean_model(
    kind: str, B: Float[Array, "n q"], y: Float[Array, " n"], w: Float[Array, " n"]
) -> Float[Array, " q"]:
    """Coefficients of a logistic or linear mean model."""
    if kind == "logistic":
        return newton_logistic(B, y, w).coef
    weighted = B * w[:, None]
    return linear_algebra.solve(weighted.T @ B, weighted.T @ y)


def _predict(kind: str, B: Float[Array, "n q"], b: Float[Array, " q"]) -> Float[Array, " n"]:
    return jax.nn.sigmoid(B @ b) if kind == "logistic" else B @ b


@on_values(numbers=["Y", "A", "Z"], tables=["Bpi", "Bmu"])
@functools.partial(jax.jit, static_argnames=("z_model", "a_model", "one_sided"))
def genius(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    *,
    Bpi: Float[Array, "n q_pi"] | None = None,
    Bmu: Float[Array, "n q_mu"] | None = None,
    z_model: str = "logistic",
    a_model: str = "logistic",
    one_sided: bool = False,
    units: Units = INDEPENDENT,
) -> Estimate:
    """Constant effect from the moment ``(Z - pi)(A - mu)(Y - beta A)``.

    Args:
      Y: outcome.
      A: treatment.
      Z: instrument.
      Bpi: design of E[Z|X]; None for the constant alone.
      Bmu: design of E[A|Z,X] at the observed Z; None for (1, Z).
      z_model: "logistic" or "linear".
      a_model: "logistic", or "linear" for a continuous treatment.
      one_sided: nobody with Z=0 is treated; ``Bmu`` then serves among Z=1 only.
      units: observation weights and clusters.

    Returns:
      The estimate with sandwich errors that include the two mean models.
    """
    if z_model not in KINDS or a_model not in KINDS:
        raise UserError(
            f"Expected z_model and a_model of {', '.join(KINDS)}, found {z_model!r}, {a_model!r}."
        )
    one = jnp.ones_like(Y)
    w = units.weights_like(Y)
    Bpi = one[:, None] if Bpi is None else Bpi
    if Bmu is None:
        Bmu = one[:, None] if one_sided else jnp.stack([one, Z], axis=1)
    arm = Z if one_sided else one
    a = _mean_model(z_model, Bpi, Z, w)
    b = _mean_model(a_model, Bmu, A, w * arm)

    def parts(params: tuple[Array, Array, Array]) -> list[tuple[Array, Array]]:
        a, b, beta = params
        h = Z - _predict(z_model, Bpi, a)
        e = A - arm * _predict(a_model, Bmu, b)
        return [(Bpi, h), (Bmu, arm * e), (one[:, None], h * e * (Y - beta * A))]

    h, e = Z - _predict(z_model, Bpi, a), A - arm * _predict(a_model, Bmu, b)
    beta = jnp.sum(w * h * e * Y) / jnp.sum(w * h * e * A)
    psi = influence.stacked(
        lambda p: jnp.concatenate([B.T @ (w * r) for B, r in parts(p)]) / Y.shape[0],
        lambda p: jnp.concatenate([B * (w * r)[:, None] for B, r in parts(p)], axis=1),
        (a, b, beta),
    )[:, -1]
    return Estimate.from_psi(
        beta,
        psi,
        units=units,
        names=("effect",),
        estimator="GENIUS, constant effect",
        diagnostics={"relevance": jnp.mean(w * h * e * A)},
    )


@on_values(numbers=["Y", "A"], tables=["Z"])
@functools.partial(jax.jit, static_argnames=("a_model", "iterations"))
def genius_gmm(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, "n k"],
    *,
    a_model: str = "logistic",
    iterations: int = 10,
) -> Estimate:
    """GENIUS with several instruments by iterated optimally weighted GMM.

    The moment covariance includes the estimation of the means of Z and of E[A|Z]; its inverse is
    the weight.

    Args:
      Y: outcome.
      A: treatment.
      Z: instruments.
      a_model: "logistic", or "linear" for a continuous treatment.
      iterations: rounds of weighting.

    Returns:
      The estimate; diagnostics hold the over-identification statistic ``J`` (chi-square with k-1
      degrees of freedom if all instruments satisfy the assumptions).
    """
    n, k = Z.shape
    Bmu = jnp.concatenate([jnp.ones((n, 1), Y.dtype), Z], axis=1)
    zbar = jnp.mean(Z, axis=0)
    b = _mean_model(a_model, Bmu, A, jnp.ones_like(Y))

    def moments(params: tuple[Array, Array], beta: Array) -> Float[Array, "n k"]:
        zbar, b = params
        e = A - _predict(a_model, Bmu, b)
        return (Z - zbar[None]) * (e * (Y - beta * A))[:, None]

    def nuisance_rows(params: tuple[Array, Array]) -> Float[Array, "n q"]:
        zbar, b = params
        e = A - _predict(a_model, Bmu, b)
        return jnp.concatenate([Z - zbar[None], Bmu * e[:, None]], axis=1)

    params = (zbar, b)
    nuisance_psi = influence.stacked(
        lambda p: jnp.mean(nuisance_rows(p), axis=0), nuisance_rows, params
    )
    at_zero = jnp.mean(moments(params, jnp.zeros((), Y.dtype)), axis=0)
    slope = at_zero - jnp.mean(moments(params, jnp.ones((), Y.dtype)), axis=0)

    def corrected(beta: Float[Array, ""]) -> Float[Array, "n k"]:
        jacobian = jax.jacfwd(lambda p: jnp.mean(moments(p, beta), axis=0))(params)
        flat = jnp.concatenate([j.reshape(k, -1) for j in jacobian], axis=1)
        return moments(params, beta) + nuisance_psi @ flat.T

    def solve(weight: Float[Array, "k k"]) -> Float[Array, ""]:
        return slope @ weight @ at_zero / (slope @ weight @ slope)

    def step(_: Array, weight: Float[Array, "k k"]) -> Float[Array, "k k"]:
        rows = corrected(solve(weight))
        return jnp.linalg.inv(rows.T @ rows / n)

    first = jnp.diag(1 / jnp.mean(moments(params, jnp.zeros((), Y.dtype)) ** 2, axis=0))
    weight = jax.lax.fori_loop(0, iterations, step, first)
    beta = solve(weight)
    rows = corrected(beta)
    psi = rows @ weight @ slope / (slope @ weight @ slope)
    mean = jnp.mean(moments(params, beta), axis=0)
    return Estimate.from_psi(
        beta,
        psi,
        names=("effect",),
        estimator=f"GENIUS, {k} instruments",
        diagnostics={"J": n * mean @ weight @ mean, "degrees_of_freedom": jnp.int32(k - 1)},
    )


@on_values(numbers=["Y", "A", "Z", "pi", "mu", "m", "v", "c"], tables=[])
@functools.partial(jax.jit, static_argnames=("level",))
def genius_plm(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    pi: Float[Array, " n"],
    mu: Float[Array, " n"],
    m: Float[Array, " n"],
    v: Float[Array, " n"],
    c: Float[Array, " n"],
    *,
    level: float = 0.95,
    units: Units = INDEPENDENT,
) -> Estimate:
    """Orthogonal partially linear form of GENIUS, from nuisance predictions.

    It targets the mean of the conditional effect weighted by ``pi (1 - pi) D``.

    Args:
      Y: outcome.
      A: treatment.
      Z: instrument.
      pi: E[Z|X].
      mu: E[A|Z,X].
      m: E[Y|Z,X].
      v: E[(A-mu)^2|X].
      c: E[(A-mu)(Y-m)|X].
      level: coverage of the weak-identification-robust set in the diagnostics.
      units: observation weights and clusters.
    """
    h, e = Z - pi, A - mu
    a, b = h * (e**2 - v), h * (e * (Y - m) - c)
    return influence.solve(
        influence.LinearScore(-a, b),
        units=units,
        names=("weighted effect",),
        estimator="GENIUS, orthogonal partially linear",
        diagnostics={"a": a, "b": b, "robust_set": robust_set(a, b, level, units)},
    )
