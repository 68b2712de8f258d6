"""Learners that choose their settings, stacks by name, and what a fit says of both.

Fits share shapes and learners, so that few programs are compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import IIVM, IRM, PLIV, PLR, nuisance
from jaxcore.estimators.nuisance import Best, Boosting, Logistic, Ridge, Stack, tuned
from jaxcore.estimators.nuisance.candidates import resolved
from jaxcore.estimators.nuisance.stack import inner_folds
from jaxcore.estimators.nuisance.tuning import GRIDS
from jaxcore.estimators.selective_iv import BLOCKS, SelectiveIV, SelectiveIVResult
from jaxcore.estimators.selective_iv.simulate import simulate_siv1

N = 80
ALPHAS = (0.01, 1.0, 30.0)
GRID = {"alpha": ALPHAS}
OF = {
    PLR: ("ml_l", "ml_m"),
    PLIV: ("ml_l", "ml_m", "ml_r"),
    IRM: ("ml_g", "ml_m"),
    IIVM: ("ml_g", "ml_m", "ml_r"),
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    z = (np.arange(N) % 2).astype(float)
    a = (rng.uniform(size=N) < 0.2 + 0.6 * z).astype(float)
    y = 1.5 * a + x[:, 0] + rng.normal(size=N)
    return y, a, z, x


def ridges(kind):
    return kind(n_folds=2, **{name: Ridge(alpha=30.0) for name in OF[kind]})


def test_a_grid_finds_the_setting_of_least_loss_out_of_fold():
    """Inner folds by hand; the winner predicts as it does alone."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)), rng.normal(size=60)
    y, w = y + X[:, 0], np.r_[np.zeros(6), np.ones(54)]
    with jax.enable_x64(True):
        key = jax.random.key(3)
        learner = tuned(Ridge(alpha=0.1), {"alpha": list(ALPHAS)})
        X, y, w = (jnp.asarray(v) for v in (X, y, w))
        fitted = learner.fit(X, y, w, key)
        held, masks = inner_folds(jax.random.split(key, 3)[0], w, 3)
        expected = []
        for alpha in (0.1, *ALPHAS):
            lost = 0
            for f in range(3):
                one = Ridge(alpha=alpha)
                p = one.predict(one.fit(X, y, masks[f], key), X)
                lost += float(jnp.sum(w * held[f] * (p - y) ** 2))
            expected.append(lost / 54)
        np.testing.assert_allclose(fitted.losses, expected, rtol=1e-9)
        best = Ridge(alpha=(0.1, *ALPHAS)[int(np.argmin(expected))])
        alone = best.predict(best.fit(X, y, w, key), X)
        np.testing.assert_allclose(learner.predict(fitted, X), alone, rtol=1e-9)


def test_learners_of_other_kinds_and_structures_compete():
    x = jnp.linspace(-2, 2, 90)[:, None]
    y = jnp.where(x[:, 0] > 0.5, 3.0, 0.0)
    learner = Best(learners=(Ridge(), Boosting(n_trees=30, depth=1), Boosting(n_trees=30, depth=2)))
    fitted = jax.jit(learner.fit)(x, y, jnp.ones(90), jax.random.key(0))
    losses = np.asarray(fitted.losses)
    assert losses.shape == (3,) and np.argmin(losses) > 0
    assert float(jnp.mean((learner.predict(fitted, x) - y) ** 2)) < 0.1 * losses[0]


@pytest.mark.parametrize("kind", [PLR, PLIV, IRM, IIVM])
def test_every_class_tunes_its_learners_and_says_so(data, kind):
    y, a, z, x = data
    columns = (y, a, z, x) if kind in (PLIV, IIVM) else (y, a, x)
    estimator = ridges(kind).tune(dict.fromkeys(OF[kind], GRID))
    found = estimator.fit(*columns)
    rows = found.tuning()
    assert len(rows) == 3 * len(found.model.nuisances)
    for start in range(0, len(rows), 3):
        mine = rows[start : start + 3]
        assert sum(row["chosen"] for row in mine) == mine[0]["fits"] == 2
        assert {row["candidate"] for row in mine} == {f"alpha={a}" for a in ALPHAS}
        assert f"alpha=30.0: {mine[0]['loss']:.5g}" in found.summary()
    assert all("chosen alpha=" in row["chosen"] for row in found.evaluate_learners())
    assert found.to_dict()["tuning"] == rows and "chosen alpha=" in found.summary()
    assert not ridges(kind).fit(*columns).tuning()


def test_learners_of_the_selective_estimator_are_tuned_and_named(tmp_path):
    with jax.enable_x64(True):
        s = jax.device_get(simulate_siv1(jax.random.key(0), 200))
    blocks = dict.fromkeys(("pi", "mu", "delta", "rho"), ("lin",)) | {"g": (Ridge(alpha=30.0),)}
    plain = SelectiveIV(learners={**blocks, "m": ("stack:linear,ridge",)}, n_folds=2)
    found = plain.tune().fit(s.Y, s.A, s.Z, s.X)
    rows = [row for row in found.tuning() if row["block"] == "g"]
    assert len(rows) == 7 and sum(row["chosen"] for row in rows) == rows[0]["fits"] == 4
    text = found.summary()
    assert "g, Tuned(learner=Ridge(alpha=30.0)): chosen alpha=" in text
    assert "\n  inner squared error with alpha=" in text
    assert "stack:linear,ridge'): weights 0." in text
    assert plain.blocks["pi"] == plain.tune().blocks["pi"] == ("lin",)
    found.save(tmp_path / "fit")
    assert SelectiveIVResult.load(tmp_path / "fit").tuning() == found.tuning()
    with pytest.raises(UserError, match="can be tuned, found bases"):
        SelectiveIV().tune()


@pytest.mark.parametrize("kind", [*OF, SelectiveIV])
def test_settings_of_every_class_are_read_changed_and_cloned(kind):
    from sklearn.base import clone

    learners = dict.fromkeys(OF.get(kind, ()), Ridge(alpha=0.5))
    if kind is SelectiveIV:
        learners = {"learners": dict.fromkeys((*BLOCKS, "m"), (Ridge(alpha=0.5),))}
    for one in (kind(n_folds=3, **learners), kind(n_folds=3, **learners).tune()):
        params = one.get_params(deep=False)
        assert params["n_folds"] == 3 and set(learners) < set(params)
        assert one.clone() == one == clone(one) == kind(**params)
        changed = one.set_params(n_folds=2, seed=9)
        assert (changed.n_folds, changed.seed, one.n_folds) == (2, 9, 3)
        with pytest.raises(UserError, match=f"a setting of {kind.__name__} .* found 'folds'"):
            one.set_params(folds=3)


def test_folds_choose_by_their_training_rows_alone(data):
    y, a, _, x = data
    estimator = ridges(PLR).tune({"ml_l": GRID})
    folds = np.arange(N) % 2
    before = estimator.fit(y, a, x, fold_ids=folds).estimate.diagnostics["findings"]
    changed = np.where(folds == 0, y + 5 * np.random.default_rng(1).normal(size=N), y)
    after = estimator.fit(changed, a, x, fold_ids=folds).estimate.diagnostics["findings"]
    before, after = (np.asarray(one["ml_l"]["losses"]) for one in (before, after))
    np.testing.assert_allclose(before[0], after[0], rtol=1e-12)  # trained on fold 1
    assert np.all(np.abs(before[1] / after[1] - 1) > 0.1)


def test_without_a_grid_every_learner_has_one():
    words = [name for name in GRIDS if name != "MLP"]
    for name in words:
        one = tuned(getattr(nuisance, name)(), n_inner=4)
        chooses_itself = name in ("Lasso", "LogisticLasso")
        assert chooses_itself == (not isinstance(one, Best)) and one.n_inner in (4, 5)
    both = tuned(Stack(learners=(Ridge(), Boosting())))
    assert [len(one.learners) for one in both.learners] == [6, 6]
    assert tuned(nuisance.Lasso(alpha=0.3)).alpha is None


def test_names_are_learners_of_the_target(data):
    label = nuisance.label
    assert label(resolved("stack:lasso,boosting", "g")) == "Stack(Lasso(), Boosting())"
    assert resolved("best:ridge,lasso", "m", binary=True).binary
    inner = resolved("tuned:stack:ridge,boosting", "g").learners
    assert [type(one) for one in inner] == [Best, Best]
    assert label(resolved("stack:tuned:ridge,lasso", "m", binary=True)) == (
        "Stack(Best(6 of Logistic), LogisticLasso())"
    )
    assert label(resolved(Stack(learners=("ridge", Logistic())), "m", binary=True)) == (
        "Stack(Logistic(), Logistic())"
    )


def test_a_stack_by_name_gives_probabilities_and_tells_its_weights(data):
    y, a, _, x = data
    found = IRM(ml_g="stack:linear,ridge", ml_m="stack:linear,ridge", n_folds=2).fit(y, a, x)
    p = found.estimate.diagnostics["raw"]["ml_m"]
    assert 0 <= p.min() < p.max() <= 1
    weights = np.asarray(found.estimate.diagnostics["findings"]["ml_g0"]["weights"])
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert "; weights 0." in found.summary() and "Stack(Ridge(alpha=0.0), Ridge())" in (
        found.summary()
    )
    with pytest.raises(UserError, match="a regression for ml_g, whose target is not 0 and 1"):
        IRM(ml_g=Stack(learners=(Logistic(), Logistic(alpha=1.0)))).fit(y, a, x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PLR(ml_l="laso"), r"one of lasso, ridge, .*found 'laso' \(did you mean 'lasso'\?"),
        (lambda: PLR(ml_l="stak:lasso,ridge"), r"found 'stak:lasso,ridge' \(did you mean 'stack'"),
        (lambda: PLR(ml_l="stack:lasso,rigde"), r"found 'rigde' \(did you mean 'ridge'\?\)"),
        (lambda: PLR(ml_l="stack:lasso"), "two learners or more after stack: for ml_l"),
        (lambda: PLR(ml_l=Stack(learners=())), "learners in Stack, found none"),
        (lambda: PLR().tune({"ml_g": {}}), "learners ml_l, ml_m, found ml_g"),
        (lambda: PLR().tune(n_inner=1), "at least 2 inner folds, found 1"),
        (lambda: PLR(ml_l="ridge").tune({"ml_l": {"alfa": [1]}}), r"'alfa' \(did you mean 'alpha'"),
        (lambda: PLR().tune({"ml_l": {"alpha": []}}), r"values to try for alpha, found \[\]"),
        (lambda: PLR().tune({"ml_l": {"alpha": "12"}}), "values to try for alpha, found '12'"),
    ],
)
def test_wrong_names_and_grids_end_in_one_sentence(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_outside_learners_are_tuned_by_their_own_means(data):
    from sklearn.linear_model import Ridge as Outside
    from sklearn.model_selection import GridSearchCV

    y, a, _, x = data
    with pytest.raises(UserError, match=r"to tune, found HostLearner\(Ridge\): .*GridSearchCV"):
        PLR(ml_l=Outside()).tune()
    search = GridSearchCV(Outside(), {"alpha": [0.1, 1.0]})
    assert np.isfinite(PLR(ml_l=search, ml_m="ridge", n_folds=2).fit(y, a, x).theta)


def test_bandwidths_of_kernels_are_tried_one_after_the_other():
    x = jnp.linspace(-2, 2, 40)[:, None]
    learner = tuned(nuisance.KernelRidge(), {"gamma": [0.01, 3.0]})
    fitted = learner.fit(x, jnp.sin(4 * x[:, 0]), jnp.ones(40), jax.random.key(0))
    assert int(jnp.argmin(fitted.losses)) == 2
