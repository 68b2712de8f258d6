"""Penalties chosen by logs beside those chosen by randomised tests."""

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.deconfound import Deconfound
from jaxcore.estimators.deconfound.probes import ridge_probe

TESTS, ARMS, D = 120, 3, 12


@pytest.fixture(scope="module")
def archive():
    """Editors who see much traffic write otherwise: half of the features go with it."""
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(TESTS), ARMS)
    traffic = rng.normal(size=TESTS)[number]
    x = rng.normal(size=(TESTS * ARMS, D)) + traffic[:, None] * (np.arange(D) < D // 2)
    tau = x @ np.where(np.arange(D) % 2, 0.3, -0.1)
    y = tau + 3 * traffic + rng.normal(size=len(x))
    names = np.array([f"test {i}" for i in number])
    return {"x": x, "y": y, "traffic": traffic, "tests": names, "tau": tau}


@pytest.fixture(scope="module")
def raw(archive):
    return ridge_probe(archive["x"], archive["y"], archive["tests"])


def test_both_choices_are_reported_and_the_oracles_is_never_worse(raw):
    assert len(raw.penalties) == 9 and {raw.by_logs, raw.by_tests} <= set(raw.penalties)
    assert raw.lost >= 0
    at = raw.penalties.tolist().index
    assert raw.randomised[at(raw.by_tests)] == np.max(raw.randomised)
    assert raw.observed[at(raw.by_logs)] == np.max(raw.observed)


def test_no_text_is_predicted_by_its_own_test(raw, archive):
    """Another outcome of one test leaves its own predictions, and moves those of others."""
    own = archive["tests"] == "test 7"
    other = ridge_probe(archive["x"], archive["y"] + 50 * own, archive["tests"])
    np.testing.assert_allclose(other.predicted[:, own], raw.predicted[:, own], atol=1e-9)
    assert np.max(np.abs(other.predicted - raw.predicted)[0]) > 0.1


def test_a_large_penalty_draws_predictions_to_the_mean(raw):
    assert np.all(np.diff(np.std(raw.predicted, axis=1))[:6] < 0)
    assert np.std(raw.predicted[-1]) < 0.1 * np.std(raw.predicted[0])


def test_rewards_without_traffic_predict_what_tests_find_better_than_outcomes(raw, archive):
    fit = Deconfound(route="plm").fit(archive["y"], archive["traffic"], features=archive["x"])
    clean = ridge_probe(archive["x"], fit.adjusted_reward, archive["tests"])
    chosen = clean.penalties.tolist().index(clean.by_logs)
    ours = np.corrcoef(clean.predicted[chosen], archive["tau"])[0, 1]
    naive = np.corrcoef(raw.predicted[raw.penalties.tolist().index(raw.by_logs)], archive["tau"])
    assert ours > 0.9 > naive[0, 1]
    assert clean.randomised.max() > raw.randomised.max()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"penalties": (-1.0,)}, "penalties of at least 0"),
        ({"penalties": ()}, "penalties of at least 0"),
        ({"tests": np.arange(TESTS * ARMS)}, "one text in each"),
        ({"tests": np.arange(3)}, "tests"),
        ({"Y": np.full(TESTS * ARMS, np.nan)}, "missing or infinite"),
    ],
)
def test_what_is_no_archive_of_tests_is_refused(archive, change, words):
    given = {"features": archive["x"], "Y": archive["y"], "tests": archive["tests"]} | change
    with pytest.raises(UserError, match=words):
        ridge_probe(**given)
