"""What a decoder reads: positions, which tokens see which, and whether shapes fit."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxcore.errors import UserError
from jaxcore.generate.cache import Cache
from jaxcore.models.llama.config import LlamaConfig


def default_positions(
    there: Bool[Array, "b t"], segments: Int[Array, "b t"] | None, cache: Cache | None
) -> Int[Array, "b t"]:
    """How many tokens stand before each, padding left out."""
    ones = there.astype(jnp.int32)
    count = jnp.cumsum(ones, axis=1, dtype=jnp.int32) - 1
    if segments is not None:
        first = jnp.concatenate(
            [jnp.ones_like(there[:, :1]), segments[:, 1:] != segments[:, :-1]], axis=1
        )
        before = jax.lax.cummax(jnp.where(first, count - ones + 1, 0), axis=1)
        count = count - before
    count = jnp.maximum(count, 0)
    return count if cache is None else cache.position[:, None] + count


def next_position(
    places: Int[Array, "*k b t"], there: Bool[Array, "b t"], before: Int[Array, " b"]
) -> Int[Array, " b"]:
    """Position after the largest so far; Qwen2-VL goes on behind the longest side of an image."""
    largest = places if places.ndim == 2 else jnp.max(places, axis=0)
    last = jnp.max(jnp.where(there, largest, -1), axis=1)
    return jnp.maximum(before, (last + 1).astype(before.dtype))


def allowed_keys(
    there: Bool[Array, "b t"], segments: Int[Array, "b t"] | None
) -> Bool[Array, "b t t"]:
    """Which keys a query may see in rows without a cache."""
    length = there.shape[1]
    seen = jnp.tri(length, dtype=bool)[None] & there[:, None]
    if segments is not None:
        seen = seen & (segments[:, :, None] == segments[:, None])
    return seen


def check_inputs(
    x: Array,
    cfg: LlamaConfig,
    positions: Array | None,
    valid: Array | None,
    segments: Array | None,
    cache: Cache | None,
) -> None:
    """Refuse what does not fit; see `jaxcore.models.llama.apply`.

    Raises:
      UserError: what was expected, and what was found.
    """
    title, shape = cfg.title, tuple(x.shape)
    if x.ndim == 2 and 0 not in shape:
        fits = jnp.issubdtype(x.dtype, jnp.integer)
    else:
        fits = x.ndim == 3 and 0 not in shape and shape[2] == cfg.width
        fits = fits and jnp.issubdtype(x.dtype, jnp.floating)
    if not fits:
        raise UserError(
            f"{title} expects tokens (batch, length) of a whole-number type, or embeddings "
            f"(batch, length, {cfg.width}) of a floating-point type, found {shape} of {x.dtype}."
        )
    kinds = len(cfg.mrope_sections)
    places = [shape[:2], (kinds, *shape[:2])] if kinds else [shape[:2]]
    wanted = {"valid": (valid, [shape[:2]]), "segments": (segments, [shape[:2]])}
    for name, (array, shapes) in {"positions": (positions, places), **wanted}.items():
        if array is not None and tuple(array.shape) not in shapes:
            raise UserError(
                f"{title} expects {name} of shape {' or '.join(map(str, shapes))}, found "
                f"{tuple(array.shape)}."
            )
    if cache is None:
        return
    if segments is not None:
        raise UserError(f"{title} expects either a cache or segments, found both.")
    expected = (cfg.depth, shape[0], cfg.num_kv_heads, cfg.head_dim)
    keys = cache.shape
    if (*keys[:3], keys[4]) != expected or shape[1] > cache.slots:
        raise UserError(
            f"{title} expects a cache of {expected[0]} layers, {expected[1]} rows, at least "
            f"{shape[1]} slots and {expected[2]} heads of {expected[3]}, found {keys}."
        )
