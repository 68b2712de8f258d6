"""Scores against NumPy written by hand, and the derivative check against known functionals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.estimators import influence
from jaxcore.estimators.units import Units
from jaxcore.estimators.variance import covariance, variance
from tests.estimators.derivatives import derivative_error, nuisance_derivative

pytestmark = pytest.mark.newest

N = 60


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=N)
    z = (rng.uniform(size=N) < 1 / (1 + np.exp(-x))).astype(float)
    a = (rng.uniform(size=N) < 0.2 + 0.5 * z).astype(float)
    y = 1 + a + x + rng.normal(size=N)
    ps = 1 / (1 + np.exp(-0.3 * x))
    return {k: v.astype(np.float32) for k, v in {"y": y, "a": a, "z": z, "x": x, "ps": ps}.items()}


def solved(score):
    return float(influence.solve(score).theta), float(influence.solve(score).se)


def manual(theta, psi):
    return theta, float(np.sqrt(np.mean(psi**2) / len(psi)))


def close(ours, theirs, rtol=2e-5):
    np.testing.assert_allclose(ours, theirs, rtol=rtol)


def test_ipw_and_hajek(data):
    y, a, ps = (data[k].astype(np.float64) for k in ("y", "a", "ps"))
    plain = np.mean(a * y / ps - (1 - a) * y / (1 - ps))
    psi = a * y / ps - (1 - a) * y / (1 - ps) - plain
    close(solved(influence.ipw(data["y"], data["a"], data["ps"])), manual(plain, psi))
    w1, w0 = a / ps / np.mean(a / ps), (1 - a) / (1 - ps) / np.mean((1 - a) / (1 - ps))
    m1, m0 = np.mean(w1 * y), np.mean(w0 * y)
    psi = w1 * (y - m1) - w0 * (y - m0)
    close(solved(influence.hajek(data["y"], data["a"], data["ps"])), manual(m1 - m0, psi))


def test_hajek_does_not_move_with_the_outcome_level(data):
    at = [
        float(influence.solve(influence.hajek(data["y"] + c, data["a"], data["ps"])).theta)
        for c in (0.0, 100.0)
    ]
    assert abs(at[0] - at[1]) < 1e-3


def test_aipw(data):
    y, a, ps, x = (data[k].astype(np.float64) for k in ("y", "a", "ps", "x"))
    m0, m1 = 1 + x, 2 + 0.5 * x
    u = m1 - m0 + a * (y - m1) / ps - (1 - a) * (y - m0) / (1 - ps)
    f32 = (np.float32(v) for v in (y, a, ps, m0, m1))
    close(solved(influence.aipw(*f32)), manual(u.mean(), u - u.mean()))


def test_partially_linear_and_iv(data):
    y, a, z, x = (data[k].astype(np.float64) for k in ("y", "a", "z", "x"))
    e_y, m, r = 1 + x, 0.4 + 0.1 * x, 0.5 - 0.1 * x
    v = a - m
    theta = np.sum((y - e_y) * v) / np.sum(v * v)
    psi = (y - e_y - theta * v) * v / np.mean(v * v)
    f32 = (np.float32(v) for v in (y, a, e_y, m))
    close(solved(influence.partially_linear(*f32)), manual(theta, psi))
    w = z - m
    theta = np.sum((y - e_y) * w) / np.sum((a - r) * w)
    psi = (y - e_y - theta * (a - r)) * w / np.mean((a - r) * w)
    f32 = (np.float32(v) for v in (y, a, z, e_y, m, r))
    close(solved(influence.partially_linear_iv(*f32)), manual(theta, psi), rtol=1e-4)


def test_late_is_the_ratio_of_two_aipw_scores(data):
    y, a, z, ps, x = (data[k] for k in ("y", "a", "z", "ps", "x"))
    g0, g1, r0, r1 = 1 + x, 1.5 + x, 0.2 + 0 * x, 0.7 + 0 * x
    ours = influence.solve(influence.late(y, a, z, ps, g0, g1, r0, r1))
    top = influence.solve(influence.aipw(y, z, ps, g0, g1)).theta
    bottom = influence.solve(influence.aipw(a, z, ps, r0, r1)).theta
    close(float(ours.theta), float(top / bottom))


def test_weights_equal_repeated_rows(data):
    y, a, ps = data["y"], data["a"], data["ps"]
    times = np.random.default_rng(1).integers(1, 4, size=N)
    score = influence.aipw(y, a, ps, 0 * y, 0 * y)
    repeated = influence.LinearScore(*(np.repeat(np.asarray(s), times) for s in score))
    weighted = influence.solve(score, Units(weights=jnp.asarray(times, jnp.float32)))
    close(float(weighted.theta), float(influence.solve(repeated).theta))


def test_cluster_variance_by_hand():
    rng = np.random.default_rng(2)
    psi, clusters = rng.normal(size=(40, 2)), rng.integers(0, 7, 40)
    clusters[:7] = np.arange(7)
    sums = np.stack([psi[clusters == g].sum(axis=0) for g in range(7)])
    psi32, units = jnp.asarray(psi, jnp.float32), Units(clusters=jnp.asarray(clusters))
    plain = variance(psi32, units, small_sample=False)
    close(np.asarray(plain), (sums**2).sum(axis=0) / 40**2, rtol=1e-5)
    close(np.asarray(variance(psi32, units)), 7 / 6 * np.asarray(plain), rtol=1e-5)
    close(np.diag(covariance(psi32, units)), np.asarray(variance(psi32, units)), rtol=1e-5)


def test_every_unit_its_own_cluster_is_no_clustering():
    psi = jnp.asarray(np.random.default_rng(3).normal(size=30), jnp.float32)
    alone = variance(psi, Units(clusters=jnp.arange(30)), small_sample=False)
    close(float(alone), float(variance(psi)))


def test_covariance_diagonal_is_the_variance():
    psi = jnp.asarray(np.random.default_rng(3).normal(size=(30, 3)), jnp.float32)
    close(np.diag(covariance(psi)), np.asarray(variance(psi)), rtol=1e-5)


def test_stacked_gives_the_sandwich_of_least_squares():
    rng = np.random.default_rng(4)
    X = np.c_[np.ones(50), rng.normal(size=(50, 2))]
    y = X @ [1.0, 2.0, -1.0] + rng.normal(size=50) * (1 + np.abs(X[:, 1]))
    with jax.enable_x64(True):
        b = np.linalg.lstsq(X, y, rcond=None)[0]
        rows = lambda b: X * (y - X @ b)[:, None]  # noqa: E731  # one formula
        psi = influence.stacked(lambda b: rows(b).mean(axis=0), rows, jnp.asarray(b))
        ours = np.asarray(covariance(psi))
    bread = np.linalg.inv(X.T @ X)
    meat = (X * ((y - X @ b) ** 2)[:, None]).T @ X
    np.testing.assert_allclose(ours, bread @ meat @ bread, rtol=1e-9)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(st.integers(0, 10_000))
def test_gateaux_of_variance_and_ratio(seed):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        y = jnp.asarray(rng.normal(size=6))
        p = jnp.asarray(rng.dirichlet(np.ones(6)))

        def var(q):
            q = q / jnp.sum(q)
            return q @ y**2 - (q @ y) ** 2

        psi = (y - p @ y) ** 2 - var(p)
        assert float(derivative_error(var, p, psi)) < 1e-12


def test_gateaux_finds_a_wrong_influence_function():
    y, p = jnp.array([0.0, 1.0, 4.0]), jnp.array([0.5, 0.25, 0.25])
    mean = lambda q: jnp.sum(q * y) / jnp.sum(q)  # noqa: E731  # one formula
    assert float(derivative_error(mean, p, y)) > 0.1


def test_nuisance_derivative_tells_orthogonal_scores_apart():
    with jax.enable_x64(True):
        ps, m1 = jnp.array([0.3, 0.6]), jnp.array([1.0, 2.0])  # two cells of equal mass

        def aipw_mean(nu):
            return jnp.mean(nu["m"] + ps * (m1 - nu["m"]) / nu["ps"])

        def ipw_mean(nu):
            return jnp.mean(ps * m1 / nu["ps"])

        truth = {"ps": ps, "m": m1}
        direction = {"ps": jnp.ones(2), "m": jnp.array([1.0, -2.0])}
        robust = nuisance_derivative(aipw_mean, truth, direction)
        assert abs(float(robust)) < 1e-14
        fragile = nuisance_derivative(ipw_mean, truth, direction)
        assert abs(float(fragile)) > 1


def test_solve_under_jit_and_vmap_equals_eager(data):
    y, a, ps = (jnp.asarray(data[k]) for k in ("y", "a", "ps"))

    def one(y):
        return influence.solve(influence.ipw(y, a, ps)).theta

    ys = jnp.stack([y, 2 * y])
    close(np.asarray(jax.jit(jax.vmap(one))(ys)), [float(one(v)) for v in ys])
