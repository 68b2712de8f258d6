"""PLR, PLIV, IRM and IIVM against NumPy twins on the same folds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import double_ml, influence
from jaxcore.estimators.nuisance import HostLearner, Logistic, Ridge
from jaxcore.estimators.units import Units
from tests.estimators.derivatives import derivative_error

pytestmark = pytest.mark.newest

N, K = 200, 4


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 3))
    Z = (rng.uniform(size=N) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)
    D = (rng.uniform(size=N) < 0.2 + 0.5 * Z).astype(float)
    Y = D + X @ [1.0, 0.5, -1.0] + rng.normal(size=N)
    return Y, D, Z, X, rng.permutation(N) % K


@pytest.fixture
def arrays(data):
    with jax.enable_x64(True):
        yield [jnp.asarray(v) for v in data[:4]] + [jnp.asarray(data[4], jnp.int32)]


def ols_cross(X, y, ids, within=None):
    out = np.empty(N)
    for f in range(K):
        train = (ids != f) & (True if within is None else within)
        B = np.c_[np.ones(train.sum()), X[train]]
        b = np.linalg.lstsq(B, y[train], rcond=None)[0]
        out[ids == f] = np.c_[np.ones((ids == f).sum()), X[ids == f]] @ b
    return out


LINEAR = Ridge(alpha=0.0)


def test_partially_linear_models(data, arrays):
    Y, D, Z, X, ids = data
    l, m, r = (ols_cross(X, v, ids) for v in (Y, D, Z))  # noqa: E741  # the paper's names
    v, w = D - m, Z - r
    y, d, z, x, i = arrays
    ours = double_ml.plr(y, d, x, ml_l=LINEAR, ml_m=LINEAR, fold_ids=i, n_folds=K)
    theta = np.sum((Y - l) * v) / np.sum(v * v)
    psi = (Y - l - theta * v) * v / np.mean(v * v)
    np.testing.assert_allclose(ours.theta, theta, rtol=1e-7)
    np.testing.assert_allclose(ours.se, np.sqrt(np.mean(psi**2) / N), rtol=1e-7)
    ours = double_ml.pliv(y, d, z, x, ml_l=LINEAR, ml_m=LINEAR, ml_r=LINEAR, fold_ids=i, n_folds=K)
    theta = np.sum((Y - l) * w) / np.sum(v * w)
    psi = (Y - l - theta * v) * w / np.mean(v * w)
    np.testing.assert_allclose(ours.theta, theta, rtol=1e-7)
    np.testing.assert_allclose(ours.se, np.sqrt(np.mean(psi**2) / N), rtol=1e-7)


def test_interactive_models(data, arrays):
    Y, D, Z, X, ids = data
    y, d, z, x, i = arrays
    half = HostLearner(lambda X, y, w, X_new: np.full(len(X_new), 0.5))
    g0, g1 = ols_cross(X, Y, ids, D == 0), ols_cross(X, Y, ids, D == 1)
    u = g1 - g0 + 2 * D * (Y - g1) - 2 * (1 - D) * (Y - g0)
    ours = double_ml.irm(y, d, x, ml_g=LINEAR, ml_m=half, fold_ids=i, n_folds=K)
    np.testing.assert_allclose(ours.theta, u.mean(), rtol=1e-6)
    np.testing.assert_allclose(ours.se, u.std() / np.sqrt(N), rtol=1e-6)
    a0, a1 = ols_cross(X, Y, ids, Z == 0), ols_cross(X, Y, ids, Z == 1)
    r0, r1 = ols_cross(X, D, ids, Z == 0), ols_cross(X, D, ids, Z == 1)
    num = a1 - a0 + 2 * Z * (Y - a1) - 2 * (1 - Z) * (Y - a0)
    den = r1 - r0 + 2 * Z * (D - r1) - 2 * (1 - Z) * (D - r0)
    ours = double_ml.iivm(y, d, z, x, ml_g=LINEAR, ml_m=half, ml_r=LINEAR, fold_ids=i, n_folds=K)
    theta = num.mean() / den.mean()
    np.testing.assert_allclose(ours.theta, theta, rtol=1e-6)
    psi = (num - theta * den) / den.mean()
    np.testing.assert_allclose(ours.se, np.sqrt(np.mean(psi**2) / N), rtol=1e-6)


def test_effect_on_the_treated(data, arrays):
    """Against NumPy; and the influence function against the derivative of the functional."""
    Y, D, _, X, ids = data
    y, d, _, x, i = arrays
    third = HostLearner(lambda X, y, w, X_new: np.full(len(X_new), 0.25))
    g0 = ols_cross(X, Y, ids, D == 0)
    u = (D - (1 - D) / 3) * (Y - g0)
    ours = double_ml.irm(y, d, x, ml_g=LINEAR, ml_m=third, fold_ids=i, n_folds=K, target="ATT")
    theta = u.sum() / D.sum()
    psi = (u - theta * D) / D.mean()
    assert ours.names == ("ATT",)
    np.testing.assert_allclose(ours.theta, theta, rtol=1e-6)
    np.testing.assert_allclose(ours.se, np.sqrt(np.mean(psi**2) / N), rtol=1e-6)
    with pytest.raises(UserError, match="'ATE' or 'ATT'"):
        double_ml.irm(y, d, x, ml_g=LINEAR, ml_m=third, fold_ids=i, n_folds=K, target="ATU")


def test_influence_of_the_effect_on_the_treated_is_the_derivative():
    support = [(x, a, v) for x in (0, 1) for a in (0, 1) for v in (0.0, 1.0, 3.0)]
    x, a, v = (jnp.asarray(c) for c in zip(*support, strict=True))
    a = a.astype(float)
    p = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(len(support))), float)

    def parts(q):
        def given(number, *where):
            inside = jnp.prod(jnp.stack([w.astype(float) for w in where]), axis=0)
            return jnp.sum(q * inside * number) / jnp.sum(q * inside)

        ps = jnp.stack([given(a, x == k) for k in (0, 1)])[x]
        m0 = jnp.stack([given(v, x == k, a == 0) for k in (0, 1)])[x]
        return ps, m0

    def effect(q):
        return jnp.sum(q * a * (v - parts(q)[1])) / jnp.sum(q * a)

    score = influence.treated(v, a, *parts(p))
    psi = (score.psi_a * effect(p) + score.psi_b) / -jnp.sum(p * score.psi_a)
    assert derivative_error(effect, p, psi) < 1e-5


def test_switches_for_one_sided_compliance(arrays):
    y, d, z, x, i = arrays
    options = {"ml_g": LINEAR, "ml_m": Logistic(), "ml_r": Logistic(), "fold_ids": i, "n_folds": K}
    e = double_ml.iivm(y, d * z, z, x, always_takers=False, never_takers=False, **options)
    assert np.all(np.asarray(e.diagnostics["ml_r0"]) == 0)
    assert np.all(np.asarray(e.diagnostics["ml_r1"]) == 1)


def test_clipped_propensities_are_counted_and_shown(arrays):
    y, d, _, x, i = arrays
    e = double_ml.irm(y, d, x, ml_g=LINEAR, ml_m=Logistic(), fold_ids=i, n_folds=K, clip=(0.4, 0.6))
    shown = np.asarray(e.diagnostics["ml_m"])
    assert shown.min() == 0.4 and shown.max() == 0.6
    assert int(e.diagnostics["n_clipped"]) == np.sum((shown == 0.4) | (shown == 0.6))


def test_clusters_and_vmap(arrays):
    y, d, _, x, _ = arrays
    i = jnp.arange(N, dtype=jnp.int32) // 5 % K  # clusters stay together
    units = Units(clusters=jnp.arange(N) // 5)
    e = double_ml.plr(y, d, x, ml_l=LINEAR, ml_m=LINEAR, fold_ids=i, n_folds=K, units=units)
    sums = np.asarray(e.psi).reshape(-1, 5).sum(axis=1)
    np.testing.assert_allclose(e.se, np.sqrt((sums**2).sum() * 40 / 39) / N, rtol=1e-9)

    def one(y):
        return double_ml.plr(y, d, x, ml_l=LINEAR, ml_m=LINEAR, fold_ids=i, n_folds=K).theta

    both = jax.jit(jax.vmap(one))(jnp.stack([y, 2 * y]))
    np.testing.assert_allclose(both, [one(y), one(2 * y)], rtol=1e-9)
