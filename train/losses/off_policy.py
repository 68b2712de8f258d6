"""Objectives from outcomes of texts that another policy wrote: importance-weighted, doubly robust.

They are values to be raised: the loss is their negative.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.train.step import Mean
from jaxcore.train.step import at_least_float32 as wide


def weights(log_ratio: Float[Array, " n"], *, largest: float | None = 5.0) -> Float[Array, " n"]:
    """Ratios of the probabilities of whole texts, clipped as logarithms.

    >>> import jax.numpy as jnp
    >>> weights(jnp.array([0.0, 1e9]), largest=0.0).tolist()
    [1.0, 1.0]
    """
    x = wide(log_ratio)
    return jnp.exp(x if largest is None else jnp.clip(x, -largest, largest))


def effective_size(w: Float[Array, " n"]) -> Float[Array, ""]:
    """Sample size that weights leave: squared sum over sum of squares.

    >>> import jax.numpy as jnp
    >>> float(effective_size(jnp.array([1.0, 1.0, 0.0])))
    2.0
    """
    return jnp.sum(w) ** 2 / jnp.sum(w**2)


def ipw_value(
    log_ratio: Float[Array, " n"],
    reward: Float[Array, " n"],
    *,
    normalised: bool = False,
    largest: float | None = 5.0,
) -> Mean:
    """Weighted mean reward; with ``normalised`` the weights are divided by their sum.

    The gradient flows through the weights. The normalised one is a ratio over the whole batch and
    must not be added up over micro-batches.
    """
    w, r = weights(log_ratio, largest=largest), wide(reward)
    if normalised:
        return Mean(jnp.sum(w * r) / jnp.sum(w), jnp.ones((), r.dtype))
    return Mean.of(w * r)


def doubly_robust_value(
    log_ratio: Float[Array, " n"],
    reward: Float[Array, " n"],
    predicted: Float[Array, " n"],
    sampled: Float[Array, " s"],
    sampled_logps: Float[Array, " s"] | None = None,
    *,
    largest: float | None = 5.0,
) -> Float[Array, ""]:
    """Weighted mean of what a reward model leaves, and its mean over samples of the policy.

    Args:
      log_ratio: log-probability of each logged text by the policy less that by its writer.
      reward: of the logged texts.
      predicted: their rewards by a model.
      sampled: rewards of texts that the policy samples, by the model.
      sampled_logps: their log-probabilities by the policy, whose gradient is that of the second
        mean (the score function); they do not change the value.
      largest: see `weights`.

    References:
      Lin, Ben-Michael and Morency (2024).

    >>> import jax, jax.numpy as jnp
    >>> one = jnp.ones(1)
    >>> float(jax.grad(lambda lp: doubly_robust_value(0 * one, one, one, 3 * one, lp))(one)[0])
    3.0
    """
    w = weights(log_ratio, largest=largest)
    sampled = jax.lax.stop_gradient(wide(sampled))
    mean = jnp.mean(sampled)
    if sampled_logps is not None:
        lp = wide(sampled_logps)
        mean = mean + jnp.mean(sampled * (lp - jax.lax.stop_gradient(lp)))
    return jnp.mean(w * (wide(reward) - wide(predicted))) + mean
