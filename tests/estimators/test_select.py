"""Pseudo-risks against loops over all pairs, ties, the smooth rule."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.errors import UserError
from jaxcore.estimators import select
from jaxcore.estimators.selective_iv import BLOCKS, MODELS

ROBUST, ROBUST_BLOCKS = select.DOUBLY_ROBUST, select.DOUBLY_ROBUST_BLOCKS


def by_loops(T, models, blocks):
    """Definition: the largest mean squared difference of two combinations that agree on a model."""
    shape = T.shape[1:]
    out = {name: np.zeros(shape) for name in models}
    cells = list(itertools.product(*map(range, shape)))
    for name, kept in models.items():
        axes = [blocks.index(b) for b in kept]
        for c in cells:
            same = [d for d in cells if all(d[i] == c[i] for i in axes)]
            out[name][c] = max(
                np.mean((T[(slice(None), *d)] - T[(slice(None), *e)]) ** 2)
                for d in same
                for e in same
            )
    return out


@settings(deadline=None, derandomize=True, max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([(2, 3), (3, 3)]))
def test_pseudo_risk_of_two_blocks(seed, shape):
    T = np.random.default_rng(seed).normal(size=(3, *shape)).astype(np.float32)
    ours = select.pseudo_risk(jnp.asarray(T), ROBUST, ROBUST_BLOCKS)
    for name, risk in by_loops(T, ROBUST, ROBUST_BLOCKS).items():
        np.testing.assert_allclose(ours[name], risk, rtol=1e-5, atol=1e-6)


def test_pseudo_risk_of_five_blocks():
    T = np.random.default_rng(0).normal(size=(2, 2, 1, 2, 2, 2)).astype(np.float32)
    ours = select.pseudo_risk(jnp.asarray(T), MODELS, BLOCKS)
    for name, risk in by_loops(T, MODELS, BLOCKS).items():
        np.testing.assert_allclose(ours[name], risk, rtol=1e-5, atol=1e-6)


def test_published_special_case_by_hand():
    """Errors (0.4, 0, 1) x (1, 2, 3): the sum finds the exact learner, the maximum ties."""
    with jax.enable_x64(True):
        T = jnp.asarray(np.outer([0.4, 0.0, 1.0], [1.0, 2.0, 3.0]))[None]
        mixed = select.select(T, "mixed_minimax", ROBUST, ROBUST_BLOCKS)
        plain = select.select(T, "minimax", ROBUST, ROBUST_BLOCKS)
        assert mixed.index.tolist() == [1, 0]
        assert plain.index.tolist() == [0, 0]
        assert float(plain.criterion[0, 0]) == float(plain.criterion[1, 0])


def test_a_constant_shift_of_all_estimates_changes_nothing():
    with jax.enable_x64(True):
        T = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2, 2, 2, 2, 2)))
        a, b = (select.select(t, "mixed_minimax", MODELS, BLOCKS) for t in (T, T + 7))
        np.testing.assert_allclose(a.criterion, b.criterion, rtol=1e-9)
        assert a.index.tolist() == b.index.tolist()


def test_wrong_shapes_and_names():
    T = jnp.zeros((2, 3, 3))
    with pytest.raises(UserError, match="5 learner axes"):
        select.pseudo_risk(T, MODELS, BLOCKS)
    with pytest.raises(UserError, match="to keep blocks of"):
        select.pseudo_risk(T, {"M": ("x",)}, ROBUST_BLOCKS)
    with pytest.raises(UserError, match="mixed_minimax, minimax"):
        select.select(T, "maximin", ROBUST, ROBUST_BLOCKS)


@pytest.fixture(scope="module")
def moments():
    rng = np.random.default_rng(0)
    U = rng.normal(size=(90, 1, 1)) + rng.normal(size=(90, 3, 2)) * 0.3 + rng.normal(size=(3, 2))
    return U, np.arange(90) % 3


def test_smooth_rule_has_the_hard_one_as_its_limit(moments):
    U, ids = moments
    with jax.enable_x64(True):
        U = jnp.asarray(U)
        soft = select.smooth_select(
            U, jnp.asarray(ids), 3, ROBUST, ROBUST_BLOCKS, beta=1e4, lam=1e4
        )
        T, total = select.fold_means(U, jnp.asarray(ids), 3)
        hard = select.select(T, "mixed_minimax", ROBUST, ROBUST_BLOCKS)
        picked = T[(slice(None), *hard.index)]
        assert abs(float(soft.theta - picked @ total / total.sum())) < 1e-6
        np.testing.assert_allclose(soft.criterion, hard.criterion, rtol=1e-4)


def test_smooth_standard_error_is_the_derivative_along_row_weights(moments):
    """psi_i / n is the derivative of the estimate in the weight of row i (the scale is held)."""
    U, ids = moments
    with jax.enable_x64(True):
        U, ids = jnp.asarray(U), jnp.asarray(ids)
        soft = select.smooth_select(U, ids, 3, ROBUST, ROBUST_BLOCKS)

        def theta(w):
            T, _ = select.fold_means(U, ids, 3, weights=w)
            _, total = select.fold_means(U, ids, 3)  # shares of folds stay
            again = select.smooth_weights(T, total, ROBUST, ROBUST_BLOCKS)
            return again.theta

        base = np.asarray(soft.psi) / 90
        grad = np.asarray(jax.grad(theta)(jnp.ones(90)))
        np.testing.assert_allclose(grad, base, rtol=1e-6, atol=1e-12)


def test_fold_means_with_weights(moments):
    U, ids = moments
    w = np.random.default_rng(5).uniform(0.5, 2, 90)
    with jax.enable_x64(True):
        T, total = select.fold_means(jnp.asarray(U), jnp.asarray(ids), 3, weights=jnp.asarray(w))
    for f in range(3):
        rows = ids == f
        np.testing.assert_allclose(T[f], np.average(U[rows], axis=0, weights=w[rows]))
        assert abs(float(total[f]) - w[rows].sum()) < 1e-9


def test_bootstrap_of_the_selection(moments):
    U, ids = moments
    args = (jnp.asarray(U, jnp.float32), jnp.asarray(ids), 3, ROBUST, ROBUST_BLOCKS)
    theta, index = select.bootstrap_selection(jax.random.key(0), *args, n_boot=60, batch_size=7)
    again, _ = select.bootstrap_selection(jax.random.key(0), *args, n_boot=60, batch_size=60)
    np.testing.assert_allclose(theta, again, rtol=1e-4)
    assert index.shape == (60, 2)
    assert index[:, 0].max() < 3 and index[:, 1].max() < 2
    assert 0.3 < float(jnp.std(theta)) / (np.std(U[:, 0, 0]) / np.sqrt(90)) < 6
