"""What applied users type into PLR, PLIV, IRM and IIVM: answered rightly, or refused in a sentence.

All fits share their shapes, so that few programs are compiled.
"""

import jax
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import IIVM, IRM, PLIV, PLR, iivm, irm, plr
from jaxcore.estimators.nuisance import HostLearner, Logistic, Ridge
from jaxcore.estimators.units import Units

N = 80
RIDGE = {"n_folds": 2}
OF = {PLR: ("ml_l", "ml_m"), PLIV: ("ml_l", "ml_m", "ml_r"), IRM: ("ml_g", "ml_m")}
OF[IIVM] = ("ml_g", "ml_m", "ml_r")


def quick(kind, **settings):
    return kind(**dict.fromkeys(OF[kind], "ridge"), **{"n_folds": 2, **settings})


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    z = (np.arange(N) % 2).astype(float)
    a = (rng.uniform(size=N) < 0.2 + 0.6 * z).astype(float)
    y = 1.5 * a + x[:, 0] + rng.normal(size=N)
    return y, a, z, x


@pytest.fixture(scope="module")
def frame(data):
    pd = pytest.importorskip("pandas")
    y, a, z, x = data
    drug = np.where(a > 0, "drug", "placebo")
    return pd.DataFrame({"y": y, "a": a, "z": z, "x1": x[:, 0], "x2": x[:, 1], "arm": drug})


FOLDS = np.arange(N) // 2 % 2
LINEAR = {"ml_g": Ridge(), "ml_m": Logistic(), "fold_ids": FOLDS, "n_folds": 2}


def test_large_whole_numbers_do_not_overflow(data):
    _, a, _, x = data
    y = 2_147_480_000 + 5_000 * a.astype(np.int64) + np.arange(N) % 7
    assert abs(irm(y, a, x, **LINEAR).theta - 5_000) < 5
    assert abs(quick(IRM).fit(y, a, x).theta - 5_000) < 5


def test_functions_compute_in_double_precision_unless_they_are_traced(data):
    y, a, _, x = data
    small, large = irm(y, a, x, **LINEAR), irm(y * 1e20, a, x, **LINEAR)
    np.testing.assert_allclose(large.se, small.se * 1e20, rtol=1e-9)
    learners = {"ml_l": Ridge(), "ml_m": Logistic(), "fold_ids": FOLDS, "n_folds": 2}
    here, far = (plr(y + shift, a, x, **learners) for shift in (0, 1e8))
    np.testing.assert_allclose([far.theta, far.se], [here.theta, here.se], rtol=1e-5)
    single = jax.jit(lambda y: irm(y, a, x, **LINEAR).theta)(y.astype(np.float32))
    assert single.dtype == np.float32
    assert quick(IRM, double=False).fit(y, a, x).psi.dtype == np.float32


def test_scores_alone_compute_in_double_precision(data):
    from jaxcore.estimators import aipw, solve

    y, a, _, _ = data
    half = np.full(N, 0.5)
    found = solve(aipw(y * 1e20, a, half, 0 * y, 0 * y))
    assert found.psi.dtype == np.float64 and np.isfinite(found.se)


def test_classifiers_give_probabilities_and_never_labels(data):
    from sklearn.linear_model import LogisticRegression, RidgeClassifier

    y, a, _, x = data
    for one in (HostLearner(LogisticRegression()), LogisticRegression()):
        m = quick(IRM).set_params(ml_m=one).fit(y, a, x).nuisances["ml_m"]
        assert len(np.unique(m)) > 10 and 0 < m.min() < m.max() < 1
    with pytest.raises(UserError, match="a classifier with predict_proba"):
        IRM(ml_m=RidgeClassifier())
    with pytest.raises(UserError, match="a regression for ml_g, whose target is not 0 and 1"):
        quick(IRM).set_params(ml_g=LogisticRegression()).fit(y, a, x)


@pytest.mark.parametrize("levels", [(1, 2), (-1, 1), ("control", "drug"), (False, True)])
def test_two_levels_of_any_kind_are_named(data, levels):
    y, a, _, x = data
    expected = quick(IRM).fit(y, a, x)
    given = np.where(a > 0, levels[1], levels[0])
    found, turned = (quick(IRM, treated=t).fit(y, given, x) for t in (None, levels[0]))
    np.testing.assert_allclose([found.theta, -turned.theta], expected.theta, rtol=1e-9)
    named = "1 stands for"
    assert (named in found.summary()) == (levels != (False, True))
    assert named in turned.summary()
    np.testing.assert_allclose(irm(y, given, x, **LINEAR).theta, irm(y, a, x, **LINEAR).theta)


def test_a_formula_names_the_level_that_counts_as_one(frame):
    pytest.importorskip("formulaic")
    found = quick(IRM).fit_formula("y ~ arm | x1 + x2", frame)
    assert "treatment: 1 stands for 'placebo', 0 for 'drug'" in found.summary()
    turned = quick(IRM, treated="drug").fit_formula("y ~ arm | x1 + x2", frame)
    np.testing.assert_allclose(turned.theta, -found.theta, rtol=1e-9)
    names = turned.sample.names | {"covariates": turned.sample.covariates}
    assert names == {"outcome": "y", "treatment": "arm", "covariates": ("x1", "x2")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": np.zeros(N)}, "both 0 and 1 in the treatment, found only 0"),
        ({"d": np.arange(N) % 3}, "only 0 and 1 in the treatment, or two levels, found 0, 1, 2"),
        ({"clip": (0.9, 0.1)}, "0 <= low < high <= 1"),
        ({"y": np.where(np.arange(N) == 3, np.nan, 1.0 * np.arange(N))}, "1 in the outcome"),
        ({"fold_ids": FOLDS + 1}, r"fold ids 0, 1, ..., k-1"),
        ({"n_folds": 3}, r"fold ids 0 to 2 \(n_folds\), found 2 folds"),
        ({"fold_ids": None}, "both values of the treatment outside every fold"),
        ({"units": Units(np.zeros(N))}, "not all zero"),
        ({"units": Units(-np.ones(N))}, "not negative"),
        ({"X": np.ones((3, 2))}, f"{N} rows in the covariates, found 3"),
        ({"X": [[1, 2], [3]]}, "rows of one length in the covariates"),
        ({"ml_g": "forest"}, "a learner or one of lasso, ridge, .* for ml_g, found 'forest'"),
    ],
)
def test_functions_refuse_in_one_sentence(data, change, message):
    y, a, _, x = data
    given = {"y": y, "d": a, "X": x, **LINEAR, **change}
    if given["fold_ids"] is None:
        given["fold_ids"] = a.astype(int)
    with pytest.raises(UserError, match=message) as error:
        irm(**given)
    assert "\n" not in str(error.value)


def test_columns_of_every_kind(data, frame):
    from sklearn.linear_model import LinearRegression

    y, a, _, x = data
    expected = irm(y, a, x, **LINEAR).theta
    for given in (
        (list(y), a.astype(bool)[:, None], x.tolist()),
        (frame.y, frame.a, frame[["x1", "x2"]]),
        (frame[["y"]], frame.a.astype("Int64"), frame[["x1", "x2"]].astype("Float64")),
        (np.ma.array(y), frame.a.astype("category"), {"x1": x[:, 0], "x2": x[:, 1]}),
    ):
        found = irm(*given, **LINEAR, key=3)
        np.testing.assert_allclose(found.theta, expected, rtol=1e-9)
    bare = LINEAR | {"ml_g": LinearRegression(), "ml_m": Ridge()}
    assert np.isfinite(irm(y, a, x[:, 0], **bare).theta)
    assert quick(IRM).fit(frame.y, frame.a, frame[["x1", "x2"]]).sample.covariates == ("x1", "x2")


def test_rows_that_are_labelled_differently_are_refused(frame):
    for other in (frame.y.iloc[::-1], frame.y.rename(lambda i: i + 1)):
        with pytest.raises(UserError, match="one index for all columns, found that those of outc"):
            quick(IRM).fit(other, frame.a, frame[["x1", "x2"]])
    moved = frame.iloc[::-1]
    with pytest.raises(UserError, match="weights differ"):
        quick(IRM).fit(frame.y, frame.a, frame[["x1", "x2"]], weights=moved.y**2)


def test_dropped_rows_take_weights_clusters_folds_and_groups_with_them(data):
    y, a, _, x = data
    i, holes = np.arange(N), y.copy()
    holes[[3, 10]] = np.nan
    kept, group = np.isfinite(holes), np.where(x[:, 0] > 0, "high", "low")
    rest = {"weights": 1.0 + i, "clusters": i // 4, "fold_ids": i // 4 % 2}
    found = quick(IRM, missing="drop").fit(holes, a, x, **rest)
    same = quick(IRM).fit(y[kept], a[kept], x[kept], **{k: v[kept] for k, v in rest.items()})
    for ours, theirs in ((found, same), (found.gate(group), same.gate(group[kept]))):
        np.testing.assert_allclose(ours.theta, theirs.theta, rtol=1e-12)
        np.testing.assert_allclose(ours.se, theirs.se, rtol=1e-12)


def test_a_covariate_that_varies_only_where_weights_are_zero_does_nothing(data):
    y, a, _, x = data
    part = np.arange(N) < 60
    odd = np.where(part, 5.0, x[:, 1])
    found = quick(PLR).fit(y, a, np.c_[x[:, 0], odd], weights=part * 1.0, fold_ids=FOLDS)
    only = quick(PLR).fit(y[part], a[part], x[part, 0], fold_ids=FOLDS[part])
    np.testing.assert_allclose(found.theta, only.theta, rtol=1e-9)


@pytest.mark.parametrize("name", ["C", "log", "bs", "class"])
def test_columns_may_have_the_names_of_functions(frame, name):
    pytest.importorskip("formulaic")
    found = quick(PLR).fit_formula(f"y ~ a | {name} + x2", frame.rename(columns={"x1": name}))
    assert found.theta == quick(PLR).fit_formula("y ~ a | x1 + x2", frame).theta


def test_separation_is_noticed_in_the_summary(data):
    y, _, _, x = data
    separated = (x[:, 0] > 0).astype(float)
    found = irm(y, separated, x, **LINEAR | {"ml_m": Logistic(alpha=0.0)})
    assert np.isfinite(found.se)
    assert f"of {N} units: hardly any overlap" in found.summary()
    assert "few units carry the estimate" in found.summary()


def test_a_dummy_of_three_treated_units_gives_a_number_and_a_notice(data):
    y, a, _, x = data
    dummy = np.zeros(N)
    dummy[np.flatnonzero(a)[:3]] = 1
    learners = LINEAR | {"ml_g": Ridge(alpha=0.0), "ml_m": Logistic(alpha=0.0, max_steps=50)}
    found = irm(y, a, np.c_[x[:, 0], dummy], **learners)
    assert np.isfinite([found.theta, found.se]).all() and "was clipped for" in found.notices[0]


def test_missing_labels_of_clusters_are_refused_or_dropped_and_counted(data):
    pd = pytest.importorskip("pandas")
    y, a, _, x = data
    labels = (np.arange(N) // 4).astype(object)
    labels[[0, 9, 17]] = pd.NA, None, pd.NaT
    with pytest.raises(UserError, match="found 3 in the clusters"):
        quick(IRM).fit(y, a, x, clusters=labels)
    found = quick(IRM, missing="drop").fit(y, a, x, clusters=labels)
    assert found.notices[0] == f"dropped 3 rows of {N} with missing values: 3 in the clusters"
    assert found.units.n_clusters == N // 4
    labels = (np.arange(N) // 4).astype(object)
    labels[0] = "1"
    with pytest.raises(UserError, match="both the number and the text 1"):
        quick(IRM).fit(y, a, x, clusters=labels)


def test_a_missing_nullable_number_is_dropped_and_counted(frame):
    holes = frame.astype({"x1": "Float64"})
    holes.loc[3, "x1"] = None
    with pytest.raises(UserError, match="found 1 in the covariate 'x1'"):
        quick(PLR).fit_frame(holes, outcome="y", treatment="a", covariates=["x1", "x2"])
    drop = quick(PLR, missing="drop")
    found = drop.fit_frame(holes, outcome="y", treatment="a", covariates=["x1", "x2"])
    assert found.sample.n == N - 1 and "dropped 1 row of" in found.notices[0]


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x1 + x2 + [a ~ z]",
        "y ~ 1 + x1 + x2 + [a ~ z]",
        "y ~ a + x1 + x2 | z + x1 + x2",
        "y ~ a | z | .",
        "y~a|z|x1+x2",
    ],
)
def test_formulas_of_other_packages(data, frame, formula):
    pytest.importorskip("formulaic")
    y, a, z, x = data
    found = quick(PLIV).fit_formula(formula, frame.drop(columns="arm"))
    np.testing.assert_allclose(found.theta, quick(PLIV).fit(y, a, z, x).theta, rtol=1e-9)


def test_formulas_without_covariates_and_of_unknown_columns(frame):
    pytest.importorskip("formulaic")
    assert np.isfinite(quick(PLR).fit_formula("y ~ a", frame).theta)
    assert np.isfinite(quick(PLIV).fit_formula("y ~ a | z", frame).theta)
    with pytest.raises(UserError, match=r"a column 'xx1' in the table, .* mean 'x1'"):
        quick(PLR).fit_formula("y ~ a | x1 + xx1", frame)
    with pytest.raises(UserError, match=r"'outcome ~ treatment \| covariates', found 'y ~ a \+ x1"):
        quick(PLR).fit_formula("y ~ a + x1", frame)
    with pytest.raises(UserError, match=r"read as outcome ~ treatment \| instr"):
        quick(PLIV).fit_formula("y ~ x1 + x2 | a | z", frame)


def test_folds_as_numbers_texts_or_pairs_of_scikit_learn(data, frame):
    from sklearn.model_selection import KFold

    y, a, _, x = data
    splits = list(KFold(2, shuffle=True, random_state=0).split(x))
    ids = np.zeros(N, int)
    ids[splits[1][1]] = 1
    one = quick(PLR)
    expected = one.fit(y, a, x, fold_ids=ids).theta
    for given in (splits, iter(splits), np.where(ids, "b", "a"), ids.astype(float)):
        assert one.fit(y, a, x, fold_ids=given).theta == expected
    assert one.fit_formula("y ~ a | x1 + x2", frame.assign(f=ids), fold_ids="f").theta == expected
    with pytest.raises(UserError, match="every pair of folds to train on all rows"):
        one.fit(y, a, x, fold_ids=[(splits[0][0][1:], splits[0][1]), splits[1]])
    with pytest.raises(UserError, match="n_rep=1 with given folds"):
        quick(PLR, n_rep=2).fit(y, a, x, fold_ids=ids)


def test_whole_numbers_may_name_columns(data):
    pd = pytest.importorskip("pandas")
    y, a, _, x = data
    found = quick(PLR).fit_frame(
        pd.DataFrame({0: y, 1: a, 2: x[:, 0], 3: x[:, 1]}),
        outcome=0,
        treatment=1,
        covariates=[2, 3],
    )
    assert found.theta == quick(PLR).fit(y, a, x).theta and found.sample.names["outcome"] == "0"


def test_missing_covariates_stay_where_all_learners_take_them(data):
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    y, a, _, x = data
    x = np.where(np.arange(2 * N).reshape(N, 2) == 7, np.nan, x)
    trees = {"max_iter": 2, "min_samples_leaf": 5}
    takes = quick(IRM).set_params(
        ml_g=HistGradientBoostingRegressor(**trees), ml_m=HistGradientBoostingClassifier(**trees)
    )
    assert takes.fit(y, a, x).sample.n == N
    with pytest.raises(UserError, match="found 1 in the covariate 'x2'"):
        takes.set_params(ml_m="ridge").fit(y, a, x)


def test_every_class_gives_what_its_function_gives(data):
    y, a, z, x = data
    found = quick(IIVM).fit(y, a, z, x, fold_ids=FOLDS)
    learners = LINEAR | {"ml_r": Logistic()}
    same = iivm(y, a, z, x, **learners)
    np.testing.assert_allclose([found.theta, found.se], [same.theta, same.se], rtol=1e-12)


def test_repetitions_are_aggregated_by_medians(data):
    y, a, _, x = data
    found = quick(PLR, n_rep=3).fit(y, a, x)
    thetas = [float(e.theta) for e in found.repetitions]
    assert len(set(thetas)) == 3 and found.theta == np.median(thetas)
    assert "median of 3 partitions" in found.summary()
    assert found.theta == quick(PLR, n_rep=3).fit(y, a, x).theta
    assert found.theta != quick(PLR, n_rep=3, seed=1).fit(y, a, x).theta


def test_noncompliance_on_one_side_is_found_and_told(data):
    y, a, z, x = data
    found = quick(IIVM).fit(y, a * z, z, x)
    assert "nobody with Z=0 is treated: E[A|Z=0,X] is 0 by design" in found.notices
    assert not found.nuisances["ml_r0"].any()
    with pytest.raises(UserError, match="no units with A=1 where Z=0 with always_takers=False"):
        quick(IIVM, always_takers=False).fit(y, a, z, x)


def test_a_weak_instrument_is_noticed(data):
    y, a, _, x = data
    noise = np.random.default_rng(1).normal(size=N)
    assert any("weak instrument" in n for n in quick(PLIV).fit(y, a, noise, x).notices)


def test_a_treatment_that_covariates_explain_is_noticed(data):
    y, _, _, x = data
    found = quick(PLR).fit(y, 2 * x[:, 0] + x[:, 1], x)
    assert any("E[A|X] explains all but" in n for n in found.notices)
    assert not quick(PLR).fit(y, 2 * x[:, 0] + np.cos(np.arange(N)), x).notices


def test_losses_of_the_nuisances(data):
    y, a, _, x = data
    found = quick(IRM).fit(y, a, x)
    m, *arms = found.evaluate_learners()
    p = found.nuisances["ml_m"]
    log_loss = -np.mean(a * np.log(p) + (1 - a) * np.log(1 - p))
    assert m["nuisance"] == "P(A=1|X)" and m["learner"] == "Logistic()"
    np.testing.assert_allclose(m["log_loss"], log_loss)
    rmse = np.sqrt(np.mean((y - found.nuisances["ml_g1"])[a == 1] ** 2))
    np.testing.assert_allclose(arms[1]["rmse"], rmse)
    assert f"E[Y|A=1,X]: Ridge(), out of fold R2 {arms[1]['r2']:.3g}" in found.summary()


def test_settings_are_read_changed_and_cloned():
    from sklearn.base import clone

    one = IRM(ml_g=Ridge(alpha=0.5), n_folds=3)
    assert one.get_params()["ml_g__alpha"] == 0.5 and one.get_params(deep=False)["n_folds"] == 3
    changed = one.set_params(ml_g__alpha=0.1, seed=4)
    assert (changed.ml_g.alpha, changed.seed, changed.n_folds, one.seed) == (0.1, 4, 3, 0)
    assert one.clone() == one and clone(one) == one
    with pytest.raises(UserError, match=r"a setting of IRM .* found 'folds'"):
        one.set_params(folds=3)


def test_omitted_variables_of_a_fit(data):
    y, a, _, x = data
    found = quick(PLR).fit(y, a, x, covariates=["age", "b"])
    s = found.sensitivity(0.02, 0.05)
    assert s.limits[0] < s.bounds[0] < found.theta < s.bounds[1] < s.limits[1]
    rv = s.robustness_value
    at = found.sensitivity(rv, rv)
    assert 0 < s.robustness_value_limit < rv < 1 and abs(at.bounds[0]) < 1e-6
    assert f"robustness value {100 * rv:.3g}%" in s.summary()
    strength = found.benchmark({"old": ["age"]})["old"]
    assert 0 < strength["cf_y"] < 1
    with pytest.raises(UserError, match="covariates age, b in group 'g', found sex"):
        found.benchmark({"g": ["sex"]})
    with pytest.raises(UserError, match="cf_d from 0 to 1, found 1"):
        found.sensitivity(0.1, 1.0)
    with pytest.raises(UserError, match="a finite null, found nan"):
        found.sensitivity(null=np.nan)
    for target in ("ATE", "ATT"):
        assert quick(IRM, target=target).fit(y, a, x).sensitivity().robustness_value > 0


def test_omitted_variables_without_overlap_are_refused(data):
    from sklearn.dummy import DummyClassifier

    y, a, _, x = data
    never = DummyClassifier(strategy="constant", constant=0)
    found = quick(IRM).set_params(ml_m=never).fit(y, a, x)
    with pytest.raises(UserError, match="overlap for omitted variables"):
        found.sensitivity()


def test_effects_by_group_and_policies_of_a_fit(data):
    y, a, z, x = data
    old = np.where(x[:, 0] > 0, "old", "young")
    for kind in (PLR, IRM):
        found = quick(kind).fit(y, a, x)
        groups = found.gate(old)
        assert groups.names == ("old", "young") and np.all(np.isfinite(groups.se))
        line = found.cate(np.ones((N, 1)))
        np.testing.assert_allclose([line.theta[0]], [found.theta], rtol=1e-6)
        with pytest.raises(UserError, match="one label per unit"):
            found.gate(x)
        with pytest.raises(UserError, match="at least 2 units in every group, found one in odd"):
            found.gate(np.where(np.arange(N) == 3, "odd", old))
        with pytest.raises(UserError, match="finite numbers as regressors"):
            found.cate(np.full((N, 1), "a"))
        nobody = found.policy_tree(cost=1e6, depth=1)
        assert not np.any(nobody.predict(x))
    with pytest.raises(UserError, match=r"IRM with target='ATE', or PLR, .* found PLIV"):
        quick(PLIV).fit(y, a, z, x).gate(old)


def test_sets_that_are_robust_to_weak_instruments(data):
    y, a, z, x = data
    for kind in (PLIV, IIVM):
        found = quick(kind).fit(y, a, z, x)
        assert found.theta in found.robust_set() and 1e4 not in found.robust_set()
        assert "robust to a weak instrument" in found.report().text
    with pytest.raises(UserError, match=r"an instrument for a robust set, found PLR"):
        quick(PLR).fit(y, a, x).robust_set()
