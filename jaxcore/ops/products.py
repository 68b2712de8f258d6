"""Matrix products over the pixels of maps, and of stacks of small matrices."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcore.ops.derivatives import bilinear_gradients


def product_over_pixels(
    a: Float[Array, "*p i"], b: Float[Array, "*p o"], *, batch: int = 0, dtype: DTypeLike
) -> Float[Array, "*b i o"]:
    """``a^T b``: for every pair of channels the sum over pixels.

    Args:
      a: the left map.
      b: the right map, of the same pixels.
      batch: how many leading axes to keep.
      dtype: type of the sums.

    >>> import jax.numpy as jnp
    >>> product_over_pixels(jnp.ones((2, 3, 5, 4)), jnp.ones((2, 3, 5, 7)), dtype="float32").shape
    (4, 7)
    """
    kept, pixels = a.shape[:batch], math.prod(a.shape[batch:-1])
    # XLA on the CPU multiplies two matrices, or two equally long stacks of them, as they lie in
    # memory; any other product over leading axes is made into one by transposing a whole map.
    lead = () if all(n == 1 for n in kept) else kept  # an unknown size is not 1
    a = a.reshape(*lead, pixels, a.shape[-1])
    b = b.reshape(*lead, pixels, b.shape[-1])

    def whole(a: Array, b: Array) -> Array:
        axes, over = tuple(range(a.ndim - 2)), (a.ndim - 2,)
        return jax.lax.dot_general(a, b, ((over, over), (axes, axes)), preferred_element_type=dtype)

    def in_parts(a: Array, b: Array) -> Array:
        # One product of few channels over many pixels keeps only a few processors of a GPU busy.
        count = pixels // _PART
        return jnp.sum(whole(*(x.reshape(*lead, count, _PART, x.shape[-1]) for x in (a, b))), -3)

    many = a.dtype.itemsize == 4 and pixels % _PART == 0 and pixels > _PART
    cuda = in_parts if many else whole
    product = jax.lax.platform_dependent(a, b, cuda=cuda, default=whole)
    return product.reshape(*kept, a.shape[-1], b.shape[-1])


_PART = 1024  # pixels that a GPU adds up at a time


def stacked_products(
    a: Float[Array, "*b m k"], b: Float[Array, "*b k n"], dtype: DTypeLike
) -> Float[Array, "*b m n"]:
    """The product of each pair of matrices.

    XLA on the CPU is slow at stacks of small products with a transposed left side, as the
    gradient of the right one is: there it is transposed first. As with `pointwise`, the gradients
    can be differentiated again in either mode; JAX refuses forward mode straight through.

    Args:
      a: the left matrices.
      b: the right ones.
      dtype: type of the sums and of the result.

    >>> stacked_products(jnp.ones((5, 2, 3)), jnp.ones((5, 3, 4)), "float32").shape
    (5, 2, 4)
    """
    out: Array = _stacked(a, b, dtype)
    return out


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _stacked(a: Array, b: Array, dtype: DTypeLike) -> Array:
    return _product(a, b, dtype)


def _product(a: Array, b: Array, dtype: DTypeLike) -> Array:
    return jnp.einsum("...mk,...kn->...mn", a, b, preferred_element_type=jnp.dtype(dtype))


def _stacked_forward(a: Array, b: Array, dtype: DTypeLike) -> tuple[Array, tuple[Array, Array]]:
    return _product(a, b, dtype), (a, b)


def _stacked_backward(
    dtype: DTypeLike, factors: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    derived = functools.partial(bilinear_gradients, functools.partial(_product, dtype=dtype))

    def written(a: Array, b: Array, g: Array) -> tuple[Array, Array]:
        # Else the compiler would take the transposition back into the product.
        left, right = (
            jax.lax.optimization_barrier(x.swapaxes(-1, -2)).astype(dtype) for x in (a, b)
        )
        by_left, by_right = _product(g, right, dtype), _product(left, g, dtype)
        return by_left.astype(a.dtype), by_right.astype(b.dtype)

    return jax.lax.platform_dependent(*factors, g, cpu=written, default=derived)


_stacked.defvjp(_stacked_forward, _stacked_backward)
