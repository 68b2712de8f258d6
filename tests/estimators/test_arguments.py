"""Functions that are called on values answer rightly or refuse in a sentence: never NaN in silence.

Almost nothing is compiled here: a refusal comes before any fit, and learners are outside ones.
"""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier

from jaxcore.errors import UserError
from jaxcore.estimators import did, influence, ols, projection, sensitivity, treatments, tsls
from jaxcore.estimators import quantile_effects as quantiles
from jaxcore.estimators.complier_quantiles import local_quantiles
from jaxcore.estimators.genius import constant_effect as genius
from jaxcore.estimators.linear_iv import robust_set
from jaxcore.estimators.nuisance import Logistic
from jaxcore.estimators.units import Units
from jaxcore.estimators.wild_bootstrap import wild_linear_iv, wild_scores

N, K = 60, 2
rng = np.random.default_rng(0)
X = rng.normal(size=(N, 2))
D, Z = (np.arange(N) % 2).astype(float), (np.arange(N) // 2 % 2).astype(float)
Y = 2 * D + X[:, 0] + rng.normal(size=N)
FOLDS = {"fold_ids": np.arange(N) // 4 % K, "n_folds": K}
MEAN, CHANCE = LinearRegression(), LogisticRegression()
TWO = {"ml_g": MEAN, "ml_m": CHANCE, **FOLDS}
ONE = np.ones((N, 1))
PANEL = np.stack([Y, Y + D, Y + 2 * D], axis=1)

CALLS = {
    "did_panel": (did.did_panel, {"change": Y, "group": D, "X": X, **TWO}),
    "did_cross_sections": (
        did.did_cross_sections,
        {"y": Y, "group": D, "after": Z, "X": X, **TWO},
    ),
    "group_time": (
        did.group_time,
        {
            "Y": PANEL,
            "first": np.where(D > 0, 2.0, np.inf),
            "X": X,
            "times": (1.0, 2.0, 3.0),
            **TWO,
        },
    ),
    "potential_means": (
        treatments.potential_means,
        {"y": Y, "level": np.arange(N) % 3, "X": X, "n_levels": 3, **TWO},
    ),
    "plr_several": (
        treatments.plr_several,
        {"y": Y, "D": np.stack([D, Z], axis=1), "X": X, "ml_l": MEAN, "ml_m": MEAN, **FOLDS},
    ),
    "potential_quantiles": (
        quantiles.potential_quantiles,
        {"y": Y, "d": D, "X": X, "quantiles": (0.5,), **TWO},
    ),
    "local_quantiles": (
        local_quantiles,
        {"y": Y, "d": D, "z": Z, "X": X, "quantiles_at": (0.5,), "ml_r": CHANCE, **TWO},
    ),
    "ols": (ols, {"Y": Y, "A": D, "W": ONE}),
    "tsls": (tsls, {"Y": Y, "A": D, "Z": D + X[:, 1], "W": ONE}),
    "genius": (genius.genius, {"Y": Y, "A": D, "Z": Z}),
    "did.panel": (
        did.panel,
        {"change": Y, "group": D, "m": 0 * Y + 0.5, "g0": 0 * Y},
    ),
    "potential_quantile": (
        quantiles.potential_quantile,
        {"y": Y, "at": D, "ps": 0 * Y + 0.5, "g": 0 * Y + 0.5, "quantile": 0.5},
    ),
    "anderson_rubin": (robust_set, {"a": D, "b": Y}),
    "aipw": (influence.aipw, {"y": Y, "a": D, "ps": 0 * Y + 0.5, "m0": 0 * Y, "m1": Y}),
    "partially_linear": (influence.partially_linear, {"y": Y, "d": D, "l": 0 * Y, "m": 0 * Y}),
    "plr_elements": (
        sensitivity.plr_elements,
        {"y": Y, "d": D, "l": 0 * Y, "m": 0 * Y + 0.5, "theta": 1.0},
    ),
    "best_linear": (projection.best_linear, {"u": Y, "W": ONE}),
    "group_effects": (projection.group_effects, {"u": Y, "groups": D}),
    "wild_linear_iv": (
        wild_linear_iv,
        {"Y": Y, "A": D, "Z": D, "W": ONE, "units": Units(clusters=np.arange(N) // 10)},
    ),
}


def refused(name, change, message):
    function, given = CALLS[name]
    with pytest.raises(UserError, match=message) as error:
        function(**(given | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", CALLS)
def test_missing_and_infinite_values_are_refused(name, bad):
    _, given = CALLS[name]
    for key, value in given.items():
        hole = np.array(value, float) if isinstance(value, np.ndarray) else np.zeros(0)
        allowed = name == "group_time" and np.isnan(bad) and key == "Y"  # not seen
        allowed |= name == "group_time" and np.isposinf(bad) and key == "first"  # never
        if hole.size and hole.dtype == float and not allowed:
            hole.flat[3] = bad
            refused(name, {key: hole}, "found")


WITH_FOLDS = [name for name, (_, given) in CALLS.items() if "fold_ids" in given]


@pytest.mark.parametrize("name", WITH_FOLDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold_ids": FOLDS["fold_ids"] + 1}, "fold ids 0, 1, ..., k-1"),
        ({"fold_ids": np.zeros(3)}, f"{N} fold ids"),
        ({"n_folds": 3}, "fold ids 0 to 2"),
        ({"units": Units(np.zeros(N))}, "not all zero"),
        ({"units": Units(-np.ones(N))}, "not negative"),
        ({"units": Units(clusters=np.arange(N) // 2 % 7)}, "keep clusters together"),
        ({"X": np.ones((3, 2))}, "3"),
        ({"ml_m": "forest"}, "a learner or one of"),
        ({"ml_m": RidgeClassifier()}, "a classifier with predict_proba"),
    ],
)
def test_folds_weights_and_learners(name, change, message):
    refused(name, change, message)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("did_panel", {"group": 0 * D}, "both 0 and 1 in the group, found only 0"),
        ("did_panel", {"group": np.arange(N) % 3}, "only 0 and 1 in the group"),
        ("did_panel", {"group": D[:5]}, f"{N} rows in the group, found 5"),
        ("did_panel", {"fold_ids": D.astype(int)}, "group=0 outside every fold"),
        ("did_panel", {"clip": (0.9, 0.1)}, "0 <= low < high <= 1"),
        ("did_panel", {"ml_g": CHANCE}, "a regression for ml_g"),
        ("did_panel", {"change": ["a"] * N}, "numbers in the change, found values such as 'a'"),
        ("did_cross_sections", {"after": D}, "group=0 and after=1 outside every fold"),
        ("potential_means", {"level": D + 2}, r"0 to 2 in the level \(n_levels=3\), found 3"),
        ("potential_means", {"level": D}, "units of every level, found none of 2"),
        ("potential_quantiles", {"d": "drug"}, "one column for the d"),
        ("local_quantiles", {"z": Z * 0 + 1}, "both 0 and 1 in the z"),
        ("ols", {"W": np.c_[ONE, ONE]}, "column 1 of W is one"),
        ("ols", {"W": np.c_[ONE, 1 - D]}, "found that the treatment is one"),
        ("tsls", {"Z": np.ones(N)}, "found that the instrument is one"),
        ("ols", {"Y": Y[:7]}, "7 rows"),
        ("ols", {"units": Units(np.zeros(N))}, "not all zero"),
        ("best_linear", {"W": np.c_[ONE, ONE]}, "independent regressors"),
    ],
)
def test_refusals_of_their_own(name, change, message):
    refused(name, change, message)


def test_an_estimate_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match=r"a finite estimate and error of ATE, found -inf \(nan\)"):
        influence.solve(influence.LinearScore(np.zeros(4), np.ones(4)), names=("ATE",))
    with pytest.raises(UserError, match="psi_b, found 1"):
        wild_scores(
            influence.LinearScore(-np.ones(4), np.array([1, 2, 3, np.nan])),
            Units(clusters=np.arange(4) // 2),
        )


@pytest.mark.parametrize("name", ["did_panel", "potential_means", "plr_several", "ols"])
def test_lists_series_and_truth_values_are_what_arrays_are(name):
    pd = pytest.importorskip("pandas")
    function, given = CALLS[name]
    forms = {
        "change": list,
        "y": pd.Series,
        "Y": pd.Series,
        "group": lambda v: v.astype(bool),
        "A": lambda v: pd.Series(v > 0, dtype="boolean"),
        "X": pd.DataFrame,
        "W": lambda v: v[:, 0].tolist(),
    }
    other = {k: forms[k](v) if k in forms else v for k, v in given.items()}
    expected, found = function(**given), function(**other)
    np.testing.assert_allclose(found.theta, expected.theta, rtol=1e-12)
    np.testing.assert_allclose(found.se, expected.se, rtol=1e-12)
    assert np.asarray(found.psi).dtype == np.float64


def test_frames_of_other_rows_are_refused():
    pd = pytest.importorskip("pandas")
    refused("ols", {"Y": pd.Series(Y), "A": pd.Series(D)[::-1]}, "those of Y and A differ")


def test_a_cross_section_of_whole_numbers_does_not_overflow():
    large = 2_147_480_000 + 5_000 * D.astype(np.int64)
    np.testing.assert_allclose(ols(large, D, ONE).theta, 5_000)
    treated = np.where(Z > 0, D, 0)  # its variance depends on Z
    found = genius.genius(Y * 1e20, treated, Z)
    np.testing.assert_allclose(found.se / 1e20, genius.genius(Y, treated, Z).se, rtol=1e-9)


def test_names_of_learners_are_learners():
    function, given = CALLS["did_panel"]
    named = function(**(given | {"ml_g": "linear", "ml_m": "ridge"}))
    given = given | {"ml_m": Logistic()}
    np.testing.assert_allclose(named.theta, function(**given).theta, rtol=1e-6)


def test_nothing_is_checked_under_jit():
    traced = jax.jit(lambda y: ols(y, D, ONE).theta)
    assert np.isnan(traced(np.full(N, np.nan)))
