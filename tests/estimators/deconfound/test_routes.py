"""The routes on designs with known truth: who is right where, and the trap."""

import functools

import jax
import numpy as np
import pytest

from jaxcore.estimators.deconfound import hausman, routes, simulate, values
from jaxcore.estimators.linear_iv import ols
from jaxcore.train.losses import off_policy

N = 100_000


@functools.cache
def _sample(name, **more):
    with jax.enable_x64(True):
        drawn = getattr(simulate, name)(jax.random.key(3), N, **more)
        return jax.device_get(drawn)


def _slope(reward, text):
    return float(ols(reward, text, np.ones((len(text), 1))).theta)


def _every(s):
    ids = np.arange(N) % 5
    return {
        "iv": routes.iv(s.Y, s.C, s.Z),
        "plm": routes.plm(s.Y, s.C, s.features, ids, 5),
        "pliv": routes.plm(s.Y, s.C, s.features, ids, 5, Z=s.Z),
        "ols_c": routes.ols_c(s.Y, s.C),
    }


def test_where_text_and_confounder_share_a_cause_all_but_the_baseline_are_right():
    found = _every(_sample("linear"))
    for name in ("iv", "plm", "pliv"):
        assert found[name].theta[0] == pytest.approx(2, abs=4 * found[name].se[0]), name
    assert found["ols_c"].theta[0] == pytest.approx(3.596, abs=0.03)


def test_the_trap_is_as_the_arithmetic_says():
    """C = 0.8U + 0.6Z, x = 0.7C + N, Y = x + 2C + 1.5U + N: the effect of x is 1."""
    s = _sample("trap")
    found, text = _every(s), s.features[:, 0]
    assert found["iv"].theta[0] == pytest.approx(2.70, abs=0.03)
    assert found["plm"].theta[0] == pytest.approx(3.20, abs=0.03)
    assert found["pliv"].theta[0] == pytest.approx(1.42, abs=0.05)
    rewards = {name: routes.adjusted(s.Y, s.C, e.theta) for name, e in found.items()}
    assert _slope(rewards["iv"], text) == pytest.approx(1.235, abs=0.02)
    assert _slope(rewards["plm"], text) == pytest.approx(1.0, abs=0.02)
    true = routes.adjusted(s.Y, s.C, np.array([2.0]))
    assert _slope(true, text) == pytest.approx(1.564, abs=0.02)


def test_without_the_unrecorded_path_the_instrument_measures_the_total_effect():
    s = _sample("trap", direct=0.0)
    found = _every(s)
    assert found["iv"].theta[0] == pytest.approx(2.70, abs=0.03)
    for name in ("plm", "pliv"):
        assert found[name].theta[0] == pytest.approx(2.0, abs=0.03)


def test_the_contrast_tells_the_trap_from_a_design_where_both_are_right():
    good, bad = (_every(_sample(name)) for name in ("linear", "trap"))
    assert hausman(good["iv"], good["plm"]).pvalue > 0.01
    assert hausman(bad["iv"], bad["plm"]).pvalue < 1e-6
    short = hausman(bad["iv"], bad["plm"], form="variances")
    assert short.df == 1


def test_texts_freed_of_confounders_have_the_coefficients_of_the_joint_regression():
    s = _sample("linear")
    y, c, x = s.Y[:500], s.C[:500], s.features[:500]
    joint = routes.ols_c(y, c, x).diagnostics["exogenous"][1:]
    np.testing.assert_allclose(routes.ols_c(y, x, c).theta, joint, atol=1e-10)
    one_sided = routes.ols_c(routes.given(y, c), x).theta
    assert np.max(np.abs(one_sided - joint)) > 0.1


def test_weights_count_rows_and_clusters_widen_the_errors():
    s = _sample("linear")
    n = 400
    y, c, z = s.Y[:n], s.C[:n], s.Z[:n]
    twice = np.repeat(np.arange(n), 2)
    from jaxcore.estimators.units import Units

    plain = routes.iv(y, c, z)
    doubled = routes.iv(y[twice], c[twice], z[twice], None, Units(clusters=twice))
    weighted = routes.iv(y, c, z, None, Units(weights=np.full(n, 7.0)))
    np.testing.assert_allclose(doubled.theta, plain.theta, rtol=1e-9)
    np.testing.assert_allclose(doubled.se, plain.se * np.sqrt(n / (n - 1)), rtol=1e-9)
    np.testing.assert_allclose(weighted.se, plain.se, rtol=1e-9)


def test_clipped_weights_and_their_effective_size():
    log_ratio = np.array([100.0, 0.0, 0.0, 0.0])
    y = np.ones(4)
    found = values.policy_values(y, log_ratio, y, y)
    assert float(found.doubly_robust) == pytest.approx(1)
    assert 1 < float(found.effective) < 1.1
    free = values.policy_values(y, np.zeros(4), y, y)
    assert float(free.effective) == pytest.approx(4)


def test_the_objective_of_a_policy_has_the_gradient_of_its_value():
    """Two texts, the policy a softmax of one number: the derivative is known."""
    rewards = np.array([1.0, 3.0], np.float32)

    def value(t):
        logps = jax.nn.log_softmax(jax.numpy.stack([jax.numpy.zeros_like(t), t]))
        return off_policy.ipw_value(logps - np.float32(np.log(0.5)), rewards).value()

    p = 1 / (1 + np.exp(-0.3))
    assert float(jax.grad(value)(jax.numpy.float32(0.3))) == pytest.approx(
        2 * p * (1 - p), rel=1e-5
    )
