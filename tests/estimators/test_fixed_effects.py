"""Effects of groups: against dummies, on panels that hardly hang together, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import fixed_effects
from jaxcore.estimators.absorbed import absorb
from jaxcore.estimators.fixed_effects import demean, within


def _panel(seed=0, n=60, groups=(7, 5)):
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(0, g, n) for g in groups], axis=1)
    return rng, ids, rng.normal(size=(n, 3))


def _dummies(ids):
    return np.concatenate([np.eye(c.max() + 1)[c] for c in ids.T], axis=1)


def _left_by_dummies(x, ids, w=None):
    root = np.ones(len(x)) if w is None else np.sqrt(w)
    d = _dummies(ids)
    coef = np.linalg.lstsq(d * root[:, None], x * root[:, None], rcond=None)[0]
    return x - d @ coef


@pytest.mark.parametrize("method", fixed_effects.METHODS)
def test_what_is_left_is_what_a_regression_on_dummies_leaves(method):
    rng, ids, x = _panel()
    for w in (None, rng.uniform(0.5, 2, len(x))):
        found = demean(x, ids, weights=w, method=method, tol=1e-12)
        np.testing.assert_allclose(found.values, _left_by_dummies(x, ids, w), atol=1e-10)
        assert found.converged and found.n_iter > 0
        out = sum(e[c] for e, c in zip(found.effects, ids.T, strict=True))
        np.testing.assert_allclose(x - found.values, out, atol=1e-10)


def test_columns_of_any_size_are_treated_alike():
    _, ids, x = _panel(1)
    scale = np.array([1e-9, 1.0, 1e9])
    one, other = demean(x, ids).values, demean(x * scale, ids).values
    np.testing.assert_allclose(other / scale, one, atol=1e-6)


@pytest.mark.parametrize("chained", [False, True])
def test_a_level_far_from_zero_hides_no_variation(chained):
    """Seconds since 1970, say: what matters varies by a billionth of them."""
    rng, ids, x = _panel(7)
    if chained:  # the factorisation takes over
        i = np.repeat(np.arange(700), 2)
        ids, x = np.stack([i, i + np.tile([0, 1], 700)], axis=1), rng.normal(size=(1400, 3))
    near, far = demean(x, ids, tol=1e-10), demean(x + 1.6e9, ids, tol=1e-10)
    np.testing.assert_allclose(far.values, near.values, atol=1e-5)
    out = sum(e[c] for e, c in zip(far.effects, ids.T, strict=True))
    np.testing.assert_allclose(x + 1.6e9 - far.values, out, rtol=1e-13)
    assert not np.any(demean(np.full((len(x), 3), 5.0), ids).values)


def test_conjugate_gradients_need_far_fewer_passes_where_groups_form_a_chain():
    """Author i writes in weeks i and i + 1 alone: information creeps along the chain."""
    i = np.arange(60)
    ids = np.stack([np.repeat(i, 2), np.stack([i, i + 1], axis=1).ravel()], axis=1)
    x = np.random.default_rng(2).normal(size=(len(ids), 1)) + ids[:, :1] * 0.1
    quick = demean(x, ids, tol=1e-8)
    slow = demean(x, ids, method="alternating", tol=1e-10, max_iter=100_000)
    np.testing.assert_allclose(quick.values, slow.values, atol=1e-5)
    assert 10 * quick.n_iter < slow.n_iter
    with pytest.raises(UserError, match="within 50 passes"):
        demean(x, ids, method="alternating", max_iter=50)


def test_long_chains_of_groups_are_factorised_instead_of_walked_along():
    """Three kinds, one of which the others explain in part: thousands of passes otherwise."""
    rng = np.random.default_rng(6)
    i = np.repeat(np.arange(2000), 3)
    week = i + rng.integers(0, 2, len(i))
    ids = np.stack([i, week, (week > 900) + 2 * (i % 2)], axis=1)
    of_author, of_week = rng.normal(size=2000), np.cumsum(rng.normal(size=2001))
    x = np.column_stack([rng.normal(size=len(i)), of_author[i] + of_week[week]])
    for w in (None, rng.uniform(0.5, 2, len(i)) * (i != 7)):
        found = demean(x, ids, weights=w, tol=1e-9)
        assert found.n_iter < 120
        out = sum(e[c] for e, c in zip(found.effects, ids.T, strict=True))
        np.testing.assert_allclose(x - found.values, out, atol=1e-9)
        np.testing.assert_allclose(found.values[:, 1] if w is None else 0, 0, atol=1e-6)
        for kind in ids.T:
            size = np.maximum(np.bincount(kind, w), 1e-9)
            sums = np.bincount(kind, found.values[:, 0] * (1 if w is None else w))
            assert np.max(np.abs(sums / size)) < 1e-7


def test_inside_of_jit_convergence_is_told_and_not_raised():
    _, ids, x = _panel(3)
    n_groups = tuple(int(c.max()) + 1 for c in ids.T)

    @jax.jit
    def few(x, ids):
        return demean(x, ids, n_groups=n_groups, method="alternating", max_iter=1)

    found = few(jnp.asarray(x, jnp.float32), jnp.asarray(ids, jnp.int32))
    assert not found.converged and found.n_iter == 1
    with pytest.raises(UserError, match="n_groups"):
        jax.jit(demean)(jnp.asarray(x), jnp.asarray(ids))


def test_coefficients_within_groups_are_those_with_dummies():
    rng, ids, x = _panel(4)
    y = x @ np.array([1.0, -2.0, 0.5]) + ids @ np.array([0.3, -0.1]) + rng.normal(size=len(x))
    left = demean(np.column_stack([y, x]), ids, tol=1e-12).values
    full = np.linalg.lstsq(np.concatenate([x, _dummies(ids)], axis=1), y, rcond=None)[0][:3]
    np.testing.assert_allclose(within(left[:, 0], left[:, 1:]).theta, full, atol=1e-9)


def test_groups_without_rows_or_weight_take_nothing_out():
    x = np.array([[1.0], [3.0], [7.0]])
    found = demean(x, np.array([0, 0, 2]), weights=np.array([1.0, 1.0, 0.0]), n_groups=4)
    assert found.values.ravel().tolist() == [-1.0, 1.0, 7.0]
    assert found.effects[0].ravel().tolist() == [2.0, 0.0, 0.0, 0.0]


def test_shrunken_effects_go_to_zero_where_groups_do_not_differ():
    residual = np.array([1.0, -1.0, 1.0, -1.0])
    counts = np.array([2.0, 2.0, 0.0])
    found = fixed_effects.shrunken(residual, np.array([0.1, -0.1, 5.0]), counts)
    assert found.spread == 0 and not np.any(found.effects)


def test_rows_alone_in_a_group_are_found_until_none_is_left():
    """Leaving the lone author's row out leaves another week with one row."""
    ids = np.array([[0, 0], [0, 1], [1, 1], [0, 0]])
    assert fixed_effects.without_singletons(ids).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": np.array([0, -1, 0])}, "whole numbers"),
        ({"ids": np.array([0.0, 1.0, 0.0])}, "whole numbers"),
        ({"method": "lsmr"}, "found 'lsmr'"),
        ({"X": np.array([[1.0], [np.nan], [0.0]])}, "finite numbers in X"),
    ],
)
def test_what_cannot_be_demeaned_is_refused(change, words):
    given = {"X": np.ones((3, 1)), "ids": np.array([0, 1, 0])} | change
    with pytest.raises(UserError, match=words):
        demean(**given)


@pytest.mark.parametrize("errors", ["cluster", "hc0"])
def test_blocks_of_rows_give_the_numbers_of_all_rows_at_once(errors):
    rng, ids, x = _panel(5, 90, (9, 2))
    g = ids[:, 0]
    x = x + 100 + g[:, None]
    y = x @ np.array([1.0, -2.0, 0.5]) + 3 * g + rng.normal(size=len(x))
    cuts = [slice(0, 7), slice(7, 50), slice(50, None)]
    found = absorb(lambda: [(y[c], x[c], g[c]) for c in cuts], 11, errors=errors)
    left = demean(np.column_stack([y, x]), g).values
    fit = within(left[:, 0], left[:, 1:])
    np.testing.assert_allclose(found.beta, fit.theta, rtol=1e-8)
    if errors == "hc0":
        np.testing.assert_allclose(found.se, fit.se, rtol=1e-8)
    else:
        sums = np.stack([np.asarray(fit.psi)[g == k].sum(axis=0) for k in range(9)])
        np.testing.assert_allclose(found.cov, sums.T @ sums / len(x) ** 2, rtol=1e-8)
    alpha = [np.mean((y - x @ found.beta)[g == k]) for k in range(9)]
    np.testing.assert_allclose(found.effects, [*alpha, 0, 0], rtol=1e-7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.array([1.0, np.nan, 0.0])}, "finite outcomes"),
        ({"g": np.array([0, 0, 5])}, "groups 0 to 1"),
        ({"x": np.ones((3, 1))}, "vary within groups"),
        ({"x": np.array([[0.0, 0], [1, 2], [5, 10]])}, "no linear combinations"),
        ({"y": np.ones(2)}, "found 2, 3"),
    ],
)
def test_blocks_that_do_not_answer_are_refused(change, words):
    given = {"y": np.array([1.0, 2, 4]), "x": np.array([[0.0], [1], [5]]), "g": np.array([0, 0, 1])}
    given |= change
    with pytest.raises(UserError, match=words):
        absorb(lambda: [(given["y"], given["x"], given["g"])], 2)


def test_no_blocks_are_refused():
    with pytest.raises(UserError, match="found none"):
        absorb(list, 1)
