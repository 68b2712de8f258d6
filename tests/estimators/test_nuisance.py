"""Learners against scikit-learn and SciPy, weights against repeated rows, masks against slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import nuisance
from jaxcore.estimators.nuisance import basis, calibrate, descent, penalised, stack

KEY = jax.random.key(0)
RAW = {"standardize": False}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 4)) * [1, 2, 0.5, 1] + [0, 1, 0, -1]
    y = X @ [1.0, 0.0, -2.0, 0.3] + 0.5 * rng.normal(size=120)
    yb = (rng.uniform(size=120) < 1 / (1 + np.exp(-X[:, 0] - 0.5))).astype(float)
    return X, y, yb, rng.uniform(0.5, 2, 120)


def double(*arrays):
    return [jnp.asarray(a, jnp.float64) for a in arrays]


def coefs(fit):
    return np.r_[float(fit.intercept), np.asarray(fit.coef)]


def sk(model):
    return np.r_[np.ravel(model.intercept_), np.ravel(model.coef_)]


def test_linear_learners_equal_scikit_learn(data):
    from sklearn import linear_model as lm

    X, y, _, w = data
    share = w / w.sum()
    pairs = [
        (nuisance.Ridge(alpha=0.3, **RAW), lm.Ridge(alpha=0.3, tol=1e-12), share),
        (nuisance.Lasso(alpha=0.1, **RAW), lm.Lasso(alpha=0.1, tol=1e-12, max_iter=10**5), w),
        (
            nuisance.ElasticNet(alpha=0.2, l1_ratio=0.3, **RAW),
            lm.ElasticNet(alpha=0.2, l1_ratio=0.3, tol=1e-12, max_iter=10**5),
            w,
        ),
    ]
    with jax.enable_x64(True):
        jX, jy, jw = double(X, y, w)
        for ours, theirs, weights in pairs:
            fit = ours.fit(jX, jy, jw, KEY)
            theirs.fit(X, y, sample_weight=weights)
            np.testing.assert_allclose(coefs(fit), sk(theirs), rtol=1e-5, atol=1e-6, err_msg=ours)


def test_logistic_learners_equal_scikit_learn(data):
    from sklearn.linear_model import LogisticRegression

    X, _, yb, w = data
    with jax.enable_x64(True):
        jX, jy, jw = double(X, yb, w)
        ridge = nuisance.Logistic(alpha=0.05, **RAW).fit(jX, jy, jw, KEY)
        lasso = nuisance.LogisticLasso(alpha=0.03, **RAW).fit(jX, jy, jw, KEY)
    share = w / w.sum()
    theirs = LogisticRegression(C=1 / 0.05, tol=1e-10, max_iter=10**4)
    np.testing.assert_allclose(coefs(ridge), sk(theirs.fit(X, yb, share)), rtol=1e-4, atol=1e-5)
    theirs = LogisticRegression(
        C=1 / 0.03, l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=10**5
    ).fit(X, yb, share)
    np.testing.assert_allclose(coefs(lasso), sk(theirs), rtol=2e-3, atol=2e-4)


def test_kernel_ridge_equals_scikit_learn(data):
    from sklearn.kernel_ridge import KernelRidge

    X, y, _, _ = data
    with jax.enable_x64(True):
        jX, jy = double(X, y)
        ours = nuisance.KernelRidge(alpha=0.5, gamma=0.1, standardize=False)
        predicted = ours.predict(ours.fit(jX, jy, jnp.ones(120), KEY), jX + 0.1)
    theirs = KernelRidge(alpha=0.5, gamma=0.1, kernel="rbf").fit(X, y)
    np.testing.assert_allclose(predicted, theirs.predict(X + 0.1), rtol=1e-7, atol=1e-9)


LINEAR = [
    nuisance.Ridge(alpha=0.1),
    nuisance.Lasso(alpha=0.05),
    nuisance.Logistic(alpha=0.01),
    nuisance.LogisticLasso(alpha=0.02),
]


@pytest.mark.parametrize("learner", LINEAR, ids=lambda one: type(one).__name__)
def test_weights_are_repetitions_and_zero_weights_absences(data, learner):
    X, y, yb, _ = data
    target = yb if "Logistic" in type(learner).__name__ else y
    times = np.random.default_rng(1).integers(0, 3, 120)
    with jax.enable_x64(True):
        jX, jy, jw = double(X, target, times)
        a = learner.predict(learner.fit(jX, jy, jw, KEY), jX)
        rX, ry = double(np.repeat(X, times, axis=0), np.repeat(target, times))
        b = learner.predict(learner.fit(rX, ry, jnp.ones(len(ry)), KEY), jX)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


FLEXIBLE = [nuisance.Boosting(n_trees=5, depth=2), nuisance.KernelRidge()]


@pytest.mark.parametrize("learner", FLEXIBLE, ids=lambda one: type(one).__name__)
def test_outcomes_of_rows_without_weight_do_not_matter(data, learner):
    X, y, _, w = data
    w = np.where(np.arange(120) % 3 == 0, 0, w)
    with jax.enable_x64(True):
        jX, jy, jw = double(X, y, w)
        a = learner.predict(learner.fit(jX, jy, jw, KEY), jX)
        other = jnp.where(jw > 0, jy, 1e4)
        b = learner.predict(learner.fit(jX, other, jw, KEY), jX)
    np.testing.assert_allclose(a, b, rtol=1e-9)


def test_cross_validated_lasso_keeps_the_signal_and_drops_noise():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 25))
    y = 2 * X[:, 0] - X[:, 1] + 0.5 * rng.normal(size=300)
    with jax.enable_x64(True):
        jX, jy = double(X, y)
        fit = jax.jit(lambda X, y: nuisance.Lasso().fit(X, y, jnp.ones(300), KEY))(jX, jy)
    coef = np.asarray(fit.coef)
    assert abs(coef[0] - 2) < 0.15 and abs(coef[1] + 1) < 0.15
    assert np.abs(coef[2:]).max() < 0.1
    alphas = float(fit.alpha)
    assert 1e-4 < alphas < 0.5


def test_more_columns_than_rows_with_a_penalty():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 60)), rng.normal(size=30)
    with jax.enable_x64(True):
        jX, jy = double(X, y)
        for learner in (nuisance.Ridge(alpha=0.1), nuisance.Lasso(alpha=0.1)):
            fit = learner.fit(jX, jy, jnp.ones(30), KEY)
            assert np.isfinite(np.asarray(fit.coef)).all()


def test_constant_columns_get_coefficient_zero():
    X = jnp.stack([jnp.arange(6.0), jnp.full(6, 3.0)], axis=1)
    for learner in (nuisance.Ridge(alpha=0.0), nuisance.Lasso(alpha=1e-4)):
        fit = learner.fit(X, 2 * X[:, 0], jnp.ones(6), KEY)
        assert float(fit.coef[1]) == 0 and abs(float(fit.coef[0]) - 2) < 1e-2


def test_newton_in_chunks_is_newton(data):
    X, _, yb, w = data
    with jax.enable_x64(True):
        B, y, w = double(np.c_[np.ones(120), X], yb, w)
        whole = penalised.newton_logistic(B, y, w)
        parts = penalised.newton_logistic(B, y, w, rows=7)
        assert bool(whole.converged) and bool(parts.converged)
        np.testing.assert_allclose(parts.coef, whole.coef, rtol=1e-10)


@pytest.mark.parametrize("q", [3, 40, 80])
def test_coordinate_descent_with_nearly_dependent_columns(q):
    """Optimality conditions at a penalty that leaves some out; few columns take few sweeps."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(300, 1))
    X = np.concatenate([base + 1e-3 * rng.normal(size=(300, 2)), rng.normal(size=(300, q - 2))], 1)
    y = X @ np.r_[3.0, -2.0, np.zeros(q - 2)] + 0.1 * rng.normal(size=300)
    with jax.enable_x64(True):
        gram, cross = double(X.T @ X / 300, X.T @ y / 300)
        l1, zero = jnp.full(q, 1e-4), jnp.zeros(q)
        sweeps = 30 if q <= 64 else 200_000
        b = np.asarray(descent.coordinate_descent(gram, cross, l1, zero, zero, max_sweeps=sweeps))
    slope = np.asarray(cross) - np.asarray(gram) @ b
    assert np.all(np.abs(slope) <= 1e-4 * (1 + 1e-3)) and np.sum(b == 0) < q
    np.testing.assert_allclose(slope[b != 0], 1e-4 * np.sign(b[b != 0]), rtol=1e-3)


def test_newton_stops_above_the_rounding_of_single_precision():
    """Rounded steps along nearly dependent columns are no reason to go on to the limit."""
    rng = np.random.default_rng(0)
    n = 20_000
    x = rng.normal(size=n)
    B = np.column_stack([np.ones(n), x, x + 0.01 * rng.normal(size=n), rng.normal(size=(n, 18))])
    y = (rng.uniform(size=n) < 1 / (1 + np.exp(-x))).astype(float)
    fit = jax.jit(penalised.newton_logistic)
    single = fit(*(jnp.asarray(v, jnp.float32) for v in (B, y, np.ones(n))))
    with jax.enable_x64(True):
        exact = fit(*double(B, y, np.ones(n)))
        apart = B @ (np.asarray(single.coef) - np.asarray(exact.coef))
    assert bool(single.converged) and int(single.steps) <= int(exact.steps)
    assert np.sqrt(np.mean(apart**2)) < 1e-5


def test_newton_reports_separation():
    x = jnp.linspace(-1, 1, 20)
    B = jnp.stack([jnp.ones(20), x], axis=1)
    out = penalised.newton_logistic(B, (x > 0).astype(jnp.float32), jnp.ones(20), max_steps=15)
    assert not bool(out.converged)


def test_b_splines_equal_scipy():
    from scipy.interpolate import BSpline

    x = np.linspace(-2, 3, 50)
    with jax.enable_x64(True):
        b = basis.BSpline(df=6, degree=3)
        X = jnp.asarray(x)[:, None]
        state = b.prepare(X)
        ours = np.asarray(b.expand(state, X))[:, 1:]
    knots = np.asarray(state[0])
    theirs = BSpline.design_matrix(x, knots, 3).toarray()[:, 1:]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_library_shares_columns_and_counts_them():
    X = jnp.asarray(np.random.default_rng(0).normal(size=(9, 2)), jnp.float32)
    B, masks = basis.library(["const", "lin", "quad", "cubic"], X)
    assert masks.sum(axis=1).tolist() == [1, 3, 6, 10] and B.shape == (9, 10)
    x1, x2 = np.asarray(X).T
    expected = [1 + 0 * x1, x1, x2, x1**2, x2**2, x1 * x2]
    np.testing.assert_allclose(B[:, :6], np.stack(expected, 1), rtol=1e-5)


def test_bases_with_wrong_settings():
    with pytest.raises(UserError, match="const, lin, quad"):
        basis.resolve("linear")
    with pytest.raises(UserError, match="df >= degree"):
        basis.BSpline(df=2).prepare(jnp.ones((3, 1)))


def test_fourier_features_approach_the_kernel():
    X = jnp.asarray(np.random.default_rng(0).normal(size=(40, 2)), jnp.float32)
    b = basis.FourierFeatures(n_features=4000, gamma=0.3)
    phi = np.asarray(b.expand(b.prepare(X), X))[:, 1:]
    S = np.asarray(X)
    S = (S - S.mean(axis=0)) / S.std(axis=0)
    d2 = ((S[:, None] - S[None]) ** 2).sum(-1)
    assert np.abs(phi @ phi.T - np.exp(-0.3 * d2)).max() < 0.1


@pytest.mark.parametrize(
    "learner",
    [
        nuisance.MLP(steps=200, members=2, width=16, learning_rate=1e-2),
        nuisance.Boosting(n_trees=60),
        nuisance.KernelRidge(alpha=0.3, gamma=2.0),
        nuisance.Ridge(basis=basis.BSpline(df=8)),
        nuisance.Stack(learners=(nuisance.Ridge(), nuisance.Boosting(n_trees=60))),
    ],
    ids=lambda one: type(one).__name__,
)
def test_flexible_learners_find_a_curve(learner):
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, size=(400, 1))
    y = np.sin(2 * X[:, 0]) + 0.1 * rng.normal(size=400)
    X, y = jnp.asarray(X, jnp.float32), jnp.asarray(y, jnp.float32)
    fit = jax.jit(learner.fit)(X, y, jnp.ones(400), KEY)
    at = jnp.linspace(-1.9, 1.9, 50)[:, None]
    error = learner.predict(fit, at) - jnp.sin(2 * at[:, 0])
    assert float(jnp.mean(error**2)) < 0.02


@pytest.mark.parametrize(
    "learner",
    [
        nuisance.MLP(binary=True, steps=100, members=2, width=16, learning_rate=1e-2),
        nuisance.Boosting(binary=True, n_trees=40),
        nuisance.Calibrated(learner=nuisance.Boosting(binary=True, n_trees=40)),
        nuisance.Calibrated(learner=nuisance.Logistic(), method="isotonic"),
    ],
    ids=["MLP", "Boosting", "Platt", "isotonic"],
)
def test_classifiers_give_probabilities(learner):
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, size=(600, 1)).astype(np.float32)
    p = 1 / (1 + np.exp(-2 * X[:, 0]))
    y = (rng.uniform(size=600) < p).astype(np.float32)
    fit = jax.jit(learner.fit)(jnp.asarray(X), jnp.asarray(y), jnp.ones(600), KEY)
    ours = np.asarray(learner.predict(fit, jnp.asarray(X)))
    assert ours.min() >= 0 and ours.max() <= 1
    assert np.mean((ours - p) ** 2) < 0.01


def test_isotonic_equals_scikit_learn():
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(0)
    y, w = np.sort(rng.normal(size=40)) + rng.normal(size=40), rng.uniform(0.5, 2, 40)
    with jax.enable_x64(True):
        ours = calibrate.isotonic(*double(y, w))
    theirs = IsotonicRegression().fit_transform(np.arange(40), y, sample_weight=w)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_stack_weights_lie_on_the_simplex_and_find_the_best():
    rng = np.random.default_rng(0)
    P = rng.normal(size=(200, 3))
    y = 0.7 * P[:, 0] + 0.3 * P[:, 2]
    with jax.enable_x64(True):
        w = np.asarray(stack.convex_weights(*double(P, y), jnp.ones(200)))
    assert abs(w.sum() - 1) < 1e-9 and w.min() >= 0
    np.testing.assert_allclose(w, [0.7, 0, 0.3], atol=1e-4)


class _Learner:
    """A scikit-learn-like object that records what it saw."""

    def fit(self, X, y, sample_weight=None):
        self.mean = np.average(y, weights=sample_weight)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.mean)

    def predict_proba(self, X):
        return np.stack([1 - self.predict(X), self.predict(X)], axis=1)


def test_host_learner_passes_weights_and_rows():
    y, w = np.array([0.0, 1.0, 1.0, 5.0]), np.array([[1.0, 2.0, 1.0, 0.0]])
    X = np.zeros((4, 1), np.float32)
    for binary in (False, True):
        out = nuisance.HostLearner(_Learner(), binary=binary).fit_predict(X, y, w, (X,))
        np.testing.assert_allclose(out, np.full((1, 1, 4), 0.75))


def test_host_learners_that_cannot_be_used():
    X, y = np.zeros((4, 1), np.float32), np.array([0.0, 1.0, 1.0, 0.0])
    with pytest.raises(UserError, match="fit and predict, or a function"):
        nuisance.HostLearner(3)
    short = nuisance.HostLearner(lambda X, y, w, X_new: np.zeros(1))
    with pytest.raises(UserError, match="one prediction per row"):
        short.fit_predict(X, y, np.ones((1, 4)), (X,))

    class NoWeights:
        def fit(self, X, y):
            return self

        def predict(self, X):
            return np.zeros(len(X))

    with pytest.raises(UserError, match="sample_weight"):
        nuisance.HostLearner(NoWeights()).fit_predict(X, y, np.array([[1.0, 2, 1, 1]]), (X,))


def test_a_learner_may_be_written_by_the_user():
    assert isinstance(nuisance.Ridge(), nuisance.Learner)
    with pytest.raises(AttributeError):
        _ = nuisance.Forest


def test_more_columns_than_rows_fitted_fold_by_fold_as_alone():
    """Many columns take another way under vmap: every fit must be what it is alone."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 80))
    y = (X[:, 0] + rng.normal(size=60) > 0).astype(float)
    masks = np.ones((2, 60))
    masks[0, :20], masks[1, 30:] = 0, 0
    with jax.enable_x64(True):
        for learner in (nuisance.Lasso(alpha=0.05), nuisance.LogisticLasso(alpha=0.05)):
            both = np.asarray(nuisance.fit_predict(learner, X, y, masks, (X,)))
            for k in range(2):
                rows = masks[k] > 0
                fitted = learner.fit(X[rows], y[rows], np.ones(rows.sum()), jax.random.key(0))
                alone = learner.predict(fitted, X)
                np.testing.assert_allclose(both[k, 0], alone, atol=1e-7)


@pytest.mark.parametrize("alpha", [0.05, 1e-3])
def test_logistic_lasso_of_many_columns_is_optimal(alpha):
    """Few columns in use, and more than are solved for at once."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 200)) + rng.normal(size=(300, 1))
    y = (rng.uniform(size=300) < 1 / (1 + np.exp(X[:, 1] - X[:, 0]))).astype(float)
    with jax.enable_x64(True):
        fit = nuisance.LogisticLasso(alpha=alpha, **RAW).fit(*double(X, y, np.ones(300)), KEY)
    coef = np.asarray(fit.coef)
    p = 1 / (1 + np.exp(-float(fit.intercept) - X @ coef))
    slope = X.T @ (y - p) / 300
    assert abs(np.mean(y - p)) < 1e-7 and np.all(np.abs(slope) <= alpha * (1 + 1e-5))
    assert (np.sum(coef != 0) > 64) == (alpha < 0.01)
    used = coef != 0
    np.testing.assert_allclose(slope[used], alpha * np.sign(coef[used]), rtol=1e-5)
