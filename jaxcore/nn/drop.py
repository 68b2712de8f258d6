"""What is left out at random in training."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def drop_path(
    block: nn.Module, y: Float[Array, "b *s"], rate: Float[Array, ""] | float
) -> Float[Array, "b *s"]:
    """The update of a block: nothing for some examples, and more for the others.

    Args:
      block: the module that adds the update; all examples get theirs if it has no random numbers
        named "dropout".
      y: the update.
      rate: share of examples without one, in [0, 1).
    """
    if not block.has_rng("dropout"):
        return y
    share = 1 - jnp.asarray(rate, y.dtype)
    shape = (y.shape[0],) + (1,) * (y.ndim - 1)
    keep = jax.random.bernoulli(block.make_rng("dropout"), share, shape)
    return jnp.where(keep, y / share, 0)


def drop_out(block: nn.Module, y: Float[Array, "*s"], rate: float) -> Float[Array, "*s"]:
    """Zeros in a share of the places, and more in the others.

    Args:
      block: the module that owns ``y``; everything is kept if it has no random numbers named
        "dropout".
      y: any values.
      rate: share of places, in [0, 1).
    """
    if not rate or not block.has_rng("dropout"):
        return y
    keep = jax.random.bernoulli(block.make_rng("dropout"), 1 - rate, y.shape)
    return jnp.where(keep, y / (1 - rate), 0)
