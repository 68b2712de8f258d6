"""Policy trees against a search written without any thought."""

import itertools

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.policy_tree import (
    PolicyTree,
    Split,
    partialled_out_signal,
    policy_tree,
    policy_value,
    rewards,
)

N = 24


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 5, N), rng.normal(size=N)]).astype(float)
    return rng.normal(size=(N, 3)), X


def best_leaf(gamma):
    return gamma.sum(axis=0).max()


def splits(X, member):
    for j in range(X.shape[1]):
        for t in np.unique(X[:, j])[:-1]:
            yield member & (X[:, j] <= t), member & (X[:, j] > t)


def best(gamma, X, member, depth, min_leaf):
    """Largest sum of rewards of any tree on the members."""
    found = best_leaf(gamma[member]) if member.sum() >= min_leaf else -np.inf
    if depth == 0:
        return found
    for sides in splits(X, member):
        if min(s.sum() for s in sides) >= min_leaf:
            found = max(found, sum(best(gamma, X, s, depth - 1, min_leaf) for s in sides))
    return found


@pytest.mark.parametrize("depth, min_leaf", [(1, 1), (2, 1), (2, 4)])
def test_no_tree_is_better(data, depth, min_leaf):
    gamma, X = data
    tree = policy_tree(gamma, X, depth=depth, min_leaf=min_leaf)
    expected = best(gamma, X, np.ones(N, bool), depth, min_leaf) / N
    np.testing.assert_allclose(tree.value, expected, rtol=1e-9)
    action = tree.predict(X)
    np.testing.assert_allclose(gamma[np.arange(N), action].mean(), expected, rtol=1e-9)


def test_a_tree_that_needs_two_splits(data):
    """Treat where both or neither of two things are large: no single split helps."""
    square = np.array(list(itertools.product([0.0, 1.0, 2.0], repeat=2)) * 3)[:N]
    signal = np.where((square[:, 0] > 0.5) == (square[:, 1] > 0.5), 1.0, -1.0)
    tree = policy_tree(rewards(signal), square, depth=2)
    assert np.array_equal(tree.predict(square), (signal > 0).astype(int))
    assert tree.describe(["age", "income"], ["wait", "treat"]).count("if ") == 3


def test_weights_are_repeated_units(data):
    gamma, X = data
    times = np.random.default_rng(1).integers(1, 3, N)
    again = np.repeat(np.arange(N), times)
    one = policy_tree(gamma, X, depth=2, weights=times)
    two = policy_tree(gamma[again], X[again], depth=2)
    np.testing.assert_allclose(one.value, two.value, rtol=1e-9)
    assert one.root == two.root


def test_covariates_that_do_not_vary_and_leaves_too_large(data):
    gamma, X = data
    for tree in (policy_tree(gamma, np.ones((N, 2))), policy_tree(gamma, X, min_leaf=N - 1)):
        assert tree.root == int(gamma.sum(axis=0).argmax())
        assert tree.predict(X).shape == (N,)


def test_fewer_thresholds_are_no_better(data):
    gamma, X = data
    assert policy_tree(gamma, X, thresholds=2).value <= policy_tree(gamma, X).value


def test_costs_and_values():
    signal = np.array([2.0, -1.0, 0.5])
    assert rewards(signal, 1.0)[:, 1].tolist() == [1.0, -2.0, -0.5]
    value = policy_value(rewards(signal), np.array([1, 0, 1]))
    assert abs(float(value.theta) - 2.5 / 3) < 1e-6
    d, m = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    u = partialled_out_signal(np.array([3.0, 1.0]), d, np.array([1.0, 1.0]), m)
    assert u.tolist() == [4.0, 0.0]


def test_a_value_at_the_threshold_goes_left():
    tree = PolicyTree(Split(0, 1.0, 0, 1), 0.0)
    assert tree.predict(np.array([[1.0], [1.1]])).tolist() == [0, 1]


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"depth": 3}, "depth 1 or 2"),
        ({"min_leaf": 0}, "at least one unit"),
        ({"X": np.full((N, 1), np.nan)}, "finite"),
        ({"X": np.ones((3, 1))}, "shapes"),
        ({"weights": -np.ones(N)}, "not negative"),
        ({"weights": np.ones(3)}, f"{N} rows in the weights"),
    ],
)
def test_refusals(data, options, sentence):
    with pytest.raises(UserError, match=sentence):
        policy_tree(**({"gamma": data[0], "X": data[1]} | options))


def test_what_a_tree_cannot_judge_is_refused():
    tree = PolicyTree(Split(1, 1.0, 0, 1), 0.0)
    with pytest.raises(UserError, match="finite numbers in X, found 1"):
        tree.predict([[0.0, np.nan]])
    with pytest.raises(UserError, match="2 or more covariates"):
        tree.predict([[0.0]])
    with pytest.raises(UserError, match="actions 0 to 1"):
        policy_value(rewards([1.0, 2.0]), np.array([0, 2]))
