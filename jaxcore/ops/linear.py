"""Products of vectors with a matrix."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.ops.conv import pointwise
from jaxcore.ops.precision import accumulation_dtype

# For a single row XLA's CPU backend takes a loop of its own, many times slower in half precision.
_FEWEST = 2


def linear(x: Float[Array, "*b i"], kernel: Float[Array, "i *o"]) -> Float[Array, "..."]:
    """``x @ kernel`` over the last axis of ``x``, in its type.

    Args:
      x: vectors.
      kernel: input first; several output axes, such as heads and channels, are kept apart.

    >>> linear(jnp.ones((2, 3, 4)), jnp.ones((4, 5, 6))).shape
    (2, 3, 5, 6)
    """
    kernel = kernel.astype(x.dtype)

    def plain(x: Array, kernel: Array) -> Array:
        return jnp.tensordot(x, kernel, axes=1)

    def wide(x: Array, kernel: Array) -> Array:
        # Asked for sums in single precision, the CPU multiplies half precision natively.
        kind = accumulation_dtype(x.dtype)
        return jnp.tensordot(x, kernel, axes=1, preferred_element_type=kind).astype(x.dtype)

    if x.dtype.itemsize >= 4:
        flat: Array = pointwise(x, kernel.reshape(kernel.shape[0], -1))
        return flat.reshape(*x.shape[:-1], *kernel.shape[1:])
    return jax.lax.platform_dependent(x, kernel, cpu=_several(wide), default=plain)


def project_rows(x: Float[Array, "*b d"], rows: Float[Array, "v d"]) -> Float[Array, "*b v"]:
    """``x @ rows^T`` over the last axis of both, in at least float32.

    >>> project_rows(jnp.ones((2, 3, 4), jnp.bfloat16), jnp.ones((5, 4))).dtype
    dtype('float32')
    """
    rows = rows.astype(x.dtype)

    def product(x: Array, rows: Array) -> Array:
        kind = accumulation_dtype(x.dtype)
        return jnp.einsum("...d,vd->...v", x, rows, preferred_element_type=kind)

    if x.dtype.itemsize >= 4:
        return product(x, rows)
    return jax.lax.platform_dependent(x, rows, cpu=_several(product), default=product)


def _several(product: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """The same product, of at least `_FEWEST` rows."""

    def padded(x: Array, other: Array) -> Array:
        before = x.shape[:-1]
        count = math.prod(before)
        if count >= _FEWEST:
            return product(x, other)
        few = jnp.pad(x.reshape(count, -1), ((0, _FEWEST - count), (0, 0)))
        y = product(few, other)[:count]
        return y.reshape(*before, *y.shape[1:])

    return padded
