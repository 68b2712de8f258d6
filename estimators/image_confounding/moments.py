"""Mean and standard deviation of every band, from batches of images."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError


class Moments(NamedTuple):
    """Of every band."""

    mean: Float[Array, " c"]
    deviation: Float[Array, " c"]

    def standardise(self, images: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Images in standard deviations from the mean."""
        mean, deviation = (
            a.astype(images.dtype).reshape((1,) * (images.ndim - 1) + a.shape) for a in self
        )
        return (images - mean) / deviation


def batch_moments(images: Float[Array, "*b h w c"]) -> Moments:
    """Of all pixels of a batch, with n - 1 in the deviation.

    >>> batch_moments(jnp.arange(4.0).reshape(1, 2, 2, 1)).mean.tolist()
    [1.5]
    """
    pixels = jnp.asarray(images, float).reshape(-1, images.shape[-1])
    return Moments(jnp.mean(pixels, axis=0), jnp.std(pixels, axis=0, ddof=1))


def over_batches(batches: Moments) -> Moments:
    """One pair for several batches, as in multiple imputation.

    The mean of the means; the root of the mean squared deviation plus ``1 + 1/m`` times the
    (n - 1) variance of the means of ``m`` batches.

    Args:
      batches: of every batch, with a leading axis of them.

    Raises:
      UserError: fewer than two batches.

    >>> one = Moments(jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [1.0]]))
    >>> over_batches(one).deviation.tolist()
    [2.0]
    """
    count = batches.mean.shape[0]
    if count < 2:
        raise UserError(f"Expected at least two batches, found {count}.")
    between = jnp.var(batches.mean, axis=0, ddof=1)
    within = jnp.mean(batches.deviation**2, axis=0)
    return Moments(jnp.mean(batches.mean, axis=0), jnp.sqrt(within + (1 + 1 / count) * between))
