"""From logs to rewards: every route through the front door, what is told, saved, and refused."""

import dataclasses

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import load_fit
from jaxcore.estimators.deconfound import Deconfound, hausman, sensitivity
from jaxcore.estimators.deconfound.comparison import Comparison, compare
from jaxcore.estimators.report import write_report


@pytest.fixture(scope="module")
def logs():
    """Text, confounder and group effects that go with each other; the truth is 2."""
    rng = np.random.default_rng(0)
    n = 600
    u, noise = rng.normal(size=(2, n))
    z = rng.normal(size=(n, 2))
    c = 0.8 * u + z @ np.array([0.6, 0.3])
    x = u[:, None] * np.array([0.7, -0.5]) + rng.normal(size=(n, 2))
    author = rng.integers(0, 20, n)
    effects = np.linspace(-2, 2, 20)
    tau = x @ np.array([1.0, 0.5])
    y = tau + 2 * c + noise
    return {"Y": y, "C": c, "Z": z, "X": x, "author": author, "effects": effects, "tau": tau}


@pytest.fixture(scope="module")
def by_iv(logs):
    return Deconfound(route="iv").fit(logs["Y"], logs["C"], instruments=logs["Z"])


@pytest.fixture(scope="module")
def by_plm(logs):
    return Deconfound(route="plm").fit(logs["Y"], logs["C"], features=logs["X"])


@pytest.fixture(scope="module")
def by_groups(logs):
    y = logs["tau"] + logs["effects"][logs["author"]]
    y = y + np.random.default_rng(1).normal(size=len(y)) * 0.1
    names = np.array([f"author {a}" for a in logs["author"]])
    fit = Deconfound(route="fe").fit(y, features=logs["X"], groups={"author": names})
    return fit, y, names


def test_rewards_are_outcomes_without_the_confounder_and_keep_their_mean(by_iv, by_plm, logs):
    for fit in (by_iv, by_plm):
        assert fit.delta[0] == pytest.approx(2, abs=4 * fit.se[0])
        c = logs["C"] - logs["C"].mean()
        np.testing.assert_allclose(fit.adjusted_reward, logs["Y"] - fit.delta[0] * c, atol=1e-9)
        assert np.mean(fit.adjusted_reward) == pytest.approx(np.mean(logs["Y"]))
        np.testing.assert_allclose(np.sqrt(np.diag(fit.cov)), fit.se, rtol=1e-9)
    assert hausman(by_iv, by_plm).pvalue > 0.001


def test_further_rows_are_adjusted_with_the_numbers_of_the_fit(by_iv, logs):
    y, c = logs["Y"][:5], logs["C"][:5]
    np.testing.assert_allclose(by_iv.adjust(y, c), by_iv.adjusted_reward[:5])
    plain = by_iv.adjust(y, c, centred=False)
    np.testing.assert_allclose(plain, y - by_iv.delta[0] * c)
    with pytest.raises(UserError, match="1 confounders to adjust for, found none"):
        by_iv.adjust(y)
    with pytest.raises(UserError, match="1 confounders, found 2"):
        by_iv.adjust(y, np.ones((5, 2)))


def test_groups_are_taken_out_and_unseen_ones_count_nothing(by_groups, logs):
    fit, y, names = by_groups
    own = fit.effects[0]
    wanted = logs["effects"] - np.mean(logs["effects"][logs["author"]])
    order = [own.labels.index(f"author {a}") for a in range(20)]
    np.testing.assert_allclose(own.effects[order], wanted, atol=0.1)
    assert np.corrcoef(fit.adjusted_reward, logs["tau"])[0, 1] > 0.99
    further = fit.adjust(np.array([5.0, 5.0]), groups=np.array(["nobody", names[0]]))
    assert further[0] == 5.0 and further[1] != 5.0
    np.testing.assert_allclose(fit.adjust(y, groups=names), fit.adjusted_reward)


def test_two_kinds_of_groups_and_a_confounder_within_them(logs):
    rng = np.random.default_rng(2)
    week = rng.integers(0, 6, len(logs["Y"]))
    y = logs["Y"] + logs["effects"][logs["author"]] + 0.5 * week
    fit = Deconfound(route="fe", shrink=True).fit(
        y, logs["C"], features=logs["X"], groups={"author": logs["author"], "week": week}
    )
    assert fit.delta[0] == pytest.approx(2, abs=4 * fit.se[0])
    assert np.corrcoef(fit.adjusted_reward, logs["tau"])[0, 1] > 0.7
    assert [kind.name for kind in fit.effects] == ["author", "week"]


def test_summaries_and_reports_say_what_can_be_believed(by_iv, by_plm, by_groups, tmp_path):
    text = by_iv.summary()
    for words in ("first-stage F", "Sargan", "Hansen J", "Anderson-Rubin", "route: iv"):
        assert words in text
    assert "left by the text" in by_plm.summary() and "folds: 5" in by_plm.summary()
    assert "20 groups" in by_groups[0].summary()
    for fit in (by_iv, by_plm, by_groups[0]):
        told = fit.assumptions()
        assert "assumed" in told and "No data can tell" in told
    assert "do not move the text" in by_iv.assumptions()
    folder = write_report(by_iv, tmp_path / "report")
    assert {p.name for p in folder.iterdir()} == {
        "summary.txt",
        "estimate.json",
        "estimates.png",
        "sensitivity.png",
    }


def test_a_fit_is_saved_and_adjusts_as_before(by_iv, by_groups, logs, tmp_path):
    for name, fit in (("iv", by_iv), ("fe", by_groups[0])):
        fit.save(tmp_path / name)
        again = load_fit(tmp_path / name)
        np.testing.assert_array_equal(again.adjusted_reward, fit.adjusted_reward)
        np.testing.assert_array_equal(again.delta, fit.delta)
        assert again.summary() == fit.summary()
        if name == "fe":
            names = by_groups[2][:9]
            ours = again.adjust(np.zeros(9), groups=names)
            np.testing.assert_array_equal(ours, fit.adjust(np.zeros(9), groups=names))


def test_routes_stand_beside_each_other(logs):
    found = compare(
        Deconfound(route="iv"),
        logs["Y"],
        logs["C"],
        instruments=logs["Z"],
        features=logs["X"],
        groups=None,
    )
    assert list(found.fits) == ["iv", "plm", "ols_c"]
    assert found.others["ols_c"].delta[0] > 2.2
    text = found.report().text
    assert "Hausman, iv against plm" in text and "by route" in text and "left out" in text


def test_a_route_that_is_not_possible_is_told_and_stops_nothing(logs):
    """The features explain the confounder wholly: the instrument can do without them."""
    found = compare(
        Deconfound(route="iv", ridge=0.0),
        logs["Y"],
        logs["C"],
        instruments=logs["Z"],
        features=np.column_stack([logs["C"], logs["X"]]),
    )
    assert list(found.fits) == ["iv", "ols_c"] and "no function of the text" in found.refused["plm"]
    assert "plm    not possible" in found.report().text


def test_sensitivity_says_how_far_the_best_texts_depend_on_the_estimate(by_iv):
    moved = sensitivity.shifts(by_iv)
    at_zero = next(one for one in moved if one.errors == 0)
    assert at_zero.same_top == 1 and at_zero.rank_correlation == pytest.approx(1)
    assert all(one.same_top <= 1 for one in moved)
    (small,), (large,) = (sensitivity.bounds(by_iv, r, r) for r in (0.01, 0.2))
    assert 0 < small.bias < large.bias
    # SE sqrt(df) sqrt(r^2 / (1 - r))
    assert large.bias == pytest.approx(by_iv.se[0] * np.sqrt(598 * 0.04 / 0.8))
    assert large.same_top < small.same_top <= 1
    assert large.rank_correlation < small.rank_correlation <= 1


def test_the_value_of_a_policy_moves_with_the_estimate_by_the_confounders_that_it_prefers(by_iv):
    """A policy that writes what went with high confounders loses most if their effect is larger."""
    c = by_iv.sample.A[:, 0]
    weights = np.where(c > 1, 3.0, 0.5)
    low, high = sensitivity.shifts(by_iv, (-1.0, 1.0), weights=weights)
    apart = 2 * by_iv.se[0] * (np.average(c, weights=weights) - c.mean())
    assert low.value - high.value == pytest.approx(apart)
    everything = sensitivity.shifts(by_iv, (-1.0, 1.0))
    assert everything[0].value == pytest.approx(everything[1].value)
    for bad in (weights[:3], -weights, 0 * weights):
        with pytest.raises(UserError, match="a weight of at least 0"):
            sensitivity.shifts(by_iv, weights=bad)


def test_the_set_that_weak_instruments_leave_valid_is_near_the_interval_of_strong_ones(by_iv, logs):
    one = Deconfound(route="iv").fit(logs["Y"], logs["C"], instruments=logs["Z"][:, 0])
    for fit, near in ((one, 0.1), (by_iv, 0.2)):
        (interval,) = fit.robust_set().intervals
        np.testing.assert_allclose(interval, fit.confint()[0], atol=near)
        assert fit.robust_set().describe() in fit.summary()


def test_weak_instruments_and_confounders_that_texts_explain_are_told(logs):
    rng = np.random.default_rng(3)
    weak = Deconfound(route="iv").fit(
        logs["Y"], logs["C"], instruments=rng.normal(size=len(logs["Y"]))
    )
    assert any("weak instruments" in notice for notice in weak.notices)
    assert "inf" in weak.robust_set().describe() or "whole" in weak.robust_set().describe()
    with pytest.raises(UserError, match="route iv for this set"):
        Deconfound(route="ols_c").fit(logs["Y"], logs["C"]).robust_set()
    near = logs["X"][:, 0] + 0.01 * rng.normal(size=len(logs["Y"]))
    told = Deconfound(route="plm").fit(logs["Y"], near, features=logs["X"])
    assert any("the text explains" in notice for notice in told.notices)


def test_several_instruments_can_be_strong_for_each_confounder_and_weak_for_both():
    """Both confounders follow the instruments in the same way: F is large one by one."""
    rng = np.random.default_rng(0)
    z, h = rng.normal(size=(2, 600, 3))
    c = z.sum(axis=1)[:, None] + h[:, :2]
    fit = Deconfound(route="iv").fit(h.sum(axis=1), c, instruments=z)
    assert np.min(fit.diagnostics["first_stage_F"]) > 100
    assert any("weak instruments" in notice for notice in fit.notices)


def test_instruments_are_as_strong_as_what_controls_leave_of_them():
    rng = np.random.default_rng(1)
    control, own, noise = rng.normal(size=(3, 600))
    c, z = 3 * control + own, control + 0.3 * rng.normal(size=600)
    fit = Deconfound(route="iv").fit(c + noise, c, instruments=z, controls=control)
    assert fit.diagnostics["first_stage_F"][0] < 10 and "weak" in fit.notices[-1]
    alone = Deconfound(route="iv").fit(c + noise, c, instruments=z)
    assert alone.diagnostics["first_stage_F"][0] > 1000


def test_a_confounder_that_is_a_feature_is_refused_whatever_the_penalty(logs):
    with pytest.raises(UserError, match="no function of the text"):
        Deconfound(route="plm").fit(logs["Y"], logs["X"][:, 0], features=logs["X"])


@pytest.mark.parametrize("weighted", [False, True])
def test_confounders_that_two_kinds_of_groups_explain_together_are_refused(logs, weighted):
    """Neither kind does alone, and iterations leave crumbs of it."""
    rng = np.random.default_rng(2)
    n = len(logs["Y"])
    week = (logs["author"] + rng.integers(0, 2, n)) % 20
    both = rng.normal(size=20)[logs["author"]] + rng.normal(size=20)[week]
    groups = {"author": logs["author"], "week": week}
    weights = rng.uniform(0.5, 2, n) if weighted else None
    with pytest.raises(UserError, match="confounders that vary within groups"):
        Deconfound(route="fe").fit(logs["Y"], both, groups=groups, weights=weights)
    features = np.column_stack([both, logs["X"][:, 0]])
    given = {"groups": groups, "weights": weights}
    plain = Deconfound(route="fe").fit(logs["Y"], logs["C"], features=features[:, 1], **given)
    more = Deconfound(route="fe").fit(logs["Y"], logs["C"], features=features, **given)
    np.testing.assert_allclose(more.delta, plain.delta, rtol=1e-6)


def test_dates_in_seconds_are_confounders_like_any(logs):
    far = logs["C"] + 1.6e9
    for route, given in (("ols_c", {}), ("fe", {"groups": logs["author"]})):
        near, same = (Deconfound(route=route).fit(logs["Y"], c, **given) for c in (logs["C"], far))
        np.testing.assert_allclose(same.delta, near.delta, rtol=1e-4)
        np.testing.assert_allclose(same.adjusted_reward, near.adjusted_reward, atol=1e-3)


def test_outcomes_that_are_their_groups_leave_equal_rewards_and_a_word(logs):
    fit = Deconfound(route="fe").fit(logs["effects"][logs["author"]], groups=logs["author"])
    assert np.ptp(fit.adjusted_reward) < 1e-9
    assert any("rewards are all equal" in notice for notice in fit.notices)


def test_groups_of_one_row_are_told_or_left_out(logs):
    author = logs["author"].copy()
    author[0] = 99
    fit = Deconfound(route="fe").fit(logs["Y"], groups=author)
    assert any("have one row" in notice for notice in fit.notices)
    fewer = Deconfound(route="fe", drop_singletons=True).fit(logs["Y"], groups=author)
    assert fewer.sample.n == len(logs["Y"]) - 1 and not fewer.sample.kept[0]
    assert any("left out 1 rows" in notice for notice in fewer.notices)


def test_rows_with_missing_values_are_dropped_and_counted_if_that_is_asked_for(logs):
    y, c = logs["Y"].copy(), logs["C"].copy()
    y[1], c[2] = np.nan, np.nan
    with pytest.raises(UserError, match="no missing or infinite values"):
        Deconfound(route="ols_c").fit(y, c)
    fit = Deconfound(route="ols_c", missing="drop").fit(y, c)
    assert fit.sample.n == len(y) - 2 and "dropped 2 rows" in fit.notices[0]


N = 40
_RNG = np.random.default_rng(4)
_Y, _C = _RNG.normal(size=(2, N))


@pytest.mark.parametrize(
    ("settings", "given", "words"),
    [
        ({"route": "iv"}, {"C": _C}, "Expected instruments for route iv"),
        ({"route": "plm"}, {"C": _C}, "Expected features for route plm"),
        ({"route": "fe"}, {"C": _C}, "Expected groups for route fe"),
        ({"route": "ols_c"}, {}, "Expected confounders for route ols_c"),
        ({"route": "ols_c"}, {"C": _C, "groups": _C > 0}, "no groups for route ols_c"),
        ({"route": "ols_c"}, {"C": np.ones(N)}, "confounders that vary"),
        ({"route": "ols_c"}, {"C": np.column_stack([_C, 2 * _C])}, "found that 'c2' is one"),
        ({"route": "iv"}, {"C": np.column_stack([_C, _Y**2]), "instruments": _RNG.normal(size=N)},
         "at least as many instruments"),
        ({"route": "iv"}, {"C": _C, "instruments": np.zeros(N)}, "instruments that vary"),
        ({"route": "plm"}, {"C": _C, "features": np.column_stack([_C, _Y])},
         "no function of the text"),
        ({"route": "fe"}, {"groups": np.arange(N)}, "one row in each"),
        ({"route": "fe"}, {"groups": np.arange(N) % 2, "C": (np.arange(N) % 2) * 1.0},
         "confounders that vary within groups"),
        ({"route": "ols_c"}, {"C": _C, "Y": np.ones(N)}, "an outcome that varies, found only 1"),
        ({"route": "ols_c"}, {"C": _C, "Y": 0.1 + 1.4e-17 * (_C > 0)}, "an outcome that varies"),
        ({"route": "ols_c"}, {"C": _C[:3]}, "40 rows in the covariates, found 3"),
    ],
)  # fmt: skip
def test_data_that_do_not_answer_are_refused_in_one_sentence(settings, given, words):
    given = {"Y": _Y, **given}
    settings = settings | ({"ridge": 0.0} if settings["route"] == "plm" else {})
    with pytest.raises(UserError, match=words) as raised:
        Deconfound(**settings).fit(given.pop("Y"), given.pop("C", None), **given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"route": "magic"}, "found 'magic'"),
        ({"route": "plm", "kind": "dml3"}, "found 'dml3'"),
        ({"route": "plm", "ridge": -1.0}, "found -1.0"),
        ({"route": "plm", "degree": 0}, "found 0"),
        ({"route": "plm", "degree": 2, "nonlinear_C": True}, "degree=1 with nonlinear_C"),
        ({"route": "iv", "double": False}, "double=True"),
    ],
)
def test_settings_that_make_no_route_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        Deconfound(**settings)


def test_clusters_are_labels_of_any_kind_and_widen_the_errors(logs):
    """Every row twice, with its own name: the errors are those of the rows once."""
    twice = np.repeat(np.arange(200), 2)
    given = [logs[name][:200] for name in ("Y", "C")]
    plain = Deconfound(route="ols_c").fit(*given)
    names = np.array([f"row {i}" for i in twice])
    fit = Deconfound(route="ols_c").fit(*[a[twice] for a in given], clusters=names)
    assert fit.se[0] == pytest.approx(plain.se[0] * np.sqrt(200 / 199))
    assert "200 clusters" in fit.summary()
    np.testing.assert_allclose(np.sqrt(np.diag(fit.cov)), fit.se)


def test_an_effect_that_bends_is_taken_out_by_powers(logs, tmp_path):
    y = logs["tau"] + logs["C"] ** 2
    plain = Deconfound(route="plm").fit(y, logs["C"], features=logs["X"])
    bent = Deconfound(route="plm", degree=2).fit(y, logs["C"], features=logs["X"])
    assert bent.names == ("c1", "c1^2")

    def apart(fit):
        gap = fit.adjusted_reward - logs["tau"]
        return np.std(gap)

    assert apart(bent) < 0.1 < apart(plain)
    bent.save(tmp_path / "fit")
    ours = load_fit(tmp_path / "fit").adjust(y[:7], logs["C"][:7])
    np.testing.assert_allclose(ours, bent.adjusted_reward[:7])
    with pytest.raises(UserError, match=r"'c1\^2' is one"):
        Deconfound(route="ols_c", degree=2).fit(y, (logs["C"] > 0) * 1.0)


def test_an_effect_of_any_smooth_form_is_taken_out_by_splines(logs, tmp_path):
    y = logs["tau"] + 4 * np.tanh(2 * logs["C"]) + 0.1 * np.random.default_rng(5).normal(size=600)
    given = {"C": logs["C"], "features": logs["X"]}

    def apart(**settings):
        fit = Deconfound(route="plm", **settings).fit(y, **given)
        gap = fit.adjusted_reward - logs["tau"]
        return fit, np.std(gap)

    fit, with_splines = apart(nonlinear_C=True)
    assert with_splines < 0.3 < min(apart()[1], apart(degree=2)[1])
    assert fit.names == ("c1", "c1~1", "c1~2", "c1~3") and np.all(fit.se > 0)
    assert "straight lines" in apart()[0].assumptions()
    assert "straight lines" not in fit.assumptions()
    assert "moved one by one" in Comparison(fit, {}).report().text
    fit.save(tmp_path / "fit")
    again = load_fit(tmp_path / "fit")
    np.testing.assert_allclose(again.adjust(y[:7], logs["C"][:7]), fit.adjusted_reward[:7])
    far = fit.adjust(np.zeros(3), logs["C"].max() + np.arange(3.0))
    assert np.diff(far, 2) == pytest.approx(0, abs=1e-9)  # straight where no data were


def test_splines_give_what_turns_between_text_and_confounders_end_at(logs):
    """Backfitting: the text on what the confounders leave, then the other way round."""
    y = logs["tau"] + np.sin(2 * logs["C"])
    fit = Deconfound(route="ols_c", nonlinear_C=True).fit(y, logs["C"], controls=logs["X"])
    columns = fit.sample.A - fit.sample.A.mean(axis=0)
    text, g = logs["X"] - logs["X"].mean(axis=0), np.zeros(len(y))

    def fitted(x, left):
        return x @ np.linalg.lstsq(x, left, rcond=None)[0]

    for _ in range(100):
        r = fitted(text, y - y.mean() - g)
        g = fitted(columns, y - y.mean() - r)
    np.testing.assert_allclose(columns @ fit.delta, g, atol=1e-8)


def test_what_has_two_values_does_not_bend(logs):
    both = np.column_stack([logs["C"], logs["C"] > 0]).astype(float)
    fit = Deconfound(route="ols_c", nonlinear_C=True).fit(logs["Y"], both)
    assert fit.names == ("c1", "c2", "c1~1", "c1~2", "c1~3")
    with pytest.raises(UserError, match=r"as many instruments as confounders \(4\), found 1"):
        Deconfound(route="iv", nonlinear_C=True).fit(
            logs["Y"], logs["C"], instruments=(logs["Z"][:, 0] > 0) * 1.0
        )


def test_settings_change_by_name():
    assert dataclasses.replace(Deconfound(route="iv"), kclass="liml").kclass == "liml"
