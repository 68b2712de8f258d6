"""Coverage of effects on the treated, of levels and quantiles, of differences in differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.estimators import combine, did, double_ml, treatments
from jaxcore.estimators import quantile_effects as quantiles
from jaxcore.estimators.crossfit import fold_ids
from jaxcore.estimators.monte_carlo import monte_carlo
from jaxcore.estimators.nuisance import Logistic, Ridge
from jaxcore.estimators.nuisance.basis import Polynomial

pytestmark = pytest.mark.statistical

N, REPS, K = 600, 400, 2
OUTCOME = Ridge(alpha=1e-6, basis=Polynomial(degree=2))
CHANCE = Logistic(alpha=1e-3, basis=Polynomial(degree=2))
LEARNERS = {"ml_g": OUTCOME, "ml_m": CHANCE}


def covers(estimator, dgp, truth, key):
    with jax.enable_x64(True):
        found = monte_carlo(estimator, dgp, N, REPS, jax.random.key(key), at_once=25)
    z = np.abs(found.theta - np.asarray(truth)[None]) / found.se
    share = np.mean(z <= 1.96, axis=0)
    bias = np.mean(found.theta - np.asarray(truth)[None], axis=0)
    ratio = np.mean(found.se, axis=0) / np.std(found.theta, axis=0)
    print(f"coverage {share.round(3)}, bias {bias.round(3)}, mean se / sd {ratio.round(2)}")
    assert np.all(share >= 0.915) and np.all(share <= 0.985)
    assert np.all(np.abs(bias) < 4 * np.std(found.theta, axis=0) / np.sqrt(REPS) + 0.02)


def confounded(key, n, curved):
    """Covariates, treatment, noise and folds; the chance of treatment bends if curved."""
    kx, kd, ke, kf = jax.random.split(key, 4)
    x = jax.random.normal(kx, (n, 2))
    index = 0.6 * x[:, 0] + curved * 0.3 * (x[:, 1] ** 2 - 1)
    d = (jax.random.uniform(kd, (n,)) < jax.nn.sigmoid(index)).astype(x.dtype)
    return x, index, d, jax.random.normal(ke, (n,)), fold_ids(kf, n, K)


@pytest.mark.parametrize("curved", [0.0, 1.0])
def test_effect_on_the_treated(curved):
    def dgp(key, n):
        x, index, d, e, ids = confounded(key, n, curved)
        return x, d, d * (1 + index) + x[:, 0] + curved * x[:, 1] ** 2 + e, ids

    def estimator(s):
        x, d, y, ids = s
        return double_ml.irm(y, d, x, fold_ids=ids, n_folds=K, target="ATT", **LEARNERS)

    with jax.enable_x64(True):  # mean of 1 + index among the treated
        _, index, d, _, _ = confounded(jax.random.key(99), 1_000_000, curved)
        truth = float(1 + jnp.sum(d * index) / jnp.sum(d))
    covers(estimator, dgp, [truth], 1)


@pytest.mark.parametrize("curved", [0.0, 1.0])
def test_contrasts_of_three_levels(curved):
    def dgp(key, n):
        ka, kb = jax.random.split(key)
        x, index, _, e, ids = confounded(ka, n, curved)
        latent = index + jax.random.logistic(kb, (n,))
        level = (latent > -0.7).astype(jnp.int32) + (latent > 0.7).astype(jnp.int32)
        y = jnp.asarray([0.0, 1.0, 1.5])[level] + x[:, 0] + curved * x[:, 1] ** 2 + e
        return x, level, y, ids

    def estimator(s):
        x, level, y, ids = s
        means = treatments.potential_means(
            y, level, x, fold_ids=ids, n_folds=K, n_levels=3, **LEARNERS
        )
        return combine.contrasts(means)

    covers(estimator, dgp, [1.0, 1.5], 2)


@pytest.mark.parametrize("curved", [0.0, 1.0])
def test_quantile_effects(curved):
    """Given x, outcomes are normal; the potential quantiles come from a large sample."""

    def outcome(x, d, e):
        return d + x[:, 0] + curved * 0.5 * x[:, 1] ** 2 + (1 + 0.5 * d) * e

    def dgp(key, n):
        x, _, d, e, ids = confounded(key, n, curved)
        return x, d, outcome(x, d, e), ids

    def estimator(s):
        x, d, y, ids = s
        found = quantiles.potential_quantiles(
            y, d, x, quantiles=(0.25, 0.5), ml_g=CHANCE, ml_m=CHANCE, fold_ids=ids, n_folds=K
        )
        return quantiles.quantile_effects(found)

    with jax.enable_x64(True):
        x, _, _, e, _ = confounded(jax.random.key(99), 1_000_000, curved)
        at = jnp.asarray([0.25, 0.5])
        truth = jnp.quantile(outcome(x, 1.0, e), at) - jnp.quantile(outcome(x, 0.0, e), at)
    covers(estimator, dgp, np.asarray(truth), 3)


@pytest.mark.parametrize("curved", [0.0, 1.0])
def test_two_periods(curved):
    def parts(key, n):
        ka, kb = jax.random.split(key)
        x, _, d, e, ids = confounded(ka, n, curved)
        trend = 1 + x[:, 0] + curved * 0.5 * x[:, 1] ** 2
        return x, d, trend, e, kb, ids

    def panel(key, n):
        x, d, trend, e, _, ids = parts(key, n)
        return x, d, trend + 2 * d + e, ids

    def estimator(s):
        x, d, change, ids = s
        return did.did_panel(change, d, x, fold_ids=ids, n_folds=K, **LEARNERS)

    covers(estimator, panel, [2.0], 4)

    def sections(key, n):
        x, d, trend, e, kb, ids = parts(key, n)
        after = jax.random.bernoulli(kb, 0.5, (n,)).astype(x.dtype)
        return x, d, after, d + x[:, 1] + after * (trend + 2 * d) + e, ids

    def other_units(s):
        x, d, after, y, ids = s
        return did.did_cross_sections(y, d, after, x, fold_ids=ids, n_folds=K, **LEARNERS)

    covers(other_units, sections, [2.0], 5)
