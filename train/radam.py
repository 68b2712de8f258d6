"""Rectified Adam as PyTorch computes it.

Two things differ from optax's. ``eps`` is added to the root of the second moment before its bias
is corrected, which matters for gradients of the size of ``eps``; and the length of the
approximated average, a small difference of large numbers in the first updates, is computed so
that float32 keeps its precision when rectification sets in.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcore.train.schedules import Schedule


class RAdamState(NamedTuple):
    """Updates done, and the two moments."""

    count: jax.Array  # type: ignore[override]  # Optax's name; hides the method of tuples
    mu: optax.Updates
    nu: optax.Updates


def _average_length(count: jax.Array, b2: float) -> jax.Array:
    """``rho_inf - 2 t b2^t / (1 - b2^t)``.

    With ``a = -log(b2)`` and ``u = a t`` the subtrahend is ``(2 / a) u / (exp(u) - 1)``, whose
    difference to ``2 / a`` has a series for small ``u``.
    """
    a = -math.log(b2)
    u = a * count
    series = u / 2 - u**2 / 12 + u**4 / 720 - u**6 / 30240
    gap = jnp.where(u < 0.5, series, 1 - u / jnp.expm1(jnp.maximum(u, 0.5)))
    return (2 / (1 - b2) - 1 - 2 / a) + 2 / a * gap


def radam(
    learning_rate: Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Rectified Adam (Liu et al., ICLR 2020) in PyTorch's form.

    Args:
      learning_rate: a function of the number of the update.
      b1: decay of the first moment.
      b2: decay of the second moment, above 0.6 (below, no average is long enough).
      eps: added to the root of the second moment.

    >>> tx = radam(lambda step: 0.1)
    >>> params = {"w": jnp.ones(2)}
    >>> updates, _ = tx.update({"w": jnp.full(2, 3.0)}, tx.init(params))
    >>> [round(float(u), 4) for u in updates["w"]]
    [-0.3, -0.3]
    """
    longest = 2 / (1 - b2) - 1

    def init(params: optax.Params) -> RAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return RAdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros))

    def update(
        grads: optax.Updates, state: RAdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, RAdamState]:
        del params
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
        t = (state.count + 1).astype(float)
        rate = jnp.asarray(learning_rate(state.count)).astype(float)
        first = -jnp.expm1(t * math.log(b1))
        length = _average_length(t, b2)
        rectified = length > 5
        length = jnp.maximum(length, 5)
        ratio = (length - 4) * (length - 2) / length
        factor = jnp.sqrt(ratio * (longest / ((longest - 4) * (longest - 2))))
        factor = factor * jnp.sqrt(-jnp.expm1(t * math.log(b2)))

        def step(m: jax.Array, v: jax.Array) -> jax.Array:
            size = (-rate / first).astype(m.dtype)
            adaptive = factor.astype(m.dtype) / (jnp.sqrt(v) + eps)
            return size * m * jnp.where(rectified, adaptive, 1)

        return jax.tree.map(step, mu, nu), RAdamState(state.count + 1, mu, nu)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]  # its own state
