"""Starlet transforms: exact reconstruction, borders, noise; golden files are in tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt

from jaxcore.errors import UserError
from jaxcore.ops import starlet as ops

BOUNDARIES = ("reflect", "symmetric", "wrap", "constant")


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def plainly(x, n_scales, generation, boundary):
    """The definition, with NumPy's borders."""
    taps, coarse, planes = np.array(ops.SPLINE), x, []

    def smooth(c, scale):
        reach = 2 * 2**scale
        padded = np.pad(c, reach, mode=boundary)
        for axis in (0, 1):
            parts = [t * np.roll(padded, (i - 2) * 2**scale, axis) for i, t in enumerate(taps)]
            padded = np.sum(parts, axis=0)
        return padded[reach:-reach, reach:-reach]

    for scale in range(n_scales):
        smoother = smooth(coarse, scale)
        planes.append(coarse - (smoother if generation == 1 else smooth(smoother, scale)))
        coarse = smoother
    return np.stack([*planes, coarse])


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("generation", [1, 2])
def test_planes_are_those_of_the_definition_and_give_the_image_back(generation, boundary):
    x = images(2, 21, 34)
    with jax.enable_x64(True):
        planes = ops.starlet(x, 4, generation, boundary)
        again = ops.inverse_starlet(planes, generation, boundary)
    expected = np.stack([plainly(one, 4, generation, boundary) for one in x])
    assert planes.shape == (2, 5, 21, 34)
    np.testing.assert_allclose(planes, expected, atol=1e-12)
    np.testing.assert_allclose(again, x, atol=1e-12)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_scales_may_be_wider_than_the_image(boundary):
    x = images(5, 3)
    with jax.enable_x64(True):
        planes = ops.starlet(x, 6, 2, boundary)
        np.testing.assert_allclose(ops.inverse_starlet(planes, 2, boundary), x, atol=1e-12)


@pytest.mark.parametrize("generation", [1, 2])
def test_noise_of_every_plane_is_known(generation):
    noise = images(512, 512)
    norms = ops.starlet_noise_norms(4, generation)
    with jax.enable_x64(True):
        planes = np.asarray(ops.starlet(noise, 4, generation, "wrap"))[:-1]
        maps = ops.starlet_noise_maps(np.full((64, 64), 9.0), 4, generation)
    np.testing.assert_allclose(planes.std((1, 2)), norms, rtol=0.06)
    np.testing.assert_allclose(maps[:, 32, 32], 3 * norms, rtol=1e-4)
    # The norm is the root of the mean square of the transfer function.
    point = jnp.zeros((64, 64)).at[0, 0].set(1.0)
    planes = np.asarray(ops.starlet(point, 4, generation, "wrap"))[:-1]
    transfer = np.abs(np.fft.fft2(planes))
    np.testing.assert_allclose(
        ops.starlet_transfer((64, 64), 4, generation), transfer[..., :33], atol=1e-5
    )


def test_a_variance_map_gives_the_noise_of_each_coefficient():
    variance = np.where(np.arange(48)[:, None] < 24, 1.0, 25.0) * np.ones((1, 48))
    noise = images(400, 48, 48) * np.sqrt(variance)
    seen = jax.jit(lambda x: ops.starlet(x, 3)[:, :-1].std(0))(jnp.asarray(noise, jnp.float32))
    told = ops.starlet_noise_maps(jnp.asarray(variance, jnp.float32), 3)
    inside = (slice(None), slice(8, 40), slice(8, 40))
    np.testing.assert_allclose(told[inside], seen[inside], rtol=0.2)


@pytest.mark.parametrize("sigma", [0.02, 1.0, 300.0])
def test_the_noise_level_agrees_with_the_truth_and_with_pywavelets(sigma):
    grid = np.hypot(*np.meshgrid(*[np.arange(256) - 128] * 2)) / 20
    x = 40 * sigma * np.exp(-grid) + sigma * images(256, 256)
    ours = float(ops.mad_sigma(jnp.asarray(x, jnp.float32)))
    diagonal = pywt.dwt2(x, "db2")[1][2]
    theirs = np.median(np.abs(diagonal)) / ops.MAD_OF_A_GAUSSIAN
    assert abs(ours / sigma - 1) < 0.03 and abs(ours / theirs - 1) < 0.04


def test_missing_pixels_do_not_count_for_the_noise_level():
    x = images(2, 128, 128).astype(np.float32)
    x[0, 10:30, 40:90] = np.nan
    np.testing.assert_allclose(ops.mad_sigma(x), 1, rtol=0.05)


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [((8,), (2,)), ((8, 8), (0,)), ((8, 8), (2, 3)), ((8, 8), (2, 1, "nearest"))],
)
def test_what_is_out_of_range_is_refused(shape, arguments):
    with pytest.raises(UserError, match="Expected"):
        ops.starlet(jnp.zeros(shape), *arguments)


def test_gradients_pass():
    x = jnp.asarray(images(9, 12), jnp.float32)
    slope = jax.grad(lambda x: jnp.sum(ops.starlet(x, 2) ** 2))(x)
    assert slope.shape == x.shape and np.isfinite(slope).all()
