"""Cross-fitting: integer fold ids, 0/1 training weights, one `vmap` over folds."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from jaxcore.errors import UserError
from jaxcore.estimators.nuisance.base import Learner, fit_predict, fit_predict_find
from jaxcore.estimators.nuisance.host import HostLearner
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.typing import Key


def fold_ids(
    key: Key,
    n: int,
    n_folds: int,
    *,
    strata: Int[Array, " n"] | None = None,
    units: Units = INDEPENDENT,
) -> Int[Array, "n *ways"]:
    """Random balanced partition of ``n`` units into ``n_folds`` folds.

    Args:
      key: PRNG key.
      n: number of units.
      n_folds: number of folds, at least 2 and at most the number of units or clusters.
      strata: stratum number of each unit; every fold gets its share of each stratum.
      units: a cluster is never split over folds; clusters of several kinds are dealt out kind by
        kind, and a unit's fold is the combination of the folds of its clusters.

    Returns:
      Fold number of each unit, int32; with clusters of several kinds a column for each.

    >>> import jax
    >>> sorted(fold_ids(jax.random.key(0), 5, 2).tolist())
    [0, 0, 0, 1, 1]
    """
    if units.multiway:
        ways = units.ways()
        keys = jax.random.split(key, len(ways))
        each = [fold_ids(k, n, n_folds, units=w) for k, w in zip(keys, ways, strict=True)]
        return jnp.stack(each, axis=1)
    if units.clusters is not None:
        members = units.sums(jnp.ones(n))
        level = None
        if strata is not None:  # clusters are put in order of their mean stratum
            level = units.sums(jnp.asarray(strata, members.dtype)) / jnp.maximum(members, 1)
        return _balanced(key, len(members), n_folds, level, "clusters")[units.clusters]
    return _balanced(key, n, n_folds, strata, "units")


def _balanced(key: Key, n: int, n_folds: int, strata: Array | None, what: str) -> Int[Array, " n"]:
    if not 2 <= n_folds <= n:
        raise UserError(f"Expected 2 to {n} folds for {n} {what}, found {n_folds}.")
    shuffled = jax.random.permutation(key, n)
    if strata is not None:  # a stable sort keeps the shuffled order inside each stratum
        shuffled = shuffled[jnp.argsort(strata[shuffled], stable=True)]
    turn = jnp.arange(n, dtype=jnp.int32) % n_folds
    return jnp.zeros(n, jnp.int32).at[shuffled].set(turn)


def check_fold_ids(ids: ArrayLike, n: int) -> tuple[np.ndarray, int]:
    """Fold ids given by a user, as int32, and their number.

    Raises:
      UserError: wrong length, not whole numbers 0 .. k-1, or an empty fold.
    """
    a = np.asarray(ids)
    if a.shape != (n,):
        raise UserError(f"Expected {n} fold ids, found an array of shape {a.shape}.")
    if a.dtype.kind not in "biuf" or not np.all(np.isfinite(a) & (a == np.round(a))):
        raise UserError("Expected whole numbers as fold ids, found fractions, text or none.")
    a = a.astype(np.int32)
    k = int(a.max()) + 1
    if a.min() < 0 or k < 2 or len(np.unique(a)) != k:
        raise UserError(
            f"Expected fold ids 0, 1, ..., k-1 with k >= 2, each used, found {np.unique(a)[:10]}."
        )
    return a, k


def training_masks(
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    *,
    weights: Float[Array, " n"] | None = None,
    dtype: DTypeLike | None = None,
) -> Float[Array, "k n"]:
    """Training weights of every fold: zero on its own rows, the observation weight elsewhere.

    One fold means no cross-fitting: every row trains. With fold ids in several columns (clusters of
    several kinds) there is a fold for each combination, and no row trains that shares any of its
    clusters' folds (Chiang, Kato, Ma and Sasaki 2022).

    >>> import jax.numpy as jnp
    >>> training_masks(jnp.array([0, 1, 1]), 2).tolist()
    [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    if n_folds == 1:  # asked for explicitly: fit and evaluate on all rows
        masks = jnp.ones((1, fold_ids.shape[0]), dtype)
    else:
        masks = jnp.ones((1, fold_ids.shape[0]), dtype)
        for column in fold_ids.reshape(fold_ids.shape[0], -1).T:
            others = 1 - jax.nn.one_hot(column, n_folds, dtype=dtype, axis=0)
            masks = (masks[:, None] * others[None]).reshape(-1, masks.shape[1])
    return masks if weights is None else masks * weights[None]


def combined(fold_ids: Int[Array, "n *ways"], n_folds: int) -> Int[Array, " n"]:
    """One fold number for each combination of several columns; one column stays as it is.

    >>> import jax.numpy as jnp
    >>> combined(jnp.array([[0, 1], [1, 0]]), 2).tolist()
    [1, 2]
    """
    if fold_ids.ndim == 1:
        return fold_ids
    place = jnp.asarray([n_folds**j for j in reversed(range(fold_ids.shape[1]))], fold_ids.dtype)
    return fold_ids @ place


def own_fold(per_fold: Float[Array, "k *m n"], fold_ids: Int[Array, " n"]) -> Float[Array, "*m n"]:
    """Take for each unit the prediction of the fit that did not see it.

    Args:
      per_fold: predictions of all fits for all units, units last.
      fold_ids: fold of each unit.
    """
    index = fold_ids.reshape((1,) * (per_fold.ndim - 1) + (-1,))
    index = jnp.broadcast_to(index, (1, *per_fold.shape[1:]))
    return jnp.take_along_axis(per_fold, index, axis=0)[0]


def crossfit(
    learner: Learner | HostLearner,
    X: Float[Array, "n p"],
    y: Float[Array, " n"],
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    *,
    weights: Float[Array, " n"] | None = None,
    X_eval: Sequence[Float[Array, "n p"]] | None = None,
    key: Key | None = None,
) -> Float[Array, "*m n"]:
    """Out-of-fold predictions of one learner.

    Args:
      learner: a `Learner` of `jaxcore.estimators.nuisance`, or a host learner.
      X: features.
      y: target.
      fold_ids: fold of each unit.
      n_folds: number of folds.
      weights: observation weights.
      X_eval: feature arrays to predict at instead of ``X`` (for example with the treatment set
        to one); the result then has a leading axis over them.
      key: PRNG key for learners that draw.

    Returns:
      For each unit the prediction of the fit on the other folds.

    >>> import jax.numpy as jnp
    >>> from jaxcore.estimators.nuisance import Ridge
    >>> x = jnp.arange(6.0)[:, None]
    >>> ids = jnp.array([0, 1, 0, 1, 0, 1])
    >>> out = crossfit(Ridge(alpha=0.0), x, 2 * x[:, 0], ids, 2)
    >>> bool(jnp.allclose(out, 2 * x[:, 0], atol=1e-4))
    True
    """
    masks = training_masks(fold_ids, n_folds, weights=weights, dtype=X.dtype)
    at = (X,) if X_eval is None else tuple(X_eval)
    per_fold = fit_predict(learner, X, y, masks, at, key=key)
    out = own_fold(per_fold, combined(fold_ids, n_folds))
    return out[0] if X_eval is None else out


def crossfit_groups(
    learners: Sequence[Learner | HostLearner],
    X: Float[Array, "n p"],
    targets: Sequence[Float[Array, " n"]],
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    *,
    weights: Sequence[Float[Array, " n"]],
    keys: Key,
) -> tuple[Float[Array, "g n"], dict[str, Array]]:
    """`crossfit` of several groups of rows or targets at once, in one program.

    Args:
      learners: of every group; they differ in numbers alone.
      X: features.
      targets: of every group.
      fold_ids: fold of each unit.
      n_folds: number of folds.
      weights: weights of the rows of every group; zero leaves a row out.
      keys: PRNG key of every group.

    Returns:
      Predictions for all units by every group's fits, and what these found out (first axes group,
      fold; see `nuisance.base.fit_predict_find`).
    """
    masks = [training_masks(fold_ids, n_folds, weights=w, dtype=X.dtype) for w in weights]
    k, learner, y = masks[0].shape[0], learners[0], targets[0]
    each: Any = None  # outside learners draw by themselves
    own = any(one is not learner for one in learners)
    if not isinstance(learner, HostLearner):
        each = jax.vmap(lambda key: jax.random.split(key, k))(keys).reshape(-1)
        if own:
            learner = jax.tree.map(lambda *a: jnp.repeat(_together(a, X.dtype), k, 0), *learners)
    if any(one is not y for one in targets):
        y = jnp.repeat(jnp.stack(list(targets)), k, axis=0)
    out, found = fit_predict_find(learner, X, y, jnp.concatenate(masks), (X,), keys=each, own=own)
    out = out[:, 0].reshape(len(masks), k, -1)
    mine = own_fold(jnp.swapaxes(out, 0, 1), combined(fold_ids, n_folds))
    return mine, {name: v.reshape(len(masks), k, *v.shape[1:]) for name, v in found.items()}


def _together(leaves: Sequence[Any], dtype: DTypeLike) -> Array:
    """One setting of several learners, in the precision of the data if it is no whole number."""
    stacked = jnp.stack([jnp.asarray(leaf) for leaf in leaves])
    return stacked.astype(dtype) if jnp.issubdtype(stacked.dtype, jnp.floating) else stacked
