"""Bilinear resizing against the definition, and against JAX's own."""

import jax
import numpy as np
import pytest

from jaxcore.ops import resize_bilinear


def by_definition(x, size):
    """Half-pixel centres, borders clamped, no antialiasing: one axis after the other."""
    for axis, target in zip((1, 2), size, strict=True):
        length = x.shape[axis]
        centre = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1)
        low = np.floor(centre).astype(int)
        high = np.minimum(low + 1, length - 1)
        share = (centre - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


@pytest.mark.parametrize(
    "size", [(8, 12), (4, 6), (2, 3), (1, 1), (16, 24), (5, 7), (8, 6), (20, 12), (24, 24)]
)
def test_matches_the_definition(size):
    x = np.random.default_rng(0).normal(size=(2, 16, 24, 3)).astype(np.float32)
    ours = jax.jit(resize_bilinear, static_argnums=1)(x, size)
    np.testing.assert_allclose(ours, by_definition(x, size), atol=2e-6)
    theirs = jax.image.resize(x, (2, *size, 3), "bilinear", antialias=False)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_odd_factor_takes_the_middle_sample():
    x = np.arange(9, dtype=np.float32).reshape(1, 1, 9, 1)
    np.testing.assert_array_equal(resize_bilinear(x, (1, 3)).ravel(), [1, 4, 7])


def test_keeps_half_precision():
    x = jax.numpy.ones((1, 8, 8, 1), "bfloat16")
    assert resize_bilinear(x, (4, 4)).dtype == "bfloat16"
