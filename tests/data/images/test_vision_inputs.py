"""Pictures as language models see them: sizes, order of patches, bars, refusals."""

from pathlib import Path

import numpy as np
import pytest

from jaxcore.data.images.read import Picture
from jaxcore.data.images.vision_inputs import (
    CLIP_DEVIATION,
    CLIP_MEAN,
    PatchInputs,
    SquareInputs,
    as_bytes,
)
from jaxcore.errors import UserError
from tests.parity.causalmm_vision import check_preprocess

GOLDEN = Path(__file__).parents[2] / "golden" / "causalmm"


def test_the_official_processors_give_the_same():
    check_preprocess(GOLDEN / "preprocess.npz")


def test_bars_have_the_mean_colour_and_nothing_is_cut_off():
    image = np.full((8, 16, 3), 255, np.uint8)
    square = SquareInputs(side=16, pad=True)(image) * CLIP_DEVIATION + CLIP_MEAN
    np.testing.assert_allclose(square[4:12], 1, atol=1e-6)
    np.testing.assert_allclose(square[:4] * 255, np.full((4, 16, 3), (122, 116, 104)), atol=1e-4)
    cut = SquareInputs(side=16)(image) * CLIP_DEVIATION + CLIP_MEAN
    np.testing.assert_allclose(cut, 1, atol=1e-6)


def test_patches_follow_each_other_cell_by_cell():
    """Each patch of 2x2 pixels has its own grey value, counted row by row over the picture."""
    numbers = np.arange(24).reshape(4, 6)
    image = np.repeat(np.kron(numbers, np.ones((2, 2)))[..., None], 3, -1).astype(np.uint8)
    sizes = {"patch": 2, "min_pixels": 1, "mean": (0, 0, 0), "deviation": (1, 1, 1)}
    rows, grid = PatchInputs(**sizes)(image)
    assert grid == (1, 4, 6) and rows.shape == (24, 3 * 2 * 2 * 2)
    order = np.round(rows[:, 0] * 255).astype(int).tolist()
    assert order[:8] == [0, 1, 6, 7, 2, 3, 8, 9] and sorted(order) == list(range(24))
    assert (rows == rows[:, :1]).all()


def test_a_row_holds_bands_then_moments_then_pixels():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1] = (255, 51, 0)
    sizes = {"patch": 2, "merge": 1, "min_pixels": 1, "mean": (0, 0, 0), "deviation": (1, 1, 1)}
    (row,), grid = PatchInputs(**sizes)(image)
    assert grid == (1, 1, 1)
    np.testing.assert_allclose(row.reshape(3, 2, 2, 2)[:, :, 0, 1], [[1, 1], [0.2, 0.2], [0, 0]])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 200), (3, 500), (5000, 26), (29, 4000)])
def test_pictures_of_all_sizes_become_whole_cells_within_the_bounds(height, width):
    inputs = PatchInputs(max_pixels=100_000)
    sides = inputs.size(height, width)
    assert all(side and side % 28 == 0 for side in sides)
    assert inputs.min_pixels <= np.prod(sides)
    assert np.prod(sides) <= inputs.max_pixels or min(sides) == 28


def test_no_side_of_a_narrow_picture_becomes_nothing():
    """Rounding down to whole cells would leave no pixel of the short side."""
    assert PatchInputs(max_pixels=20 * 28 * 28).size(31, 639) == (28, 560)
    assert PatchInputs(max_pixels=28 * 28 * 16).size(15420, 690) == (504, 28)
    assert PatchInputs().size(3, 500) == (28, 728)


def test_what_is_no_picture_of_bytes_or_a_stripe_is_refused():
    for inputs in (SquareInputs(), PatchInputs()):
        for image in (
            np.zeros((4, 4, 3)),
            np.zeros((4, 4, 1), np.uint8),
            np.zeros((0, 4, 3), "u1"),
        ):
            with pytest.raises(UserError, match="a picture of 8 bits and shape"):
                inputs(image)
    with pytest.raises(UserError, match=r"factor of at most 200, found 201x1\."):
        PatchInputs()(np.zeros((1, 201, 3), np.uint8))


def test_deep_and_transparent_pictures_become_bytes():
    deep = np.full((1, 1, 3), 257 * 9, np.uint16)
    assert (as_bytes(Picture(pixels=deep)) == 9).all()
    half = np.full((1, 1, 3), 0.2, np.float32)
    assert (as_bytes(Picture(pixels=half)) == 51).all()
    laid = as_bytes(Picture(pixels=half, alpha=np.full((1, 1), 0.0, np.float32)))
    assert (laid == 255).all() and laid.dtype == np.uint8
