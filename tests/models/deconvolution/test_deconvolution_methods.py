"""The classical methods, in a loop over their table."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.restoration import richardson_lucy as of_skimage

from jaxcore.errors import UserError
from jaxcore.models import deconvolution as d
from jaxcore.ops.starlet import Starlet
from tests.models.deconvolution.stamps import error, stamp

STEPS = {"sparse": {"n_iter": 50}, "two_channel": {"n_iter": 50}}  # for the time they take


@pytest.fixture(scope="module")
def galaxy():
    return stamp(side=40, sigma=0.008)


def restore(name, y, psf, **options):
    return d.METHODS[name](y, psf, **STEPS.get(name, {}), **options)


@pytest.mark.parametrize("name", d.METHODS)
def test_every_method_sharpens_keeps_the_flux_and_takes_batches_and_larger_pixels(name, galaxy):
    truth, noisy, psf = galaxy
    target = jnp.asarray(d.gaussian_psf((40, 40), 2.0), jnp.float32)
    goal = d.convolve(truth, d.psf_to_tf(target))
    sigma = jnp.array([0.008, 0.016])
    both = restore(name, jnp.stack([noisy, 2 * noisy]), psf, sigma=sigma, target_psf=target)
    np.testing.assert_allclose(both[1], 2 * both[0], atol=4e-4)
    assert error(both[0], goal) < 0.5 * error(noisy, goal)
    assert abs(float(both[0].sum() / truth.sum()) - 1) < 0.03
    coarse = restore(name, d.rebin(noisy, 2), psf, sigma=0.016, target_psf=target)
    assert coarse.shape == truth.shape and error(coarse, goal) < 0.6 * error(noisy, goal)


def test_richardson_lucy_is_that_of_scikit_image(galaxy):
    """Which sees zeros beyond the border and starts from one half: far from borders, much later."""
    truth, _, psf = galaxy
    blurred = np.maximum(d.convolve(truth, d.psf_to_tf(psf)), 0)
    ours = d.richardson_lucy(blurred, psf, n_iter=40)
    theirs = of_skimage(blurred, np.asarray(psf)[1:, 1:], num_iter=40, clip=False)
    inside = (slice(8, 32), slice(8, 32))
    assert error(ours[inside], theirs[inside]) < 1e-3


def test_missing_pixels_are_filled_by_richardson_lucy(galaxy):
    truth, noisy, psf = galaxy
    hole = jnp.ones((40, 40)).at[18:21, 10:36].set(0.0)
    holed = jnp.where(hole > 0, noisy, jnp.nan)
    restored = d.richardson_lucy(holed, psf, weights=hole)
    assert np.isfinite(restored).all() and error(restored, truth) < 0.6 * error(noisy, truth)


def test_momentum_gets_nearer_to_the_observation_in_as_many_steps(galaxy):
    _, noisy, psf = galaxy
    options = {"sigma": 0.008, "starlet": Starlet(3, 2), "n_iter": 40}
    slow, fast = (
        d.sparse_starlet(noisy, psf, momentum=momentum, **options) for momentum in (False, True)
    )
    tf = d.psf_to_tf(psf)
    assert error(d.convolve(fast, tf), noisy) < 0.9 * error(d.convolve(slow, tf), noisy)


def test_images_of_zeros_stay_zeros(galaxy):
    zeros = jnp.zeros((40, 40))
    for name in ("tikhonov", "wiener", "richardson_lucy"):
        np.testing.assert_allclose(restore(name, zeros, galaxy.psf, sigma=1.0), 0, atol=1e-6)


@pytest.mark.parametrize("name", ["wiener", "sparse", "two_channel"])
def test_methods_that_need_the_noise_say_so(name, galaxy):
    with pytest.raises(UserError, match="Expected sigma, the noise level"):
        d.METHODS[name](galaxy.noisy, galaxy.psf)


def point(psf, place, flux):
    """A blurred source at any place."""
    wave = [np.exp(-2j * np.pi * np.fft.fftfreq(40) * x) for x in place]
    seen = flux * np.fft.ifft2(np.fft.fft2(np.fft.ifftshift(psf)) * np.outer(*wave)).real
    return jnp.asarray(seen, jnp.float32)


def test_point_sources_are_told_from_the_galaxy_below_them(galaxy):
    truth, noisy, psf = galaxy
    place = (10.3, 26.6)  # between pixels
    seen = noisy + point(psf, place, 60)
    out = d.deconvolve_two_channels(seen, psf, jnp.array([place]), sigma=0.008)
    target = d.psf_to_tf(jnp.asarray(d.gaussian_psf((40, 40), 2.0), jnp.float32))
    np.testing.assert_allclose(out.fluxes, [60], rtol=0.05)
    assert error(out.extended, d.convolve(truth, target)) < 0.1
    np.testing.assert_allclose((out.image - out.extended).sum(), out.fluxes.sum(), rtol=1e-3)


def test_places_of_point_sources_are_found_where_pixels_are_larger_and_some_are_missing(galaxy):
    """One in the middle of the galaxy, one beside it, given most of a pixel off."""
    places = np.array([[20.3, 19.6], [10.3, 28.6]])
    seen = galaxy.noisy + sum(point(galaxy.psf, *one) for one in zip(places, (40, 60), strict=True))
    weights = jnp.ones((20, 20)).at[5, 12].set(0)
    seen = jnp.where(weights > 0, d.rebin(seen, 2), jnp.nan)
    given = jnp.asarray(places + [[0.6, -0.5], [-0.7, 0.6]], jnp.float32)
    options = {"sigma": 0.016, "weights": weights, "n_iter": 80, "starlet": Starlet(3, 2)}
    out = d.deconvolve_two_channels(seen, galaxy.psf, given, fit_rounds=6, **options)
    np.testing.assert_allclose(out.positions, places, atol=0.1)
    np.testing.assert_allclose(out.fluxes, [40, 60], rtol=0.1)
