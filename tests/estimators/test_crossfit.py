"""Folds, masks, out-of-fold predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.errors import UserError
from jaxcore.estimators import crossfit
from jaxcore.estimators.nuisance import HostLearner, LogisticLasso, Ridge
from jaxcore.estimators.units import Units


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.sampled_from([10, 37, 100]), st.integers(2, 7), st.integers(0, 99))
def test_folds_are_balanced(n, k, seed):
    ids = np.asarray(crossfit.fold_ids(jax.random.key(seed), n, k))
    counts = np.bincount(ids, minlength=k)
    assert counts.sum() == n and counts.max() - counts.min() <= 1


def test_strata_are_shared_out_evenly():
    strata = np.repeat([0, 1, 2], [50, 20, 30])
    ids = np.asarray(crossfit.fold_ids(jax.random.key(0), 100, 5, strata=jnp.asarray(strata)))
    for s, size in ((0, 10), (1, 4), (2, 6)):
        assert np.bincount(ids[strata == s], minlength=5).tolist() == [size] * 5


def test_clusters_are_never_split():
    clusters = np.random.default_rng(0).integers(0, 12, 90)
    clusters[:12] = np.arange(12)
    for strata in (None, jnp.asarray((clusters % 2).astype(np.int32))):
        ids = np.asarray(
            crossfit.fold_ids(
                jax.random.key(1), 90, 4, units=Units(clusters=clusters), strata=strata
            )
        )
        assert all(len(np.unique(ids[clusters == c])) == 1 for c in range(12))
        assert len(np.unique(ids)) == 4


@pytest.mark.parametrize(("n", "k"), [(5, 1), (5, 6), (3, 0)])
def test_impossible_numbers_of_folds(n, k):
    with pytest.raises(UserError, match=f"2 to {n} folds"):
        crossfit.fold_ids(jax.random.key(0), n, k)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 1], "3 fold ids"),
        ([0.5, 1, 0], "fractions"),
        ([0, 2, 2], "each used"),
        ([-1, 0, 1], "each used"),
        ([0, 0, 0], "k >= 2"),
    ],
)
def test_fold_ids_of_a_user_are_checked(ids, message):
    with pytest.raises(UserError, match=message):
        crossfit.check_fold_ids(ids, 3)


def test_masks_leave_out_their_fold_and_carry_weights():
    ids, w = jnp.array([0, 1, 2, 1]), jnp.array([1.0, 2.0, 3.0, 4.0])
    masks = np.asarray(crossfit.training_masks(ids, 3, weights=w))
    assert masks.tolist() == [[0, 2, 3, 4], [1, 0, 3, 0], [1, 2, 0, 4]]
    assert np.asarray(crossfit.training_masks(ids, 1)).tolist() == [[1.0] * 4]


def _sample(n=80):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    y = (X @ [1.0, -1.0, 0.5] + rng.normal(size=n)).astype(np.float32)
    return jnp.asarray(X), jnp.asarray(y), jnp.asarray(rng.permutation(n) % 4)


def test_vmapped_folds_equal_a_python_loop():
    X, y, ids = _sample()
    ours = np.asarray(crossfit.crossfit(Ridge(alpha=0.1), X, y, ids, 4))
    for f in range(4):
        train, test = np.asarray(ids != f), np.asarray(ids == f)
        learner = Ridge(alpha=0.1)
        fit = learner.fit(X[train], y[train], jnp.ones(int(train.sum())), jax.random.key(0))
        np.testing.assert_allclose(ours[test], learner.predict(fit, X[test]), rtol=1e-4, atol=1e-5)


def test_no_prediction_sees_its_own_outcome():
    X, y, ids = _sample()
    before = np.asarray(crossfit.crossfit(Ridge(), X, y, ids, 4))
    own = np.asarray(ids == 2)
    after = np.asarray(crossfit.crossfit(Ridge(), X, jnp.where(own, 1e3, y), ids, 4))
    np.testing.assert_array_equal(before[own], after[own])
    assert np.abs(before[~own] - after[~own]).min() > 0


def test_host_and_jax_learners_agree():
    from sklearn.linear_model import LinearRegression

    X, y, ids = _sample()
    ours = crossfit.crossfit(Ridge(alpha=0.0), X, y, ids, 4)
    theirs = crossfit.crossfit(HostLearner(LinearRegression()), X, y, ids, 4)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_targets_and_settings_of_their_own_in_one_program():
    X, y, ids = _sample()
    learners = [LogisticLasso(alpha=0.01), LogisticLasso(alpha=0.1)]
    targets = [jnp.where(y > 0, 1.0, 0.0), jnp.where(X[:, 0] > 0.5, 1.0, 0.0)]
    weights = [jnp.ones(80), jnp.where(jnp.arange(80) < 60, 1.0, 0.0)]
    keys = jax.random.split(jax.random.key(0), 2)
    found, about = crossfit.crossfit_groups(
        learners, X, targets, ids, 4, weights=weights, keys=keys
    )
    for i, learner in enumerate(learners):
        alone = crossfit.crossfit(learner, X, targets[i], ids, 4, weights=weights[i])
        np.testing.assert_allclose(found[i], alone, rtol=1e-4, atol=1e-5)
    assert about == {}


def test_predictions_elsewhere():
    X, y, ids = _sample()
    both = crossfit.crossfit(Ridge(), X, y, ids, 4, X_eval=[X, X + 1])
    assert both.shape == (2, 80)
    alone = crossfit.crossfit(Ridge(), X, y, ids, 4)
    np.testing.assert_allclose(both[0], alone, rtol=1e-5, atol=1e-6)


def test_a_host_learner_cannot_be_traced():
    X, y, ids = _sample()
    learner = HostLearner(lambda X, y, w, X_new: np.zeros(len(X_new)))
    with pytest.raises(UserError, match="host learner"):
        jax.jit(lambda y: crossfit.crossfit(learner, X, y, ids, 4))(y)


def test_one_compilation_for_equal_shapes():
    import chex

    X, y, ids = _sample()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(y):
        return crossfit.crossfit(Ridge(), X, y, ids, 4)

    for target in (y, y + 1):
        run(target)
