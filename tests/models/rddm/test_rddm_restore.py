"""From pictures of any size to restored ones."""

import jax
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import rddm
from jaxcore.models.rddm import RDDMConfig

SMALL = {"dim": 8, "dim_mults": (1, 2), "groups": 4}
CFG = RDDMConfig.low_light(unet=SMALL, condition_channels=1)


@pytest.fixture(scope="module")
def params():
    return rddm.init(jax.random.key(0), CFG)


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    return rng.random((7, 9, 3), np.float32), rng.random((7, 9, 1), np.float32)


@pytest.fixture(scope="module")
def restored(params, picture):
    image, mask = picture
    return rddm.restore(params, image, CFG, condition=mask)


def test_shape_and_range(restored, picture):
    assert restored.shape == picture[0].shape and restored.dtype == np.float32
    assert restored.min() >= 0 and restored.max() <= 1


def test_the_seed_decides_and_noise_can_be_given(params, picture, restored):
    image, mask = picture
    again = rddm.restore(params, image, CFG, condition=mask, seed=0)
    np.testing.assert_array_equal(again, restored)
    other = rddm.restore(params, image, CFG, condition=mask, seed=1)
    assert np.abs(other - restored).max() > 1e-4
    noise = np.random.default_rng(1).standard_normal(image.shape, np.float32)
    given = rddm.restore(params, image, CFG, condition=mask, noise=noise)
    np.testing.assert_array_equal(given, other)


def test_a_batch_is_its_images(params, picture, restored):
    image, mask = picture
    noise = np.random.default_rng(0).standard_normal(image.shape, np.float32)
    images, masks, noises = (np.stack([a, a]) for a in (image, mask, noise))
    both = rddm.restore(params, images, CFG, condition=masks, noise=noises)
    np.testing.assert_allclose(both, np.stack([restored, restored]), atol=1e-5)


def test_tiles_and_conditions_are_cut_alike(params, picture):
    """One tile over the whole image is the image; more tiles keep the shape."""
    image, mask = picture
    calls = []
    out = rddm.restore(
        params,
        image,
        CFG,
        condition=mask,
        tile=8,
        overlap=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert out.shape == image.shape and calls == [(1, 2), (2, 2)]


def test_a_search_is_read_as_its_weight_leans(params, picture):
    cfg = RDDMConfig.objective_search(unet={**SMALL, "dim_mults": (1,)})
    search = rddm.init(jax.random.key(0), cfg)
    images = [
        rddm.restore({**search, "weight": np.float32(w)}, picture[0], cfg, steps=1)
        for w in (0.501, 0.499)
    ]
    assert np.abs(images[0] - images[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"Expected a condition of shape \(7, 9, 1\), such as a mask, beside the image"),
        ({"condition": np.zeros((7, 9, 3))}, r"shape \(7, 9, 1\), found \(7, 9, 3\)"),
        ({"condition": np.zeros((7, 9, 1)), "steps": 0}, "between 1 and 1000 sampling steps"),
        ({"condition": np.zeros((7, 9, 1)), "mode": "noise"}, "Expected a mode of pred_res"),
        ({"condition": np.zeros((7, 9, 1)), "tile": 9}, "tile must be a positive multiple of 2"),
        ({"condition": np.zeros((7, 9, 1)), "noise": np.zeros((1, 1, 3))}, "noise of the shape"),
        ({"condition": np.zeros((7, 9, 1)), "seed": -1}, "a seed of at least 0, found -1"),
        ({"condition": np.zeros((7, 9, 1), np.uint8)}, "floating-point condition, found uint8"),
    ],
)
def test_options_that_do_not_fit(params, picture, options, message):
    with pytest.raises(UserError, match=message):
        rddm.restore(params, picture[0], CFG, **options)


def test_a_step_at_every_time_adds_no_noise(picture):
    """The published rule would take the ancestral loop there, which restoration does not."""
    cfg = RDDMConfig.low_light(unet=SMALL, schedule={"timesteps": 3})
    params = rddm.init(jax.random.key(0), cfg)
    out = rddm.restore(params, picture[0], cfg, steps=3)
    np.testing.assert_array_equal(rddm.restore(params, picture[0], cfg, steps=3), out)
    with pytest.raises(UserError, match="no condition for networks without further channels"):
        rddm.restore(params, picture[0], cfg, condition=picture[1])


def test_images_that_do_not_fit(params):
    mask = np.zeros((7, 9, 1))
    with pytest.raises(UserError, match=r"\(height, width, 3\) or a batch of such, found \(7, 9\)"):
        rddm.restore(params, np.zeros((7, 9)), CFG, condition=mask)
    with pytest.raises(UserError, match="floating-point images in"):
        rddm.restore(params, np.zeros((7, 9, 3), np.uint8), CFG, condition=mask)
    with pytest.raises(UserError, match="NaN or infinite"):
        rddm.restore(params, np.full((7, 9, 3), np.nan, np.float32), CFG, condition=mask)
    cfg = RDDMConfig.generation(unet=SMALL)
    with pytest.raises(UserError, match="found networks that generate them"):
        rddm.restore({}, np.zeros((8, 8, 3), np.float32), cfg)
