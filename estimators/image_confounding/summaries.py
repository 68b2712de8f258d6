"""Summaries of the bands of an image: the simplest representation, and a baseline for networks."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def band_means(images: Float[Array, "*n h w c"]) -> Float[Array, "*n c"]:
    """Mean of each band.

    >>> band_means(jnp.arange(4.0).reshape(2, 2, 1)).tolist()
    [1.5]
    """
    return jnp.mean(images, axis=(-3, -2))


def band_summaries(images: Float[Array, "*n h w c"]) -> Float[Array, "*n 4c"]:
    """Means, standard deviations (n), and 10 % and 90 % quantiles of the bands, one after another.

    >>> [round(float(v), 2) for v in band_summaries(jnp.arange(4.0).reshape(2, 2, 1))]
    [1.5, 1.12, 0.3, 2.7]
    """
    pixels = images.reshape(*images.shape[:-3], -1, images.shape[-1])
    low, high = jnp.quantile(pixels, jnp.asarray([0.1, 0.9], pixels.dtype), axis=-2)
    return jnp.concatenate([band_means(images), jnp.std(pixels, axis=-2), low, high], axis=-1)
