"""Pixel shuffle and unshuffle: PyTorch's order, and inverse of each other."""

import numpy as np
import pytest

from jaxcore.ops import pixel_shuffle, pixel_unshuffle


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_round_trip(factor):
    x = np.random.default_rng(0).normal(size=(2, 6, 12, 5))
    packed = pixel_unshuffle(x, factor)
    assert packed.shape == (2, 6 // factor, 12 // factor, 5 * factor**2)
    np.testing.assert_array_equal(pixel_shuffle(packed, factor), x)


def test_channel_is_c_times_4_plus_2_rows_plus_columns():
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 3))
    packed = pixel_unshuffle(x, 2)
    for c, row, col in np.ndindex(3, 2, 2):
        np.testing.assert_array_equal(packed[..., c * 4 + 2 * row + col], x[:, row::2, col::2, c])
