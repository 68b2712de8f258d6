"""Difference in differences: two periods, staggered adoption, averages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import crossfit, did
from jaxcore.estimators.nuisance import HostLearner, Logistic, Ridge
from jaxcore.estimators.units import Units
from tests.peers import doubleml_cases as cases

N, K = cases.N, 2
LINEAR = {"ml_g": Ridge(alpha=0.0), "ml_m": Logistic(alpha=1e-3)}
MEAN = HostLearner(lambda X, y, w, new: np.full(len(new), np.average(y, weights=w)))
MEANS = {"ml_g": MEAN, "ml_m": MEAN}


@pytest.fixture(scope="module")
def panel():
    return cases.panel()


@pytest.fixture(scope="module")
def folds(panel):
    groups = np.unique(panel["first"], return_inverse=True)[1]
    ids = crossfit.fold_ids(jax.random.key(0), N, K, strata=jnp.asarray(groups))
    return {"fold_ids": np.asarray(ids), "n_folds": K}


@pytest.fixture(scope="module")
def effects(panel, folds):
    with jax.enable_x64(True):
        return did.group_time(*(panel[k] for k in ("y", "first", "x", "times")), **LINEAR, **folds)


def test_a_cell_is_the_difference_of_two_periods(panel, folds, effects):
    cell = effects.cells[1]
    before, after = (int(t) - 1 for t in (cell.before, cell.time))
    member, never = panel["first"] == cell.group, np.isinf(panel["first"])
    with jax.enable_x64(True):
        one = did.did_panel(
            jnp.asarray(panel["y"][:, after] - panel["y"][:, before]),
            jnp.asarray(member, float),
            jnp.asarray(panel["x"][:, before]),
            units=Units(weights=jnp.asarray(member | never, float)),
            **LINEAR,
            **folds,
        )
    np.testing.assert_allclose(effects.estimate.theta[1], one.theta, rtol=1e-8)
    np.testing.assert_allclose(effects.estimate.se[1], one.se, rtol=1e-8)


def test_effects_and_past_are_what_they_were_made_to_be(effects):
    """One plus half of the time since; nothing before."""
    for row in effects.rows():
        truth = 1 + 0.5 * (row["time"] - row["group"]) if row["time"] >= row["group"] else 0
        assert abs(row["estimate"] - truth) < 3.5 * row["std_error"], row["name"]
    found = did.aggregate(effects, "event")
    assert found.names[:2] == ("event -2", "event -1") and found.names[-1] == "overall"


@pytest.mark.parametrize("by", did.AGGREGATIONS)
def test_averages_by_hand(panel, effects, by):
    found = did.aggregate(effects, by)
    share = {g: np.mean(panel["first"] == g) for g in (2.0, 3.0, 4.0)}
    cells, theta = effects.cells, effects.estimate.theta

    def average(keep):
        kept = [(share[c.group], t) for c, t in zip(cells, theta, strict=True) if keep(c)]
        return np.average([t for _, t in kept], weights=[s for s, _ in kept])

    after = [c for c in cells if c.treated]
    if by == "simple":
        expected = [average(lambda c: c.treated)]
    elif by == "group":
        each = [average(lambda c, g=g: c.treated and c.group == g) for g in share]
        expected = [*each, np.average(each, weights=list(share.values()))]
    elif by == "time":
        each = [average(lambda c, t=t: c.treated and c.time == t) for t in (2, 3, 4, 5)]
        expected = [*each, np.mean(each)]
    else:
        since = sorted({c.time - c.group for c in cells})
        each = [average(lambda c, s=s: c.time - c.group == s) for s in since]
        expected = [*each, np.mean([e for e, s in zip(each, since, strict=True) if s >= 0])]
    assert len(after) == 9
    np.testing.assert_allclose(found.theta, expected, rtol=1e-9)


def test_errors_of_averages_count_the_shares_of_the_groups(effects):
    """The influence values of the shares, against small changes of the units' weights."""
    exact, known = (did.aggregate(effects, "simple", known_shares=k) for k in (False, True))
    treated = np.array([c.treated for c in effects.cells])
    group = np.array([c.group for c in effects.cells])[treated]
    theta = effects.estimate.theta[treated]

    def average(w):
        share = np.array([np.average(effects.first == g, weights=w) for g in group])
        return np.average(theta, weights=share)

    slope = np.empty(N)
    for i in range(N):
        w = np.ones(N)
        w[i] += 1e-5
        slope[i] = N * (average(w) - average(np.ones(N))) / 1e-5
    np.testing.assert_allclose(exact.psi[:, 0] - known.psi[:, 0], slope, atol=1e-4)


def test_units_that_are_not_seen_stay_out_of_their_cells(panel, folds):
    y = panel["y"].copy()
    y[::3, 4] = np.nan
    arrays = panel["first"], panel["x"][:, 0], panel["times"]
    found = did.group_time(y, *arrays, **MEANS, **folds)
    whole = did.group_time(panel["y"], *arrays, **MEANS, **folds)
    last = np.array([c.time == 5 for c in found.cells])
    moved = found.estimate.theta != whole.estimate.theta
    assert np.array_equal(moved, last) and np.isfinite(found.estimate.se).all()


def test_cells_that_cannot_be_computed_are_left_out_with_a_word(panel, folds):
    first = panel["first"].copy()
    first[first == 3] = np.inf
    first[0] = 3
    arrays = panel["y"], first, panel["x"][:, 0], panel["times"]
    found = did.group_time(*arrays, **MEANS, **folds)
    assert not any(c.group == 3 for c in found.cells)
    assert "left out 4 cells" in found.estimate.summary()
    everyone = np.full(N, 2.0)
    with pytest.raises(UserError, match="every training fold"):
        did.group_time(panel["y"], everyone, *arrays[2:], **MEANS, **folds)


def test_units_treated_later_can_be_compared_with(panel, folds):
    first = np.where(np.isinf(panel["first"]), 4.0, panel["first"])  # nobody is never treated
    arrays = panel["y"], first, panel["x"][:, 0], panel["times"]
    found = did.group_time(*arrays, control="not yet", **MEANS, **folds)
    assert all(c.time < 4 for c in found.cells) and found.estimate.notices


def test_anticipation_moves_the_period_before():
    cells = did.cells_of([4.0], [1.0, 2.0, 3.0, 4.0, 5.0], anticipation=1)
    assert [(c.before, c.time) for c in cells] == [(1, 3), (2, 4), (2, 5)]
    assert did.cells_of([2.0], [1.0, 2.0], anticipation=1) == ()
    universal = did.cells_of([3.0], [1.0, 2.0, 3.0], base="universal")
    assert [(c.before, c.time) for c in universal] == [(2, 1), (2, 3)]


def test_two_groups_and_two_periods_without_covariates_are_four_means():
    c = cases.data()
    with jax.enable_x64(True):
        y, d, t = (jnp.asarray(c[k], float) for k in ("y", "d", "after"))
        for experimental in (False, True):
            found = did.did_cross_sections(
                y,
                d,
                t,
                jnp.asarray(c["x"]),
                fold_ids=jnp.zeros(N, int),
                n_folds=1,
                experimental=experimental,
                **MEANS,
            )
            mean = {(a, b): float(y[(d == a) & (t == b)].mean()) for a in (0, 1) for b in (0, 1)}
            simple = mean[1, 1] - mean[1, 0] - mean[0, 1] + mean[0, 0]
            assert abs(float(found.theta) - simple) < 1e-9
            assert 0.1 < float(found.se) < 1


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"Y": np.ones((N, 3))}, "outcomes"),
        ({"X": np.ones((3, 2))}, "covariates"),
        ({"times": [1, 2, 3, 5, 4]}, "ascending"),
        ({"first": np.full(N, np.nan)}, "missing"),
        ({"first": np.full(N, 2.5)}, "among the periods"),
        ({"control": "later"}, "'never' or 'not yet'"),
        ({"base": "all"}, "'varying' or 'universal'"),
        ({"anticipation": -1}, "periods of anticipation"),
    ],
)
def test_refusals(panel, folds, change, sentence):
    given = {"Y": panel["y"], "first": panel["first"], "X": panel["x"], "times": panel["times"]}
    with pytest.raises(UserError, match=sentence):
        did.group_time(**(given | MEANS | folds | change))


def test_averages_refuse(effects):
    with pytest.raises(UserError, match="simple, group, time, event"):
        did.aggregate(effects, "calendar")


@pytest.fixture
def long(panel):
    """A row for each unit and period, in no order."""
    n, t = panel["y"].shape
    order = np.random.default_rng(0).permutation(n * t)
    columns = {
        "who": np.repeat([f"unit {i:03d}" for i in range(n)], t),
        "year": np.tile(panel["times"], n),
        "y": panel["y"].ravel(),
        "start": np.repeat(np.where(np.isinf(panel["first"]), np.nan, panel["first"]), t),
        "x0": panel["x"][:, :, 0].ravel(),
        "x1": panel["x"][:, :, 1].ravel(),
        "town": np.repeat(np.arange(n) % 50, t),
    }
    return {name: values[order] for name, values in columns.items()}


ROLES = {"outcome": "y", "unit": "who", "time": "year", "first": "start"}


def test_a_long_table_gives_what_its_arrays_give(panel, long):
    groups = np.unique(panel["first"], return_inverse=True)[1]
    with jax.enable_x64(True):
        ids = crossfit.fold_ids(jax.random.key(0), N, K, strata=jnp.asarray(groups))
    named = ROLES | LINEAR | {"covariates": ["x0", "x1"], "n_folds": K}
    found = did.group_time_frame(long, **named)
    arrays = (panel[k] for k in ("y", "first", "x", "times"))
    whole = did.group_time(*arrays, **LINEAR, fold_ids=np.asarray(ids), n_folds=K)
    np.testing.assert_allclose(found.estimate.theta, whole.estimate.theta, rtol=1e-9)
    towns = did.group_time_frame(long, **named, clusters="town").estimate
    assert towns.df == 49 and "clusters only" not in towns.summary()


def test_units_that_no_cell_can_use_are_left_out_and_counted(long):
    """Never seen, or seen only once treatment had begun: else groups would weigh too much."""
    named = ROLES | MEANS | {"n_folds": K}
    expected = did.group_time_frame(long, **named)

    def more(year, y, start, prefix):
        rows = {"who": [f"{prefix} {i}" for i in range(20)], "year": [year] * 20, "y": [y] * 20}
        rows |= {"start": [start] * 20, "x0": [0.0] * 20, "x1": [0.0] * 20, "town": [3] * 20}
        return {k: np.concatenate([expanded[k], rows[k]]) for k in long}

    expanded = long
    expanded = more(2.0, np.nan, 2.0, "v")  # no outcome
    expanded = more(4.0, 9.0, 3.0, "w")  # enters when already treated
    expanded = more(1.0, 9.0, 1.0, "x")  # always treated
    found = did.group_time_frame(expanded, **named)
    assert found.estimate.notices == (
        f"left out 20 of {N + 60} units without an outcome",
        f"left out 40 of {N + 60} units that are not seen before they are treated",
    )
    for by in ("simple", "event"):
        for key in ("theta", "se"):
            ours = getattr(did.aggregate(found, by), key)
            np.testing.assert_allclose(ours, getattr(did.aggregate(expected, by), key), rtol=1e-12)


def test_arrays_too_leave_such_units_out_of_the_shares(panel, folds):
    arrays = panel["y"], panel["first"], panel["x"][:, 0]
    expected = did.group_time(*arrays, panel["times"], **MEANS, **folds)
    more = np.full((30, len(panel["times"])), np.nan), np.full(30, 2.0), np.zeros((30, 2))
    ids = np.r_[folds["fold_ids"], np.arange(30) % K]
    both = (np.concatenate(pair) for pair in zip(arrays, more, strict=True))
    found = did.group_time(*both, panel["times"], **MEANS, fold_ids=ids, n_folds=K)
    assert found.estimate.notices == (f"left out 30 of {N + 30} units without an outcome",)
    for by in ("simple", "group"):
        for key in ("theta", "se"):
            ours, theirs = (getattr(did.aggregate(e, by), key) for e in (found, expected))
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_the_last_group_is_compared_with_where_nobody_stays_untreated(long):
    """The number by hand: its change less that of those who are treated later."""
    ever = np.isfinite(long["start"])
    some = {k: v[ever] for k, v in long.items()}
    mean = dict.fromkeys(("ml_g", "ml_m"), MEAN)
    found = did.group_time_frame(some, **ROLES, **mean, n_folds=K, control="not yet")
    assert [(c.group, c.time) for c in found.cells if c.treated] == [(2, 2), (2, 3), (3, 3)]
    y = {
        (t, g): some["y"][(some["year"] == t) & (some["start"] == g)]
        for t in (1, 3)
        for g in (2, 4)
    }
    by_hand = (y[3, 2].mean() - y[1, 2].mean()) - (y[3, 4].mean() - y[1, 4].mean())
    at = [c[::2] for c in found.cells].index((2, 3))
    assert abs(found.estimate.theta[at] - by_hand) < 0.05  # means of folds stand in the score
    with pytest.raises(UserError, match="treated and comparison units"):
        did.group_time_frame(some, **ROLES, **mean, n_folds=K)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda c: {k: np.r_[v, v[:1]] for k, v in c.items()}, "found several of unit"),
        (lambda c: c | {"start": c["start"] + (c["year"] == 2)}, "one value of 'start'"),
        (lambda c: c | {"x0": np.where(c["year"] == 2, np.nan, c["x0"])}, "found 150 such rows"),
        (lambda c: c | {"year": np.where(c["year"] == 2, np.nan, c["year"])}, "missing ones"),
        (lambda c: {k: v for k, v in c.items() if k != "start"}, "column 'start'"),
    ],
)
def test_long_tables_that_are_refused(long, change, sentence):
    with pytest.raises(UserError, match=sentence):
        did.group_time_frame(change(long), **ROLES, covariates=["x0", "x1"], **MEANS)
