"""Stationary wavelet transforms have the numbers of PyWavelets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt

from jaxcore.errors import UserError
from jaxcore.ops import stationary as ops


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior4.4"])
def test_planes_are_those_of_pywavelets_and_give_the_image_back(wavelet):
    x = np.random.default_rng(0).normal(size=(2, 16, 24))
    with jax.enable_x64(True):
        planes = ops.stationary(x, 3, wavelet)
        again = ops.inverse_stationary(planes, wavelet)
    for image, ours in zip(x, planes, strict=True):
        coarse, *details = pywt.swt2(image, wavelet, 3, trim_approx=True)
        theirs = [plane for scale in reversed(details) for plane in scale]
        np.testing.assert_allclose(ours, [*theirs, coarse], atol=1e-12)
    np.testing.assert_allclose(again, x, atol=1e-12)


@pytest.mark.parametrize("wavelet", ["db2", "bior4.4"])
def test_noise_of_every_plane_is_known(wavelet):
    transform = ops.Stationary(2, wavelet)
    point = jnp.zeros((64, 64)).at[0, 0].set(1.0)
    planes = np.asarray(transform.planes(point))[:-1]
    np.testing.assert_allclose(transform.norms(), np.linalg.norm(planes, axis=(1, 2)), rtol=1e-5)
    seen = np.abs(np.fft.rfft2(planes))
    np.testing.assert_allclose(transform.transfer((64, 64)), seen, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ops.stationary(jnp.zeros((12, 8)), 3), "multiples of 8"),
        (lambda: ops.stationary(jnp.zeros((8, 8)), 1, "mexh"), "a discrete wavelet"),
        (lambda: ops.inverse_stationary(jnp.zeros((5, 8, 8))), "three planes of every scale"),
    ],
)
def test_what_does_not_fit_is_refused(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
