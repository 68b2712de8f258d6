"""Several regressors and instruments: against plain NumPy, and how the statistics behave."""

import numpy as np
import pytest

from jaxcore.estimators import two_stage
from jaxcore.estimators.linear_iv import ols
from jaxcore.estimators.units import Units


def _data(seed=0, n=200, strength=1.0):
    rng = np.random.default_rng(seed)
    z, u = rng.normal(size=(n, 3)), rng.normal(size=n)
    c = strength * z @ np.array([[1.0, 0.2], [0.3, 1.0], [0.5, -0.5]])
    c = c + u[:, None] + rng.normal(size=(n, 2))
    w = np.column_stack([np.ones(n), rng.normal(size=n)])
    y = c @ np.array([2.0, -1.0]) + w @ np.array([0.5, 1.0]) + u + rng.normal(size=n)
    return y, c, z, w


def _in_double(function, *args):
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        arrays = [jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
        return jax.device_get(function(*arrays))


def test_coefficients_and_errors_are_those_of_the_textbook_formula():
    y, c, z, w = _data()
    weights = np.random.default_rng(1).uniform(0.5, 2, len(y))

    def ours(y, c, z, w, weights):
        units = Units(weights)
        return two_stage.least_squares(two_stage.stages(y, c, z, w, units), units)

    found = _in_double(ours, y, c, z, w, weights)
    root = np.sqrt(weights / weights.mean())[:, None]
    x, inst = np.hstack([c, w]) * root, np.hstack([z, w]) * root
    fitted = inst @ np.linalg.lstsq(inst, x, rcond=None)[0]
    theta = np.linalg.solve(fitted.T @ x, fitted.T @ (y[:, None] * root)[:, 0])
    e = (y[:, None] * root)[:, 0] - x @ theta
    bread = np.linalg.inv(fitted.T @ fitted)
    spread = bread @ (fitted.T * e**2) @ fitted @ bread
    np.testing.assert_allclose(found.theta, theta[:2], rtol=1e-10)
    np.testing.assert_allclose(found.diagnostics["exogenous"], theta[2:], rtol=1e-10)
    np.testing.assert_allclose(found.se, np.sqrt(np.diag(spread))[:2], rtol=1e-10)


def test_with_the_regressors_as_instruments_it_is_least_squares():
    y, c, _, w = _data(1)
    parts = _in_double(two_stage.stages, y, c[:, :1], c[:, :1], w)
    found = _in_double(two_stage.least_squares, parts)
    np.testing.assert_allclose(found.theta[0], ols(y, c[:, 0], w).theta, rtol=1e-10)


def test_limited_information_is_two_stages_with_as_many_instruments_as_regressors():
    y, c, z, w = _data(2)
    parts = _in_double(two_stage.stages, y, c, z[:, :2], w)
    assert _in_double(two_stage.liml_kappa, parts) == pytest.approx(1)
    np.testing.assert_allclose(
        _in_double(two_stage.liml, parts), _in_double(two_stage.least_squares, parts).theta
    )


def test_f_statistics_tell_strong_instruments_from_weak_ones():
    for strength, strong in ((1.0, True), (0.02, False)):
        parts = _in_double(two_stage.stages, *_data(3, 500, strength))
        f = _in_double(two_stage.first_stage_f, parts)
        least = _in_double(two_stage.cragg_donald, parts)
        assert np.all(f > 10) == strong and least <= np.min(f) * (1 + 1e-9)


def test_overidentification_rejects_an_instrument_that_acts_by_itself():
    y, c, z, w = _data(4, 2000)
    for outcome, valid in ((y, True), (y + z[:, 0], False)):
        parts = _in_double(two_stage.stages, outcome, c, z, w)
        theta = _in_double(two_stage.least_squares, parts).theta
        for test in (two_stage.sargan, two_stage.hansen):
            found = _in_double(test, parts, theta)
            assert found.df == 1 and (found.pvalue() > 0.01) == valid


def test_anderson_rubin_rejects_what_is_far_from_the_truth_alone():
    y, c, z, w = _data(5, 2000)
    parts = _in_double(two_stage.stages, y, c, z, w)
    truth, far = (
        _in_double(two_stage.anderson_rubin_test, parts, np.array(t))
        for t in ([2.0, -1.0], [3.0, -1.0])
    )
    assert truth.pvalue() > 0.01 > far.pvalue() and truth.df == 3
