"""Features of images that nothing has to learn, against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.image_confounding import representations as rep

IMAGES = np.random.default_rng(0).normal(2, 3, size=(5, 7, 6, 3)).astype(np.float32)


def test_statistics_of_bands():
    found = rep.band_stats(IMAGES, rep.DECILES)
    pixels = IMAGES.reshape(5, 42, 3)
    quantiles = np.quantile(pixels, rep.DECILES, axis=1)
    expected = [pixels.mean(1), pixels.std(1), *quantiles]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-4, atol=1e-5)
    assert rep.band_stats(IMAGES).shape == (5, 12) and rep.band_stats(IMAGES, ()).shape == (5, 6)


def test_images_of_a_sequence_are_described_one_after_the_other():
    sequences = np.stack([IMAGES, 2 * IMAGES], axis=1)
    parts = [rep.band_stats(IMAGES), rep.band_stats(2 * IMAGES)]
    np.testing.assert_allclose(rep.band_stats(sequences), np.concatenate(parts, 1), rtol=1e-5)


def test_random_convolutions_are_means_of_both_parts_of_every_response():
    filters = rep.gaussian_filters(jax.random.key(0), 3, 8)
    found = np.asarray(rep.random_conv_features(IMAGES, filters))
    patches = np.lib.stride_tricks.sliding_window_view(IMAGES, (3, 3), axis=(1, 2))
    response = np.einsum("bijckl,klcf->bijf", patches, filters.kernel) - 1
    parts = [np.maximum(sign * response, 0).mean((1, 2)) for sign in (1, -1)]
    np.testing.assert_allclose(found, np.concatenate(parts, 1), rtol=1e-3, atol=1e-4)
    chunks = rep.random_conv_features(IMAGES, filters, rows=2)
    np.testing.assert_allclose(found, chunks, rtol=1e-5, atol=1e-5)
    again = rep.gaussian_filters(jax.random.key(0), 3, 8)
    np.testing.assert_array_equal(filters.kernel, again.kernel)


def test_patches_as_filters_are_whitened():
    images = np.cumsum(np.random.default_rng(1).normal(size=(40, 12, 12, 2)), axis=1)
    filters = rep.empirical_filters(
        jax.random.key(0), jnp.asarray(images, jnp.float32), 2000, ridge=1e-6
    )
    assert filters.kernel.shape == (3, 3, 2, 1000)
    flat = np.asarray(filters.kernel, np.float64).reshape(18, 1000)
    assert np.isfinite(flat).all()
    # Whitened twice: moments of the filters are the inverse of those of the patches, of which the
    # mean has none.
    values = np.linalg.eigvalsh(flat @ flat.T / 1000)
    assert values[0] < 1e-3 * values[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rep.gaussian_filters(jax.random.key(0), 3, 7), "even and at least 2, found 7"),
        (
            lambda: rep.empirical_filters(jax.random.key(0), IMAGES[:, :2], 8),
            "at least 3 pixels, found 2 x 6",
        ),
        (
            lambda: rep.random_conv_features(
                IMAGES[..., :2], rep.gaussian_filters(jax.random.key(0), 3, 8)
            ),
            r"\(b, h, w, 3\) of at least 3 pixels, found \(5, 7, 6, 2\)",
        ),
        (lambda: rep.band_stats(IMAGES, (1.5,)), r"quantiles in \[0, 1\], found"),
        (lambda: rep.band_stats(IMAGES[0]), r"found \(7, 6, 3\)"),
    ],
)
def test_what_does_not_fit_is_said(call, message):
    with pytest.raises(UserError, match=message):
        call()
