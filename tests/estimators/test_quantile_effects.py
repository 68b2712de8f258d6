"""Quantiles and tail means of potential outcomes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import quantile_effects as quantiles
from jaxcore.estimators.complier_quantiles import local_quantiles
from jaxcore.estimators.nuisance import HostLearner, Logistic, Ridge
from jaxcore.estimators.units import Units

N, K, TAUS = 400, 2, (0.25, 0.5, 0.75)


@pytest.fixture(scope="module")
def trial():
    """A randomised treatment that spreads the outcome."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 1))
    d = (rng.uniform(size=N) < 0.5).astype(float)
    y = (1 + d) * (0.5 * x[:, 0] + rng.normal(size=N)) + d
    with jax.enable_x64(True):
        arrays = [jnp.asarray(v) for v in (y, d, x)]
        yield arrays, {"fold_ids": jnp.asarray(np.arange(N) % K), "n_folds": K}


@pytest.fixture(scope="module")
def found(trial):
    learners = {"ml_g": Logistic(), "ml_m": Logistic()}
    return quantiles.potential_quantiles(*trial[0], quantiles=TAUS, **learners, **trial[1])


def test_quantiles_of_a_randomised_trial(trial, found):
    y, d = (np.asarray(v) for v in trial[0][:2])
    naive = np.array([np.quantile(y[d == arm], tau) for arm in (0, 1) for tau in TAUS])
    assert np.all(np.abs(found.theta - naive) < 3 * found.se)
    assert np.all(np.diff(np.asarray(found.theta).reshape(2, 3)) > 0)
    # a sample quantile has sqrt(tau (1 - tau) / n) / density; adjusting for x gains a little
    density = np.sqrt(2 * np.pi * 1.25)
    plain = np.sqrt(0.25 / (N / 2)) * density * np.array([1, 2])
    assert np.all(np.asarray(found.se)[[1, 4]] < 1.2 * plain)
    assert np.all(np.asarray(found.se)[[1, 4]] > 0.6 * plain)


def test_effects_are_differences_with_joint_bands(found):
    effects = quantiles.quantile_effects(found)
    np.testing.assert_allclose(effects.theta, found.theta[3:] - found.theta[:3], rtol=1e-9)
    assert effects.names == ("0.25", "0.5", "0.75")
    joint, alone = np.asarray(effects.confint(joint=True)), np.asarray(effects.confint())
    assert np.all(joint[:, 1] - joint[:, 0] > alone[:, 1] - alone[:, 0])


def test_means_above_a_quantile(trial):
    y, d = (np.asarray(v) for v in trial[0][:2])
    e = quantiles.potential_quantiles(
        *trial[0], quantiles=(0.5,), kind="tail mean", ml_g=Ridge(), ml_m=Logistic(), **trial[1]
    )
    above = np.array([y[(d == a) & (y >= np.median(y[d == a]))].mean() for a in (0, 1)])
    assert np.all(np.abs(e.theta - above) < 3 * e.se) and np.all(e.se < 0.4)
    assert e.estimator == "potential outcomes, tail means"


def test_weights_of_zero_are_units_left_out(trial):
    """With nuisances that do not learn, exactly."""
    y, d, _ = trial[0]
    w = jnp.asarray(np.random.default_rng(1).integers(0, 2, N), float)
    half, kept = jnp.full(N, 0.5), np.flatnonzero(w)
    one = quantiles.potential_quantile(y, d, half, half, 0.5, Units(weights=w))[0]
    two = quantiles.potential_quantile(y[kept], d[kept], half[kept], half[kept], 0.5)[0]
    assert float(one) == float(two)


def test_host_learners_and_refusals(trial):
    half = HostLearner(lambda X, y, w, new: np.full(len(new), 0.5))
    learners = {"ml_g": half, "ml_m": half} | trial[1]
    e = quantiles.potential_quantiles(*trial[0], quantiles=(0.5,), **learners)
    assert np.isfinite(e.se).all()
    with pytest.raises(UserError, match="between 0 and 1"):
        quantiles.potential_quantiles(*trial[0], quantiles=(0.5, 1.0), **learners)
    with pytest.raises(UserError, match="'quantile' or 'tail mean'"):
        quantiles.potential_quantiles(*trial[0], quantiles=(0.5,), kind="mean", **learners)


def test_quantiles_of_compliers_where_everybody_complies(trial, found):
    """The instrument is then the treatment, and compliers are all units."""
    y, d, x = trial[0]
    one = HostLearner(lambda X, y, w, new: np.full(len(new), np.average(y, weights=w)))
    learners = {"ml_g": one, "ml_m": one, "ml_r": one}
    ours = local_quantiles(y, d, d, x, quantiles_at=(0.5,), **learners, **trial[1])
    assert abs(float(ours.diagnostics["compliers"]) - 1) < 1e-9
    np.testing.assert_allclose(ours.theta, np.asarray(found.theta)[[1, 4]], atol=0.3)
    assert np.all(np.asarray(ours.se) < 0.4)
    assert quantiles.quantile_effects(ours).names == ("0.5",)


def test_quantiles_of_compliers_are_not_those_of_all():
    """Compliers have an outcome of their own."""
    rng = np.random.default_rng(3)
    n = N
    complier, z = rng.uniform(size=n) < 0.7, (rng.uniform(size=n) < 0.5).astype(float)
    d = np.where(complier, z, 0.0)
    y = rng.normal(size=n) + np.where(complier, 2 + 3 * d, -2.0)
    with jax.enable_x64(True):
        arrays = [jnp.asarray(v) for v in (y, d, z, rng.normal(size=(n, 1)))]
        one = HostLearner(lambda X, y, w, new: np.full(len(new), np.average(y, weights=w)))
        rest = {"fold_ids": jnp.asarray(np.arange(n) % K), "n_folds": K}
        found = local_quantiles(*arrays, quantiles_at=(0.5,), ml_g=one, ml_m=one, ml_r=one, **rest)
    assert np.all(np.abs(found.theta - np.array([2.0, 5.0])) < 4 * found.se)
    assert abs(float(found.diagnostics["compliers"]) - 0.7) < 0.1
