"""How wrong predictions are."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def log_loss(p: Float[Array, "*l n"], y: Float[Array, "*l n"]) -> Float[Array, "*l n"]:
    """Negative log-likelihood of 0/1 outcomes, probabilities held a little off the edges.

    >>> import jax.numpy as jnp
    >>> round(float(log_loss(jnp.array([0.5]), jnp.array([1.0]))[0]), 4)
    0.6931
    """
    p = jnp.clip(p, 1e-6, 1 - 1e-6)
    return -(y * jnp.log(p) + (1 - y) * jnp.log1p(-p))
