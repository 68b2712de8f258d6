"""Other estimators on the data and folds of a fit, to be shown side by side.

None of them estimates the same thing under the same assumptions; the names say what each takes for
granted.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.estimators import double_ml, influence
from jaxcore.estimators.checks import independent_columns
from jaxcore.estimators.estimate import Estimate, aggregate_estimates, default_float
from jaxcore.estimators.genius import genius, genius_plm
from jaxcore.estimators.linear_iv import ols, tsls
from jaxcore.estimators.nuisance import Logistic, Ridge


def _columns(result: Any):
    """Arrays of the sample, standardised independent covariates, folds."""
    s, dtype = result.sample, default_float()
    X = s.X
    if X.size:
        X = (X - X.mean(axis=0)) / X.std(axis=0)
    W = np.concatenate([np.ones((s.n, 1)), X], axis=1)
    W = W[:, independent_columns(W, s.weights)]
    ids = np.asarray(result.estimate.diagnostics["fold_ids"])
    arrays = [jnp.asarray(v, dtype) for v in (s.Y, s.A, s.Z, W)]
    weights = None if s.weights is None else jnp.asarray(s.weights, dtype)
    clusters = None if result._clusters is None else jnp.asarray(result._clusters)
    return *arrays, jnp.asarray(ids), int(ids.max()) + 1, weights, clusters


def baselines(result: Any) -> list[Estimate]:
    """OLS, 2SLS, LATE, AIPW, constant-effect estimators, and learners chosen by their losses.

    The first are linear in the covariates; the last is the fitted estimator itself, with the
    learners of least cross-validated loss in place of the selected ones.

    Args:
      result: a fit (`SelectiveIVResult`); LATE and AIPW are cross-fitted on its (first) folds.

    Returns:
      One estimate each; NaN or infinite where it cannot be computed from these data.
    """
    Y, A, Z, W, ids, k, weights, clusters = _columns(result)
    n_clusters = None if clusters is None else int(clusters.max()) + 1
    plain = {"weights": weights, "clusters": clusters, "n_clusters": n_clusters}
    linear = {"ml_g": Ridge(alpha=0.0), "ml_m": Logistic(alpha=1e-3)}
    folds = {"fold_ids": ids, "n_folds": k, "clip": result.config.clip}
    Bmu = W if result.one_sided else jnp.concatenate([W, Z[:, None]], axis=1)
    with_z = jnp.concatenate([W, Z[:, None]], axis=1)
    logit = Logistic(alpha=1e-3)
    late = double_ml.iivm(
        Y, A, Z, W[:, 1:], ml_r=logit, always_takers=not result.one_sided,
        **linear, **folds, **plain,
    )  # fmt: skip
    constant = genius(Y, A, Z, Bpi=W, Bmu=Bmu, one_sided=result.one_sided, **plain)
    named = {
        "OLS, no confounding given X": ols(Y, A, W, **plain),
        "OLS with Z, no confounding given X, Z": ols(Y, A, with_z, **plain),
        "AIPW, no confounding": double_ml.irm(Y, A, W[:, 1:], **linear, **folds, **plain),
        "2SLS, valid instrument": tsls(Y, A, Z, W, **plain),
        "LATE (AIPW ratio), valid instrument": late,
        "GENIUS, constant effect": constant,
    }
    repeated = {
        "GENIUS, orthogonal, constant effect": partially_linear(result),
        "multiply robust, learners of least cross-validated loss": least_loss(result),
    }
    how = result.config.aggregate
    named |= {name: aggregate_estimates(e, how=how) for name, e in repeated.items() if e}
    return [_named(e, name) for name, e in named.items()]


def _named(estimate: Estimate, name: str) -> Estimate:
    return dataclasses.replace(estimate, estimator=name)


def least_loss(result: Any) -> list[Estimate]:
    """The same estimator with the learners of least cross-validated loss; nothing to choose: none.

    See `cv_loss`.
    """
    if np.size(result.estimate.diagnostics.get("criterion", 0.0)) == 1:
        return []
    *_, weights, clusters = _columns(result)
    return [
        influence.solve(
            influence.LinearScore(jnp.full_like(u, -1.0), u), weights=weights, clusters=clusters
        )
        for u in (jnp.asarray(e.diagnostics["u_by_loss"]) for e in result.repetitions)
    ]


def partially_linear(result: Any, level: float = 0.95) -> list[Estimate]:
    """Orthogonal constant-effect estimates from the nuisances every partition selected.

    ``E[Y|Z,X]``, and the means of variance and covariance over Z, follow from pi, mu, g, delta and
    rho. Diagnostics hold the set that is robust to weak identification.
    """
    Y, A, Z, _, _, _, weights, clusters = _columns(result)
    out = []
    for repetition in result.repetitions:
        nu = jax.tree.map(jnp.asarray, repetition.diagnostics["nuisances"])
        v1, v0 = nu.mu1 * (1 - nu.mu1), nu.mu0 * (1 - nu.mu0)
        mu = jnp.where(Z > 0.5, nu.mu1, nu.mu0)
        v = nu.pi * v1 + (1 - nu.pi) * v0
        m = nu.g + nu.delta * mu
        if result.one_sided:  # g at Z = 0 is a convention, not E[Y|Z=0,X]; e is zero there anyway
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
                weights=weights,
                clusters=clusters,
            )
        )
    return out
