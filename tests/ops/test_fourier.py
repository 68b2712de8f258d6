"""The spectral split: exact sum, both methods equal, gradients finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.ops import band, signed_frequencies, soft_band, spectral_split


def reference_split(x, half):
    """Centred spectrum, rectangle cut out of it, one sample at a time."""
    low, high = np.empty_like(x), np.empty_like(x)
    for i, (kh, kw) in enumerate(half):
        h, w = x.shape[1:3]
        spectrum = np.roll(np.fft.fft2(x[i], axes=(0, 1)), (h // 2, w // 2), (0, 1))
        mask = np.zeros((h, w, 1))
        mask[h // 2 - kh : h // 2 + kh, w // 2 - kw : w // 2 + kw] = 1
        for out, m in ((low, mask), (high, 1 - mask)):
            kept = np.roll(spectrum * m, (-(h // 2), -(w // 2)), (0, 1))
            out[i] = np.abs(np.fft.ifft2(kept, axes=(0, 1)))
    return low, high


@pytest.mark.parametrize("method", ["fft", "matrix"])
@pytest.mark.parametrize("size", [(12, 10), (9, 7)])
def test_matches_the_centred_mask(method, size):
    x = np.random.default_rng(0).normal(size=(4, *size, 3)).astype(np.float32)
    half = np.array([[0, 2], [1, 1], [3, 2], [4, 3]])
    rows, cols = band(half[:, 0], size[0]), band(half[:, 1], size[1])
    split = jax.jit(spectral_split, static_argnames="method")
    low, high = split(x, rows, cols, method=method)
    golden_low, golden_high = reference_split(x, half)
    np.testing.assert_allclose(low, golden_low, atol=5e-6)
    np.testing.assert_allclose(high, golden_high, atol=5e-6)


@settings(deadline=None, max_examples=15)
@given(
    half=st.tuples(st.floats(0, 6), st.floats(0, 5)),
    tau=st.sampled_from([0.3, 1.0, 3.0]),
    size=st.sampled_from([(12, 10), (9, 7)]),
)
def test_soft_windows_agree_between_methods(half, tau, size):
    x = np.random.default_rng(1).normal(size=(1, *size, 2)).astype(np.float32)
    rows, cols = (
        soft_band(jnp.array([k], jnp.float32), n, tau) for k, n in zip(half, size, strict=True)
    )
    for fft, matrix in zip(
        spectral_split(x, rows, cols), spectral_split(x, rows, cols, method="matrix"), strict=True
    ):
        np.testing.assert_allclose(fft, matrix, atol=5e-6)


@pytest.mark.parametrize("method", ["fft", "matrix"])
def test_gradients_are_finite_where_the_low_part_is_zero(method):
    x = np.random.default_rng(2).normal(size=(1, 8, 8, 1)).astype(np.float32)

    def loss(x, rows):
        low, high = spectral_split(x, rows, band(jnp.array([0]), 8), method=method)
        return jnp.sum(low + 2 * high)

    gradients = jax.grad(loss, argnums=(0, 1))(x, band(jnp.array([0]), 8))
    assert all(np.isfinite(g).all() for g in gradients)
    np.testing.assert_allclose(gradients[0], 2 * np.sign(x), atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_frequencies_are_those_of_the_fft(n):
    np.testing.assert_array_equal(signed_frequencies(n), np.fft.fftfreq(n, 1 / n).round())
