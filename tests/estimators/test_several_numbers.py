"""APOS, QTE, LQTE and several treatments of PLR: what people type, answered or refused."""

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import APOS, IRM, LQTE, PLR, QTE, quantile_effects, treatments
from jaxcore.estimators.nuisance import HostLearner, Logistic, Ridge
from jaxcore.estimators.units import Units

N = 120
RIDGE = {"ml_g": "ridge", "ml_m": "ridge", "n_folds": 2}
MEAN = HostLearner(lambda X, y, w, new: np.full(len(new), np.average(y, weights=w)))
LEVELS = np.array(["low", "mid", "top"])
AT = (0.25, 0.5, 0.75)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    level = rng.integers(0, 3, N)
    y = level + x[:, 0] + rng.normal(size=N)
    return y, level, x, np.arange(N) % 2


@pytest.fixture(scope="module")
def means(data):
    y, level, x, folds = data
    return APOS(**RIDGE).fit(y, LEVELS[level], x, fold_ids=folds)


def test_means_are_those_of_the_function(data, means):
    y, level, x, folds = data
    rest = {"fold_ids": folds, "n_folds": 2, "n_levels": 3}
    found = treatments.potential_means(y, level, x, ml_g=Ridge(), ml_m=Logistic(), **rest)
    np.testing.assert_allclose(means.theta, found.theta, rtol=1e-8)
    np.testing.assert_allclose(means.se, found.se, rtol=1e-8)
    assert means.names == ("low", "mid", "top")


def test_levels_of_any_kind_and_of_any_order(data, means):
    y, level, x, folds = data
    numbers = APOS(**RIDGE).fit(y, 10.5 * level, x, fold_ids=folds)
    assert numbers.names == ("0", "10.5", "21")
    np.testing.assert_allclose(numbers.theta, means.theta, rtol=1e-9)
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"y": y, "x": x[:, 0], "x2": x[:, 1]})
    turned = pd.Categorical(LEVELS[level], categories=["top", "mid", "low"])
    ordered = APOS(**RIDGE).fit(frame["y"], pd.Series(turned), frame[["x", "x2"]])
    assert ordered.names == ("top", "mid", "low")


def test_contrasts_have_the_reference_that_is_asked_for(means):
    assert means.contrasts().names == ("mid - low", "top - low")
    other = means.contrasts("top")
    assert other.names == ("low - top", "mid - top")
    np.testing.assert_allclose(other.theta[0], means.theta[0] - means.theta[2], rtol=1e-9)
    joint, alone = np.asarray(other.confint(joint=True)), np.asarray(other.confint())
    assert np.all(joint[:, 0] < alone[:, 0]) and np.all(joint[:, 1] > alone[:, 1])
    assert "mid - low" in means.summary() and "all rows at once" in means.summary()
    with pytest.raises(UserError, match="one of low, mid, top as reference, found none"):
        means.contrasts("none")


def test_two_levels_are_the_interactive_model(data):
    y, level, x, folds = data
    two = (level > 0).astype(float)
    found = APOS(**RIDGE).fit(y, two, x, fold_ids=folds).contrasts()
    ate = IRM(**RIDGE).fit(y, two, x, fold_ids=folds)
    np.testing.assert_allclose(found.theta[0], ate.theta, rtol=1e-6)
    np.testing.assert_allclose(found.se[0], ate.se, rtol=1e-6)


def test_bands_hold_for_repeated_partitions_too(data):
    """Errors of a median over partitions are larger than those of the influence values."""
    y, level, x, _ = data
    found = APOS(ml_g=MEAN, ml_m=MEAN, n_folds=2, n_rep=3).fit(y, level, x)
    joint, alone = found.confint(joint=True), found.confint()
    assert np.all(joint[:, 1] - joint[:, 0] > 1.05 * (alone[:, 1] - alone[:, 0]))
    assert "median of 3 partitions" in found.summary()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"A": np.arange(N) * 1.0}, "at most 30 levels"),
        ({"A": np.full(N, "a")}, "found only a"),
        ({"A": np.r_[["rare"], np.full(N - 1, "b")]}, "none of 'rare' outside fold 0"),
        ({"A": np.r_[[None], LEVELS[np.arange(N - 1) % 3]]}, "found 1 in the treatment"),
        ({"A": np.zeros((N, 2))}, "one column for the treatment"),
        ({"Y": np.full(N, np.nan)}, "missing"),
    ],
)
def test_levels_that_are_refused(data, change, sentence):
    y, level, x, folds = data
    given = {"Y": y, "A": LEVELS[level], "X": x, "fold_ids": folds} | change
    with pytest.raises(UserError, match=sentence):
        APOS(ml_g=MEAN, ml_m=MEAN, n_folds=2).fit(**given)


def test_levels_of_dropped_rows_are_gone(data):
    y, level, x, _ = data
    holes = np.where(level == 1, np.nan, y)
    found = APOS(ml_g=MEAN, ml_m=MEAN, n_folds=2, missing="drop").fit(holes, LEVELS[level], x)
    assert found.names == ("low", "top") and "dropped" in found.summary()


@pytest.fixture(scope="module")
def effects(data):
    y, level, x, folds = data
    arm = np.where(level > 0, "drug", "placebo")
    return QTE(quantiles=AT, treated="drug", **RIDGE).fit(y, arm, x, fold_ids=folds)


def test_effects_on_quantiles_are_those_of_the_function(data, effects):
    import jax

    y, level, x, folds = data
    found = quantile_effects.potential_quantiles(
        y,
        (level > 0).astype(float),
        x,
        quantiles=AT,
        ml_g=Logistic(),
        ml_m=Logistic(),
        fold_ids=folds,
        n_folds=2,
        key=jax.random.key(0),
    )
    expected = quantile_effects.quantile_effects(found)
    np.testing.assert_allclose(effects.theta, expected.theta, rtol=1e-8)
    np.testing.assert_allclose(effects.se, expected.se, rtol=1e-8)
    np.testing.assert_allclose(effects.potential().theta, found.theta, rtol=1e-8)
    assert effects.names == ("0.25", "0.5", "0.75") and "1 stands for 'drug'" in effects.summary()


def test_weights_make_the_arms_alike(means, effects):
    for fit, arms in ((means, 3), (effects, 2)):
        assert sum(arm.units for arm in fit.arms()) == N and len(fit.arms()) == arms
        assert all(arm.effective < arm.units for arm in fit.arms())
        assert {r["covariate"] for r in fit.balance()} == {"x1", "x2"}
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4 * N, 1))
    a = (rng.uniform(size=4 * N) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
    row = IRM(**RIDGE).fit(x[:, 0] + rng.normal(size=4 * N), a, x).balance()[0]
    assert row["before"] > 0.5 and row["after"] < 0.1
    with pytest.raises(UserError, match="IRM or IIVM for weights"):
        PLR(ml_l=MEAN, ml_m=MEAN, n_folds=2).fit(a + rng.normal(size=4 * N), a, x).balance()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"quantiles": (0.5, 1.2)}, "between 0 and 1"),
        ({"quantiles": ()}, "between 0 and 1"),
        ({"quantiles": (0.5, 0.5)}, "ascending"),
        ({"kind": "mean"}, "'quantile' or 'tail mean'"),
        ({"ml_g": "forest"}, "for ml_g"),
        ({"n_folds": 1}, "at least 2 folds"),
    ],
)
def test_settings_that_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        QTE(**settings)


def test_quantiles_of_compliers_and_refusals(data):
    y, level, x, folds = data
    z, a = np.arange(N) % 4 // 2, (np.arange(N) % 3 > 0).astype(float)
    mean = {"ml_g": MEAN, "ml_m": MEAN, "ml_r": MEAN, "n_folds": 2, "quantiles": (0.5,)}
    found = LQTE(**mean).fit(y, a * z, z, x, fold_ids=folds)
    assert found.names == ("0.5",) and np.isfinite(found.se).all()
    with pytest.raises(UserError, match="one kind for quantiles"):
        LQTE(**mean).fit(y, a * z, z, x, clusters=np.stack([folds, level], axis=1))
    tied = QTE(ml_g=MEAN, ml_m=MEAN, n_folds=2).fit(np.maximum(y, 1), a, x, fold_ids=folds)
    assert "of the outcomes are 1: errors of quantiles near it mean nothing" in tied.summary()


@pytest.fixture(scope="module")
def doses(data):
    _, _, x, folds = data
    rng = np.random.default_rng(2)
    D = x[:, :1] + rng.normal(size=(N, 2))
    y = D @ [1.0, -1.0] + x[:, 0] + rng.normal(size=N)
    return y, D, x, folds


def test_several_treatments_are_those_of_the_function(doses):
    y, D, x, folds = doses
    settings = PLR(ml_l="ridge", ml_m="ridge", n_folds=2)
    w = 1.0 + np.arange(N) % 3
    found = settings.fit_several(y, D, x, fold_ids=folds, weights=w, treatments=["a", "b"])
    rest = {"fold_ids": folds, "n_folds": 2, "names": ("a", "b")}
    one = treatments.plr_several(y, D, x, ml_l=Ridge(), ml_m=Ridge(), units=Units(w), **rest)
    np.testing.assert_allclose(found.theta, one.theta, rtol=1e-8)
    np.testing.assert_allclose(found.se, one.se, rtol=1e-8)
    np.testing.assert_allclose(found.confint(joint=True), one.confint(joint=True), rtol=1e-6)
    alone = settings.fit(y, D[:, 1], np.c_[x, D[:, 0]], fold_ids=folds, weights=w)
    np.testing.assert_allclose(found["b"].theta, alone.theta, rtol=1e-9)
    assert found["b"].sensitivity().robustness_value > 0
    table = {"y": y, "a": D[:, 0], "b": D[:, 1], "x1": x[:, 0], "x2": x[:, 1], "w": w}
    columns = {"outcome": "y", "treatments": ["a", "b"], "covariates": ["x1", "x2"]}
    framed = settings.fit_frame_several(table, **columns, weights="w", fold_ids=folds)
    np.testing.assert_allclose(framed.theta, found.theta, rtol=1e-9)
    assert "treatment: a, b" in framed.summary()
    with pytest.raises(UserError, match="one of a, b, found 'c'"):
        found["c"]


def test_several_treatments_that_are_refused(doses):
    y, D, x, _ = doses
    settings = PLR(ml_l=MEAN, ml_m=MEAN, n_folds=2)
    with pytest.raises(UserError, match="found 2: fit_several takes several"):
        settings.fit(y, D, x)
    for columns, sentence in (
        (D[:, :1], "Expected several treatments, found 1"),
        (np.c_[D, D[:, 0] - D[:, 1]], "no linear combinations"),
        (np.c_[D, np.ones(N)], "one value of 'd3'"),
    ):
        with pytest.raises(UserError, match=sentence):
            settings.fit_several(y, columns, x)
