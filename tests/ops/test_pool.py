"""Pooling to a size that is asked for, against bins written out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.ops import adaptive_pool, global_max


def spans(n, count, bins):
    if bins == "even":
        return [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]
    least, larger = divmod(n, count)
    ends = np.cumsum([0] + [least + (i < larger) for i in range(count)])
    return list(itertools.pairwise(ends))


@pytest.mark.parametrize("bins", ["apart", "even"])
@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize("size", [(5, 3), (7, 4), (1, 9)])
def test_every_bin(bins, kind, size):
    x = np.random.default_rng(0).normal(size=(2, 7, 9, 3)).astype(np.float32)
    pool = {"max": np.max, "mean": np.mean}[kind]
    rows = np.stack([pool(x[:, a:b], axis=1) for a, b in spans(7, size[0], bins)], axis=1)
    whole = np.stack([pool(rows[:, :, a:b], axis=2) for a, b in spans(9, size[1], bins)], axis=2)
    np.testing.assert_allclose(adaptive_pool(x, size, kind, bins), whole, atol=1e-6)
    slopes = jax.grad(lambda x: jnp.sum(adaptive_pool(x, size, kind, bins)))(jnp.asarray(x))
    assert np.isfinite(slopes).all() and slopes.shape == x.shape


def test_of_equal_largest_values_the_first_one_is_moved():
    x = jnp.array([[1.0, 5.0, 5.0, 2.0]]).reshape(1, 2, 2, 1)
    slopes = jax.grad(lambda x: jnp.sum(global_max(x)))(x)
    assert slopes.ravel().tolist() == [0.0, 1.0, 0.0, 0.0]
    both = jax.jit(jax.vmap(jax.grad(lambda x: jnp.sum(global_max(x)))))(jnp.stack([x, -x]))
    assert both.reshape(2, 4).tolist() == [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
