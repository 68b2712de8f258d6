"""Other estimators on the data and folds of a fit, to be shown side by side.

None of them estimates the same thing under the same assumptions; the names say what each takes for
granted.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxcore.estimators import double_ml, influence
from jaxcore.estimators.checks import independent_columns
from jaxcore.estimators.compiling import QUICKLY
from jaxcore.estimators.estimate import Estimate, aggregate_estimates
from jaxcore.estimators.genius import genius, genius_plm
from jaxcore.estimators.linear_iv import ols, tsls
from jaxcore.estimators.nuisance import Logistic, Ridge
from jaxcore.estimators.result import EffectResult
from jaxcore.estimators.selective_iv.moment import Clip, Nuisances
from jaxcore.estimators.units import Units

_SINGLE: tuple[str, ...] = (
    "OLS, no confounding given X",
    "OLS with Z, no confounding given X, Z",
    "AIPW, no confounding",
    "2SLS, valid instrument",
    "LATE (AIPW ratio), valid instrument",
    "GENIUS, constant effect",
)
_REPEATED: tuple[str, ...] = (
    "GENIUS, orthogonal, constant effect",
    "multiply robust, learners of least cross-validated loss",
)


class _Data(NamedTuple):
    """Arrays of a fit, its covariates standardised, independent and with a constant."""

    Y: Float[Any, " n"]
    A: Float[Any, " n"]
    Z: Float[Any, " n"]
    W: Float[Any, "n q"]
    units: Units


def _data(fit: EffectResult) -> _Data:
    """All on the host: a compiled function takes them from there."""
    s, X = fit.sample, fit.sample.X
    X = X[:, ~np.isnan(X).any(axis=0)]  # where learners took missing values, these cannot
    if X.size:
        X = (X - X.mean(axis=0)) / X.std(axis=0)
    W = np.concatenate([np.ones((s.n, 1)), X], axis=1)
    W = W[:, independent_columns(W, s.weights)]
    dtype = np.dtype(jnp.result_type(float))
    Y, A, Z, W = (np.asarray(v, dtype) for v in (s.Y, s.A, s.Z, W))
    return _Data(Y, A, Z, W, s.units(dtype, clustered=fit.config.clustered))


def baselines(fit: EffectResult, clip: Clip) -> list[Estimate]:
    """OLS, 2SLS, LATE, AIPW, constant-effect estimators, and learners chosen by their losses.

    The first are linear in the covariates; the last is the fitted estimator itself, with the
    learners of least cross-validated loss in place of the selected ones.

    Args:
      fit: a fit (`SelectiveIVResult`); LATE and AIPW are cross-fitted on its (first) folds.
      clip: its bounds.

    Returns:
      One estimate each, on the host; NaN or infinite where it cannot be computed from these data.
    """
    data, how = _data(fit), fit.config.aggregate
    ids = np.asarray(fit.estimate.diagnostics["fold_ids"])
    single, partial, least = jax.device_get(
        _all(
            data,
            ids,
            _nuisances(fit),
            _least_loss_moments(fit),
            n_folds=int(ids.max()) + 1,
            clip=clip,
        )
    )
    named: dict[str, Estimate] = dict(zip(_SINGLE, single, strict=True))
    for name, every in zip(_REPEATED, (partial, least), strict=True):
        if every:
            named[name] = aggregate_estimates(every, how=how)
    return [dataclasses.replace(e, estimator=name) for name, e in named.items()]


@functools.partial(jax.jit, static_argnames=("n_folds", "clip"), compiler_options=QUICKLY)
def _all(
    data: _Data,
    ids: Int[Any, " n"],
    nuisances: list[Nuisances],
    moments: list[Any],
    *,
    n_folds: int,
    clip: Clip,
) -> tuple[list[Estimate], list[Estimate], list[Estimate]]:
    """Everything in one program: estimates in the order of `_SINGLE`, then of every partition."""
    Y, A, Z, W, units = data
    with_z = jnp.concatenate([W, Z[:, None]], axis=1)
    linear, logit = Ridge(alpha=0.0), Logistic(alpha=1e-3)
    folds: dict[str, Any] = {"fold_ids": ids, "n_folds": n_folds, "clip": clip.pi, "units": units}
    single = [
        ols(Y, A, W, units=units),
        ols(Y, A, with_z, units=units),
        double_ml.irm(Y, A, W[:, 1:], ml_g=linear, ml_m=logit, **folds),
        tsls(Y, A, Z, W, units=units),
        double_ml.iivm(
            Y,
            A,
            Z,
            W[:, 1:],
            ml_g=linear,
            ml_m=logit,
            ml_r=logit,
            always_takers=not clip.one_sided,
            **folds,
        ),
        genius(
            Y,
            A,
            Z,
            Bpi=W,
            Bmu=W if clip.one_sided else with_z,
            one_sided=clip.one_sided,
            units=units,
        ),
    ]
    partial = _partially_linear(data, nuisances, one_sided=clip.one_sided, level=0.95)
    least = [
        influence.solve(influence.LinearScore(jnp.full_like(u, -1.0), u), units) for u in moments
    ]
    return single, partial, least


def _nuisances(fit: EffectResult) -> list[Nuisances]:
    return [e.diagnostics["nuisances"] for e in fit.repetitions]


def _least_loss_moments(fit: EffectResult) -> list[Any]:
    """Moments with the learners of least cross-validated loss (`cv_loss`); none without choice."""
    if np.size(fit.estimate.diagnostics.get("criterion", 0.0)) == 1:
        return []
    return [e.diagnostics["u_by_loss"] for e in fit.repetitions]


def partially_linear(fit: EffectResult, clip: Clip, level: float = 0.95) -> list[Estimate]:
    """Orthogonal constant-effect estimates from the nuisances every partition selected.

    ``E[Y|Z,X]``, and the means of variance and covariance over Z, follow from pi, mu, g, delta and
    rho. Diagnostics hold the set that is robust to weak identification.
    """
    found = _jitted_partially_linear(
        _data(fit), _nuisances(fit), one_sided=clip.one_sided, level=level
    )
    return jax.device_get(found)


def _partially_linear(
    data: _Data, nuisances: list[Nuisances], *, one_sided: bool, level: float
) -> list[Estimate]:
    Y, A, Z, _, units = data
    out = []
    for nu in nuisances:
        v1, v0 = nu.mu1 * (1 - nu.mu1), nu.mu0 * (1 - nu.mu0)
        mu = jnp.where(Z > 0.5, nu.mu1, nu.mu0)
        v = nu.pi * v1 + (1 - nu.pi) * v0
        m = nu.g + nu.delta * mu
        if one_sided:  # g at Z = 0 is a convention, not E[Y|Z=0,X]; e is zero there anyway
            m = jnp.where(Z > 0.5, m, Y)
        c = nu.rho + nu.delta * v
        out.append(genius_plm(Y, A, Z, nu.pi, mu, m, v, c, level=level, units=units))
    return out


_jitted_partially_linear = jax.jit(
    _partially_linear, static_argnames=("one_sided", "level"), compiler_options=QUICKLY
)
