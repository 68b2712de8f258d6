"""Windows of a fixed size that cover a map, and statistics inside such windows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def window_starts(length: int, size: int) -> np.ndarray:
    """First index of each of the fewest windows of ``size`` that cover ``length``, evenly spread.

    >>> window_starts(10, 4)
    array([0, 3, 6])
    >>> window_starts(3, 4)
    array([0])
    """
    count = max(-(-length // size), 1)
    return np.round(np.linspace(0, max(length - size, 0), count)).astype(int)


def _indices(length: int, size: int) -> np.ndarray:
    """Row ``i``: the indices inside window ``i``."""
    return window_starts(length, size)[:, None] + np.arange(min(size, length))[None, :]


def extract_windows(x: Float[Array, "*b h w c"], size: int) -> Float[Array, "*b rows cols k l c"]:
    """Cut a map into overlapping square windows that cover it.

    Args:
      x: maps.
      size: side of a window in pixels; an axis shorter than that gives one window of its length.

    >>> import jax.numpy as jnp
    >>> extract_windows(jnp.zeros((1, 10, 3, 2)), 4).shape
    (1, 3, 1, 4, 3, 2)
    """
    rows, cols = _indices(x.shape[-3], size), _indices(x.shape[-2], size)
    return x[..., rows[:, None, :, None], cols[None, :, None, :], :]


def merge_windows(
    windows: Float[Array, "*b rows cols k l c"], height: int, width: int
) -> Float[Array, "*b h w c"]:
    """Put windows of :func:`extract_windows` back, with the plain mean where they overlap.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(12.0).reshape(1, 6, 2, 1)
    >>> bool((merge_windows(extract_windows(x, 4), 6, 2) == x).all())
    True
    """
    size = max(windows.shape[-3:-1])
    rows, cols = _indices(height, size), _indices(width, size)
    index = (..., rows[:, None, :, None], cols[None, :, None, :], slice(None))
    counts = np.zeros((height, width), np.float32)
    np.add.at(counts, index[1:3], 1.0)
    shape = (*windows.shape[:-5], height, width, windows.shape[-1])
    total = jnp.zeros(shape, windows.dtype).at[index].add(windows)
    weight = jnp.asarray(1.0 / counts, windows.dtype)[..., None]
    return total * weight.reshape((1,) * (len(shape) - 3) + weight.shape)


def _edge_windows(x: Array, size: int) -> tuple[Array, tuple[int, ...]]:
    """Edge padding with which every pixel has a full window, and the window's shape."""
    pads = []
    window = [1] * x.ndim
    for axis in range(x.ndim):
        reach = min(size, x.shape[axis]) if axis in (x.ndim - 3, x.ndim - 2) else 1
        window[axis] = reach
        pads.append((reach // 2, reach - 1 - reach // 2))
    return jnp.pad(x, pads, mode="edge"), tuple(window)


def local_mean(x: Float[Array, "*b h w c"], size: int) -> Float[Array, "*b h w c"]:
    """Mean over the ``size x size`` window around each pixel, borders repeated.

    >>> import jax.numpy as jnp
    >>> local_mean(jnp.ones((1, 5, 5, 1)), 3)[0, 0, 0, 0]
    Array(1., dtype=float32)
    """
    padded, window = _edge_windows(x, size)
    total = jax.lax.reduce_window(padded, 0.0, jax.lax.add, window, (1,) * x.ndim, "VALID")
    return total / math.prod(window)


def local_max(x: Float[Array, "*b h w c"], size: int) -> Float[Array, "*b h w c"]:
    """Maximum over the ``size x size`` window around each pixel, borders repeated.

    >>> import jax.numpy as jnp
    >>> local_max(jnp.arange(5.0).reshape(1, 1, 5, 1), 3).ravel()
    Array([1., 2., 3., 4., 4.], dtype=float32)
    """
    padded, window = _edge_windows(x, size)
    return jax.lax.reduce_window(padded, -jnp.inf, jax.lax.max, window, (1,) * x.ndim, "VALID")
