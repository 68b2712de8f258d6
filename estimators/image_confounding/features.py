"""What regressions see of the images: statistics of bands, random convolutions, embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.data.geo.bands import standardise_table
from jaxcore.estimators.image_confounding.images import Images
from jaxcore.estimators.image_confounding.representations import (
    band_stats,
    gaussian_filters,
    random_conv_features,
)
from jaxcore.train.tasks.image_fits import standardised


def features_of(
    images: Images, kind: str, *, rcf_features: int = 256, seed: int = 0
) -> tuple[Float[np.ndarray, "images f"], tuple[str, ...]]:
    """Features of every image, standardised, and their names; those that do not vary are left out.

    Args:
      images: all of them, read in batches.
      kind: "rcf", "embeddings" (as they are), else statistics of bands.
      rcf_features: how many random convolutional features.
      seed: of their filters.
    """
    filters = None
    if kind == "rcf":
        filters = gaussian_filters(jax.random.key(seed), images.bands, rcf_features)
    scale = [jnp.asarray(v, jnp.float32) for v in (images.mean, images.sd)]
    found = []
    with jax.enable_x64(False):
        for batch in images.keyed.batches():
            pixels = standardised(jnp.asarray(batch), *scale)
            if kind == "embeddings":
                found.append(pixels)
            elif filters is None:
                found.append(band_stats(pixels))
            else:
                found.append(random_conv_features(_frames(pixels), filters))
    rows = [np.asarray(part, np.float64).reshape(-1) for part in found]
    every = np.concatenate(rows).reshape(len(images.keyed), -1)
    # Rounding alone, as in means of images without a mean, would be scaled up to a feature.
    varies = np.ptp(every, axis=0) > (0.0 if kind == "embeddings" else 1e-5)
    names = images.statistics() if kind not in ("rcf", "embeddings") else ()
    if len(names) != len(varies):
        names = tuple(f"image feature {j + 1}" for j in range(len(varies)))
    kept = tuple(name for name, v in zip(names, varies, strict=True) if v)
    # Far-off images would decide: within four standard deviations, as networks see covariates.
    return standardise_table(every[:, varies]), kept


def _frames(images: Array) -> Array:
    """Images of sequences one by one."""
    return images.reshape(-1, *images.shape[-3:])
