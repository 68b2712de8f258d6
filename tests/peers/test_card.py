"""Card's data on schooling and wages (of linearmodels): college nearby as instrument."""

import numpy as np
import pytest

from jaxcore.estimators import IIVM, PLIV, tsls
from jaxcore.estimators.nuisance import Logistic, Ridge

pytest.importorskip("linearmodels")

CONTROLS = ["exper", "expersq", "black", "smsa", "south", "smsa66"]
CONTROLS += [f"reg66{j}" for j in range(2, 10)]
ROLES = {"outcome": "lwage", "instrument": "nearc4", "covariates": CONTROLS}


@pytest.fixture(scope="module")
def card():
    from linearmodels.datasets import card

    frame = card.load()
    return frame.assign(college=(frame.educ > 12).astype(float), one=1.0)


def test_two_stage_least_squares_is_that_of_linearmodels_and_of_the_paper(card):
    from linearmodels.iv import IV2SLS

    model = IV2SLS(card.lwage, card[["one", *CONTROLS]], card[["educ"]], card[["nearc4"]])
    theirs = model.fit(cov_type="robust")
    ours = tsls(card.lwage, card.educ, card.nearc4, card[["one", *CONTROLS]])
    np.testing.assert_allclose(ours.theta, theirs.params["educ"], rtol=1e-8)
    np.testing.assert_allclose(ours.se, theirs.std_errors["educ"], rtol=1e-8)
    assert abs(float(ours.theta) - 0.1315) < 5e-5  # Card (1995)


def test_partially_linear_with_the_same_covariates_is_near(card):
    """Cross-fitted least squares differ from two-stage least squares by the folds alone."""
    linear = dict.fromkeys(("ml_l", "ml_m", "ml_r"), Ridge(alpha=0.0))
    found = PLIV(**linear, n_rep=3).fit_frame(card, treatment="educ", **ROLES)
    assert abs(found.theta - 0.1315) < 0.4 * found.se and 0.04 < found.se < 0.07
    low, high = found.robust_set().intervals[0]
    assert 0 < low < found.theta < high


def test_unpenalised_logistic_regressions_are_those_of_scikit_learn(card):
    """Dummies of regions without a college nearby in a fold must not make the effect NaN."""
    from sklearn.linear_model import LogisticRegression

    ids = np.random.default_rng(0).permutation(np.arange(len(card)) % 5)
    exact, outside = Logistic(alpha=0.0, max_steps=50), LogisticRegression(C=np.inf, max_iter=5000)
    found, expected = (
        IIVM(ml_g=Ridge(alpha=0.0), ml_m=one, ml_r=one).fit_frame(
            card.assign(exper=card.exper / 10, expersq=card.expersq / 100),
            treatment="college",
            fold_ids=ids,
            **ROLES,
        )
        for one in (exact, outside)
    )
    assert np.isfinite([found.theta, found.se]).all()
    np.testing.assert_allclose(found.theta, expected.theta, atol=0.05 * expected.se)
    np.testing.assert_allclose(found.se, expected.se, rtol=0.05)
