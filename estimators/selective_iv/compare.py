"""Other estimators on the data and folds of a fit, to be shown side by side.

None of them estimates the same thing under the same assumptions; the names say what each takes for
granted.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.estimators import double_ml, influence
from jaxcore.estimators.checks import independent_columns
from jaxcore.estimators.estimate import Estimate, aggregate_estimates
from jaxcore.estimators.genius import genius, genius_plm
from jaxcore.estimators.linear_iv import ols, tsls
from jaxcore.estimators.nuisance import Logistic, Ridge
from jaxcore.estimators.result import Result
from jaxcore.estimators.selective_iv.moment import Clip
from jaxcore.estimators.units import Units


class _Data(NamedTuple):
    """Arrays of a fit, its covariates standardised, independent and with a constant."""

    Y: Float[Array, " n"]
    A: Float[Array, " n"]
    Z: Float[Array, " n"]
    W: Float[Array, "n q"]
    units: Units


def _data(fit: Result) -> _Data:
    s, X = fit.sample, fit.sample.X
    if X.size:
        X = (X - X.mean(axis=0)) / X.std(axis=0)
    W = np.concatenate([np.ones((s.n, 1)), X], axis=1)
    W = W[:, independent_columns(W, s.weights)]
    Y, A, Z, W = (jnp.asarray(v, float) for v in (s.Y, s.A, s.Z, W))
    return _Data(Y, A, Z, W, s.units(Y.dtype, clustered=fit.config.clustered))


def baselines(fit: Result, clip: Clip) -> list[Estimate]:
    """OLS, 2SLS, LATE, AIPW, constant-effect estimators, and learners chosen by their losses.

    The first are linear in the covariates; the last is the fitted estimator itself, with the
    learners of least cross-validated loss in place of the selected ones.

    Args:
      fit: a fit (`SelectiveIVResult`); LATE and AIPW are cross-fitted on its (first) folds.
      clip: its bounds.

    Returns:
      One estimate each; NaN or infinite where it cannot be computed from these data.
    """
    Y, A, Z, W, units = _data(fit)
    ids = np.asarray(fit.estimate.diagnostics["fold_ids"])
    linear = {"ml_g": Ridge(alpha=0.0), "ml_m": Logistic(alpha=1e-3)}
    folds = {"fold_ids": jnp.asarray(ids), "n_folds": int(ids.max()) + 1, "clip": clip.pi}
    Bmu = W if clip.one_sided else jnp.concatenate([W, Z[:, None]], axis=1)
    with_z = jnp.concatenate([W, Z[:, None]], axis=1)
    logit = Logistic(alpha=1e-3)
    late = double_ml.iivm(
        Y,
        A,
        Z,
        W[:, 1:],
        ml_r=logit,
        always_takers=not clip.one_sided,
        **linear,
        **folds,
        units=units,
    )
    constant = genius(Y, A, Z, Bpi=W, Bmu=Bmu, one_sided=clip.one_sided, units=units)
    named = {
        "OLS, no confounding given X": ols(Y, A, W, units=units),
        "OLS with Z, no confounding given X, Z": ols(Y, A, with_z, units=units),
        "AIPW, no confounding": double_ml.irm(Y, A, W[:, 1:], **linear, **folds, units=units),
        "2SLS, valid instrument": tsls(Y, A, Z, W, units=units),
        "LATE (AIPW ratio), valid instrument": late,
        "GENIUS, constant effect": constant,
    }
    repeated = {
        "GENIUS, orthogonal, constant effect": partially_linear(fit, clip),
        "multiply robust, learners of least cross-validated loss": least_loss(fit),
    }
    how = fit.config.aggregate
    named |= {name: aggregate_estimates(e, how=how) for name, e in repeated.items() if e}
    return [_named(e, name) for name, e in named.items()]


def _named(estimate: Estimate, name: str) -> Estimate:
    return dataclasses.replace(estimate, estimator=name)


def least_loss(fit: Result) -> list[Estimate]:
    """The same estimator with the learners of least cross-validated loss; nothing to choose: none.

    See `cv_loss`.
    """
    if np.size(fit.estimate.diagnostics.get("criterion", 0.0)) == 1:
        return []
    units = _data(fit).units
    return [
        influence.solve(influence.LinearScore(jnp.full_like(u, -1.0), u), units)
        for u in (jnp.asarray(e.diagnostics["u_by_loss"]) for e in fit.repetitions)
    ]


def partially_linear(fit: Result, clip: Clip, level: float = 0.95) -> list[Estimate]:
    """Orthogonal constant-effect estimates from the nuisances every partition selected.

    ``E[Y|Z,X]``, and the means of variance and covariance over Z, follow from pi, mu, g, delta and
    rho. Diagnostics hold the set that is robust to weak identification.
    """
    Y, A, Z, _, units = _data(fit)
    out = []
    for repetition in fit.repetitions:
        nu = jax.tree.map(jnp.asarray, repetition.diagnostics["nuisances"])
        v1, v0 = nu.mu1 * (1 - nu.mu1), nu.mu0 * (1 - nu.mu0)
        mu = jnp.where(Z > 0.5, nu.mu1, nu.mu0)
        v = nu.pi * v1 + (1 - nu.pi) * v0
        m = nu.g + nu.delta * mu
        if clip.one_sided:  # g at Z = 0 is a convention, not E[Y|Z=0,X]; e is zero there anyway
            m = jnp.where(Z > 0.5, m, Y)
        out.append(
            genius_plm(
                Y,
                A,
                Z,
                nu.pi,
                mu,
                m,
                v,
                nu.rho + nu.delta * v,
                level=level,
                units=units,
            )
        )
    return out
