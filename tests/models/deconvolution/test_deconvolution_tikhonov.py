"""Tikhonov deconvolution: what it keeps, how its regularisation is chosen, grids and PSFs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import deconvolution as d
from tests.models.deconvolution.stamps import error, stamp


def test_flux_is_kept_and_a_point_changes_nothing():
    _, noisy, psf = stamp()
    for lam in (1e-4, 9e-3, 10.0):
        np.testing.assert_allclose(d.tikhonov(noisy, psf, lam).sum(), noisy.sum(), rtol=1e-4)
        doubled = d.tikhonov(noisy, 2 * psf, lam).sum()
        np.testing.assert_allclose(doubled, noisy.sum() / 2, rtol=1e-4)
    point = jnp.zeros((64, 64)).at[32, 32].set(1.0)
    np.testing.assert_allclose(d.tikhonov(noisy, point, 0.0), noisy, atol=1e-6)


def test_a_psf_that_lets_nothing_through_gives_finite_images():
    _, noisy, psf = stamp()
    flat = jnp.full_like(psf, 1 / psf.size)
    assert np.isfinite(d.tikhonov(noisy, flat, 0.0)).all()


def test_a_target_psf_is_what_the_result_has():
    truth, noisy, psf = stamp(sigma=0.0)
    target = jnp.asarray(d.gaussian_psf((64, 64), 2.0), jnp.float32)
    seen = d.tikhonov(noisy, psf, 1e-7, target_psf=target)
    np.testing.assert_allclose(seen, d.convolve(truth, d.psf_to_tf(target)), atol=0.03)


def test_batches_with_one_psf_or_one_each_equal_single_images():
    pairs = [tuple(stamp(seed=seed)) for seed in (0, 1)]
    noisy = jnp.stack([pair[1] for pair in pairs])
    psf = pairs[0][2]
    lam = jnp.array([1e-3, 1e-1])
    single = [d.tikhonov(y, psf, x) for y, x in zip(noisy, lam, strict=True)]
    for psfs in (psf, jnp.stack([psf, psf])):
        np.testing.assert_allclose(d.tikhonov(noisy, psfs, lam), jnp.stack(single), atol=1e-5)


@pytest.mark.parametrize("choice", ["sure", "gcv", "discrepancy"])
def test_the_chosen_regularisation_is_what_its_rule_says_and_better_than_the_stock_one(choice):
    truth, noisy, psf = stamp()
    lam = d.choose_lam(noisy, psf, choice, sigma=0.02)
    restored = d.tikhonov(noisy, psf, lam)
    assert error(restored, truth) < error(d.tikhonov(noisy, psf), truth)
    tf = d.psf_to_tf(psf)
    residual = float(jnp.sum((noisy - d.convolve(restored, tf)) ** 2)) / noisy.size / 0.02**2
    if choice == "discrepancy":
        assert abs(residual - 1) < 1e-3
    if choice == "sure":  # no other value makes the blurred image better, in the mean
        clean = d.convolve(truth, tf)
        own = error(d.convolve(restored, tf), clean)
        others = [
            error(d.convolve(d.tikhonov(noisy, psf, lam * f), tf), clean) for f in (1e-2, 1e2)
        ]
        assert own < min(others)
    both = d.choose_lam(jnp.stack([noisy, 3 * noisy]), psf, choice, sigma=jnp.array([0.02, 0.06]))
    np.testing.assert_allclose(both, jnp.stack([lam, lam]), rtol=0.02)


def test_camera_pixels_are_made_finer_and_the_choice_knows_their_noise():
    truth, noisy, psf = stamp(side=64, sigma=0.0)
    rng = np.random.default_rng(3)
    coarse = d.rebin(noisy, 2) + jnp.asarray(0.05 * rng.normal(size=(32, 32)), jnp.float32)
    stock = d.restore_tikhonov(coarse, psf)
    chosen = d.restore_tikhonov(coarse, psf, "sure", sigma=0.05)
    assert chosen.shape == truth.shape and error(chosen, truth) < error(stock, truth)


def test_rebinning_and_replicating_are_adjoint_and_upsampling_keeps_flux():
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 8, 12), (3, 4, 6)))
    np.testing.assert_allclose(
        jnp.sum(d.rebin(x, 2) * y), jnp.sum(x * d.replicate(y, 2)), rtol=1e-4
    )
    flat = jnp.full((5, 7), 9.0)
    for mode in ("mirror", "edge", "bicubic"):
        np.testing.assert_allclose(d.upsample_flux(flat, 3, mode), 1, rtol=1e-5)
    tf = d.psf_to_tf(jnp.asarray(rng.normal(size=(8, 12)), jnp.float32))
    z = jnp.asarray(rng.normal(size=(3, 8, 12)), jnp.float32)
    left, right = jnp.sum(d.convolve(x, tf) * z), jnp.sum(x * d.correlate(z, tf))
    np.testing.assert_allclose(left, right, rtol=1e-3)


def test_psfs_of_any_size_are_placed_and_centred():
    for size in ((9, 9), (8, 8), (9, 8), (80, 81)):
        placed = np.asarray(d.place_psf(jnp.asarray(d.gaussian_psf(size, 2.0)), (64, 63)))
        np.testing.assert_allclose(placed, d.gaussian_psf((64, 63), 2.0), atol=1e-3)
    moved = np.roll(d.gaussian_psf((16, 16), 3.0), (3, -2), (0, 1))
    assert d.peak_offset(moved).tolist() == [3, -2]
    assert "3 pixels away" in d.check_psf(moved)[0]
    np.testing.assert_array_equal(d.centre_psf(moved), d.gaussian_psf((16, 16), 3.0))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: d.check_psf(np.full((4, 4), np.nan)), "finite PSF"),
        (lambda: d.check_psf(np.zeros((4, 4))), "positive sum"),
        (lambda: d.check_psf(np.zeros(4)), "two axes"),
        (lambda: d.factor_between((32, 32), (100, 100)), "same whole multiple"),
        (lambda: d.restore_tikhonov(jnp.ones((4, 4)), jnp.ones((4, 4)), "sure"), "Expected sigma"),
        (lambda: d.choose_lam(jnp.ones((4, 4)), jnp.ones((4, 4)), "best"), "a choice"),
        (
            lambda: d.tikhonov(jnp.ones((4, 4)), jnp.ones((4, 4)), regularizer="tv"),
            "laplacian or identity",
        ),
        (lambda: d.upsample_flux(jnp.ones((4, 4)), 2, "nearest"), "an upsampling"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()


def test_propagated_noise_is_that_of_filtered_noise():
    _, _, psf = stamp()
    tf = d.psf_to_tf(psf)
    told = d.noise_gain(d.tikhonov_filter(tf, 9e-3, (64, 64)), 64)
    noise = jax.random.normal(jax.random.key(0), (30, 64, 64))
    np.testing.assert_allclose(told, d.tikhonov(noise, psf).std(), rtol=0.03)
