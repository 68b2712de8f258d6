"""Simulated galaxies: their fluxes and shapes are those asked for, each from its own key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.data.astro.galaxies import Galaxies, Population, draw_galaxies, render
from jaxcore.data.astro.telescopes import Telescope, observe, resample_psf, seeing
from jaxcore.errors import UserError
from jaxcore.serial import SettingsError

RICH = Population(bulge=(0.0, 0.5), arms=(0.0, 0.6))


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


@pytest.fixture(scope="module")
def drawn() -> Galaxies:
    return draw_galaxies(keys(200), RICH)


def test_shapes_are_within_the_population(drawn):
    assert (drawn.sersic >= 0.5).all() and (drawn.sersic <= 4).all()
    assert (drawn.radius >= 1.5).all() and (drawn.radius <= 8).all()
    assert np.median(drawn.sersic) == pytest.approx(1.4, rel=0.2)
    count = (np.asarray(drawn.clump_flux) > 0).sum(1)
    assert set(count) == set(range(6))
    share = np.asarray(drawn.clump_flux).sum(1)[count > 0] / 100
    assert (share > 0.099).all() and (share < 0.401).all()
    np.testing.assert_allclose(drawn.flux + drawn.clump_flux.sum(1), 100, rtol=1e-5)
    assert (jnp.abs(drawn.centre) <= 2).all()


def test_images_hold_their_flux_and_do_not_depend_on_the_batch(drawn):
    few = jax.tree.map(lambda a: a[:4], drawn)
    images = render(few, 64)
    np.testing.assert_allclose(images.sum((1, 2)), 100, rtol=1e-4)
    assert (images >= 0).all()
    again = draw_galaxies(keys(200)[2:4], RICH)
    np.testing.assert_array_equal(again.clump_place, drawn.clump_place[2:4])
    other = jax.tree.map(lambda a: jnp.flip(a, 0), few)
    np.testing.assert_allclose(render(other, 64), images[::-1], atol=1e-6)


def test_half_of_the_light_is_inside_the_half_light_radius():
    one = Galaxies(
        *(jnp.full((2,), v) for v in (100.0, 1.0, 6.0, 0.5, 0.3)),
        jnp.zeros((2, 2)),
        *(jnp.zeros(2) for _ in range(2)),
        jnp.full(2, 0.3),
        jnp.zeros(2),
        *(jnp.zeros(shape) for shape in ((2, 0), (2, 0, 2), (2, 0))),
    )
    one = one._replace(sersic=jnp.array([1.0, 4.0]))
    image = np.asarray(render(one, 96))[0]
    rows, cols = np.indices(image.shape) - 48
    along = cols * np.cos(0.3) + rows * np.sin(0.3)
    across = (rows * np.cos(0.3) - cols * np.sin(0.3)) / 0.5
    inside = image[np.hypot(along, across) <= 6].sum()
    assert inside == pytest.approx(50, abs=1.5)


def test_clumps_lie_where_they_are_said_to_be(drawn):
    bright = int(jnp.argmax(drawn.clump_flux.max(1)))
    one = jax.tree.map(lambda a: a[bright : bright + 1], drawn)
    without = one._replace(clump_flux=one.clump_flux * 0)
    clump = int(jnp.argmax(one.clump_flux[0]))
    alone = one._replace(clump_flux=jnp.where(np.arange(5)[None] == clump, one.clump_flux, 0))
    difference = np.asarray(render(alone, 64) - render(without, 64))[0]
    centre = np.array([(difference * a).sum() for a in np.indices((64, 64))]) / difference.sum()
    np.testing.assert_allclose(centre - 32, one.clump_place[0, clump], atol=0.05)


def test_a_catalogue_gives_the_shapes():
    shapes = np.array([[1.0, 4.0, 0.5], [2.0, 30.0, 0.1]], np.float32)
    found = draw_galaxies(keys(50), Population(), shapes)
    pairs = {(float(a), float(b)) for a, b in zip(found.sersic, found.radius, strict=True)}
    assert pairs == {(1.0, 4.0), (2.0, 8.0)}
    assert float(found.axis_ratio.min()) == pytest.approx(0.2)


def test_a_telescope_keeps_the_flux_and_makes_the_noise_it_says(drawn):
    truth = render(jax.tree.map(lambda a: a[:4], drawn), 64)
    telescope = Telescope(factor=2, fwhm=(5.0, 8.0), snr=(1e5, 1e5), axis_ratio=(0.8, 1.0))
    seen = observe(keys(4, 1), truth, telescope)
    assert seen.observed.shape == (4, 32, 32) and seen.psf.shape == (4, 64, 64)
    np.testing.assert_allclose(seen.psf.sum((1, 2)), 1, rtol=1e-5)
    for image in (seen.observed, seen.target):
        np.testing.assert_allclose(image.sum((1, 2)), 100, rtol=1e-3)
    assert len({round(float(p.max()), 6) for p in seen.psf}) == 4
    noisy = observe(keys(4, 1), truth, Telescope(factor=2, snr=(10.0, 20.0)))
    clean = observe(keys(4, 1), truth, Telescope(factor=2, snr=(1e6, 1e6))).observed
    noise = np.asarray(noisy.observed - clean)
    np.testing.assert_allclose(noise.std((1, 2)), noisy.sigma, rtol=0.1)
    peak = np.asarray(clean.max((1, 2)) / noisy.sigma)
    assert (peak > 9.9).all() and (peak < 20.1).all()


def test_photons_add_their_noise():
    truth = jnp.full((2, 32, 32), 100.0)
    seen = observe(keys(2), truth, Telescope(snr=(1e4, 1e4), gain=1.0))
    np.testing.assert_allclose(seen.observed.std((1, 2)), 10, rtol=0.1)


@pytest.mark.parametrize("profile", ["moffat", "gaussian"])
def test_a_psf_has_its_width_and_moves_by_fractions_of_a_pixel(profile):
    psf = np.asarray(seeing((65, 65), 8.0, profile=profile, axis_ratio=0.5))
    line = psf[32] / psf.max()
    assert np.interp(0.5, line[32::-1][::-1], np.arange(33)) == pytest.approx(28, abs=0.1)
    moved = np.asarray(seeing((65, 65), 8.0, profile="gaussian", offset=(0.3, -0.4)))
    middle = [float((moved * a).sum()) for a in np.indices(moved.shape)]
    np.testing.assert_allclose(middle, [32.3, 31.6], atol=1e-3)


def test_a_psf_on_other_pixels_keeps_its_middle_and_its_width():
    psf = np.asarray(seeing((45, 45), 6.0, profile="gaussian"))
    out = resample_psf(np.stack([psf, psf]), 2.0, (32, 32))
    assert out.shape == (2, 32, 32)
    np.testing.assert_allclose(out.sum((1, 2)), 1)
    assert np.unravel_index(out[0].argmax(), (32, 32)) == (16, 16)
    middle = [(out[0] * a).sum() for a in np.indices((32, 32))]
    np.testing.assert_allclose(middle, 16, atol=1e-6)
    rows = np.indices((45, 45))[0] - 22
    width = np.sqrt((psf * rows**2).sum()) / 2
    found = np.sqrt((out[0] * (np.indices((32, 32))[0] - 16) ** 2).sum())
    assert found == pytest.approx(np.hypot(width, 1 / np.sqrt(12)), rel=0.02)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Population(radius=(8.0, 5.0, 1.0)), "radius must be positive and in rising"),
        (lambda: Population(arms=(0.0, 1.5)), "arms must be from 0 to 1"),
        (lambda: Telescope(snr=(9.0, 2.0)), "snr must be in rising order"),
        (lambda: Telescope(fwhm=(0.0, 2.0)), "fwhm"),
    ],
)
def test_populations_and_telescopes_that_cannot_be_are_refused(make, sentence):
    with pytest.raises(SettingsError, match=sentence):
        make()


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="multiples of 3"):
        observe(keys(1), jnp.ones((1, 16, 16)), Telescope(factor=3))
    with pytest.raises(UserError, match="positive ratio"):
        resample_psf(np.ones((3, 3)), 0.0, (3, 3))
    with pytest.raises(UserError, match="positive sum"):
        resample_psf(np.zeros((3, 3)), 1.0, (3, 3))
