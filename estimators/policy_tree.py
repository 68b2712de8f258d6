"""Who should be treated: the best tree of depth one or two, by exact search.

The value of a policy is the mean of a doubly robust signal of each action's outcome over those who
get it (Athey and Wager 2021). The search tries every tree; nothing is greedy.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from jaxcore.errors import UserError, readable
from jaxcore.estimators import influence
from jaxcore.estimators.arguments import checked_units
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.precision import check_finite, in_double
from jaxcore.estimators.units import INDEPENDENT, Units


@dataclasses.dataclass(frozen=True)
class Split:
    """Units with ``X[:, feature] <= threshold`` go left."""

    feature: int
    threshold: float
    left: "Node"
    right: "Node"


Node: TypeAlias = Split | int
"""A split, or the action of a leaf."""


def _features(node: Node) -> set[int]:
    """The covariates that a node and those below it look at."""
    if isinstance(node, int):
        return set()
    return {node.feature} | _features(node.left) | _features(node.right)


@dataclasses.dataclass(frozen=True)
class PolicyTree:
    """A tree that gives every unit an action, and its mean reward on the data it was searched on.

    That value is optimistic: judge a tree by `policy_value` on units that were not searched on.
    """

    root: Node
    value: float

    def predict(self, X: ArrayLike) -> Int[np.ndarray, " n"]:
        """Action of each row of covariates.

        Raises:
          UserError: too few columns, or values that are not finite.
        """
        X, p = np.asarray(X, np.float64), 1 + max(_features(self.root), default=-1)
        if X.ndim != 2 or X.shape[1] < p:
            raise UserError(f"Expected {p} or more covariates, found an array of shape {X.shape}.")
        check_finite({"X": X})

        def actions(node: Node) -> np.ndarray:
            if isinstance(node, int):
                return np.full(len(X), node)
            left = X[:, node.feature] <= node.threshold
            return np.where(left, actions(node.left), actions(node.right))

        return actions(self.root)

    def describe(
        self, covariates: Sequence[str] | None = None, actions: Sequence[str] | None = None
    ) -> str:
        """The tree in lines of text.

        >>> print(PolicyTree(Split(0, 1.5, 0, 1), 0.2).describe(["age"], ["wait", "treat"]))
        if age <= 1.5:
          wait
        else:
          treat
        """

        def lines(node: Node, indent: str) -> list[str]:
            if isinstance(node, int):
                return [indent + (readable(actions[node]) if actions else f"action {node}")]
            name = readable(covariates[node.feature]) if covariates else f"x{node.feature + 1}"
            head = [f"{indent}if {name} <= {node.threshold:g}:", f"{indent}else:"]
            inner = indent + "  "
            return [head[0], *lines(node.left, inner), head[1], *lines(node.right, inner)]

        return "\n".join(lines(self.root, ""))


@in_double
def partialled_out_signal(
    y: Float[Array, " n"], d: Float[Array, " n"], l: Float[Array, " n"], m: Float[Array, " n"]
) -> Float[Array, " n"]:
    """Signal of the effect in the partially linear model: ``(y - l)(d - m) / mean((d - m)^2)``.

    Its mean within a group is the group's effect times the group's share in the variance of the
    treatment, so signs are right and policies count groups by that share. In the interactive model
    the signal is ``psi_b`` of `influence.aipw`.
    """
    return (y - l) * (d - m) / jnp.mean((d - m) ** 2)


def rewards(signal: ArrayLike, cost: float = 0.0) -> Float[np.ndarray, "n 2"]:
    """Rewards of not treating (zero) and treating (the effect's signal less its cost).

    >>> rewards(np.array([2.0]), 0.5).tolist()
    [[0.0, 1.5]]
    """
    signal = np.asarray(signal, np.float64)
    return np.stack([np.zeros_like(signal), signal - cost], axis=1)


def policy_tree(
    gamma: ArrayLike,
    X: ArrayLike,
    *,
    depth: int = 2,
    min_leaf: int = 1,
    thresholds: int | None = None,
    weights: ArrayLike | None = None,
) -> PolicyTree:
    """The tree with the largest mean reward.

    Args:
      gamma: reward of each unit under each action (n, actions), as `rewards`, or ``psi_b`` of each
        level in `influence.potential_mean`.
      X: covariates the tree may split on (n, p).
      depth: 1 or 2. Depth 2 takes of the order of ``(n p)^2`` operations per action.
      min_leaf: fewest units in a leaf.
      thresholds: at most so many splits of each covariate, at quantiles; None tries all.
      weights: observation weights.

    Raises:
      UserError: shapes, depth, or values that are not finite.

    References:
      Zhou, Athey and Wager (2023), Offline multi-action policy learning.

    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> policy_tree(rewards([-1.0, -1.0, 2.0, 2.0]), x, depth=1).root
    Split(feature=0, threshold=1.5, left=0, right=1)
    """
    gamma, X = np.asarray(gamma, np.float64), np.asarray(X, np.float64)
    if gamma.ndim != 2 or X.ndim != 2 or len(gamma) != len(X) or not X.shape[1]:
        raise UserError(
            "Expected rewards (n, actions) and covariates (n, p), found arrays of shapes "
            f"{gamma.shape} and {X.shape}."
        )
    if not (np.isfinite(gamma).all() and np.isfinite(X).all()):
        raise UserError("Expected finite rewards and covariates, found others.")
    if depth not in (1, 2) or min_leaf < 1 or (thresholds is not None and thresholds < 1):
        raise UserError(
            "Expected depth 1 or 2, at least one unit in a leaf and at least one threshold, found "
            f"depth={depth}, min_leaf={min_leaf}, thresholds={thresholds}."
        )
    n = len(X)
    given: Any = weights
    w: Any = np.ones(n) if given is None else checked_units(Units(given), n).weights
    order = np.argsort(X, axis=0, kind="stable").T
    ordered = np.take_along_axis(X.T, order, axis=1)
    allowed = np.concatenate([ordered[:, 1:] > ordered[:, :-1], np.zeros((X.shape[1], 1), bool)], 1)
    if thresholds is not None:
        allowed &= np.stack([_spread(row, thresholds) for row in allowed])
    with jax.enable_x64(True):
        data = _Sorted(
            jnp.asarray(gamma * (w / w.mean())[:, None]),
            jnp.asarray(order, jnp.int32),
            jnp.asarray(np.argsort(order, axis=1), jnp.int32),
            jnp.asarray(allowed),
        )
        everyone = jnp.ones(n, bool)
        if depth == 1 or not allowed.any():
            leaf = jax.device_get(_best_split(data, everyone, min_leaf))
            return PolicyTree(_node(leaf, ordered), float(leaf.value) / n)
        feature, place = np.nonzero(allowed)
        pairs = jnp.asarray(np.stack([feature, place], axis=1), jnp.int32)
        root, left, right = jax.device_get(_best_pair(data, pairs, min_leaf))
    if not np.isfinite(left.value + right.value):  # no split leaves enough units on both sides
        return policy_tree(gamma, X, depth=1, min_leaf=min_leaf, weights=w)
    j, i = (int(v) for v in root)
    sides = _node(left, ordered), _node(right, ordered)
    return PolicyTree(Split(j, _middle(ordered, j, i), *sides), float(left.value + right.value) / n)


@in_double
def policy_value(
    gamma: Float[Array, "n actions"],
    action: Int[Array, " n"],
    units: Units = INDEPENDENT,
) -> Estimate:
    """Mean reward of a policy, with its error.

    Valid for a policy that was chosen on other units; not checked.

    Args:
      gamma: reward of each unit under each action.
      action: what the policy gives each unit.
      units: observation weights and clusters.

    Raises:
      UserError: outside of ``jit``: actions that there are not.
    """
    gamma, action = jnp.asarray(gamma), jnp.asarray(action)
    if not isinstance(action, Tracer) and not np.all((action >= 0) & (action < gamma.shape[1])):
        raise UserError(f"Expected actions 0 to {gamma.shape[1] - 1}, found others.")
    got = jnp.take_along_axis(gamma, action[:, None], axis=1)[:, 0]
    score = influence.LinearScore(-jnp.ones_like(got), got)
    return influence.solve(score, units, names=("value",), estimator="policy value")


# --- the search ---------------------------------------------------------------------------------


class _Sorted(NamedTuple):
    gamma: Float[Array, "n actions"]  # weighted
    order: Int[Array, "p n"]  # units by size of each covariate
    rank: Int[Array, "p n"]  # place of each unit in it
    allowed: Bool[Array, "p n"]  # whether a split may come after a place


class _Leaf(NamedTuple):
    """The best split of some units; both actions are the same where none is better."""

    value: Float[Array, ""]  # sum of rewards
    feature: Int[Array, ""]
    place: Int[Array, ""]
    left: Int[Array, ""]
    right: Int[Array, ""]


@jax.jit
def _best_split(data: _Sorted, member: Bool[Array, " n"], min_leaf: int | Array) -> _Leaf:
    kept = data.gamma * member[:, None].astype(data.gamma.dtype)
    total, count = jnp.sum(kept, axis=0), jnp.sum(member)

    def along(order: Array, allowed: Array) -> tuple[Array, Array]:
        left = jnp.cumsum(kept[order], axis=0)
        units = jnp.cumsum(member[order])
        enough = allowed & (units >= min_leaf) & (count - units >= min_leaf)
        value = jnp.max(left, axis=1) + jnp.max(total[None] - left, axis=1)
        return jnp.where(enough, value, -jnp.inf), left

    value, left = jax.vmap(along)(data.order, data.allowed)
    best = jnp.argmax(value)
    feature, place = best // value.shape[1], best % value.shape[1]
    on_left, whole = left[feature, place], jnp.max(total)
    split = value[feature, place] > whole
    same = jnp.argmax(total)
    whole = jnp.where(count >= min_leaf, whole, -jnp.inf)
    return _Leaf(
        jnp.where(split, value[feature, place], whole),
        feature.astype(jnp.int32),
        place.astype(jnp.int32),
        jnp.where(split, jnp.argmax(on_left), same).astype(jnp.int32),
        jnp.where(split, jnp.argmax(total - on_left), same).astype(jnp.int32),
    )


@functools.partial(jax.jit, static_argnames=("at_once",))
def _best_pair(
    data: _Sorted, pairs: Int[Array, "c 2"], min_leaf: int | Array, *, at_once: int = 16
) -> tuple[Int[Array, "2"], _Leaf, _Leaf]:
    def both(pair: Array) -> tuple[_Leaf, _Leaf]:
        left = data.rank[pair[0]] <= pair[1]
        return _best_split(data, left, min_leaf), _best_split(data, ~left, min_leaf)

    def value(pair: Array) -> Array:
        left, right = both(pair)
        return left.value + right.value

    values = jax.lax.map(value, pairs, batch_size=min(at_once, pairs.shape[0]))
    best = pairs[jnp.argmax(values)]
    return best, *both(best)


def _node(leaf: _Leaf, ordered: np.ndarray) -> Node:
    left, right = int(leaf.left), int(leaf.right)
    if left == right:
        return left
    j, i = int(leaf.feature), int(leaf.place)
    return Split(j, _middle(ordered, j, i), left, right)


def _middle(ordered: np.ndarray, j: int, i: int) -> float:
    low, high = ordered[j, i], ordered[j, i + 1]
    middle = low + (high - low) / 2
    return float(middle if middle < high else low)


def _spread(allowed: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of the allowed places, evenly spread."""
    places = np.nonzero(allowed)[0]
    out = np.zeros_like(allowed)
    if len(places):
        out[places[np.unique(np.linspace(0, len(places) - 1, count).round().astype(int))]] = True
    return out
