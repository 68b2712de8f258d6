"""Losses over a large vocabulary without all its logits."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.ops.precision import accumulation_dtype
from jaxcore.ops.products import product_over_pixels


def chunked_cross_entropy(
    hidden: Float[Array, "n d"],
    table: Float[Array, "v d"],
    targets: Int[Array, " n"],
    *,
    chunk: int = 8192,
) -> Float[Array, " n"]:
    """``-log softmax(hidden table^T)[target]`` of every row, part after part of the vocabulary.

    Logits of at most about ``chunk`` entries exist at a time, forward and backward. The parts are
    interleaved, so that every one of them lies on all devices over which the table is split.

    Args:
      hidden: one vector per prediction.
      table: one row per entry of the vocabulary.
      targets: right entries; one outside of the vocabulary gives the log of the sum alone.
      chunk: logits of a row at a time.

    Returns:
      At least float32.

    >>> loss = chunked_cross_entropy(jnp.zeros((1, 3)), jnp.ones((8, 3)), jnp.array([5]), chunk=3)
    >>> round(float(loss[0]), 4)
    2.0794
    """
    wide = accumulation_dtype(hidden.dtype)
    rows = jnp.take(table, targets, axis=0, mode="clip").astype(hidden.dtype)
    right = jnp.sum(hidden.astype(wide) * rows.astype(wide), axis=1)
    inside = (targets >= 0) & (targets < len(table))
    log_sum: Array = _log_sum(hidden, table, chunk)
    return log_sum - jnp.where(inside, right, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _log_sum(hidden: Array, table: Array, chunk: int) -> Array:
    """Log of the sum of the exponentials of all logits of each row."""
    return _summed(hidden, table, chunk)


def _summed(hidden: Array, table: Array, chunk: int) -> Array:
    wide = accumulation_dtype(hidden.dtype)

    def step(carried: tuple[Array, Array], piece: tuple[Array, Array]) -> Any:
        largest, total = carried
        logits = _logits(hidden, piece, len(table))
        higher = jnp.maximum(largest, jnp.max(logits, axis=1))
        total = total * jnp.exp(largest - higher)
        return (higher, total + jnp.sum(jnp.exp(logits - higher[:, None]), axis=1)), None

    zeros = jnp.zeros(hidden.shape[:1], wide)
    first = (jnp.full_like(zeros, jnp.finfo(wide).min), zeros)
    (largest, total), _ = jax.lax.scan(step, first, _pieces(table, chunk))
    return largest + jnp.log(total)


def _pieces(table: Array, chunk: int) -> tuple[Array, Array]:
    """Numbers of the parts, and their rows."""
    count, width = table.shape
    parts = -(-count // chunk)
    size = -(-count // parts)
    padded = jnp.pad(table, ((0, size * parts - count), (0, 0)))
    pieces = jnp.swapaxes(padded.reshape(size, parts, width), 0, 1)
    return jnp.arange(parts, dtype=jnp.int32), pieces


def _logits(hidden: Array, piece: tuple[Array, Array], count: int) -> Array:
    """Logits of a part; those of entries that fill it up are as small as can be."""
    number, rows = piece
    wide = accumulation_dtype(hidden.dtype)
    rows = rows.astype(hidden.dtype)
    logits = jnp.einsum("nd,sd->ns", hidden, rows, preferred_element_type=wide)
    parts = -(-count // len(rows))
    if parts * len(rows) == count:
        return logits
    entries = jnp.arange(len(rows), dtype=jnp.int32) * parts + number
    return jnp.where((entries < count)[None], logits, jnp.finfo(wide).min)


def _log_sum_forward(
    hidden: Array, table: Array, chunk: int
) -> tuple[Array, tuple[Array, Array, Array]]:
    found = _summed(hidden, table, chunk)
    return found, (hidden, table, found)


def _log_sum_backward(
    chunk: int, kept: tuple[Array, Array, Array], g: Array
) -> tuple[Array, Array]:
    """Probabilities times what is behind; logits are computed again, part after part."""
    hidden, table, log_sum = kept

    def step(slope: Array, piece: tuple[Array, Array]) -> tuple[Array, Array]:
        shares = jnp.exp(_logits(hidden, piece, len(table)) - log_sum[:, None]) * g[:, None]
        slope = slope + jnp.einsum("ns,sd->nd", shares, piece[1].astype(wide))
        return slope, product_over_pixels(before, shares, dtype=wide)

    wide = log_sum.dtype
    before = hidden.astype(wide)
    slope, slopes = jax.lax.scan(step, jnp.zeros_like(before), _pieces(table, chunk))
    rows = jnp.transpose(slopes, (2, 0, 1)).reshape(-1, table.shape[1])[: len(table)]
    return slope.astype(hidden.dtype), rows.astype(table.dtype)


_log_sum.defvjp(_log_sum_forward, _log_sum_backward)
