"""Coverage of effects on the treated, of levels and quantiles, of differences in differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.estimators import combine, did, double_ml, treatments
from jaxcore.estimators import quantile_effects as quantiles
from jaxcore.estimators.complier_quantiles import local_quantiles
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
def test_quantile_effects_among_compliers(curved):
    """Given x, compliers are a random share; their outcomes are shifted by one."""

    def outcome(x, d, e):
        return 1 + d + x[:, 0] + curved * 0.5 * x[:, 1] ** 2 + (1 + 0.5 * d) * e

    def dgp(key, n):
        ka, kc = jax.random.split(key)
        x, _, z, e, ids = confounded(ka, n, curved)
        complier = jax.random.bernoulli(kc, 0.8, (n,)).astype(x.dtype)
        d = complier * z
        return x, z, d, outcome(x, d, e) - (1 - complier), ids

    def estimator(s):
        x, z, d, y, ids = s
        learners = {"ml_g": CHANCE, "ml_m": CHANCE, "ml_r": CHANCE}
        found = local_quantiles(
            y, d, z, x, quantiles_at=(0.5,), fold_ids=ids, n_folds=K, **learners
        )
        return quantiles.quantile_effects(found)

    with jax.enable_x64(True):
        x, _, _, e, _ = confounded(jax.random.key(99), 1_000_000, curved)
        truth = jnp.median(outcome(x, 1.0, e)) - jnp.median(outcome(x, 0.0, e))
    covers(estimator, dgp, [float(truth)], 6)


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


@pytest.mark.parametrize(("control", "unseen"), [("never", 0.0), ("not yet", 0.0), ("never", 0.15)])
def test_averages_of_staggered_effects(control, unseen):
    """Trends depend on x, which also decides when treatment starts; effects grow with time.

    Also that the band holds for all times since treatment at once. In the last design a share of
    the outcomes is not seen.
    """
    times, reps = np.arange(1.0, 5), 300
    theta, joint = [], []
    for seed in range(reps):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(N, 1))
        first = np.choose(rng.integers(0, 3, N) + (x[:, 0] > rng.normal(size=N)), [2, 3, 9, 9.0])
        since = times[None] - first[:, None]
        y = rng.normal(size=(N, 1)) + times[None] * (1 + x) + rng.normal(size=(N, 4))
        y = y + np.where(since >= 0, 1 + since, 0)
        y[rng.uniform(size=y.shape) < unseen] = np.nan
        with jax.enable_x64(True):
            found = did.group_time(
                y,
                first,
                x,
                times,
                ml_g=Ridge(alpha=1e-6),
                ml_m=Logistic(alpha=1e-3),
                fold_ids=rng.permutation(np.arange(N) % K),
                n_folds=K,
                control=control,
            )
            events = did.aggregate(found, "event")
            simple = did.aggregate(found, "simple")
        truth = np.array([0.0, 1, 2, 3, 2])  # one period before, then 0, 1, 2 periods; their mean
        band = np.asarray(events.confint(joint=True, seed=seed))
        joint.append(np.all((band[:, 0] <= truth) & (truth <= band[:, 1])))
        shares = [np.mean(first == g) for g in (2, 3)]
        overall = (shares[0] * 6 + shares[1] * 3) / (shares[0] * 3 + shares[1] * 2)
        theta.append((simple.theta[0], simple.se[0], overall))
    theta, se, overall = np.array(theta).T
    truth = np.mean(overall)  # the average in the population
    cover, band = np.mean(np.abs(theta - truth) <= 1.96 * se), np.mean(joint)
    print(f"{control}: overall {cover:.3f}, bias {np.mean(theta - truth):.3f}, band {band:.3f}")
    assert 0.915 <= cover <= 0.985 and 0.91 <= band <= 0.99
