"""Counterfactual attention of language models: what takes the place of a softmax's weights.

Zhou et al. 2025, "Mitigating modality prior-induced hallucinations in multimodal large language
models via deciphering attention causality". Their functions know neither padding nor a cache and
leave rows that do not sum to one; ``mode="official"`` repeats them, ``mode="masked"`` keeps every
row a distribution over the keys that its query may see.

Random numbers belong to a row's key, the position of the query and that of the key among those
that it sees. They are the same with more padding, a longer cache, or token by token.
"""

from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxcore.errors import UserError
from jaxcore.ops.precision import accumulation_dtype
from jaxcore.typing import Key

EditKind: TypeAlias = Literal["random", "uniform", "reverse", "shuffle", "reverse_and_normalize"]
"""What the edited weights are made of; the last one is official and makes NaN of whole texts."""

EditMode: TypeAlias = Literal["masked", "official"]

# Reversed weights sum to zero where all weights are equal: less than this is taken for zero, so
# that no rounding errors are divided.
_FLAT = 1e-5


def check_kind(kind: str, mode: str) -> None:
    """Refuse what there is not.

    Raises:
      UserError: unknown kind or mode, or a pair that does not exist.
    """
    if kind not in get_args(EditKind):
        raise UserError(f"The kind of an edit must be one of {get_args(EditKind)}, found {kind!r}.")
    if mode not in get_args(EditMode):
        raise UserError(f"The mode of an edit must be one of {get_args(EditMode)}, found {mode!r}.")
    if (kind, mode) in (("shuffle", "official"), ("reverse_and_normalize", "masked")):
        raise UserError(f"There is no edit of kind {kind!r} in mode {mode!r}.")


def edit_language_attention(
    attn: Float[Array, "b h q k"],
    allowed: Bool[Array, "b q k"],
    kind: EditKind,
    *,
    mode: EditMode = "masked",
    rand: Float[Array, "b h q k"] | None = None,
    perm: Int[Array, "b h q k"] | None = None,
    keys: Key | None = None,
    positions: Int[Array, "b q"] | None = None,
    safe: bool = False,
) -> Float[Array, "b h q k"]:
    """Counterfactual weights in the place of attention weights.

    Masked, over the allowed keys of a query: "uniform" gives all the same, "reverse" the largest
    weight minus the weight, "random" uniform numbers, "shuffle" the same weights in another order;
    scaled to sum to one. Where nothing is left (a query that sees one key, reversed) all allowed
    keys get the same. Rows of a query that may see nothing are zero.

    Official: "uniform" is 1 / (number of keys of the last query), also for queries that see fewer;
    "random" is scaled before the mask; "reverse" is not scaled; "reverse_and_normalize" divides
    zero by zero in the first row, unless ``safe``. For batches without padding.

    Args:
      attn: weights after the softmax, zero where a key is not allowed.
      allowed: which key a query may see: earlier, and no padding.
      kind: see above.
      mode: see above.
      rand: the numbers of "random", in [0, 1), to be given instead of ``keys``.
      perm: for "shuffle": key k gets the weight of key ``perm[..., k]``; itself where not allowed.
      keys: one typed key per row of the batch, for what is not given.
      positions: of the queries, for random numbers; default: one less than the keys they may see,
        which is right where every query sees its own and all earlier tokens.
      safe: give "reverse_and_normalize" the equal weights of the masked mode in the place of NaN.

    Returns:
      Array of the shape and type of ``attn``.

    Raises:
      UserError: no such kind or mode; neither numbers nor keys.

    >>> attn = jnp.array([[[[1.0, 0.0, 0.0], [0.75, 0.25, 0.0], [0.5, 0.25, 0.25]]]])
    >>> causal = jnp.tri(3, dtype=bool)[None]
    >>> edit_language_attention(attn, causal, "reverse")[0, 0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]
    >>> edit_language_attention(attn, causal, "reverse", mode="official")[0, 0].tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.25, 0.25]]
    """
    check_kind(kind, mode)
    keep = allowed[:, None]
    if kind == "shuffle":
        if perm is None:
            perm = permutation_of_allowed(_keys(keys, kind), allowed, attn.shape[1], positions)
        return _kept(jnp.take_along_axis(attn, perm.astype(jnp.int32), axis=-1), keep)
    if kind == "random":
        if rand is None:
            rand = random_weights(_keys(keys, kind), allowed, attn.shape[1], positions)
        edited = rand.astype(attn.dtype)
    elif kind == "uniform":
        edited = jnp.ones_like(attn)
    else:
        edited = jnp.max(attn, axis=-1, keepdims=True) - attn
    if mode == "official":
        return _official(edited, keep, kind, safe)
    return _normalised(_kept(edited, keep), keep)


def _kept(weights: Array, keep: Array) -> Array:
    return jnp.where(keep, weights, jnp.zeros_like(weights))


def _official(edited: Array, keep: Array, kind: str, safe: bool) -> Array:
    if kind == "reverse":
        return _kept(edited, keep)
    if kind == "reverse_and_normalize":
        edited = _kept(edited, keep)
        if safe:
            return _normalised(edited, keep)
        return edited / jnp.sum(edited, axis=-1, keepdims=True) * keep.astype(edited.dtype)
    # Their keys are those of the last query: written, and without padding.
    there = jnp.any(keep, axis=2, keepdims=True)
    total = jnp.sum(_kept(edited, there), axis=-1, keepdims=True)
    return _kept(edited / jnp.maximum(total, jnp.finfo(edited.dtype).tiny), keep)


def _normalised(edited: Array, keep: Array) -> Array:
    """Rows that sum to one; the same for all allowed keys where nothing is left."""
    total = jnp.sum(edited, axis=-1, keepdims=True)
    empty = total < _FLAT
    equal = keep.astype(edited.dtype)
    count = jnp.maximum(jnp.sum(equal, axis=-1, keepdims=True), 1)
    scaled = edited / jnp.where(empty, jnp.ones_like(total), total)
    return jnp.where(empty, equal / count, scaled)


def _keys(keys: Key | None, kind: str) -> Key:
    if keys is None:
        raise UserError(f"An edit of kind {kind!r} needs one random key per row, found none.")
    return keys


def random_weights(
    keys: Key,
    allowed: Bool[Array, "b q k"],
    heads: int,
    positions: Int[Array, "b q"] | None = None,
) -> Float[Array, "b h q k"]:
    """Uniform numbers in [0, 1) of `edit_language_attention`, which explains the arguments."""
    rank = jnp.cumsum(allowed, axis=-1) - 1
    if positions is None:
        positions = rank[..., -1]

    def of_query(key: Array, position: Array, rank: Array) -> Array:
        # The n-th number of a key is the same however many are drawn: keys come first.
        drawn = jax.random.uniform(jax.random.fold_in(key, position), (rank.size, heads))
        return drawn[jnp.maximum(rank, 0)]

    drawn = jax.vmap(jax.vmap(of_query, (None, 0, 0)))(keys, positions, rank)
    return jnp.moveaxis(drawn, -1, 1)


def permutation_of_allowed(
    keys: Key,
    allowed: Bool[Array, "b q k"],
    heads: int,
    positions: Int[Array, "b q"] | None = None,
) -> Int[Array, "b h q k"]:
    """For every row, head and query a random order of the allowed keys; others stay in place."""
    drawn = random_weights(keys, allowed, heads, positions)
    keep = jnp.broadcast_to(allowed[:, None], drawn.shape)
    # The first n of both orders are the n allowed keys: in a random order, and as they stand.
    mixed = jnp.argsort(jnp.where(keep, drawn, 2.0), axis=-1, stable=True)
    places = jnp.argsort(~allowed, axis=-1, stable=True)
    rank = jnp.argsort(places, axis=-1)[:, None]
    return jnp.take_along_axis(mixed, jnp.broadcast_to(rank, mixed.shape), axis=-1)


def uniform_attention(
    v: Float[Array, "b k n d"], allowed: Bool[Array, "b q k"], *, mode: EditMode = "masked"
) -> Float[Array, "b q n d"]:
    """What attention with the weights of the kind "uniform" returns, without the weights.

    Args:
      v: values; with grouped queries as many heads as there are values, n.
      allowed: see `edit_language_attention`.
      mode: see there.

    >>> v = jnp.arange(3.0).reshape(1, 3, 1, 1)
    >>> uniform_attention(v, jnp.tri(3, dtype=bool)[None]).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    wide = accumulation_dtype(v.dtype)
    spec = "bqk,bknd->bqnd"
    total = jnp.einsum(spec, allowed.astype(v.dtype), v, preferred_element_type=wide)
    count = jnp.sum(allowed, axis=-1).astype(wide)[..., None, None]
    if mode == "official":
        count = jnp.max(count, axis=1, keepdims=True)
    return (total / jnp.maximum(count, 1)).astype(v.dtype)
