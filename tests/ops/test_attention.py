"""Channel attention against plain NumPy; windows; zero queries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.ops import channel_attention, extract_windows, local_max, local_mean, merge_windows


def by_definition(q, k, v, temperature):
    heads, (b, h, w, c) = len(temperature), q.shape
    parts = [a.reshape(b, h * w, heads, c // heads).transpose(0, 2, 3, 1) for a in (q, k, v)]
    q, k = (a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-12) for a in parts[:2])
    logits = q @ k.swapaxes(-1, -2) * temperature[:, None, None]
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return (weights @ parts[2]).transpose(0, 3, 1, 2).reshape(b, h, w, c)


@pytest.fixture(scope="module")
def qkv():
    return np.random.default_rng(0).normal(size=(3, 2, 8, 12, 6)).astype(np.float32)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_matches_the_definition(qkv, heads):
    temperature = np.linspace(0.5, 3, heads).astype(np.float32)
    ours = jax.jit(channel_attention)(*qkv, temperature=temperature)
    np.testing.assert_allclose(ours, by_definition(*qkv, temperature=temperature), atol=2e-6)


def test_zero_query_gives_the_mean_value_and_a_finite_gradient(qkv):
    q, k, v = jnp.zeros_like(qkv[0]), *qkv[1:]
    temperature = jnp.ones(2)
    mean = v.reshape(2, 8, 12, 2, 3).mean(-1, keepdims=True).repeat(3, -1).reshape(v.shape)
    np.testing.assert_allclose(channel_attention(q, k, v, temperature), mean, atol=1e-6)
    gradients = jax.grad(lambda *a: jnp.sum(channel_attention(*a) ** 2), range(4))(
        q, k, v, temperature
    )
    assert all(np.isfinite(g).all() for g in gradients)


def test_windows_attend_separately(qkv):
    temperature = np.ones(2, np.float32)
    ours = channel_attention(*qkv, temperature=temperature, window=4)
    for top in (0, 4):
        for left in (0, 4, 8):
            cut = np.s_[:, top : top + 4, left : left + 4]
            alone = channel_attention(*(a[cut] for a in qkv), temperature=temperature)
            np.testing.assert_allclose(ours[cut], alone, atol=1e-6)


def test_a_window_as_large_as_the_map_changes_nothing(qkv):
    temperature = np.ones(2, np.float32)
    whole = channel_attention(*qkv, temperature=temperature)
    np.testing.assert_array_equal(
        channel_attention(*qkv, temperature=temperature, window=12), whole
    )


def test_half_precision_is_accumulated_in_float32(qkv):
    big = [jnp.asarray(np.tile(a, (1, 16, 16, 1)), "bfloat16") for a in qkv]
    ours = channel_attention(*big, temperature=jnp.ones(2))
    assert ours.dtype == "bfloat16"
    exact = channel_attention(*(a.astype("float32") for a in big), temperature=jnp.ones(2))
    np.testing.assert_allclose(ours.astype("float32"), exact, atol=0.02)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 12, 20])
def test_windows_merge_to_the_map(size):
    x = np.random.default_rng(1).normal(size=(2, 8, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(merge_windows(extract_windows(x, size), 8, 12), x, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_local_statistics(size):
    x = np.random.default_rng(2).normal(size=(1, 8, 6, 2)).astype(np.float32)
    kh, kw = min(size, 8), min(size, 6)
    pads = [(0, 0), (kh // 2, kh - 1 - kh // 2), (kw // 2, kw - 1 - kw // 2), (0, 0)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, pads, "edge"), (kh, kw), (1, 2))
    np.testing.assert_allclose(local_mean(x, size), windows.mean((-1, -2)), atol=1e-6)
    np.testing.assert_array_equal(local_max(x, size), windows.max((-1, -2)))
