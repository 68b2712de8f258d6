"""Losses over a large vocabulary without all its logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.ops.precision import accumulation_dtype


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
    count, width = table.shape
    parts = -(-count // chunk)
    size = -(-count // parts)
    padded = jnp.pad(table, ((0, size * parts - count), (0, 0)))
    pieces = jnp.swapaxes(padded.reshape(size, parts, width), 0, 1)
    wide = accumulation_dtype(hidden.dtype)

    def step(
        carried: tuple[Array, Array, Array], piece: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array, Array], None]:
        largest, total, right = carried
        number, rows = piece
        rows = rows.astype(hidden.dtype)
        logits = jnp.einsum("nd,sd->ns", hidden, rows, preferred_element_type=wide)
        entries = jnp.arange(size, dtype=jnp.int32) * parts + number
        logits = jnp.where((entries < count)[None], logits, jnp.finfo(wide).min)
        higher = jax.lax.stop_gradient(jnp.maximum(largest, jnp.max(logits, axis=1)))
        total = total * jnp.exp(largest - higher)
        total = total + jnp.sum(jnp.exp(logits - higher[:, None]), axis=1)
        found = entries[None] == targets[:, None].astype(jnp.int32)
        return (higher, total, right + jnp.sum(jnp.where(found, logits, 0), axis=1)), None

    zeros = jnp.zeros(hidden.shape[:1], wide)
    first = (jnp.full_like(zeros, jnp.finfo(wide).min), zeros, zeros)
    numbers = jnp.arange(parts, dtype=jnp.int32)
    # Nothing of a part is kept for the backward pass; its logits are computed again there.
    (largest, total, right), _ = jax.lax.scan(jax.checkpoint(step), first, (numbers, pieces))
    return largest + jnp.log(total) - right
