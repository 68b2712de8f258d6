"""P(Z=1|X) and P(A=1|Z,X) on every basis in every fold: logistic regressions in one Newton loop."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcore.estimators import linear_algebra
from jaxcore.estimators.chunks import in_chunks, sum_chunks
from jaxcore.estimators.nuisance.penalised import (
    newton_tolerance,
    pair_products,
    second_moments,
)

_MAX_STEPS = 50


class Probabilities(NamedTuple):
    """Log-odds of every fold and basis, and which regressions converged."""

    pi: Float[Array, "k pi q"]  # on B
    mu: Float[Array, "k mu q2"]  # on [B, Z B]; one-sided: zeros, and what holds at Z=1
    converged_pi: Bool[Array, "k pi"]
    converged_mu: Bool[Array, "k mu"]


def fit_probabilities(
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    B: Float[Array, "n q"],
    weights: Float[Array, "k n"],
    masks: Mapping[str, Float[Array, "l q"]],
    *,
    ridge: float | Array,
    rows: int,
    one_sided: bool,
) -> Probabilities:
    """Newton's method from zero for all regressions at once, each until it has converged.

    All have the columns ``[B, Z B]``, of which those of pi use the first half. As ``Z * Z == Z``,
    three quarters of a Hessian are the same.

    Args:
      A: treatment, 0 or 1.
      Z: instrument, 0 or 1.
      B: all basis columns, the constant first.
      weights: training weights of every fold, summing to one.
      masks: the columns that the learners of "pi" and "mu" use.
      ridge: penalty of all coefficients but the constant.
      rows: rows taken at a time.
      one_sided: fit P(A=1|Z=1,X) among Z=1 alone.
    """
    q, n_pi, n_mu = B.shape[1], masks["pi"].shape[0], masks["mu"].shape[0]
    k, dtype = weights.shape[0], B.dtype
    of_pi = jnp.concatenate([masks["pi"], jnp.zeros((n_pi, q), dtype)], axis=1)
    first = jnp.zeros((n_mu, q), dtype) if one_sided else masks["mu"]
    columns = jnp.concatenate([of_pi, jnp.concatenate([first, masks["mu"]], axis=1)])
    free = np.isin(np.arange(2 * q), [0, q] if one_sided else [0])[None]
    penalty = columns * jnp.where(free, 0, ridge).astype(dtype)
    used = columns[:, :, None] * columns[:, None]
    diagonal = (penalty + 1 - columns)[:, :, None] * jnp.eye(2 * q, dtype=dtype)[None]
    among = weights * Z[None]
    among = among / jnp.sum(among, axis=1, keepdims=True) if one_sided else weights
    pieces = in_chunks((A, Z, B, weights.T, among.T), rows)

    def each(of_pi: Array, of_mu: Array) -> Array:  # [..., n] to [..., learner, n]
        both = [(of_pi, n_pi), (of_mu, n_mu)]
        return jnp.concatenate([jnp.repeat(v[..., None, :], l, axis=-2) for v, l in both], axis=-2)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        b, size, i = state

        def sums(A: Array, Z: Array, B: Array, weights: Array, among: Array) -> tuple[Array, Array]:
            """Products of the residuals with B and Z B, and second moments under the curvatures."""
            eta = (b.reshape(-1, q) @ B.T).reshape(k, -1, 2, B.shape[0])
            p = jax.nn.sigmoid(eta[:, :, 0] + Z[None, None] * eta[:, :, 1])
            w = each(weights.T, among.T)
            rest, curved = w * (each(Z, A)[None] - p), w * p * (1 - p)
            gradient = jnp.stack([rest, Z[None, None] * rest], axis=2) @ B
            curved = jnp.concatenate([curved, Z[None, None] * curved[:, n_pi:]], axis=1)
            moments = functools.partial(second_moments, B, pair_products(B))
            return gradient.reshape(b.shape), jax.vmap(jax.vmap(moments))(curved)

        gradient, whole = sum_chunks(sums, pieces)
        gradient = columns[None] * gradient - penalty[None] * b
        half = jnp.pad(whole[:, n_pi + n_mu :], ((0, 0), (n_pi, 0), (0, 0), (0, 0)))
        upper = jnp.concatenate([whole[:, : n_pi + n_mu], half], axis=-1)
        lower = jnp.concatenate([half, half], axis=-1)
        hessian = used[None] * jnp.concatenate([upper, lower], axis=-2) + diagonal[None]
        move = jax.vmap(jax.vmap(linear_algebra.solve_cholesky))(hessian, gradient)
        moved = jnp.max(jnp.abs(move), -1) / jnp.maximum(jnp.max(jnp.abs(b), -1), 1)
        going = size > tol
        return b + jnp.where(going[..., None], move, 0), jnp.where(going, moved, size), i + 1

    def go_on(state: tuple[Array, Array, Array]) -> Array:
        return jnp.any(state[1] > tol) & (state[2] < _MAX_STEPS)

    tol = newton_tolerance(dtype)
    start = jnp.zeros((k, n_pi + n_mu, 2 * q), dtype)
    size = jnp.full(start.shape[:2], jnp.inf, dtype)
    b, size, _ = jax.lax.while_loop(go_on, step, (start, size, jnp.int32(0)))
    good = size <= tol
    return Probabilities(b[:, :n_pi, :q], b[:, n_pi:], good[:, :n_pi], good[:, n_pi:])
