"""Missing and uncertain pixels: every method leaves them out of what it fits."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.models import deconvolution as d
from jaxcore.models.deconvolution.masks import fill_missing, noise_by_scale, noise_level
from jaxcore.ops.starlet import mad_sigma
from tests.models.deconvolution.stamps import error, stamp

SIDE, SIGMA = 32, 0.02
TARGET = jnp.asarray(d.gaussian_psf((SIDE, SIDE), 2.0), jnp.float32)
# Few steps and scales: quick to compile, and the comparison is with the same method.
QUICK = {"sparse": {"n_iter": 40}, "two_channel": {"n_iter": 40}, "tikhonov": {"lam": 0.003}}


@pytest.fixture(scope="module")
def scene():
    """A galaxy, weights with a hole in it and dead pixels, and what a camera puts there."""
    s = stamp(SIDE, SIGMA)
    rng = np.random.default_rng(1)
    weights = (rng.random((SIDE, SIDE)) > 0.03).astype(np.float32)
    weights[20:23, 22:26] = 0
    spoilt = np.where(weights > 0, s.noisy, np.where(rng.random((SIDE, SIDE)) < 0.5, np.nan, 1e4))
    truth = d.convolve(s.truth, d.psf_to_tf(TARGET))
    return s, jnp.asarray(weights), jnp.asarray(spoilt), truth


@pytest.mark.parametrize("name", d.METHODS)
def test_missing_pixels_hardly_change_the_result(scene, name):
    s, weights, spoilt, truth = scene
    options = {"sigma": SIGMA, "target_psf": TARGET, **QUICK.get(name, {})}
    whole = d.METHODS[name](s.noisy, s.psf, **options)
    assert error(whole, truth) < 0.6 * error(s.noisy, truth)
    masked = d.METHODS[name](spoilt, s.psf, weights=weights, **options)
    assert error(masked, truth) < 1.3 * error(whole, truth)
    ones = d.METHODS[name](s.noisy, s.psf, weights=jnp.ones_like(weights), **options)
    np.testing.assert_allclose(ones, whole, atol=1e-4 * float(whole.max()))


def test_debiasing_takes_nothing_from_missing_pixels(scene):
    s, weights, spoilt, _ = scene
    start = 0.8 * s.noisy
    whole = d.debias(start, s.noisy, s.psf, sigma=SIGMA).image
    masked = d.debias(start, spoilt, s.psf, sigma=SIGMA, weights=weights).image
    assert error(masked, s.truth) < 1.1 * error(whole, s.truth)


def test_tikhonov_with_weights_is_the_solution_of_the_weighted_problem():
    """Against the normal equations, solved densely."""
    side, lam = 12, 0.05
    rng = np.random.default_rng(0)
    psf = d.gaussian_psf((side, side), 3.0)
    weights, y = rng.choice([0.0, 0.5, 1.0], (side, side)), rng.normal(5, 1, (side, side))
    unit = np.eye(side**2).reshape(-1, side, side)
    blur = np.asarray(d.convolve(jnp.asarray(unit), d.psf_to_tf(jnp.asarray(psf))))
    blur = blur.reshape(side**2, -1).T
    rough = 4 * unit - sum(np.roll(unit, s, a) for s in (1, -1) for a in (1, 2))
    rough = rough.reshape(side**2, -1).T
    left = blur.T @ (weights.ravel()[:, None] * blur) + lam * rough.T @ rough
    expected = np.linalg.solve(left, blur.T @ (weights * y).ravel()).reshape(side, side)
    found = d.restore_tikhonov(
        jnp.asarray(y, jnp.float32), jnp.asarray(psf, jnp.float32), lam, weights=weights
    )
    assert np.abs(found - expected).max() < 0.02 * expected.std()


def test_uncertain_pixels_count_less(scene):
    """Half of the image is noisier; who knows that comes closer to the truth."""
    s, _, _, truth = scene
    noise = 10 * SIGMA * np.random.default_rng(3).normal(size=(SIDE, SIDE // 2))
    y = s.noisy.at[:, : SIDE // 2].add(jnp.asarray(noise, jnp.float32))
    weights = jnp.ones((SIDE, SIDE)).at[:, : SIDE // 2].set(1 / 101)
    options = {"sigma": SIGMA, "target_psf": TARGET, "n_iter": 40, "k": 2.0}
    blind, told = (d.sparse_starlet(y, s.psf, weights=w, **options) for w in (None, weights))
    assert error(told, truth) < 0.5 * error(blind, truth)


@pytest.mark.parametrize("name", d.METHODS)
def test_an_empty_image_stays_empty(name):
    options = QUICK.get(name, {})
    psf = jnp.asarray(d.moffat_psf((SIDE, SIDE), 6.0), jnp.float32)
    empty = jnp.zeros((SIDE, SIDE))
    out = d.METHODS[name](empty, psf, sigma=0.0, target_psf=TARGET, **options)
    np.testing.assert_array_equal(out, 0)


def test_missing_pixels_are_filled_by_their_neighbours():
    rows, cols = np.indices((40, 30))
    y = jnp.asarray(rows + 2.0 * cols, jnp.float32)
    weights = jnp.ones(y.shape).at[10:13, 10:20].set(0).at[:, 25:].set(0)
    filled = fill_missing(jnp.where(weights > 0, y, jnp.nan), weights)
    assert bool(jnp.isfinite(filled).all())
    assert float(jnp.abs(filled - y)[10:13, 10:20].max()) < 2.0  # of a slope of 1 and 2
    np.testing.assert_array_equal(filled[weights > 0], y[weights > 0])
    nothing = fill_missing(jnp.full((5, 5), jnp.nan), jnp.zeros((5, 5)))
    np.testing.assert_array_equal(nothing, 0)


def test_the_noise_is_that_of_known_pixels(scene):
    s, weights, spoilt, _ = scene
    assert float(noise_level(spoilt, weights)) == pytest.approx(float(mad_sigma(s.noisy)), rel=0.05)


def test_correlated_noise_shows_on_coarser_scales():
    white = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    shared = (white + np.roll(white, 1, 0) + np.roll(white, 1, 1)) / np.sqrt(3)
    ones = jnp.ones(white.shape)
    fine, *coarse = noise_by_scale(jnp.asarray(white), ones)
    assert max(coarse) < 1.2 * fine
    fine, *coarse = noise_by_scale(jnp.asarray(shared), ones)
    assert max(coarse) > 1.5 * fine


def test_a_sky_below_zero_is_allowed(scene):
    s, _, _, truth = scene
    options = {"sigma": SIGMA, "target_psf": TARGET, "n_iter": 40, "background": True}
    out = d.sparse_starlet(s.noisy - 1, s.psf, **options)
    assert float(jnp.sum(out + 1)) == pytest.approx(float(truth.sum()), rel=0.05)


@pytest.mark.parametrize("name", ["richardson_lucy", "wiener"])
def test_zeros_and_odd_sides_give_finite_images_of_the_same_size(name):
    """What other programs are known to fail on: 0 / 0, and a last column that gets lost."""
    shape = (33, 45)
    y = jnp.zeros(shape).at[20, 30].set(100.0)
    psf = jnp.asarray(d.gaussian_psf(shape, 3.0), jnp.float32)
    out = d.METHODS[name](y, psf, sigma=0.1)
    assert out.shape == shape and bool(jnp.isfinite(out).all())
    assert np.unravel_index(int(out.argmax()), shape) == (20, 30)
