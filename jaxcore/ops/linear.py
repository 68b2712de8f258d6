"""Products of vectors with a matrix."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def linear(x: Float[Array, "*b i"], kernel: Float[Array, "i *o"]) -> Float[Array, "..."]:
    """``x @ kernel`` over the last axis of ``x``, in its type.

    Args:
      x: vectors.
      kernel: input first; several output axes, such as heads and channels, are kept apart.

    >>> linear(jnp.ones((2, 3, 4)), jnp.ones((4, 5, 6))).shape
    (2, 3, 5, 6)
    """
    return jnp.tensordot(x, kernel.astype(x.dtype), axes=1)
