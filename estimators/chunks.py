"""Sums over many rows in bounded memory: the rows in equal chunks, one after the other."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

NUMBERS_AT_ONCE = 1 << 24
"""Numbers that one chunk may hold in a temporary array (128 MB in double precision)."""

ROWS_AT_ONCE = 1 << 13
"""Most rows of a chunk: what is formed of more does not stay in the processor's cache."""


def rows_at_once(numbers_per_row: int) -> int:
    """Rows of a chunk when every row needs so many numbers.

    >>> rows_at_once(1 << 14)
    1024
    """
    return max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // max(1, numbers_per_row)))


def rounded_up(n: int) -> int:
    """The next multiple of 16, or of a sixteenth of ``n`` and less: a size that serves many ``n``.

    One compiled program then does for data of nearly the same size, filled up with rows of weight
    zero.

    >>> [rounded_up(n) for n in (5, 1000, 1010, 1025)]
    [16, 1024, 1024, 1088]
    """
    step = max(16, 1 << max((n - 1).bit_length() - 5, 0))
    return -(-n // step) * step


def in_chunks(arrays: Sequence[Array], rows: int) -> tuple[Array, ...]:
    """Arrays with a chunk axis in front of the row axis; the last chunk is filled with zeros.

    >>> import jax.numpy as jnp
    >>> in_chunks([jnp.arange(5)], 2)[0].tolist()
    [[0, 1], [2, 3], [4, 0]]
    """
    n = arrays[0].shape[0]
    count = max(1, -(-n // rows))
    rows = -(-n // count)
    short = count * rows - n

    def cut(a: Array) -> Array:
        if short:
            a = jnp.pad(a, [(0, short)] + [(0, 0)] * (a.ndim - 1))
        return a.reshape(count, rows, *a.shape[1:])

    return tuple(cut(a) for a in arrays)


def sum_chunks(fn: Callable[..., Any], chunks: Sequence[Array]) -> Any:
    """Sum of ``fn(*chunk)`` over the chunks (a pytree); rows of zeros must add nothing.

    >>> import jax.numpy as jnp
    >>> float(sum_chunks(jnp.sum, in_chunks([jnp.arange(5.0)], 2)))
    10.0
    """
    first = tuple(a[0] for a in chunks)
    if chunks[0].shape[0] == 1:
        return fn(*first)
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(fn, *first))

    def step(total: Any, chunk: tuple[Array, ...]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, fn(*chunk)), None

    return jax.lax.scan(step, zero, tuple(chunks))[0]


def map_chunks(fn: Callable[..., Any], arrays: Sequence[Array], rows: int) -> Any:
    """``fn`` applied chunk by chunk to arrays of rows; its results have the rows first."""
    n = arrays[0].shape[0]
    chunks = in_chunks(arrays, rows)
    if chunks[0].shape[0] == 1:
        return fn(*arrays)
    out = jax.lax.map(lambda chunk: fn(*chunk), chunks)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], out)
