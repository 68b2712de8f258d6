"""`DID`: a long table in; averages, a test of the past and pictures out, or one sentence."""

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import DID, did
from jaxcore.estimators.nuisance import HostLearner

N, T = 150, 5
MEAN = HostLearner(lambda X, y, w, new: np.full(len(new), np.average(y, weights=w)))
MEANS = {"ml_g": MEAN, "ml_m": MEAN, "n_folds": 2}
ROLES = {"outcome": "y", "unit": "who", "time": "year", "first": "start"}


@pytest.fixture(scope="module")
def long():
    """One plus half of the time since treatment; a row for each unit and period, in no order."""
    rng = np.random.default_rng(0)
    start, year = np.array([np.nan, 2003.0, 2004.0])[np.arange(N) % 3], 2001.0 + np.arange(T)
    since = year[None] - start[:, None]
    x = rng.normal(size=(N, 1))
    y = x + rng.normal(size=(N, T)) + np.where(since >= 0, 1 + 0.5 * since, 0)
    order = rng.permutation(N * T)
    columns = {
        "who": np.repeat([f"unit {i:03d}" for i in range(N)], T),
        "year": np.tile(year, N),
        "y": y.ravel(),
        "start": np.repeat(start, T),
        "on": (since >= 0).ravel().astype(float),
        "x": np.repeat(x[:, 0], T),
        "town": np.repeat(np.arange(N) % 30, T),
    }
    return {name: values[order] for name, values in columns.items()}


@pytest.fixture(scope="module")
def fit(long):
    settings = DID(ml_g="ridge", ml_m="ridge", n_folds=2)
    return settings.fit_frame(long, **ROLES, covariates="x", clusters="town")


def test_the_door_gives_what_the_functions_give(long, fit):
    """On the same folds, for one number for each unit in the order of their names."""
    ids = fit.estimate.diagnostics["fold_ids"]
    given = DID(ml_g="ridge", ml_m="ridge", n_folds=2).fit_frame(
        long, **ROLES, covariates="x", clusters="town", fold_ids=ids
    )
    np.testing.assert_allclose(given.theta, fit.theta, rtol=1e-9)
    by_hand = did.group_time_frame(
        long, **ROLES, covariates="x", clusters="town", ml_g=MEAN, ml_m=MEAN, n_folds=2
    )
    same = DID(**MEANS).fit_frame(long, **ROLES, covariates="x", clusters="town")
    assert same.cells == by_hand.cells and same.group_time().df == 29
    for by in did.AGGREGATIONS:
        close = np.abs(same.aggregate(by).theta - did.aggregate(by_hand, by).theta)
        assert np.all(close < 0.2)  # other folds, and means alone


def test_effects_and_their_past(fit):
    found = dict(zip(fit.names, np.stack([fit.theta, fit.se], axis=1), strict=True))
    for since, truth in ((-2, 0), (-1, 0), (0, 1), (1, 1.5), (2, 2)):
        theta, se = found[f"event {since}"]
        assert abs(theta - truth) < 3.5 * se
    t, p = fit.pretrend()
    assert t < 3 and 0.01 < p <= 1 and "before treatment: largest |t|" in fit.summary()
    assert fit.aggregate("group").names == ("group 2003", "group 2004", "overall")
    content = fit.to_dict()
    assert content["group_time"][0]["group"] == 2003 and content["by"] == "event"
    assert all(row["joint_lower"] < row["lower"] for row in content["estimates"])


def test_treatment_in_every_row_says_the_same_as_its_first_period(long):
    one = DID(**MEANS).fit_frame(long, **ROLES)
    roles = {k: v for k, v in ROLES.items() if k != "first"} | {"treatment": "on"}
    other = DID(**MEANS).fit_frame(long, **roles)
    np.testing.assert_allclose(one.theta, other.theta, rtol=1e-9)


def test_repetitions_are_aggregated(long):
    one = DID(n_rep=3, by="simple", **MEANS).fit_frame(long, **ROLES)
    each = [
        did.aggregate(
            did.GroupTime(estimate=e, cells=one.cells, first=one.first, weights=np.ones(N)),
            "simple",
        ).theta[0]
        for e in one.repetitions
    ]
    np.testing.assert_allclose(one.theta, np.median(each), rtol=1e-9)
    assert "median of 3 partitions" in one.summary()


def two(long, **change):
    """Two periods, of which the second is that of the treatment."""
    rows = np.isin(long["year"], (2002, 2003)) & ~(long["start"] == 2004)
    return {name: values[rows] for name, values in (long | change).items()}


def test_two_periods_give_one_effect(long):
    table = two(long)
    panel = DID(**MEANS).fit_frame(table, **ROLES)
    assert panel.names == ("ATT",) and abs(panel.theta[0] - 1) < 3.5 * panel.se[0]
    y, after, member = (table[k] for k in ("y", "year", "start"))
    cell = [
        [y[(after == t) & ((member == 2003) == g)].mean() for t in (2002, 2003)] for g in (0, 1)
    ]
    differences = np.diff(np.diff(cell, axis=1), axis=0).item()
    sections = DID(**MEANS).fit_frame(table, **{k: v for k, v in ROLES.items() if k != "unit"})
    for found in (panel, sections):
        assert abs(found.theta[0] - differences) < 0.1 and found.pretrend() is None
    assert sections.psi.shape == (len(y), 1) and sections.se[0] > panel.se[0] / 2
    with pytest.raises(UserError, match="a panel for averages"):
        sections.aggregate("group")


def test_rows_without_values_are_dropped_and_counted(long):
    holes = long | {"x": np.where(np.arange(N * T) % 50 == 0, np.nan, long["x"])}
    with pytest.raises(UserError, match="15 such rows"):
        DID(**MEANS).fit_frame(holes, **ROLES, covariates="x")
    found = DID(missing="drop", **MEANS).fit_frame(holes, **ROLES, covariates="x")
    assert "dropped 15 rows of 750" in found.summary()
    assert "not seen in 15 of 750 periods" in found.summary()


def without(name):
    return lambda c: {k: v for k, v in c.items() if k != name}


@pytest.mark.parametrize(
    ("change", "roles", "sentence"),
    [
        (without("x"), {"covariates": "x"}, "Expected a column 'x'"),
        (lambda c: c | {"year": c["year"].astype(str)}, {}, "Expected numbers in column 'year'"),
        (lambda c: c | {"start": np.full(N * T, "never")}, {}, "numbers in column 'start'"),
        (lambda c: {k: v[c["year"] == 2002] for k, v in c.items()}, {}, "two or more ascending"),
        (lambda c: c | {"start": np.full(N * T, 2003.0)}, {}, "groups with treated and comparison"),
        (lambda c: c | {"start": np.full(N * T, np.nan)}, {}, "groups with treated and comparison"),
        (lambda c: c, {"unit": None}, "Expected two periods of cross-sections"),
        (lambda c: c, {"first": None}, "first period or treatment, found neither"),
        (lambda c: c, {"treatment": "on"}, "found both"),
        (lambda c: c, {"first": None, "treatment": "year"}, "0 or 1 in every row"),
        (
            lambda c: c | {"on": c["on"] * (c["year"] != 2005)},
            {"first": None, "treatment": "on"},
            "stays once it has begun",
        ),
        (lambda c: c, {"clusters": "none"}, "Expected a column 'none'"),
    ],
)
def test_tables_that_are_refused(long, change, roles, sentence):
    with pytest.raises(UserError, match=sentence):
        DID(**MEANS).fit_frame(change(long), **(ROLES | roles))


def test_cross_sections_that_are_refused(long):
    roles = {k: v for k, v in ROLES.items() if k != "unit"}
    early = two(long, start=np.where(long["start"] == 2003, 2002, np.nan))
    with pytest.raises(UserError, match="start in 2003 or never, found rows treated from 2002"):
        DID(**MEANS).fit_frame(early, **roles)
    with pytest.raises(UserError, match="found none treated and before outside fold 0"):
        nobody = two(long, start=np.full(N * T, np.nan))
        DID(**MEANS).fit_frame(nobody, **roles)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"by": "calendar"}, "by of 'simple', 'group', 'time', 'event'"),
        ({"control": "later"}, "control of 'never', 'not yet'"),
        ({"base": "first"}, "base of"),
        ({"anticipation": -1}, "periods of anticipation"),
        ({"ml_g": "forest"}, "for ml_g"),
        ({"n_folds": 1}, "at least 2 folds"),
    ],
)
def test_settings_of_did_that_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        DID(**settings)
