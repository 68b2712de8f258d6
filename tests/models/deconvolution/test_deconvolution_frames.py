"""Several frames of the same sky."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.data.astro.telescopes import seeing
from jaxcore.errors import UserError
from jaxcore.models import deconvolution as d
from tests.models.deconvolution.stamps import error, stamp


def test_frames_together_are_better_than_each_and_noisy_ones_count_less():
    truth = stamp(64).truth
    rng = np.random.default_rng(1)
    psfs = jnp.stack(
        [seeing((64, 64), 7.0, axis_ratio=0.5, angle=angle) for angle in (0.0, np.pi / 2)]
    )
    sigma = jnp.array([0.02, 0.02])
    clean = d.convolve(truth[None], d.psf_to_tf(psfs))
    noise = jnp.asarray(rng.normal(size=clean.shape), jnp.float32)
    frames = clean + sigma[:, None, None] * noise
    both = d.tikhonov_frames(frames, psfs, sigma=sigma)
    alone = [error(d.tikhonov(frames[i], psfs[i]), truth) for i in range(2)]
    assert error(both, truth) < 0.7 * min(alone)
    one = d.tikhonov_frames(jnp.stack([frames[0]] * 2), jnp.stack([psfs[0]] * 2), sigma=sigma)
    np.testing.assert_allclose(one, d.tikhonov(frames[0], psfs[0]), atol=1e-4)
    worse = frames.at[1].add(0.5 * noise[1])
    told = d.tikhonov_frames(worse, psfs, sigma=jnp.array([0.02, 0.52]))
    assert error(told, truth) < error(d.tikhonov_frames(worse, psfs), truth)
    assert float(both.sum()) == pytest.approx(float(frames.sum((-2, -1)).mean()), rel=1e-3)


def test_a_psf_for_every_frame_is_needed():
    with pytest.raises(UserError, match="one PSF for every frame"):
        d.tikhonov_frames(jnp.zeros((3, 8, 8)), jnp.zeros((2, 8, 8)))
