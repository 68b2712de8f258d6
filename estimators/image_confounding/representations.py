"""Features of images that nothing has to learn: statistics of bands, random convolutions."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.errors import UserError
from jaxcore.estimators.chunks import map_chunks
from jaxcore.typing import Key

DECILES = tuple(round(0.1 * i, 1) for i in range(1, 10))
"""For `band_stats`."""


class RandomFilters(NamedTuple):
    """Filters of `random_conv_features`."""

    kernel: Float[Array, "k k c f"]
    bias: Float[Array, " f"]


def band_stats(
    images: Float[Array, "b *t h w c"], quantiles: Sequence[float] = (0.1, 0.9)
) -> Float[Array, "b f"]:
    """Mean, population standard deviation and quantiles of every band.

    Args:
      images: in any unit; those of a sequence are described one after the other.
      quantiles: in [0, 1], interpolated linearly; `DECILES` for nine.

    Returns:
      (b, c (2 + q)): all means, all deviations, then band after band for each quantile.

    Raises:
      UserError: no images, or a quantile that is none.

    >>> band_stats(jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1), (0.5,)).tolist()
    [[2.0, 1.0, 2.0]]
    """
    if images.ndim not in (4, 5) or not all(0 <= q <= 1 for q in quantiles):
        raise UserError(
            "Expected images (b, h, w, c) or (b, t, h, w, c) and quantiles in [0, 1], found "
            f"{tuple(images.shape)} and {tuple(quantiles)}."
        )
    batch, bands = images.shape[0], images.shape[-1]
    pixels = images.reshape(-1, images.shape[-3] * images.shape[-2], bands)
    parts = [jnp.mean(pixels, axis=1)[:, None], jnp.std(pixels, axis=1)[:, None]]
    if quantiles:
        wanted = jnp.asarray(np.asarray(quantiles), pixels.dtype)
        parts.append(jnp.moveaxis(jnp.quantile(pixels, wanted, axis=1), 0, 1))
    return jnp.concatenate(parts, axis=1).reshape(batch, -1)


def gaussian_filters(
    key: Key, bands: int, features: int = 512, *, size: int = 3, bias: float = -1.0
) -> RandomFilters:
    """Filters of independent standard normal numbers, for ``features`` features.

    Raises:
      UserError: an odd number of features: each filter gives two.

    >>> gaussian_filters(jax.random.key(0), 3, 8).kernel.shape
    (3, 3, 3, 4)
    """
    count = _half(features)
    kernel = jax.random.normal(key, (size, size, bands, count))
    return RandomFilters(kernel, jnp.full(count, bias, kernel.dtype))


def empirical_filters(
    key: Key,
    images: Float[Array, "n h w c"],
    features: int = 512,
    *,
    size: int = 3,
    bias: float = -1.0,
    ridge: float = 1e-3,
) -> RandomFilters:
    """Filters that are patches of images, whitened.

    Patches are drawn with replacement. Each is centred and scaled to length one; all are
    multiplied by the inverse of their second moments, with ``ridge`` added to its eigenvalues.

    Args:
      key: of the places.
      images: to draw from.
      features: twice the number of filters.
      size: side of a filter.
      bias: of every filter.
      ridge: above 0.

    Raises:
      UserError: an odd number of features, or images smaller than a filter.

    References:
      Rolf et al. 2021, "A generalizable and accessible approach to machine learning with global
      satellite imagery"; Coates and Ng 2012 for the whitening.
    """
    count, (n, height, width, bands) = _half(features), images.shape
    if min(height, width) < size:
        raise UserError(f"Expected images of at least {size} pixels, found {height} x {width}.")
    limits = jnp.asarray([n, height - size + 1, width - size + 1])
    places = jax.random.randint(key, (count, 3), 0, jnp.broadcast_to(limits, (count, 3)))

    def cut(place: Array) -> Array:
        start = (place[0], place[1], place[2], jnp.zeros((), place.dtype))
        return jax.lax.dynamic_slice(images, start, (1, size, size, bands))[0].ravel()

    patches = jax.vmap(cut)(places)
    patches = patches - jnp.mean(patches, axis=1, keepdims=True)
    lengths = jnp.linalg.norm(patches, axis=1, keepdims=True)
    patches = patches / jnp.where(lengths < 1e-8, 1, lengths)
    moments = jnp.einsum("np,nq->pq", patches, patches, precision="highest") / count
    values, vectors = jnp.linalg.eigh(moments)
    # Whitened twice: once the patches, once the images they will be compared with.
    inverse = jnp.einsum("pi,i,qi->pq", vectors, 1 / (values + ridge), vectors, precision="highest")
    kernel = jnp.einsum("np,pq->qn", patches, inverse, precision="highest")
    kernel = kernel.reshape(size, size, bands, count)
    return RandomFilters(kernel, jnp.full(count, bias, kernel.dtype))


def random_conv_features(
    images: Float[Array, "b h w c"], filters: RandomFilters, *, rows: int = 64
) -> Float[Array, "b f"]:
    """Mean over pixels of the positive and of the negative part of every filter's response.

    Args:
      images: standardised.
      filters: of `gaussian_filters` or `empirical_filters`.
      rows: images at once.

    Returns:
      (b, 2 f) for f filters: all positive parts, then all negative ones.

    Raises:
      UserError: images of other bands, or smaller than a filter.

    References:
      Rolf et al. 2021 (MOSAIKS), as `RCF` of torchgeo.

    >>> filters = RandomFilters(jnp.ones((1, 1, 1, 1)), jnp.zeros(1))
    >>> random_conv_features(jnp.array([-3.0, 1.0]).reshape(1, 1, 2, 1), filters).tolist()
    [[0.5, 1.5]]
    """
    size, _, bands, _ = filters.kernel.shape
    if images.ndim != 4 or images.shape[-1] != bands or min(images.shape[1:3]) < size:
        raise UserError(
            f"Expected images (b, h, w, {bands}) of at least {size} pixels, found "
            f"{tuple(images.shape)}."
        )

    def features(x: Array) -> Array:
        bias = filters.bias.astype(x.dtype).reshape(1, 1, 1, -1)
        found = ops.conv2d(x, filters.kernel, padding=0) + bias
        parts = (jax.nn.relu(found), jax.nn.relu(-found))
        return jnp.concatenate([jnp.mean(part, axis=(1, 2)) for part in parts], axis=-1)

    return map_chunks(features, [images], rows)


def _half(features: int) -> int:
    if features < 2 or features % 2:
        raise UserError(f"features must be even and at least 2, found {features}.")
    return features // 2
