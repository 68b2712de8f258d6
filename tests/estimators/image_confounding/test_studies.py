"""The paper's simulation as a study: what it has for every network, and that networks see."""

import jax
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.image_confounding.studies import image_study, scenes
from jaxcore.estimators.monte_carlo import replicate


def test_a_network_of_the_right_filter_takes_most_of_the_bias_out(tmp_path):
    rng = np.random.default_rng(0)
    marks = rng.integers(0, 20, (40, 14, 14, 1))
    for image in marks:  # a falling line here and there: what the planner looks for
        top, left, strength = *rng.integers(0, 11, 2), rng.integers(0, 90)
        for i in range(4):
            image[top + i, left + 3 - i] += strength
    np.savez(tmp_path / "images.npz", images=marks.astype(np.uint8))
    options = {"images": str(tmp_path / "images.npz"), "width": 4, "side": 12}
    study = image_study(200, widths=(4,), pooled=((2, 2),), steps=60, **options)
    assert study.names == ("naive", "true propensities", "filter 4", "pixels / 2, filter 2")
    draws = jax.jit(lambda i: replicate(study.draw, jax.random.key(0), i))
    theta, se = draws(np.arange(2, dtype=np.int32))
    naive, true, found, _ = np.mean(np.asarray(theta)[:, :4] - study.truth, axis=0)
    assert naive > 0.6 and abs(true) < 0.35 and found < naive - 0.2
    assert np.isfinite(np.asarray(se)[:, :4]).all() and np.asarray(theta)[:, 4].min() > 0.5


def test_scenes_that_are_not_there_are_refused(tmp_path):
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    for side, band in ((9, 0), (8, 3)):
        with pytest.raises(UserError, match=f"at least {side} pixels and a band {band}"):
            scenes(5, images=str(tmp_path / "images.npz"), side=side, band=band, seed=0)
    assert scenes(3, images=None, side=8, band=0, seed=1).shape == (3, 8, 8)
