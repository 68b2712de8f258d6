"""Experiments on the simulation designs: bias and coverage where theory promises them."""

import jax
import numpy as np
import pytest

from jaxcore.estimators import bootstrap
from jaxcore.estimators.studies import MonteCarloTask, run_study
from jaxcore.train.logging import Silent

pytestmark = pytest.mark.statistical


def rows(task, tmp_path):
    result = run_study(task, tmp_path, reporter=Silent())
    assert result is not None
    return {r["name"]: r for r in result.table()}


def test_siv1_is_multiply_robust_and_the_sandwich_covers(tmp_path):
    table = rows(MonteCarloTask(study="siv1", n=5000, reps=200), tmp_path)
    for scenario in ("all", "M1", "M2", "M3", "M4"):
        row = table[f"{scenario}, sandwich se"]
        assert abs(row["bias"]) < 0.06, scenario
        assert 0.90 <= row["coverage"] <= 0.99, scenario
    assert 0.30 < table["none, sandwich se"]["bias"] < 0.44
    assert table["2SLS"]["bias"] > 2
    assert abs(table["oracle nuisances"]["mean_se"] - 0.2034) < 0.005


def test_siv2_selection_is_as_good_as_knowing_the_learner(tmp_path):
    table = rows(MonteCarloTask(study="siv2", n=4000, reps=60), tmp_path)
    mixed, quad = table["selected, mixed minimax"], table["all quad"]
    assert abs(mixed["bias"]) < 0.14
    assert mixed["coverage"] > 0.87
    assert 0.27 < table["all const"]["bias"] < 0.47
    assert mixed["sd"] < 1.05 * quad["sd"]


def test_cross_fitted_aipw_and_late_cover(tmp_path):
    """The generic models on designs of their own: coverage within the binomial band."""
    import jax.numpy as jnp

    from jaxcore.estimators import crossfit, double_ml
    from jaxcore.estimators.monte_carlo import monte_carlo
    from jaxcore.estimators.nuisance import Logistic, Ridge

    def dgp(key, n):
        kx, ku, kz, ka, ke, kf = jax.random.split(key, 6)
        X = jax.random.normal(kx, (n, 3))
        Z = (jax.random.uniform(kz, (n,)) < jax.nn.sigmoid(0.5 * X[:, 0])).astype(X.dtype)
        U = jax.random.normal(ku, (n,))
        takes = (jax.random.uniform(ka, (n,)) < 0.7).astype(X.dtype)
        A = Z * takes
        Y = 1.5 * A + X @ jnp.array([1.0, -1.0, 0.5], X.dtype) + takes * 0.5 + U
        Y = Y + jax.random.normal(ke, (n,))
        return X, Z, A, Y, crossfit.fold_ids(kf, n, 5)

    learners = {"ml_g": Ridge(alpha=0.0), "ml_m": Logistic(alpha=1e-4)}

    def late(s):
        X, Z, A, Y, ids = s
        return double_ml.iivm(
            Y,
            A,
            Z,
            X,
            ml_r=Logistic(alpha=1e-4),
            fold_ids=ids,
            n_folds=5,
            always_takers=False,
            **learners,
        )

    def aipw_of_z(s):
        X, Z, _, Y, ids = s
        return double_ml.irm(Y, Z, X, fold_ids=ids, n_folds=5, **learners)

    for estimator, truth in ((late, 1.5), (aipw_of_z, 1.05)):
        out = monte_carlo(estimator, dgp, 1000, 400, jax.random.key(0), truth=truth)
        (row,) = out.table()
        assert abs(row["bias"]) < 4 * row["bias_mcse"]
        assert 0.915 < row["coverage"] < 0.98
        assert abs(row["mean_se"] / row["sd"] - 1) < 0.15


def test_joint_bands_cover_together():
    from jaxcore.estimators.estimate import Estimate

    @jax.jit
    def band(psi, seed):
        e = Estimate.from_psi(psi.mean(axis=0), psi - psi.mean(axis=0)[None])
        draws = bootstrap.multiplier(jax.random.key(seed), e.psi, e.se, n_boot=500)
        half = bootstrap.critical_value(draws) * e.se
        return e.theta - half, e.theta + half

    rng = np.random.default_rng(0)
    hits = []
    for seed in range(300):
        low, high = band(rng.normal(size=(200, 5)).astype(np.float32), seed)
        hits.append(np.all((np.asarray(low) <= 0) & (np.asarray(high) >= 0)))
    assert 0.91 < np.mean(hits) < 0.98
