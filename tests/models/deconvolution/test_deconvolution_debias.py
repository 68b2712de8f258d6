"""Debiasing: flux that was lost comes back, noise does not; golden files are in tests/parity."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import deconvolution as d
from jaxcore.ops.starlet import Starlet
from jaxcore.ops.stationary import Stationary
from tests.models.deconvolution.stamps import error, stamp


@pytest.fixture(scope="module")
def stamps():
    truth, noisy, psf = stamp()
    return (
        truth,
        noisy,
        psf,
        0.8 * d.convolve(truth, d.psf_to_tf(jnp.asarray(d.gaussian_psf((64, 64), 3.0), "float32"))),
    )


@pytest.mark.parametrize("domain", ["data", "image"])
def test_lost_flux_comes_back_and_the_image_gets_better(stamps, domain):
    truth, noisy, psf, start = stamps
    out = d.debias(start, noisy, psf, sigma=0.02, domain=domain)
    lost = float(start.sum() / truth.sum()) - 1
    left = float(out.image.sum() / noisy.sum()) - 1
    assert lost < -0.19 and abs(left) < 0.02
    assert error(out.image, truth) < 0.5 * error(start, truth)
    assert (np.diff(out.residual_norms[:, 0]) < 0).all()
    assert out.support.shape == (4, 64, 64) and 0 < out.support.mean() < 0.6


def test_where_there_is_only_noise_nothing_is_added_but_the_coarse_plane(stamps):
    _, _, psf, _ = stamps
    noise = jnp.asarray(np.random.default_rng(5).normal(size=(64, 64)), jnp.float32)
    out = d.debias(jnp.zeros_like(noise), noise, psf, sigma=1.0, coarse="drop")
    assert float(out.support.mean()) < 0.005 and float(jnp.abs(out.image).mean()) < 0.02


def test_batches_and_variance_maps_equal_single_calls(stamps):
    _, noisy, psf, start = stamps
    one = d.debias(start, noisy, psf, sigma=0.02, n_iter=3)
    both = jnp.stack([start, start]), jnp.stack([noisy, noisy])
    many = d.debias(*both, psf, sigma=jnp.array([0.02, 0.02]), n_iter=3)
    np.testing.assert_allclose(many.image[1], one.image, atol=1e-5)
    variance = jnp.full((64, 64), 0.02**2)
    mapped = d.debias(start, noisy, psf, variance=variance, n_iter=3)
    assert float((mapped.support != one.support).mean()) < 0.01


def test_observations_may_have_larger_pixels(stamps):
    truth, _, psf, start = stamps
    rng = np.random.default_rng(2)
    coarse = d.rebin(d.convolve(truth, d.psf_to_tf(psf)), 2)
    coarse = coarse + jnp.asarray(0.03 * rng.normal(size=(32, 32)), jnp.float32)
    out = d.debias(start, coarse, psf, sigma=0.03)
    assert out.support.shape == (4, 32, 32)
    assert abs(float(out.image.sum() / coarse.sum()) - 1) < 0.02
    assert error(out.image, truth) < 0.5 * error(start, truth)


def test_a_support_may_grow_and_lose_lonely_coefficients(stamps):
    _, noisy, psf, start = stamps
    plain = d.multiresolution_support(noisy, 0.02)
    lonely = d.multiresolution_support(noisy, 0.02, drop_isolated=True)
    assert not (lonely & ~plain).any() and lonely.sum() < plain.sum()
    grown = d.debias(start, noisy, psf, sigma=0.02, update_support=True, positivity=True)
    assert not (plain & ~grown.support).any() and float(grown.image.min()) >= 0


def test_the_noise_behind_the_filter_is_that_of_filtered_noise(stamps):
    _, _, psf, _ = stamps
    rng = np.random.default_rng(1)
    noise = jnp.asarray(rng.normal(size=(40, 64, 64)), jnp.float32)
    starlet = Starlet(3, 2, "wrap")
    seen = starlet.planes(d.tikhonov(noise, psf))[:, :-1].std((0, 2, 3))
    told = d.tikhonov_noise_scales(starlet, d.psf_to_tf(psf), 1.0, (64, 64))
    np.testing.assert_allclose(told, seen, rtol=0.05)


def test_stationary_wavelets_are_another_dictionary(stamps):
    truth, noisy, psf, start = stamps
    wavelets = Stationary(3, "db2")
    out = d.debias(start, noisy, psf, sigma=0.02, dictionary=wavelets)
    assert out.support.shape == (9, 64, 64) and 0 < float(out.support.mean()) < 0.6
    assert abs(float(out.image.sum() / noisy.sum()) - 1) < 0.02
    assert error(out.image, truth) < 0.5 * error(start, truth)
    told = d.tikhonov_noise_scales(wavelets, d.psf_to_tf(psf), 1.0, (64, 64))
    noise = jnp.asarray(np.random.default_rng(1).normal(size=(40, 64, 64)), jnp.float32)
    seen = wavelets.planes(d.tikhonov(noise, psf))[:, :-1].std((0, 2, 3))
    np.testing.assert_allclose(told, seen, rtol=0.05)
    with pytest.raises(UserError, match="one noise level for stationary wavelets"):
        d.debias(start, noisy, psf, variance=noisy**2, dictionary=wavelets)


def test_options_that_do_not_fit_are_refused(stamps):
    _, noisy, psf, start = stamps
    for options, sentence in (
        ({"coarse": "half"}, "coarse to be keep or drop"),
        ({"sigma": 0.1, "variance": noisy}, "either sigma or variance"),
        ({"domain": "image", "variance": noisy**2}, "and sigma, not variance"),
    ):
        with pytest.raises(UserError, match=sentence):
            d.debias(start, noisy, psf, **options)
