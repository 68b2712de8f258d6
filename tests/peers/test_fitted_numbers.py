"""Equal folds and learners give the numbers of DoubleML and EconML, through the front door.

`fitted.json` holds their numbers; `fitted_numbers` makes them where both are installed.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxcore.estimators import IIVM, IRM, PLIV, PLR, combine, did, treatments
from jaxcore.estimators.nuisance import Logistic, Ridge
from tests.peers import doubleml_cases as cases
from tests.peers import fitted_numbers as peer

pytest.importorskip("sklearn")

THEIRS = json.loads(Path(__file__).with_name("fitted.json").read_text())
FOLDS = {"fold_ids": peer.folds(), "n_folds": peer.K}


@pytest.fixture(scope="module")
def c():
    return cases.data()


@pytest.fixture(scope="module")
def had():
    return peer.learners()


def same(found, *names, factor=1.0):
    """``factor`` is what their errors have more than ours."""
    for name in names:
        theta, se = (np.ravel(v) for v in (found.theta, found.se))
        np.testing.assert_allclose(theta, THEIRS[name]["theta"], rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(factor * se, THEIRS[name]["se"], rtol=1e-6, err_msg=name)


HC1 = np.sqrt(cases.N / (cases.N - 1))
"""EconML's factor for one coefficient, where it regresses residuals or signals."""


def same_bounds(found, name):
    """Their robustness value is the end of a minimisation."""
    s = found.sensitivity(0.05, 0.04, 0.9, level=0.9)
    np.testing.assert_allclose(s.bounds, THEIRS[name]["bounds"], rtol=1e-6)
    np.testing.assert_allclose(s.robustness_value, THEIRS[name]["rv"], atol=2e-5)


def test_partially_linear_regression(c, had):
    found = PLR(ml_l=had["ridge"], ml_m=had["linear"]).fit(
        c["y"], c["dose"], c["x"], fold_ids=peer.folds()
    )
    same(found, "plr")
    same(found, "econml_plr", factor=HC1)
    same_bounds(found, "plr")
    found = PLR(ml_l=had["linear"], ml_m=had["chance"]).fit(
        c["y"], c["d"], c["x"], fold_ids=peer.pairs(peer.folds())
    )
    same(found, "plr_binary")
    same(found, "econml_plr_binary", factor=HC1)
    same_bounds(found, "plr_binary")


def test_instruments(c, had):
    linear, ridge, chance = (had[name] for name in ("linear", "ridge", "chance"))
    found = PLIV(ml_l=linear, ml_m=linear, ml_r=ridge).fit(
        c["y"], c["dose"], c["z"], c["x"], fold_ids=peer.folds()
    )
    same(found, "pliv", "econml_pliv")
    found = IIVM(ml_g=linear, ml_m=chance, ml_r=chance).fit(
        c["y"], c["d"], c["z"], c["x"], fold_ids=peer.folds()
    )
    same(found, "iivm")


@pytest.mark.parametrize("target", ["ATE", "ATT"])
def test_interactive_regression(c, had, target):
    settings = IRM(ml_g=had["linear"], ml_m=had["chance"], target=target)
    found = settings.fit(c["y"], c["d"], c["x"], fold_ids=peer.folds())
    same(found, f"irm_{target}")
    if target == "ATE":
        same(found, "econml_irm", factor=HC1)
    same_bounds(found, f"irm_{target}")


def test_our_linear_learners_are_those_of_scikit_learn(c):
    """Least squares and maximum likelihood, whoever computes them."""
    ours = IRM(ml_g=Ridge(alpha=0.0), ml_m=Logistic(alpha=0.0, max_steps=50))
    same(ours.fit(c["y"], c["d"], c["x"], fold_ids=peer.folds()), "irm_ATE")


def test_potential_means_and_contrasts(c, had):
    found = treatments.potential_means(
        c["y"], c["level"], c["x"], ml_g=had["linear"], ml_m=had["chance"], n_levels=3, **FOLDS
    )
    same(found, "apos")
    same(combine.contrasts(found), "apos_contrasts")


def test_differences_of_two_periods(c, had):
    learners = {"ml_g": had["linear"], "ml_m": had["chance"]}
    same(did.did_panel(c["y"], c["d"], c["x"], **learners, **FOLDS), "did")
    trial = did.did_panel(c["y"], c["d"], c["x"], experimental=True, **learners, **FOLDS)
    same(trial, "did_experimental")
    found = did.did_cross_sections(c["y"], c["d"], c["after"], c["x"], **learners, **FOLDS)
    same(found, "did_cs")


def test_staggered_differences(had):
    p = cases.panel()
    arrays = (p[name] for name in ("y", "first", "x", "times"))
    found = did.group_time(*arrays, ml_g=had["linear"], ml_m=had["chance"], **FOLDS)
    assert [list(cell) for cell in found.cells] == THEIRS["staggered"]["cells"]
    same(found.estimate, "staggered")
    same(did.aggregate(found, "event", known_shares=True), "staggered_events")


def test_the_stored_numbers_are_those_of_the_installed_libraries():
    pytest.importorskip("doubleml")
    pytest.importorskip("econml")
    for name, fresh in peer.numbers().items():
        for key, values in fresh.items():
            np.testing.assert_allclose(values, THEIRS[name][key], rtol=1e-6, err_msg=name)
