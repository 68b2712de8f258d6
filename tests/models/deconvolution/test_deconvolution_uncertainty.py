"""How certain restored pixels are: noise behind Tikhonov's filter, and ensembles of networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import deconvolution as d
from tests.models.deconvolution.stamps import stamp


def test_noise_behind_the_filter_is_that_of_many_noisy_images_also_of_larger_pixels():
    psf = jnp.asarray(d.moffat_psf((32, 32), 4.0), jnp.float32)
    deviation = jnp.ones((16, 16)).at[:, :8].set(3.0)
    point = jnp.zeros((16, 16)).at[8, 8].set(1.0)
    told = d.propagated_noise(d.restore_tikhonov(point, psf, 0.1), deviation**2)
    noise = deviation[None] * jax.random.normal(jax.random.key(0), (2000, 16, 16))
    seen = d.restore_tikhonov(noise, psf, 0.1).std(0)
    inside = (slice(6, -6), slice(6, -6))
    np.testing.assert_allclose(told[inside], seen[inside], rtol=0.08)
    assert float(told[16, 6] / told[16, 26]) == pytest.approx(3, rel=0.1)


def test_a_chain_with_several_networks_gives_their_mean_and_what_they_differ_by():
    _, noisy, psf = stamp(side=32)
    shares = jnp.array([0.5, 0.7, 0.9])
    y = noisy[None] / 0.02

    def lossy(x):
        return shares[:, None, None, None] * x[None]

    options = {"target": None, "details": True}
    lam = jnp.array([0.05])
    out = d.chain("tikhonov", network=lossy, **options)(y, psf[None], None, lam)
    assert out["image"].shape == out["uncertainty"].shape == y.shape
    np.testing.assert_allclose(out["image"], 0.7 * out["tikhonov"], rtol=1e-4, atol=1e-3)
    spread = 0.2 * jnp.abs(out["tikhonov"])
    np.testing.assert_allclose(out["uncertainty"], spread, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(out["sunet"], out["image"])
    third = d.chain("tikhonov", network=lossy, debias=True, **options)(y, psf[None], None, lam)
    assert third["active"].shape == third["debias"].shape == y.shape
    # Flux that each lost in its own way is given back, so that they agree.
    assert float(third["uncertainty"].sum()) < 0.5 * float(spread.sum())


def test_one_network_is_no_ensemble():
    with pytest.raises(UserError, match="at least two networks"):
        d.mean_and_spread(jnp.zeros((1, 4, 4)))
