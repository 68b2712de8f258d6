"""Counterfactual attention of vision encoders, and the weights of patches made from it.

Zhou et al. 2025, "Mitigating modality prior-induced hallucinations in multimodal large language
models via deciphering attention causality", in the form of their released code: the edited map of
queries and keys, class token included, is read as an image, resized to the grid of the patches and
averaged over the heads. The patch features times these weights are the counterfactual ones.
"""

from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.ops.resize import bilinear_weights
from jaxcore.typing import Key

VisionKind: TypeAlias = Literal["random", "uniform", "reverse", "shuffle"]


def edit_vision_attention(
    attn: Float[Array, "b h n m"],
    kind: VisionKind,
    *,
    rand: Float[Array, "b h n m"] | None = None,
    perm: Int[Array, "h nm"] | None = None,
    keys: Key | None = None,
) -> Float[Array, "b h n m"]:
    """The whole counterfactual map; `patch_weights` does not need it.

    "random" is twice a uniform number, "uniform" the mean over the map, "reverse" the largest
    entry minus the entry, "shuffle" all entries of a map in another order.

    Args:
      attn: weights after the softmax.
      kind: see above.
      rand: the numbers of "random", in [0, 1).
      perm: for "shuffle", one order of all entries per head, the same for every row of the batch:
        entry i of the result is entry ``perm[head, i]``.
      keys: one typed key per row of the batch, for what is not given.

    Raises:
      UserError: no such kind; neither numbers nor keys.

    >>> attn = jnp.array([[[[0.75, 0.25], [0.5, 0.5]]]])
    >>> edit_vision_attention(attn, "reverse").ravel().tolist()
    [0.0, 0.5, 0.25, 0.25]
    """
    rows, columns = np.arange(attn.shape[2]), np.arange(attn.shape[3])
    return _edited_at(attn, rows, columns, kind, rand, perm, keys)


def patch_weights(
    attn: Float[Array, "b h n m"],
    grid: tuple[int, int],
    kind: VisionKind | None,
    *,
    rand: Float[Array, "b h n m"] | None = None,
    perm: Int[Array, "h nm"] | None = None,
    keys: Key | None = None,
) -> Float[Array, "b rows*columns"]:
    """Factors of the patch features, from the edited map at the entries that resizing looks at.

    Of the 577 rows of ViT-L/14-336 these are 48, of the map less than one entry in a hundred.

    Args:
      attn: weights after the softmax, class token first if there is one.
      grid: rows and columns of the patches.
      kind: see `edit_vision_attention`; None for the map as it is.
      rand: see there.
      perm: see there.
      keys: see there. "shuffle" draws the entries that are looked at, without replacement; other
        numbers than for the whole map.

    >>> patch_weights(jnp.full((1, 2, 5, 5), 0.2), (2, 2), "uniform").round(6).tolist()
    [[0.2..., 0.2..., 0.2..., 0.2...]]
    """
    weights = [bilinear_weights(n, g) for n, g in zip(attn.shape[2:], grid, strict=True)]
    used = [np.flatnonzero(w.any(axis=0)) for w in weights]
    edited = _edited_at(attn, used[0], used[1], kind, rand, perm, keys)
    down, right = (jnp.asarray(w[:, at], attn.dtype) for w, at in zip(weights, used, strict=True))
    out = jnp.einsum("in,bhnm,jm->bij", down, edited, right, precision="highest")
    return (out / attn.shape[1]).reshape(attn.shape[0], -1)


def _edited_at(
    attn: Array,
    rows: np.ndarray,
    columns: np.ndarray,
    kind: str | None,
    rand: Array | None,
    perm: Array | None,
    keys: Key | None,
) -> Array:
    """The edited map at some of its rows and columns."""
    if kind not in (None, *get_args(VisionKind)):
        raise UserError(
            f"The kind of an edit must be one of {get_args(VisionKind)}, found {kind!r}."
        )
    b, h, n, m = attn.shape
    shape = (h, len(rows), len(columns))

    def at(x: Array) -> Array:
        whole = (len(rows), len(columns)) == (n, m)
        return x if whole else x[:, :, rows][:, :, :, columns]

    def drawn(draw: Any) -> Array:
        if keys is None:
            raise UserError(f"An edit of kind {kind!r} needs one random key per row, found none.")
        return jax.vmap(draw)(keys)

    if kind is None:
        return at(attn)
    if kind == "uniform":
        return jnp.broadcast_to(jnp.mean(attn, axis=(2, 3), keepdims=True), (b, *shape))
    if kind == "reverse":
        return jnp.max(attn, axis=(2, 3), keepdims=True) - at(attn)
    if kind == "random":
        numbers = drawn(lambda key: jax.random.uniform(key, shape)) if rand is None else at(rand)
        return 2 * numbers.astype(attn.dtype)
    flat = attn.reshape(b, h, n * m)
    if perm is None:
        size = len(rows) * len(columns)
        index = drawn(lambda key: _distinct(key, h, size, n * m))
    else:
        places = (rows[:, None] * m + columns).ravel()
        index = jnp.broadcast_to(jnp.asarray(perm)[None, :, places], (b, h, places.size))
    return jnp.take_along_axis(flat, index.astype(jnp.int32), axis=-1).reshape(b, *shape)


def _distinct(key: Array, heads: int, count: int, total: int) -> Array:
    """Per head ``count`` different numbers below ``total`` in random order."""
    keys = jax.random.split(key, heads)
    if 20 * count > total:
        return jax.vmap(lambda one: jax.random.permutation(one, total)[:count])(keys)
    # Numbers drawn one after another, without those that came before. Of 2304 out of 332929 about
    # 8 did; a quarter more is never used up.
    more = count + count // 4 + 64

    def first_ones(key: Array) -> Array:
        numbers = jax.random.randint(key, (more,), 0, total)
        order = jnp.argsort(numbers, stable=True)
        ordered = numbers[order]
        again = jnp.concatenate([jnp.zeros(1, bool), ordered[1:] == ordered[:-1]])
        again = jnp.zeros(more, bool).at[order].set(again)
        return numbers[jnp.argsort(again, stable=True)[:count]]

    return jax.vmap(first_ones)(keys)
