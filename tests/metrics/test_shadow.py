"""Figures of shadow removal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.metrics import psnr, shadow_scores, srgb_to_lab


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (54.29, 80.81, 69.89)),  # of the sRGB profile, white D50
        ((0, 1, 0), (87.82, -79.29, 80.99)),
        ((0, 0, 1), (29.57, 68.30, -112.03)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ],
)
def test_lab_of_known_colours(rgb, lab):
    found = srgb_to_lab(jnp.array(rgb, jnp.float32).reshape(1, 1, 3)).ravel()
    np.testing.assert_allclose(found, lab, atol=0.02)


def test_regions_add_up():
    rng = np.random.default_rng(0)
    image, target = rng.random((2, 2, 8, 6, 3), np.float32)
    mask = (rng.random((2, 8, 6, 1)) < 0.3).astype(np.float32)
    scores = jax.jit(shadow_scores)(image, target, mask)
    np.testing.assert_allclose(scores["psnr_all"], psnr(image, target), rtol=1e-5)
    share = mask.mean(axis=(1, 2, 3))
    whole = share * scores["lab_shadow"] + (1 - share) * scores["lab_free"]
    np.testing.assert_allclose(whole, scores["lab_all"], rtol=1e-5)
    errors = [10 ** (-scores[f"psnr_{name}"] / 10) for name in ("shadow", "free", "all")]
    np.testing.assert_allclose(errors[0] + errors[1], errors[2], rtol=1e-4)


def test_an_empty_region_has_no_error_in_lab():
    image = jnp.full((4, 4, 3), 0.5)
    scores = shadow_scores(image, image, jnp.zeros((4, 4, 1)))
    assert np.isnan(scores["lab_shadow"]) and scores["lab_free"] == 0


def test_shapes_that_do_not_fit():
    image = jnp.zeros((4, 4, 3))
    with pytest.raises(UserError, match=r"mask of shape \(4, 4, 1\), found .* \(4, 4, 3\)"):
        shadow_scores(image, image, image)
