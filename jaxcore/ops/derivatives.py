"""Gradients without what is not needed for them, and of what JAX cannot differentiate."""

from collections.abc import Callable
from typing import Any

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


def differentiated_as(fn: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """``fn`` with the derivatives, of every order and mode, of ``plain``, which gives the same.

    >>> import jax.numpy as jnp
    >>> double = differentiated_as(lambda x: jnp.ceil(2 * x), lambda x: 2 * x)
    >>> float(jax.grad(double)(3.0))
    2.0
    """
    same = jax.custom_jvp(fn)
    same.defjvp(lambda primals, tangents: jax.jvp(plain, primals, tangents))
    return same
