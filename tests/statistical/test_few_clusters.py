"""Coverage with 5 to 50 clusters, without and with what is done about it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jaxcore.estimators import crossfit, double_ml, influence
from jaxcore.estimators.monte_carlo import replicate
from jaxcore.estimators.nuisance import Ridge
from jaxcore.estimators.units import Units
from jaxcore.estimators.variance import quantile, variance
from jaxcore.estimators.wild_bootstrap import cluster_draws, score_p_value

pytestmark = pytest.mark.statistical

SIZE, REPS = 20, 2000
LINEAR = Ridge(alpha=0.0)


def draws(g):
    """Estimate, errors without and with the factor, and cluster sums of the score, at theta = 1."""
    clusters = np.repeat(np.arange(g), SIZE)
    units = Units(clusters=clusters)

    def one(key):
        kx, kd, ke, kc, kf = jax.random.split(key, 5)
        n = g * SIZE
        x = jax.random.normal(kx, (n, 2))
        common = jax.random.normal(kc, (g, 2))[clusters]
        d = x[:, 0] + common[:, 0] + jax.random.normal(kd, (n,))
        y = d + x @ jnp.array([1.0, -1.0]) + common[:, 1] + jax.random.normal(ke, (n,))
        ids = crossfit.fold_ids(kf, n, min(g, 5), units=units)
        e = double_ml.plr(
            y, d, x, ml_l=LINEAR, ml_m=LINEAR, fold_ids=ids, n_folds=min(g, 5), units=units
        )
        score = influence.partially_linear(y, d, e.diagnostics["ml_l"], e.diagnostics["ml_m"])
        plain = jnp.sqrt(variance(e.psi, units, small_sample=False))
        return e.theta, plain, e.se, units.sums(score.psi_a), units.sums(score.psi_b)

    with jax.enable_x64(True):
        index = jnp.arange(REPS)
        run = jax.jit(lambda i: replicate(one, jax.random.key(g), i, at_once=50))
        return [np.asarray(v) for v in run(index)]


@pytest.mark.parametrize(
    "g, floor_plain, ceiling_plain, floor",
    [
        (5, 0.68, 0.74, 0.86),
        (10, 0.82, 0.87, 0.88),
        (20, 0.87, 0.92, 0.91),
        (50, 0.91, 0.95, 0.925),
    ],
)
def test_coverage_of_nominal_95_percent(g, floor_plain, ceiling_plain, floor):
    theta, plain, se, a, b = draws(g)
    error = np.abs(theta - 1)
    before = np.mean(error <= norm.ppf(0.975) * plain)
    after = np.mean(error <= quantile(0.95, g - 1) * se)
    weights = cluster_draws(g, None, 999)[0]
    wild = np.mean([score_p_value(*row, 1.0, weights) >= 0.05 for row in zip(a[:500], b[:500])])  # noqa: B905
    print(f"{g} clusters: normal {before:.3f}, t and g/(g-1) {after:.3f}, wild {wild:.3f}")
    assert floor_plain <= before <= ceiling_plain
    assert floor <= after <= 0.98
    assert 0.91 <= wild <= 0.985
