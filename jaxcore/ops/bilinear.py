"""Gradients of functions that are linear in each of two arguments."""

from collections.abc import Callable

import jax
from jaxtyping import Array


def bilinear_gradients(
    fn: Callable[[Array, Array], Array], a: Array, b: Array, g: Array
) -> tuple[Array, Array]:
    """By both arguments of ``fn(a, b)``, without computing its value.

    >>> import jax.numpy as jnp
    >>> a, b, g = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), jnp.array(1.0)
    >>> [x.tolist() for x in bilinear_gradients(jnp.dot, a, b, g)]
    [[3.0, 4.0], [1.0, 2.0]]
    """
    (by_a,) = jax.linear_transpose(lambda a: fn(a, b), a)(g)
    (by_b,) = jax.linear_transpose(lambda b: fn(a, b), b)(g)
    return by_a, by_b
