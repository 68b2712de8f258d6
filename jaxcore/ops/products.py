"""Matrix products over the pixels of maps."""

import math

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float


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
    axes, over = tuple(range(len(lead))), (len(lead),)
    product = jax.lax.dot_general(a, b, ((over, over), (axes, axes)), preferred_element_type=dtype)
    return product.reshape(*kept, a.shape[-1], b.shape[-1])
