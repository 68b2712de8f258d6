"""Small dense systems in few operations, so that programs with many of them compile quickly."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def after(x: Float[Array, "*n"], earlier: Float[Array, "*m"]) -> Float[Array, "*n"]:
    """``x``, but not before ``earlier`` is computed.

    Two batches of factorisations that run at once on the CPU can wait for each other's threads
    for ever: what does not follow from the other by itself is put into an order.

    >>> import jax.numpy as jnp
    >>> after(jnp.ones(2), jnp.zeros(3)).tolist()
    [1.0, 1.0]
    """
    one = jnp.ravel(earlier)[0]
    return x + jnp.where(jnp.isfinite(one), 0 * one, 0).astype(x.dtype)  # not to be simplified


def solve(a: Float[Array, "q q"], b: Float[Array, "q *k"]) -> Float[Array, "q *k"]:
    """``a^-1 b`` by elimination with row exchanges, the right-hand sides as further columns.

    Elimination carries the exchanges over to them, so that no permutation has to be made.

    >>> import jax.numpy as jnp
    >>> solve(jnp.array([[0.0, 2.0], [4.0, 0.0]]), jnp.array([2.0, 8.0])).tolist()
    [2.0, 1.0]
    """
    q = a.shape[0]
    if q == 0:
        return b
    eliminated = jax.lax.linalg.lu(jnp.concatenate([a, b.reshape(q, -1)], axis=1))[0]
    x = jax.lax.linalg.triangular_solve(eliminated[:, :q], eliminated[:, q:], left_side=True)
    return x.reshape(b.shape)


def solve_cholesky(a: Float[Array, "q q"], b: Float[Array, " q"]) -> Float[Array, " q"]:
    """``a^-1 b`` of a positive definite matrix (NaN if it is not); its lower half is read.

    >>> import jax.numpy as jnp
    >>> solve_cholesky(jnp.array([[4.0, 0.0], [0.0, 4.0]]), jnp.array([4.0, 8.0])).tolist()
    [1.0, 2.0]
    """
    lower = jax.lax.linalg.cholesky(a, symmetrize_input=False)
    half = jax.lax.linalg.triangular_solve(lower, b[:, None], left_side=True, lower=True)
    x = jax.lax.linalg.triangular_solve(lower, half, left_side=True, lower=True, transpose_a=True)
    return x[:, 0]
