"""NaN among the covariates stays exactly when every learner says that it takes it."""

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import IIVM, IRM, PLIV, PLR
from jaxcore.estimators.nuisance import HostLearner
from jaxcore.estimators.selective_iv import SelectiveIV

N = 120


def mean(X, y, w, new):
    """Takes anything; a mean in each arm where one is among the features."""
    out = np.full(len(new), np.average(y, weights=w))
    for column, at in zip(X.T, new.T, strict=True):
        if np.array_equal(np.unique(column), [0, 1]):
            for arm in (0, 1):
                out[at == arm] = np.average(y[column == arm], weights=w[column == arm])
    return out


TAKES, REFUSES = HostLearner(mean, missing=True), HostLearner(mean)
CLASSES = {
    PLR: ("ml_l", "ml_m"),
    PLIV: ("ml_l", "ml_m", "ml_r"),
    IRM: ("ml_g", "ml_m"),
    IIVM: ("ml_g", "ml_m", "ml_r"),
    SelectiveIV: ("pi", "mu", "m", "g", "delta", "rho"),
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = np.where(rng.uniform(size=(N, 2)) < 0.1, np.nan, rng.normal(size=(N, 2)))
    z = (np.arange(N) % 2).astype(float)
    a = (rng.uniform(size=N) < 0.15 + 0.4 * z).astype(float)
    return a + rng.normal(size=N), a, z, x


def fit(kind, data, learners, **settings):
    given = {"learners": learners} if kind is SelectiveIV else learners
    y, a, z, x = data
    columns = (y, a, x) if kind in (PLR, IRM) else (y, a, z, x)
    return kind(n_folds=2, **given, **settings).fit(*columns)


@pytest.mark.parametrize("kind", CLASSES)
def test_all_learners_must_take_missing_covariates(data, kind):
    every = dict.fromkeys(CLASSES[kind], TAKES)
    found = fit(kind, data, every)
    assert found.sample.n == N and np.isfinite([found.theta, found.se]).all()
    assert "nan" not in found.summary().lower()
    for name in CLASSES[kind]:
        for other in (REFUSES, "ridge"):
            with pytest.raises(UserError, match=r"missing or infinite values, found .* covariate"):
                fit(kind, data, {**every, name: other})
    dropped = fit(kind, data, dict.fromkeys(CLASSES[kind], REFUSES), missing="drop")
    assert dropped.sample.n == int(np.sum(np.isfinite(data[3]).all(axis=1)))


def test_tags_of_scikit_learn_say_who_takes_them():
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    assert HostLearner(HistGradientBoostingRegressor()).missing
    filled = make_pipeline(SimpleImputer(), LinearRegression())
    assert not HostLearner(filled).missing and HostLearner(filled, missing=True).missing
    assert not HostLearner(LinearRegression()).missing
    assert not HostLearner(HistGradientBoostingRegressor(), missing=False).missing


def test_infinite_covariates_are_refused_all_the_same(data):
    y, a, _, x = data
    x = x.copy()
    x[3, 0] = np.inf
    with pytest.raises(UserError, match="missing or infinite values, found 1 in the covariate"):
        PLR(ml_l=TAKES, ml_m=TAKES, n_folds=2).fit(y, a, x)


def test_a_report_of_the_selective_estimator_with_missing_covariates(data):
    """The baselines, linear in the covariates, leave these out; nothing else is lost."""
    found = fit(SelectiveIV, data, dict.fromkeys(CLASSES[SelectiveIV], TAKES))
    assert any("missing values of covariates stay" in notice for notice in found.notices)
    text = found.report().text
    assert "selective IV" in text and "nan" not in text.lower()
