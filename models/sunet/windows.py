"""Square windows of tokens, and which tokens of a shifted window belong together."""

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int

APART = -100.0
"""Added to the logit of two tokens that do not belong together."""


def partition(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b n t c"]:
    """Cut maps into windows, row by row; a window is ``size**2`` tokens, row by row.

    >>> partition(jnp.zeros((2, 8, 12, 3)), 4).shape
    (2, 6, 16, 3)
    """
    return rearrange(x, "b (h i) (w j) c -> b (h w) (i j) c", i=size, j=size)


def merge(windows: Float[Array, "b n t c"], height: int, width: int) -> Float[Array, "b h w c"]:
    """Inverse of :func:`partition`.

    >>> x = jnp.arange(24.0).reshape(1, 4, 6, 1)
    >>> bool((merge(partition(x, 2), 4, 6) == x).all())
    True
    """
    size = round(windows.shape[2] ** 0.5)
    sides = {"h": height // size, "w": width // size, "i": size, "j": size}
    return rearrange(windows, "b (h w) (i j) c -> b (h i) (w j) c", **sides)


def relative_index(size: int) -> Int[np.ndarray, "t t"]:
    """Row of the table of biases for every query and key of a window.

    >>> relative_index(2)[0].tolist()
    [4, 3, 1, 0]
    """
    place = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij")).reshape(2, -1)
    rows, cols = place[:, :, None] - place[:, None, :] + size - 1
    return rows * (2 * size - 1) + cols


def shift_mask(height: int, width: int, size: int, shift: int) -> Float[Array, "n t t"]:
    """What is added to the logits of shifted windows, of maps rolled by ``-shift``.

    0 where query and key were neighbours before the roll, -100 where the roll brought them
    together. Made of comparisons, so that the compiler does not keep it for large maps.

    >>> mask = shift_mask(4, 4, 2, 1)
    >>> mask.shape, mask[0, 0].tolist(), mask[3, 0].tolist()
    ((4, 4, 4), [0.0, 0.0, 0.0, 0.0], [0.0, -100.0, -100.0, -100.0])
    """

    def region(length: int) -> Array:
        place = jnp.arange(length)
        behind = [place >= length - width for width in (size, shift)]
        return behind[0].astype(jnp.int32) + behind[1].astype(jnp.int32)

    label = 3 * region(height)[:, None] + region(width)[None, :]
    labels = partition(label[None, :, :, None], size)[0, :, :, 0]
    return jnp.where(labels[:, :, None] == labels[:, None, :], 0.0, APART)
