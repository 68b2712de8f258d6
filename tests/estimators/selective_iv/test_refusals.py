"""What `SelectiveIV` refuses, each in one sentence."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import nuisance
from jaxcore.estimators.selective_iv import SelectiveIV
from jaxcore.estimators.selective_iv.learners import VaryingCoefficient
from jaxcore.estimators.selective_iv.simulate import simulate_siv2

N = 400


class LinearRegression:
    """An outside learner that nobody wrapped."""

    def fit(self, X, y):
        raise AssertionError("never called")

    predict = fit


FAST = SelectiveIV(learners=("const", "lin"), n_folds=2)


@pytest.fixture(scope="module")
def sample():
    with jax.enable_x64(True):
        return jax.device_get(simulate_siv2(jax.random.key(11), N))


def change(sample, **new):
    Y, A, Z, X = (np.array(v) for v in sample)
    return {"Y": Y, "A": A, "Z": Z, "X": X} | new


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"A": np.full(N, 2.0)}, "both 0 and 1 in the treatment, found only 2"),
        ({"Z": np.linspace(0, 1, N)}, "only 0 and 1 in the instrument"),
        ({"Z": np.ones(N)}, "both 0 and 1 in the instrument, found only 1"),
        ({"A": np.zeros(N)}, "both 0 and 1 in the treatment, found only 0"),
        ({"Y": np.ones(N)}, "an outcome that varies"),
        ({"Y": np.ones(3)}, "3 rows in the treatment"),
        ({"Y": np.array(["a"] * N)}, "numbers in the outcome, found values such as 'a'"),
        ({"X": np.array([["x", 1]] * N, object)}, "covariate 'x1'"),
        ({"X": np.full((N, 1), np.inf)}, "missing or infinite values"),
        ({"X": np.ones((N, 2, 2))}, "rows and columns"),
        ({"Y": np.ones((N, 2))}, "one column for the outcome"),
        ({"Y": np.ones(0), "A": [], "Z": [], "X": np.ones((0, 1))}, "at least one row"),
        ({"Y": np.ones(N) * 1j}, "real numbers"),
        ({"Y": np.r_[np.zeros(N - 1), 1e200]}, "finite estimate and error"),
    ],
)
def test_bad_data_is_refused_in_one_sentence(sample, new, message):
    with pytest.raises(UserError, match=message) as error:
        FAST.fit(**change(sample, **new))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"weights": -np.ones(N)}, "not negative"),
        ({"weights": np.zeros(N)}, "not all zero"),
        ({"weights": np.ones(3)}, f"{N} rows in the weights"),
        ({"clusters": np.zeros(N)}, "at least 2 clusters"),
        ({"clusters": [None] * N}, f"found {N} in the clusters"),
        ({"clusters": np.zeros((N, 2))}, "at least 2 clusters"),
        ({"clusters": np.arange(2 * N).reshape(N, 2)}, "clusters of one kind, found 2"),
        ({"fold_ids": np.zeros(N)}, "k >= 2"),
        ({"fold_ids": np.zeros(3)}, f"{N} fold ids"),
        ({"covariates": ["a", "a"]}, "more than one 'a'"),
        ({"covariates": ["a"]}, "2 covariate names"),
        ({"clusters": np.arange(N) // 2, "fold_ids": np.arange(N) % 2}, "200 split"),
    ],
)
def test_bad_extras_are_refused(sample, extra, message):
    with pytest.raises(UserError, match=message):
        FAST.fit(*sample, **extra)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": "best"}, "a criterion of"),
        ({"criterion": None}, "one learner per block"),
        ({"n_folds": 1}, "at least 2 folds"),
        ({"n_rep": 0}, "at least one repetition"),
        ({"se": "hc1"}, "se of"),
        ({"se": "sandwich"}, "n_folds=1"),
        ({"learners": ("linn",)}, r"a basis of .*one of lasso, .* \(did you mean 'lin'\?\)"),
        ({"learners": {"pi": ["lin"]}}, "learners for the blocks"),
        ({"learners": ()}, "at least one learner"),
        ({"clip": (0.9, 0.1)}, "0 <= low < high <= 1"),
        ({"one_sided": "maybe"}, "True, False or 'auto'"),
        ({"ridge": -1}, "ridge >= 0"),
        ({"ridge": float("nan")}, "ridge >= 0"),
        ({"beta": float("inf")}, "finite beta"),
        ({"lam": -1.0}, "lam >= 0"),
        ({"clip": (0.1,)}, "two numbers for clip"),
        ({"clip": None}, "two numbers for clip"),
        ({"aggregate": "sum"}, "aggregate of"),
        ({"n_folds": 2.5}, "whole number for n_folds"),
        ({"seed": 1 << 70}, "whole number for seed"),
        ({"seed": None}, "whole number for seed"),
        ({"models": {}}, "at least one model"),
        ({"models": {"M1": ("pi", "nu")}}, "keeping blocks of"),
        ({"learners": 3}, "a learner of .* or a basis of .* for pi, found 3"),
        ({"learners": [LinearRegression]}, "one with fit and predict"),
        ({"learners": [VaryingCoefficient()]}, "for delta only, found it for pi"),
        ({"learners": [nuisance.Stack(learners=(LinearRegression(),))]}, "Stack of JAX learners"),
        ({"overlap": "discard", "criterion": "smooth"}, "overlap='truncate'"),
    ],
)
def test_bad_settings_are_refused_at_once(settings, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(FAST, **settings)


def test_one_variable_in_two_roles_is_refused(sample):
    Y, A, Z, X = sample
    for role, twin in (("outcome", 3 - 2 * Y), ("treatment", A), ("instrument", 1 - Z)):
        with pytest.raises(UserError, match=f"{role} and covariate 'x3' are the same"):
            FAST.fit(Y, A, Z, np.c_[X, twin])
    for role, twin in (("treatment", A), ("instrument", Z)):
        with pytest.raises(UserError, match=f"outcome and {role} are the same"):
            FAST.fit(5 * twin + 1, A, Z, X)
    FAST.fit(Y * 1e100, A, Z, X * 1e-100)  # neither too large nor too small to be compared


def test_an_instrument_that_changes_nothing_is_refused(sample):
    """Rounding errors divided by rounding errors were the estimate."""
    n = 80
    Y, X, i = sample[0][:n], np.ones((n, 1)), np.arange(n)
    with pytest.raises(UserError, match="the variance of the treatment changes, found the same"):
        FAST.fit(Y, i % 2, i // 2 % 2, X)


def test_the_sandwich_knows_no_folds(sample):
    parametric = SelectiveIV(learners=("lin",), n_folds=1, se="sandwich", criterion=None)
    with pytest.raises(UserError, match="no fold_ids"):
        parametric.fit(*sample, fold_ids=np.arange(N) % 2)


def test_nobody_within_the_overlap_bounds(sample):
    config = dataclasses.replace(FAST, overlap="discard", clip=(0.97, 0.98))
    with pytest.raises(UserError, match="units within the overlap bounds"):
        config.fit(*sample)


def test_folds_without_variation_are_refused(sample):
    Y, A, Z, X = sample
    ids = np.where(Z == 1, 0, 1)
    with pytest.raises(UserError, match="outside fold"):
        FAST.fit(Y, A, Z, X, fold_ids=ids)


def test_more_coefficients_than_rows_are_refused_without_a_penalty(sample):
    rng = np.random.default_rng(0)
    Y, A, Z, _ = sample
    with pytest.raises(UserError, match="more training rows than the"):
        FAST.fit(Y, A, Z, rng.normal(size=(N, 120)))


@pytest.mark.slow
def test_with_a_penalty_there_may_be_more_coefficients_than_rows(sample):
    rng = np.random.default_rng(0)
    Y, A, Z, _ = sample
    penalised = {
        "pi": [nuisance.LogisticLasso(alpha=0.05)],
        "mu": [nuisance.LogisticLasso(alpha=0.05)],
        "m": [nuisance.Lasso(alpha=0.1)],
        "g": [nuisance.Lasso(alpha=0.1)],
        "delta": [nuisance.Lasso(alpha=0.3)],
        "rho": [nuisance.Lasso(alpha=0.1)],
    }
    wide = rng.normal(size=(N, 120))[:100]
    r = SelectiveIV(learners=penalised, n_folds=2).fit(Y[:100], A[:100], Z[:100], wide)
    assert np.isfinite(r.theta)


def test_separation_is_refused_or_noticed(sample):
    Y, A, _, X = sample
    Z = (X[:, 0] > 0).astype(float)  # perfectly predicted
    parametric = SelectiveIV(learners=("lin",), n_folds=1, se="sandwich", criterion=None)
    with pytest.raises(UserError, match="separation"):
        parametric.fit(Y, A, Z, X)
    r = dataclasses.replace(FAST, ridge=1e-6).fit(Y, A, Z, X)
    assert any("clipped for" in n for n in r.notices)


@pytest.mark.parametrize(
    ("z", "a", "how"), [(1, 1.0, "1-A and 1-Z"), (1, 0.0, "as 1-Z"), (0, 1.0, "as 1-A")]
)
def test_other_one_sided_data_must_be_recoded(sample, z, a, how):
    Y, A, Z, X = (np.array(v) for v in sample)
    A[z == Z] = a
    with pytest.raises(UserError, match=how):
        FAST.fit(Y, A, Z, X)


def test_one_sided_must_be_true_if_said(sample):
    with pytest.raises(UserError, match="one_sided=True"):
        dataclasses.replace(FAST, one_sided=True).fit(*sample)
