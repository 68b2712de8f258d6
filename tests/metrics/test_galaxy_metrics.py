"""Photometry, residuals, shapes and clumps of galaxies with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.metrics import galaxies as m

ROWS, COLS = (jnp.asarray(a, jnp.float32) for a in np.indices((65, 65)) - 32)


def gaussian(sigma, q=1.0, angle=0.0, row=0.0, col=0.0):
    along = (COLS - col) * np.cos(angle) + (ROWS - row) * np.sin(angle)
    across = (ROWS - row) * np.cos(angle) - (COLS - col) * np.sin(angle)
    return jnp.exp(-0.5 * (along**2 + (across / q) ** 2) / sigma**2)


def test_flux_inside_a_circle_is_that_of_the_gaussian():
    image = gaussian(4.0)
    for radius in (3.0, 7.3, 12.0):
        wanted = 2 * np.pi * 16 * (1 - np.exp(-0.5 * (radius / 4) ** 2))
        assert float(m.aperture_flux(image, radius)) == pytest.approx(wanted, rel=0.01)
    moved = gaussian(4.0, row=5, col=-8)
    assert float(m.aperture_flux(moved, 7.0, (37.0, 24.0))) == pytest.approx(
        float(m.aperture_flux(image, 7.0)), rel=1e-4
    )


def test_errors_are_zero_for_the_target_and_what_they_should_be_for_a_part_of_it():
    target = jnp.stack([gaussian(4.0), 5 * gaussian(2.0)])
    np.testing.assert_allclose(m.nmse(target, target), 0)
    np.testing.assert_allclose(m.nmse(0.8 * target, target), 0.04, rtol=1e-4)
    error = m.flux_error(0.8 * target, target, 9.0)
    np.testing.assert_allclose(error, -0.2, rtol=1e-4)
    np.testing.assert_allclose(m.magnitude_error(error), 0.2423, rtol=1e-3)


def test_white_noise_has_a_chi2_of_one_and_no_correlation_of_neighbours():
    noise = 3 * jax.random.normal(jax.random.key(0), (4, 65, 65))
    np.testing.assert_allclose(m.reduced_chi2(noise, 3.0), 1, atol=0.06)
    np.testing.assert_allclose(m.reduced_chi2(noise, jnp.full(4, 3.0), 20.0), 1, atol=0.12)
    np.testing.assert_allclose(m.autocorrelation(noise), 0, atol=0.04)
    smooth = noise + jnp.roll(noise, 1, -1)
    assert (m.autocorrelation(smooth) > 0.2).all()


def test_radius_and_shape_of_gaussians():
    image = jnp.stack([gaussian(s) for s in (3.0, 5.0)])
    np.testing.assert_allclose(m.half_light_radius(image, 28.0), [3.53, 5.89], rtol=0.02)
    shape = m.ellipticity(gaussian(5.0, 0.5, 0.4, 1.3, -2.1))
    wanted = (1 - 0.25) / (1 + 0.25)
    assert float(shape.e1) == pytest.approx(wanted * np.cos(0.8), abs=0.02)
    assert float(shape.e2) == pytest.approx(wanted * np.sin(0.8), abs=0.02)
    assert np.isfinite(m.ellipticity(jnp.zeros((65, 65))).e1)


def test_clumps_are_found_where_they_are_and_not_in_noise():
    rng = np.random.default_rng(0)
    places = np.array([[20.0, 20.0], [44.0, 30.0], [32.0, 50.0]])
    image = 20 * np.asarray(gaussian(6.0))
    for row, col in places:
        image = image + 30 * np.asarray(gaussian(1.2, row=row - 32, col=col - 32))
    noisy = image + rng.normal(size=image.shape)
    found = m.detect_clumps(noisy)
    matches = m.match_clumps(found.places, places)
    assert (matches.found, matches.right, matches.detected) == (3, 3, 3)
    without = m.detect_clumps(noisy, centre=(20.0, 20.0))
    assert m.match_clumps(without.places, places).found == 2
    noise = rng.normal(size=(65, 65))
    correlated = noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)
    empty = m.detect_clumps(correlated.astype(np.float32))
    assert len(empty.places) == len(empty.fluxes) <= 2
    nothing = m.match_clumps(np.zeros((0, 2)), places)
    assert (nothing.found, nothing.present, nothing.detected) == (0, 3, 0)
    with pytest.raises(UserError, match="one image"):
        m.detect_clumps(np.zeros((2, 8, 8)))
