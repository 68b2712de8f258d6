"""Attention between tokens, with groups of heads that share keys and values."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcore.ops.precision import accumulation_dtype
from jaxcore.ops.products import stacked_products


def attention_scores(
    q: Float[Array, "b t h d"], k: Float[Array, "b s kv d"]
) -> Float[Array, "b h t s"]:
    """``q k / sqrt(d)``, head ``i`` with the keys ``i // (h / kv)``, in at least float32.

    >>> attention_scores(jnp.ones((1, 3, 4, 4)), jnp.ones((1, 5, 2, 4)))[0, :, 0, 0].tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    return _scores(q, k).reshape(q.shape[0], q.shape[2], q.shape[1], k.shape[1])


def masked_softmax(
    scores: Float[Array, "*b t s"], allowed: Bool[Array, "*b t s"] | None = None
) -> Float[Array, "*b t s"]:
    """Softmax over the last axis; exactly 0 where not allowed, and where a row allows nothing.

    Args:
      scores: of at least float32.
      allowed: of as many axes; those of length one count for all.

    >>> masked_softmax(jnp.ones((2, 2)), jnp.array([[True, False], [False, False]])).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    weights, total = _exponentials(scores, allowed)
    return weights / total


def attention_weights(
    q: Float[Array, "b t h d"],
    k: Float[Array, "b s kv d"],
    allowed: Bool[Array, "_ t s"] | None = None,
) -> Float[Array, "b h t s"]:
    """:func:`masked_softmax` of :func:`attention_scores`.

    Args:
      q: queries.
      k: keys; their heads divide those of the queries.
      allowed: which keys a query may see, for every row or for all (first axis of length one).

    >>> q = k = jnp.eye(2).reshape(1, 2, 1, 2)
    >>> attention_weights(q, k, jnp.array([[[True, False], [False, False]]]))[0, 0].tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    return masked_softmax(attention_scores(q, k), None if allowed is None else allowed[:, None])


def weighted_values(
    weights: Float[Array, "b h t s"], v: Float[Array, "b s kv d"]
) -> Float[Array, "b t h d"]:
    """Sum over the keys of weight times value, in the type of the values.

    >>> weighted_values(jnp.ones((1, 4, 3, 2)), jnp.ones((1, 2, 2, 5))).shape
    (1, 3, 4, 5)
    """
    rows = weights.reshape(len(weights), v.shape[2], -1, v.shape[1]).astype(v.dtype)
    return _by_query(_sums(rows, v), weights.shape[2]).astype(v.dtype)


def token_attention(
    q: Float[Array, "b t h d"],
    k: Float[Array, "b s kv d"],
    v: Float[Array, "b s kv d"],
    allowed: Bool[Array, "_ t s"] | None = None,
    *,
    causal: bool = False,
    at_once: int = 1024,
) -> Float[Array, "b t h d"]:
    """:func:`weighted_values` of :func:`attention_weights`; 0 for a query that may see no key.

    Args:
      q: queries.
      k: keys.
      v: values.
      allowed: which keys a query may see; None: all.
      causal: query ``i`` may see none of the keys behind key ``i``, and ``allowed`` says so: most
        of them are then left out of the products.
      at_once: queries whose weights are held at a time, forward and backward.

    >>> x = jnp.ones((1, 3, 2, 4))
    >>> allowed = jnp.tril(jnp.ones((1, 3, 3), bool))
    >>> token_attention(x, x, x, allowed, causal=True).shape
    (1, 3, 2, 4)
    """
    count = q.shape[1]
    if causal and allowed is not None and _WORTH_CUTTING <= count <= _BLOCKS * at_once:
        size = -(-count // _BLOCKS)
        attend = _attend if count <= at_once else jax.checkpoint(_attend)
        cuts = [(i, min(i + size, count)) for i in range(0, count, size)]
        each = [attend(q[:, i:j], k[:, :j], v[:, :j], allowed[:, i:j, :j]) for i, j in cuts]
        return jnp.concatenate(each, axis=1)
    if count <= at_once:
        return _attend(q, k, v, allowed)
    parts = -(-count // at_once)

    def cut(a: Array) -> Array:
        rest = ((0, 0), (0, parts * at_once - count)) + ((0, 0),) * (a.ndim - 2)
        return jnp.moveaxis(jnp.pad(a, rest).reshape(len(a), parts, at_once, *a.shape[2:]), 1, 0)

    def one(inputs: tuple[Array, Array | None]) -> Array:
        return _attend(inputs[0], k, v, inputs[1])

    found = jax.lax.map(jax.checkpoint(one), (cut(q), None if allowed is None else cut(allowed)))
    return jnp.moveaxis(found, 0, 1).reshape(len(q), -1, *found.shape[3:])[:, :count]


_BLOCKS, _WORTH_CUTTING = 4, 64  # of causal queries: 5/8 of the work is left


def _attend(q: Array, k: Array, v: Array, allowed: Array | None) -> Array:
    if allowed is not None:
        groups = q.shape[2] // k.shape[2]
        allowed = jnp.tile(allowed, (1, groups, 1))[:, None]
    weights, total = _exponentials(_scores(q, k), allowed)
    # Divided afterwards: there are fewer values than weights.
    out = (_sums(weights.astype(v.dtype), v) / total).astype(v.dtype)
    return _by_query(out, q.shape[1])


def _scores(q: Array, k: Array) -> Array:
    """Scores of shape (b, kv, h / kv t, s).

    Queries of all heads that share keys are rows of one matrix: the CPU is three times as fast as
    with axes left where they are.
    """
    batch, queries, _, width = q.shape
    shared, wide = k.shape[2], accumulation_dtype(q.dtype)
    scale = jnp.asarray(width**-0.5, wide)
    exact = q.dtype == wide
    rows = jnp.moveaxis(q.reshape(batch, queries, shared, -1, width), 1, 3)
    rows = rows.reshape(batch, shared, -1, width)
    # There are fewer queries than scores, but narrow ones would be rounded once more.
    rows = rows * scale if exact else rows
    scores = stacked_products(rows, jnp.transpose(k, (0, 2, 3, 1)), wide)
    return scores if exact else scores * scale


def _sums(weights: Array, v: Array) -> Array:
    """Weighted values (b, kv, h / kv t, d) of weights (b, kv, h / kv t, s)."""
    return stacked_products(weights, v.swapaxes(1, 2), accumulation_dtype(v.dtype))


def _by_query(rows: Array, queries: int) -> Array:
    """Rows (b, kv, h / kv t, d) as (b, t, h, d)."""
    batch, shared, _, width = rows.shape
    rows = rows.reshape(batch, shared, -1, queries, width)
    return jnp.moveaxis(rows, 3, 1).reshape(batch, queries, -1, width)


def _exponentials(scores: Array, allowed: Array | None) -> tuple[Array, Array]:
    """``exp(score - largest score)``, and its sum over the keys, 1 where there are none."""
    if allowed is not None:
        scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
    largest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - largest)
    if allowed is None:
        return weights, jnp.sum(weights, axis=-1, keepdims=True)
    weights = jnp.where(allowed, weights, 0)  # else a query without any key would see all of them
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights, jnp.where(total == 0, 1, total)
