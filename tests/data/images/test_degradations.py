"""Degradations: the protocol's noise to the bit, physics of the others, order of composition."""

import json
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxcore.data.images.degradations import (
    BLUR_RADIUS,
    DEGRADATIONS,
    LEGACY_SIGMAS,
    compose,
    degradation,
    gaussian_noise,
    haze,
    legacy_noise,
    smooth_depth,
)
from jaxcore.errors import UserError

GOLDEN = Path(__file__).parents[2] / "golden/adair/noise.npz"


def textured(height=48, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_noise_equals_the_golden_file_to_the_bit():
    golden = np.load(GOLDEN)
    clean = golden["in/clean"]
    stream = np.random.RandomState(json.loads(str(golden["config"]))["seed"])
    for sigma in LEGACY_SIGMAS:
        noise = stream.randn(*clean.shape)
        np.testing.assert_array_equal(noise.astype(np.float32), golden[f"out/noise{sigma}"])
        noisy = gaussian_noise(clean, sigma, noise)
        np.testing.assert_array_equal(noisy, golden[f"out/noisy{sigma}"])


@pytest.mark.parametrize("sigma", LEGACY_SIGMAS)
def test_noise_is_truncated_not_rounded(sigma):
    grey = np.full((1200, 1200, 3), 128, np.uint8)  # standard error of the mean at most 0.024
    noisy = DEGRADATIONS[f"noise{sigma}"](grey, np.random.default_rng(1))
    assert -0.6 < noisy.mean() - 128 < -0.4
    assert abs(noisy.std() - sigma) < 0.05 * sigma


def test_legacy_noise_is_one_stream_over_all_sigmas():
    shapes = [(3, 5, 3), (4, 2, 3)]
    stream = np.random.RandomState(0)
    for sigma in LEGACY_SIGMAS:
        for drawn, shape in zip(legacy_noise(shapes, sigma), shapes, strict=True):
            np.testing.assert_array_equal(drawn, stream.randn(*shape))


def test_haze_follows_the_model():
    rng = np.random.default_rng(0)
    clean, depth = rng.random((5, 6, 3)), rng.random((5, 6))
    hazy = haze(clean, depth, 1.3, 0.8)
    for i, j in np.ndindex(5, 6):
        t = np.exp(-1.3 * depth[i, j])
        np.testing.assert_allclose(hazy[i, j], clean[i, j] * t + 0.8 * (1 - t))
    # Nothing in between: the image; infinitely far: the airlight.
    np.testing.assert_array_equal(haze(clean, np.zeros((5, 6)), 1.3, 0.8), clean)
    np.testing.assert_allclose(haze(clean, np.full((5, 6), 1e3), 1.3, 0.8), 0.8)


def test_smooth_depth_is_smooth_and_in_range():
    depth = smooth_depth(60, 90, np.random.default_rng(3))
    assert 0.2 <= depth.min() and depth.max() <= 1.2
    # Two coarse cells of at most 1 are spread over 59 and 89 steps.
    assert np.abs(np.diff(depth, axis=0)).max() <= 2 / 59 + 1e-12
    assert np.abs(np.diff(depth, axis=1)).max() <= 2 / 89 + 1e-12


@pytest.mark.parametrize("name", [*DEGRADATIONS, "rain+noise50", "centre_box+noise15"])
@pytest.mark.parametrize("shape", [(48, 40), (1, 1), (3, 50)])
def test_each_is_seeded_pure_and_keeps_shape_and_type(name, shape):
    clean = textured(*shape)
    before = clean.copy()
    one, again, other = (degradation(name)(clean, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(clean, before)
    assert one.shape == clean.shape
    assert one.dtype == (np.uint16 if name == "centre_box" else np.uint8)
    np.testing.assert_array_equal(one, again)
    if shape == (48, 40) and name not in ("centre_box", "clean", "clean_any"):
        assert (one != other).any()


def test_rain_only_brightens_and_streaks_are_near_the_vertical():
    black = np.zeros((120, 120, 3), np.uint8)
    for seed in range(5):
        streaks = DEGRADATIONS["rain"](black, np.random.default_rng(seed))[..., 0].astype(float)
        assert 0 < (streaks > 0).mean() < 0.4
        # Along the fall neighbours are alike, across they are not.
        down, across = (np.abs(np.diff(streaks, axis=axis)).mean() for axis in (0, 1))
        assert down < across
        clean = textured(seed=seed)
        assert (DEGRADATIONS["rain"](clean, np.random.default_rng(seed)) >= clean).all()


def test_blur_keeps_linear_light_and_position():
    point = np.zeros((61, 61, 3), np.uint8)
    point[30, 30] = 255
    for seed in range(10):
        blurred = DEGRADATIONS["blur"](point, np.random.default_rng(seed))[..., 0]
        light = (blurred / 255) ** 2.2
        rows, columns = np.indices(light.shape)
        assert abs(light.sum() - 1) < 0.03  # up to rounding to 8 bits
        assert abs((rows * light).sum() / light.sum() - 30) < 0.3
        assert abs((columns * light).sum() / light.sum() - 30) < 0.3
        assert np.abs(np.argwhere(blurred) - 30).max() <= BLUR_RADIUS


def test_blur_does_not_read_beyond_its_margin():
    clean = textured(80, 80)
    changed = clean.copy()
    changed[:20] ^= 255
    one, other = (DEGRADATIONS["blur"](x, np.random.default_rng(5)) for x in (clean, changed))
    np.testing.assert_array_equal(one[20 + BLUR_RADIUS :], other[20 + BLUR_RADIUS :])


def test_low_light_is_darker_and_keeps_black_dark():
    for seed in range(5):
        white = np.full((32, 32, 3), 255, np.uint8)
        dark = DEGRADATIONS["lowlight"](white, np.random.default_rng(seed))
        # exposure 0.01 to 0.25 in linear light is 0.12 to 0.53 of the grey scale.
        assert 0.12 - 0.02 < dark.mean() / 255 < 0.53 + 0.02
        black = DEGRADATIONS["lowlight"](np.zeros_like(white), np.random.default_rng(seed))
        assert black.mean() < dark.mean() / 2


def test_compose_has_an_order():
    clean = textured()
    rng = np.random.default_rng(7)
    by_hand = DEGRADATIONS["noise50"](DEGRADATIONS["rain"](clean, rng), rng)
    composed = compose("rain", "noise50")(clean, np.random.default_rng(7))
    np.testing.assert_array_equal(composed, by_hand)
    assert (composed != compose("noise50", "rain")(clean, np.random.default_rng(7))).any()
    assert compose("blur", "haze", "blur").margin == 2 * BLUR_RADIUS
    assert degradation("rain") is DEGRADATIONS["rain"]


@pytest.mark.parametrize("name", ["snow", "rain+snow", "", "noise"])
def test_unknown_degradations_are_named(name):
    with pytest.raises(UserError, match="Expected degradations among noise15"):
        degradation(name)
    with pytest.raises(UserError, match="found none"):
        compose()


@hypothesis.settings(deadline=None, derandomize=True, max_examples=30)
@hypothesis.given(st.integers(0, 255), st.sampled_from(LEGACY_SIGMAS), st.floats(-6, 6))
def test_noise_is_floor_of_the_clipped_sum(grey, sigma, z):
    noisy = gaussian_noise(np.full((1, 1, 1), grey, np.uint8), sigma, np.full((1, 1, 1), z))
    assert noisy.item() == int(min(max(grey + sigma * z, 0), 255))
