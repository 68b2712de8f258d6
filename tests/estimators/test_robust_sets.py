"""Anderson-Rubin sets of PLIV and IIVM."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxcore.estimators import influence
from jaxcore.estimators.linear_iv import anderson_rubin
from jaxcore.estimators.units import Units

N = 120


def score(strength, seed=0):
    rng = np.random.default_rng(seed)
    z, u = rng.normal(size=(2, N)).astype(np.float32)
    d = (strength * z + u + rng.normal(size=N)).astype(np.float32)
    y = (2 * d + u + rng.normal(size=N)).astype(np.float32)
    zero = np.zeros(N, np.float32)
    return influence.partially_linear_iv(y, d, z, zero, zero, zero)


def statistic(score, t):
    s = np.asarray(score.psi_a, float) * t + np.asarray(score.psi_b, float)
    return N * s.mean() ** 2 / s.var()


@pytest.mark.parametrize("strength, form", [(1.0, "interval"), (0.18, "rays"), (0.0, "whole line")])
def test_a_value_is_in_the_set_when_its_test_does_not_reject(strength, form):
    moments = score(strength)
    found = anderson_rubin(moments).pieces()
    kinds = {1: "interval" if np.isfinite(found.intervals[0][0]) else "whole line", 2: "rays"}
    assert kinds[len(found.intervals)] == form
    for t in np.linspace(-20, 20, 301):
        test = statistic(moments, t)
        if abs(test - 3.8415) > 0.01:
            assert (t in found) == (test < 3.8415), t


def test_the_set_holds_the_estimate_and_strong_instruments_give_the_wald_interval():
    moments = score(30.0)
    e = influence.solve(moments)
    (ends,) = anderson_rubin(moments).pieces().intervals
    np.testing.assert_allclose(ends, np.asarray(e.confint()), rtol=0.01)
    assert float(e.theta) in anderson_rubin(moments).pieces()


def test_clusters_and_weights_enter():
    moments = score(1.0)
    twice = influence.LinearScore(*(np.concatenate([v, v]) for v in moments))
    pairs = Units(clusters=jnp.tile(jnp.arange(N), 2))
    wider = 2 * stats.norm.cdf(stats.t.ppf(0.975, N - 1) * np.sqrt(N / (N - 1))) - 1
    (once,) = anderson_rubin(moments, level=wider).pieces().intervals
    (paired,) = anderson_rubin(twice, pairs).pieces().intervals
    np.testing.assert_allclose(paired, once, rtol=1e-5)
    (weighted,) = anderson_rubin(moments, Units(weights=jnp.linspace(1, 3, N))).pieces().intervals
    assert weighted != once
    (wider,) = anderson_rubin(moments, centred=False).pieces().intervals
    assert wider[0] < once[0] and once[1] < wider[1]
