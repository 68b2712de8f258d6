"""PSFs as files bring them, and images of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import deconvolution as d

PSF = d.moffat_psf((25, 25), 4.0)
REACH = d.reach_of(PSF)


@pytest.fixture(scope="module")
def sky():
    """Galaxies over a field, some near its borders, and what a telescope sees of them."""
    rng = np.random.default_rng(0)
    rows, cols = np.indices((150, 130))
    field = np.zeros((150, 130))
    for _ in range(60):
        radius = np.hypot(rows - rng.uniform(0, 150), cols - rng.uniform(0, 130))
        field += rng.uniform(1, 20) * np.exp(-radius / rng.uniform(1, 3))
    psf = d.place_psf(jnp.asarray(PSF, jnp.float32), field.shape)
    seen = d.convolve(jnp.asarray(field, jnp.float32), d.psf_to_tf(psf))
    return np.asarray(seen)[None] + rng.normal(0, 1, (1, 150, 130)).astype(np.float32)


@pytest.mark.parametrize(("method", "largest", "usual"), [("tikhonov", 0.01, 1e-3)])
def test_tiles_give_what_the_whole_image_gives(sky, method, largest, usual):
    """In units of the standard deviation; 3 reaches of the PSF away from the border."""
    run, lam = d.chain(method), np.array([0.01])
    options = {"psf": PSF[None], "lam": lam, "reach": REACH}
    whole = d.restore_field(run, sky, **options)["image"]
    calls = []
    cut = d.restore_field(
        run, sky, **options, tile=108, batch=2, progress=lambda *call: calls.append(call)
    )["image"]
    inner = (..., slice(3 * REACH, -3 * REACH), slice(3 * REACH, -3 * REACH))
    difference = np.abs(cut - whole)[inner] / whole.std()
    assert difference.max() < largest and np.sqrt((difference**2).mean()) < usual
    assert calls[-1][0] == calls[-1][1] == len(calls) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "largest", "usual"),
    [("richardson_lucy", 0.02, 2e-3), ("sparse", 0.5, 0.06)],
)
def test_tiles_give_what_the_whole_image_gives_for_iterations(sky, method, largest, usual):
    test_tiles_give_what_the_whole_image_gives(sky, method, largest, usual)


def test_one_border_does_not_show_at_the_other(sky):
    """A bright star at the right border leaves the left one alone."""
    y = np.zeros((1, 60, 60), np.float32)
    y[0, 28:33, 55:] = 1000.0
    run = d.chain("tikhonov")
    out = d.restore_field(run, y, PSF[None], lam=np.array([0.01]), reach=REACH)["image"]
    assert np.abs(out[0, :, :8]).max() < 0.02 * out.max()


def test_images_of_one_shape_are_computed_by_one_program(sky):
    shapes = []

    @jax.jit
    def run(y, psf, weights, lam):
        shapes.append((y.shape, psf.shape))
        return {"image": y}

    out = d.restore_field(run, np.repeat(sky, 5, 0), PSF[None], reach=REACH, tile=108, batch=4)
    assert len(shapes) == 1 and out["image"].shape == (5, 150, 130)
    np.testing.assert_allclose(out["image"][3], sky[0], rtol=1e-6)  # tiles fade


def test_tiles_fade_into_each_other():
    """A network scales every tile by its brightest pixel; here a tile becomes its own mean."""
    slope = np.tile(np.arange(300, dtype=np.float32), (60, 1))[None]

    def flat(y, psf, weights, lam):
        return {"image": jnp.mean(y, (1, 2), keepdims=True) * jnp.ones(y.shape)}

    out = d.restore_field(flat, slope, PSF[None], reach=6, tile=108)["image"][0]
    steps = np.abs(np.diff(out, axis=1))
    assert np.ptp(out) > 200 and steps.max() < 25  # cores differ by 70
    np.testing.assert_allclose(out, out[:1] + 0 * out, rtol=1e-5)


def test_every_image_has_its_own_psf_on_the_finer_grid():
    psfs = np.stack([d.gaussian_psf((20, 20), f) for f in (4.0, 6.0)])
    points = np.zeros((2, 24, 24), np.float32)
    points[:, 12, 12] = 1.0
    blurred = d.restore_field(
        lambda y, psf, weights, lam: {"image": psf},
        points,
        psfs,
        factor=2,
        reach=3,
    )["image"]
    assert blurred.shape == (2, 48, 48)
    peaks = blurred.max((1, 2))
    assert peaks[0] / peaks[1] == pytest.approx((6 / 4) ** 2, rel=0.01)


def test_tiles_that_leave_no_room_are_refused():
    with pytest.raises(UserError, match=r"tiles of at least \d+ pixels"):
        d.plan_tiles((500, 500), 30, 100)


@pytest.mark.parametrize("shape", [(31, 31), (32, 32), (31, 32)])
def test_a_psf_is_centred_to_a_fraction_of_a_pixel(shape):
    """Also one of an even number of pixels that is symmetric about their common corner."""
    rows, cols = np.indices(shape)
    h, w = shape
    off = np.exp(-((rows - (h - 1) / 2) ** 2 + (cols - (w - 1) / 2 - 0.3) ** 2) / (2 * 2.0**2))
    psf, notes = d.prepare_psf(off)
    assert len(notes) == 2 and "sums to" in notes[0] and "was centred" in notes[1]
    assert psf.sum() == pytest.approx(1)
    expected = d.gaussian_psf(shape, 2.0 * 2.3548200450309493)
    np.testing.assert_allclose(psf, expected, atol=2e-3 * expected.max())
    kept, notes = d.prepare_psf(off, centre=False)
    np.testing.assert_allclose(kept, off / off.sum())
    assert len(notes) == 1


def test_a_psf_that_is_right_is_left_alone():
    psf, notes = d.prepare_psf(PSF)
    assert notes == ()
    np.testing.assert_array_equal(psf, PSF / PSF.sum())


@pytest.mark.parametrize(
    ("psf", "sentence"),
    [
        (np.full((5, 5), np.nan), "finite"),
        (np.zeros((5, 5)), "positive sum"),
        (d.gaussian_psf((9, 9), 2.0) - 0.01, "without negative pixels"),
        (np.ones(5), "two axes"),
    ],
)
def test_what_cannot_be_a_psf_is_refused(psf, sentence):
    with pytest.raises(UserError, match=sentence):
        d.prepare_psf(psf)


def test_a_point_stays_where_it_was():
    """The classic fault of a PSF of an even number of pixels: everything moves."""
    even = np.exp(-((np.indices((24, 24)) - 11.5) ** 2).sum(0) / 8)
    psf, _ = d.prepare_psf(even)
    y = np.zeros((1, 40, 40), np.float32)
    y[0] = 1000 * np.exp(-((np.indices((40, 40)) - [[[17]], [[23]]]) ** 2).sum(0) / 8)
    run = d.chain("tikhonov")
    out = d.restore_field(run, y, psf[None], lam=np.array([1e-3]), reach=d.reach_of(psf))
    weight = np.maximum(out["image"][0] - 0.2 * out["image"].max(), 0)
    middle = [(weight * axis).sum() / weight.sum() for axis in np.indices((40, 40))]
    np.testing.assert_allclose(middle, [17, 23], atol=0.02)
