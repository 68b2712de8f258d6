"""Coverage of effects of groups, bounds with omitted variables, errors in clusters of two kinds.

Bands are three binomial standard errors about the nominal level.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.estimators import crossfit, double_ml, influence, projection, sensitivity
from jaxcore.estimators.linear_iv import anderson_rubin
from jaxcore.estimators.monte_carlo import replicate
from jaxcore.estimators.nuisance import Ridge
from jaxcore.estimators.units import Units
from jaxcore.estimators.variance import quantile
from jaxcore.estimators.wild_bootstrap import wild_linear_iv
from tests.statistical.test_effects_cover import LEARNERS, K, confounded

pytestmark = pytest.mark.statistical

LINEAR = Ridge(alpha=0.0)


def within(share, reps, level=0.95, short=0.0):
    """Whether a share of successes is what chance lets it be; ``short`` is a known shortfall."""
    share, error = np.asarray(share), 3 * np.sqrt(level * (1 - level) / reps)
    print(f"coverage {share.round(3)} of {level}, {reps} times")
    assert np.all(share >= level - short - error) and np.all(share <= level + error)


def many(one, reps, key, at_once=25):
    with jax.enable_x64(True):
        run = jax.jit(lambda i: replicate(one, jax.random.key(key), i, at_once=at_once))
        return jax.device_get(run(jnp.arange(reps)))


@pytest.mark.parametrize("curved", [0.0, 1.0])
def test_effects_of_groups_and_their_line(curved):
    """The effect is 1 + 0.6 x, plus a curve in another covariate of mean zero."""
    n, reps = 800, 400

    def one(key):
        x, index, d, e, ids = confounded(key, n, curved)
        y = d * (1 + index) + x[:, 0] + curved * x[:, 1] ** 2 + e
        fit = double_ml.irm(y, d, x, fold_ids=ids, n_folds=K, **LEARNERS)
        return fit.theta + fit.psi, x[:, 0]

    gain = 0.6 * np.sqrt(2 / np.pi)
    truth = np.array([1 - gain, 1 + gain, 1, 0.6])
    inside, joint = [], []
    for i, (u, x) in enumerate(zip(*many(one, reps, 11), strict=True)):
        groups = projection.group_effects(u, x > 0)
        line = projection.best_linear(u, np.stack([np.ones(n), x], axis=1))
        band = np.asarray(groups.confint(joint=True, n_boot=500, seed=i))
        joint.append(np.all((band[:, 0] <= truth[:2]) & (truth[:2] <= band[:, 1])))
        ends = np.concatenate([groups.confint(), line.confint()])
        inside.append((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    within(np.mean(inside, axis=0), reps)
    within(np.mean(joint), reps)


@pytest.mark.parametrize(("a", "b"), [(0.5, 1.0), (1.0, -0.7)])
def test_limits_of_bounds_with_an_omitted_variable(a, b):
    """The nearer bound at the true strengths is the effect, so its limit covers as it says."""
    n, reps = 1000, 1000
    cf_d = a**2 / (1 + a**2)
    left = b**2 / (1 + a**2)
    cf_y = left / (left + 1)

    def one(key):
        kx, ku, kd, ke, kf = jax.random.split(key, 5)
        x, u = jax.random.normal(kx, (n, 2)), jax.random.normal(ku, (n,))
        d = x[:, 0] + a * u + jax.random.normal(kd, (n,))
        y = d + x @ jnp.array([1.0, -1.0]) + b * u + jax.random.normal(ke, (n,))
        ids = crossfit.fold_ids(kf, n, K)
        e = double_ml.plr(y, d, x, ml_l=LINEAR, ml_m=LINEAR, fold_ids=ids, n_folds=K)
        p = e.diagnostics
        elements = sensitivity.plr_elements(y, d, p["ml_l"], p["ml_m"], e.theta)
        found = sensitivity.bounds(e.theta, e.psi, elements, cf_y, cf_d, level=0.95)
        return found.theta, found.limits

    bounds, limits = many(one, reps, 12)
    near = 0 if a * b > 0 else 1
    assert abs(np.mean(bounds[:, near]) - 1) < 0.01
    within(np.mean((limits[:, near] <= 1) if near == 0 else (limits[:, near] >= 1)), reps)


@pytest.mark.parametrize(("firms", "years"), [(50, 40), (30, 60)])
def test_clusters_of_two_kinds(firms, years):
    """One unit for each firm and year; errors and treatments have parts of both."""
    reps, n = 400, firms * years
    firm, year = (np.ravel(v) for v in np.indices((firms, years)))
    units = Units(clusters=np.stack([firm, year], axis=1))

    def one(key):
        kx, kd, ke, kf, ky, ks = jax.random.split(key, 6)
        x = jax.random.normal(kx, (n, 2))
        f, t = jax.random.normal(kf, (firms, 2))[firm], jax.random.normal(ky, (years, 2))[year]
        d = x[:, 0] + f[:, 0] + t[:, 0] + jax.random.normal(kd, (n,))
        y = d + x @ jnp.array([1.0, -1.0]) + f[:, 1] + t[:, 1] + jax.random.normal(ke, (n,))
        ids = crossfit.fold_ids(ks, n, 2, units=units)
        e = double_ml.plr(y, d, x, ml_l=LINEAR, ml_m=LINEAR, fold_ids=ids, n_folds=2, units=units)
        return e.theta, e.se, jnp.sqrt(jnp.mean(e.psi**2) / n)

    theta, se, naive = many(one, reps, 13)
    k = quantile(0.95, min(firms, years) - 1)
    within(np.mean(np.abs(theta - 1) <= k * se), reps, short=0.02)  # few clusters
    assert np.mean(np.abs(theta - 1) <= 1.96 * naive) < 0.6


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_bootstrap_of_regressions_with_ten_clusters(strength):
    """Least squares with a cluster-wide treatment, and an instrument of little strength."""
    g, size, reps = 10, 12, 400
    clusters = np.repeat(np.arange(g), size)
    p, inside = [], []
    for seed in range(reps):
        rng = np.random.default_rng(seed)
        common = rng.normal(size=g)[clusters]
        z = rng.normal(size=g)[clusters] + rng.normal(size=g * size)
        u = rng.normal(size=g * size)
        a = z if strength == 0 else strength * z + u + rng.normal(size=g * size)
        y = a + common + u + rng.normal(size=g * size)
        one = np.ones((g * size, 1))
        found = wild_linear_iv(
            y, a, z, one, Units(clusters=clusters), null=1.0, n_boot=399, seed=seed
        )
        p.append(found.p_value)
        inside.append(found.interval[0] <= 1 <= found.interval[1])
    within(np.mean(np.array(p) >= 0.05), reps, short=0.01)
    within(np.mean(inside), reps, short=0.01)


@pytest.mark.parametrize("compliers", [0.0, 0.05, 0.5])
def test_robust_sets_among_compliers(compliers):
    """An instrument of two levels that moves few, or nobody."""
    n, reps = 400, 2000

    def one(key):
        kz, kc, kd, ke = jax.random.split(key, 4)
        z = jax.random.bernoulli(kz, 0.5, (n,)).astype(float)
        complier, taker = (
            jax.random.uniform(kc, (n,)) < compliers,
            jax.random.bernoulli(kd, 0.4, (n,)),
        )
        d = jnp.where(complier, z, taker.astype(float))
        y = d + 2.0 * (taker & ~complier).astype(float) + jax.random.normal(ke, (n,))
        half, zero = jnp.full(n, 0.5), jnp.zeros(n)
        score = influence.late(y, d, z, half, zero + 1.2, zero + 1.2, zero + 0.4, zero + 0.4)
        q = anderson_rubin(score).quadratic
        return q[0] + q[1] + q[2] <= 0  # the effect among compliers is one

    within(np.mean(many(one, reps, 14, at_once=500)), reps)
