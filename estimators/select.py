"""Choice among candidate nuisance learners by a pseudo-risk, for any multiply robust functional.

``T[s, c]`` is the estimate from evaluation fold ``s`` with the combination ``c`` of learners, one
axis per nuisance block. A *model* is a set of blocks whose correctness alone makes the estimate
right; if the learners of these blocks are kept, swapping all others must not move ``T``. The
pseudo-risk of a model at ``c`` is the largest such movement.

The criterion for two models (doubly robust functionals) follows Cui and Tchetgen Tchetgen (2024),
as known from secondary descriptions; the extension to any family of models, the minimax variant
and the smooth variant are this library's own.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators import bootstrap
from jaxcore.typing import Key

CRITERIA = ("mixed_minimax", "minimax")

DOUBLY_ROBUST_BLOCKS = ("p", "b")
DOUBLY_ROBUST: Mapping[str, tuple[str, ...]] = {"p": ("p",), "b": ("b",)}
"""Models of a doubly robust functional with blocks ``p`` (weights) and ``b`` (outcome)."""

_PAIRS_AT_ONCE = 1 << 22  # numbers held while pairs of combinations are compared


class Selection(NamedTuple):
    """What a selection decided, and the tables behind it."""

    # chosen learner of each block
    index: Int[Array, " blocks"]  # type: ignore[override]  # hides the method of tuples
    criterion: Float[Array, "*learners"]  # B(c), smaller is better
    risks: dict[str, Float[Array, "*learners"]]  # R_j(c) of each model


class SmoothSelection(NamedTuple):
    """A differentiable selection with its delta-method standard error."""

    theta: Float[Array, ""]
    se: Float[Array, ""]
    psi: Float[Array, " n"]
    criterion: Float[Array, "*learners"]
    weights: Float[Array, "*learners"]
    gradient: Float[Array, "k *learners"]
    scale: Float[Array, ""]


def pseudo_risk(
    T: Float[Array, "k *learners"],
    models: Mapping[str, tuple[str, ...]],
    blocks: tuple[str, ...],
) -> dict[str, Float[Array, "*learners"]]:
    """Largest mean squared movement of ``T`` when the blocks outside a model are swapped.

    Args:
      T: estimates, axes [fold, one per block].
      models: name of each model -> the blocks it keeps.
      blocks: names of the learner axes of ``T``.

    Returns:
      For each model an array over all combinations (constant over the swapped blocks).

    >>> import jax.numpy as jnp
    >>> T = jnp.array([[[0.0, 1.0], [3.0, 3.0]]])
    >>> pseudo_risk(T, DOUBLY_ROBUST, DOUBLY_ROBUST_BLOCKS)["p"].tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    _check_blocks(T, models, blocks)
    return {name: _risk(T, tuple(kept), tuple(blocks)) for name, kept in models.items()}


@functools.partial(jax.jit, static_argnames=("kept", "blocks"))
def _risk(
    T: Float[Array, "k *learners"], kept: tuple[str, ...], blocks: tuple[str, ...]
) -> Float[Array, "*learners"]:
    return _per_kept(T, kept, blocks, jnp.max)


def _check_blocks(
    T: Float[Array, "k *learners"], models: Mapping[str, tuple[str, ...]], blocks: tuple[str, ...]
) -> None:
    if T.ndim != len(blocks) + 1:
        raise UserError(
            f"Expected T with a fold axis and {len(blocks)} learner axes {blocks}, "
            f"found {T.ndim} axes."
        )
    for name, kept in models.items():
        if set(kept) - set(blocks):
            raise UserError(
                f"Expected model {name!r} to keep blocks of {blocks}, found {tuple(kept)}."
            )


def _per_kept(
    T: Float[Array, "k *learners"],
    kept: tuple[str, ...],
    blocks: tuple[str, ...],
    reduce: Callable[[Array], Array],
) -> Array:
    """Reduce the mean squared differences of all ordered pairs, once per kept combination.

    One value per kept combination, broadcast: computing it per combination could break exact
    ties by rounding.
    """
    keep = [1 + i for i, b in enumerate(blocks) if b in kept]
    swap = [1 + i for i, b in enumerate(blocks) if b not in kept]
    shape = [T.shape[i] for i in keep]
    x = jnp.transpose(T, (*keep, 0, *swap)).reshape(_product(shape), T.shape[0], -1)

    def spread(t: Array) -> Array:
        return reduce(jnp.mean((t[:, :, None] - t[:, None, :]) ** 2, axis=0))

    at_once = max(1, _PAIRS_AT_ONCE // (x.shape[1] * x.shape[2] ** 2))
    whole = x.shape[0] <= at_once  # without a loop there is less to compile
    risk = jax.vmap(spread)(x) if whole else jax.lax.map(spread, x, batch_size=at_once)
    full = [n if 1 + i in keep else 1 for i, n in enumerate(T.shape[1:])]
    return jnp.broadcast_to(risk.reshape(full), T.shape[1:])


def _product(shape: Sequence[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def criterion_of(
    risks: Mapping[str, Float[Array, "*learners"]], criterion: str = "mixed_minimax"
) -> Float[Array, "*learners"]:
    """Combine the risks of the models: their sum (mixed minimax) or their maximum (minimax)."""
    if criterion not in CRITERIA:
        raise UserError(f"Expected a criterion of {', '.join(CRITERIA)}, found {criterion!r}.")
    stacked = jnp.stack(list(risks.values()))
    return jnp.sum(stacked, axis=0) if criterion == "mixed_minimax" else jnp.max(stacked, axis=0)


def select(
    T: Float[Array, "k *learners"],
    criterion: str,
    models: Mapping[str, tuple[str, ...]],
    blocks: tuple[str, ...],
) -> Selection:
    """Choose the combination with the smallest criterion (ties: lowest index, last axis fastest).

    >>> import jax.numpy as jnp
    >>> T = jnp.array([[[0.0, 1.0], [3.0, 3.0]]])
    >>> select(T, "mixed_minimax", DOUBLY_ROBUST, DOUBLY_ROBUST_BLOCKS).index.tolist()
    [1, 1]
    """
    risks = pseudo_risk(T, models, blocks)
    b = criterion_of(risks, criterion)
    return Selection(place_of_least(b), b, risks)


def place_of_least(x: Float[Array, "*learners"]) -> Int[Array, " blocks"]:
    """Index of the smallest entry on every axis (ties: the first, last axis fastest).

    >>> import jax.numpy as jnp
    >>> place_of_least(jnp.array([[2.0, 1.0], [1.0, 0.0]])).tolist()
    [1, 1]
    """
    places = np.indices(x.shape, dtype=np.int32).reshape(x.ndim, -1).T
    return jnp.asarray(places)[jnp.argmin(x)]


def smooth_select(
    U: Float[Array, "n *learners"],
    fold_ids: Int[Array, " n"],
    n_folds: int,
    models: Mapping[str, tuple[str, ...]],
    blocks: tuple[str, ...],
    *,
    beta: float = 5.0,
    lam: float = 10.0,
    weights: Float[Array, " n"] | None = None,
) -> SmoothSelection:
    """Differentiable selection: soft maxima of the movements and soft weights of combinations.

    Args:
      U: uncentred moments of every unit and combination, out of fold.
      fold_ids: evaluation fold of each unit.
      n_folds: number of folds.
      models: see `pseudo_risk`.
      blocks: see `pseudo_risk`.
      beta: sharpness of the soft maximum (finite); the larger, the nearer to the maximum.
      lam: sharpness of the weights (finite); the larger, the nearer to the hard choice.
      weights: observation weights.

    Returns:
      The estimate with the delta-method standard error (nuisances held fixed).
    """
    n = U.shape[0]
    w = jnp.ones(n, U.dtype) if weights is None else weights
    T, fold_weight = fold_means(U, fold_ids, n_folds, weights=w)
    soft = smooth_weights(T, fold_weight, models, blocks, beta=beta, lam=lam)
    psi = smooth_psi(U, fold_ids, T, fold_weight, soft.gradient, weights=w, n=n)
    se = jnp.sqrt(jnp.mean(psi**2) / n)
    return soft._replace(se=se, psi=psi)


def smooth_weights(
    T: Float[Array, "k *learners"],
    fold_weight: Float[Array, " k"],
    models: Mapping[str, tuple[str, ...]],
    blocks: tuple[str, ...],
    *,
    beta: float = 5.0,
    lam: float = 10.0,
) -> SmoothSelection:
    """The smooth estimate and its gradient from the table of estimates alone.

    ``psi`` is empty and ``se`` NaN: they need the moments of the units, see `smooth_psi`.
    """
    kept = tuple(tuple(k) for k in models.values())
    return _smooth_weights(T, fold_weight, kept, tuple(blocks), beta, lam)


@functools.partial(jax.jit, static_argnames=("models", "blocks"))
def _smooth_weights(
    T: Float[Array, "k *learners"],
    fold_weight: Float[Array, " k"],
    models: tuple[tuple[str, ...], ...],
    blocks: tuple[str, ...],
    beta: float,
    lam: float,
) -> SmoothSelection:
    n_folds = T.shape[0]
    share = fold_weight / jnp.sum(fold_weight)
    hard = jnp.sum(jnp.stack([_risk(T, kept, blocks) for kept in models]), axis=0)
    scale = jax.lax.stop_gradient(jnp.median(hard))
    scale = jnp.where(scale > 0, scale, 1.0)  # one combination: nothing moves, nothing to scale

    def soft_max(d: Array) -> Array:
        x = d.reshape(-1)
        return jnp.sum(x * jax.nn.softmax(beta * x / scale))

    def theta_of(t: Array) -> tuple[Array, tuple[Array, Array]]:
        b = sum(_per_kept(t, kept, blocks, soft_max) for kept in models)
        b = jnp.asarray(b)
        q = jax.nn.softmax(-lam * b.reshape(-1) / scale).reshape(b.shape)
        per_fold = jnp.sum((q[None] * t).reshape(n_folds, -1), axis=1)
        return jnp.sum(share * per_fold), (b, q)

    (theta, (b, q)), gradient = jax.value_and_grad(theta_of, has_aux=True)(T)
    nothing = jnp.zeros(0, T.dtype)
    return SmoothSelection(theta, jnp.full_like(theta, jnp.nan), nothing, b, q, gradient, scale)


def smooth_psi(
    U: Float[Array, "m *learners"],
    fold_ids: Int[Array, " m"],
    T: Float[Array, "k *learners"],
    fold_weight: Float[Array, " k"],
    gradient: Float[Array, "k *learners"],
    *,
    weights: Float[Array, " m"],
    n: int,
) -> Float[Array, " m"]:
    """Delta-method influence values of the smooth estimate for some of the ``n`` units."""
    k = T.shape[0]
    g, t = gradient.reshape(k, -1)[fold_ids], T.reshape(k, -1)[fold_ids]
    moved = jnp.sum(g * (U.reshape(U.shape[0], -1) - t), axis=1)
    return weights * n / fold_weight[fold_ids] * moved


def fold_means(
    U: Float[Array, "n *learners"],
    fold_ids: Int[Array, " n"],
    n_folds: int,
    *,
    weights: Float[Array, " n"] | None = None,
) -> tuple[Float[Array, "k *learners"], Float[Array, " k"]]:
    """Weighted mean of ``U`` within each fold, and the weight of each fold."""
    w = jnp.ones(U.shape[0], U.dtype) if weights is None else weights
    member = jax.nn.one_hot(fold_ids, n_folds, dtype=U.dtype, axis=0) * w[None]
    total = jnp.sum(member, axis=1)
    means = member @ U.reshape(U.shape[0], -1) / total[:, None]
    return means.reshape(n_folds, *U.shape[1:]), total


def bootstrap_selection(
    key: Key,
    U: Float[Array, "n *learners"],
    fold_ids: Int[Array, " n"],
    n_folds: int,
    models: Mapping[str, tuple[str, ...]],
    blocks: tuple[str, ...],
    *,
    criterion: str = "mixed_minimax",
    n_boot: int = 500,
    weights: Float[Array, " n"] | None = None,
    batch_size: int = 50,
) -> tuple[Float[Array, " b"], Int[Array, "b blocks"]]:
    """Multiplier bootstrap of the whole selection, with the nuisances held fixed.

    Every draw weighs the rows of ``U`` by unit exponentials, recomputes ``T``, and selects again.

    Args:
      key: PRNG key.
      U: uncentred moments, out of fold.
      fold_ids: evaluation fold of each unit.
      n_folds: number of folds.
      models: see `pseudo_risk`.
      blocks: see `pseudo_risk`.
      criterion: "mixed_minimax" or "minimax".
      n_boot: number of draws.
      weights: observation weights.
      batch_size: draws computed at a time.

    Returns:
      The selected estimate and the selected learners of every draw.
    """
    n = U.shape[0]
    w = jnp.ones(n, U.dtype) if weights is None else weights

    def one(k: Key) -> tuple[Array, Array]:
        xi = w * (1 + bootstrap.multipliers(k, (n,), "bayes", U.dtype))
        T, total = fold_means(U, fold_ids, n_folds, weights=xi)
        index = select(T, criterion, models, blocks).index
        theta = T.reshape(n_folds, -1)[:, jnp.ravel_multi_index(tuple(index), T.shape[1:], "clip")]
        return jnp.sum(theta * total) / jnp.sum(total), index

    return jax.lax.map(one, jax.random.split(key, n_boot), batch_size=min(batch_size, n_boot))
