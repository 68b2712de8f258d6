"""RAdam against PyTorch's formula written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcore.train.optim import OptimConfig, make_optimiser
from jaxcore.train.radam import RAdamState, radam


def exact_length(t, b2):
    return 2 / (1 - b2) - 1 - 2 * t * b2**t / (1 - b2**t)


@pytest.mark.parametrize("b2", [0.9, 0.99, 0.999])
def test_the_length_of_the_average_keeps_its_precision(b2):
    """Under a constant gradient of one the step is the rectification alone."""
    t = np.concatenate([np.arange(1, 200), [1000, 20_000, 500_000]])
    tx = radam(lambda step: 1.0, b2=b2, eps=0.0)

    def step(count, m, v):
        return tx.update(jnp.ones(()), RAdamState(count, m, v))[0]

    moments = [jnp.asarray(1 - b ** (t - 1.0), jnp.float32) for b in (0.9, b2)]
    steps = jax.vmap(step)(jnp.asarray(t - 1, jnp.int32), *moments)
    length, longest = exact_length(t.astype(np.float64), b2), 2 / (1 - b2) - 1
    ratio = (length - 4) * (length - 2) / length / ((longest - 4) * (longest - 2) / longest)
    expected = np.where(length > 5, np.sqrt(np.maximum(ratio, 0)), 1)
    np.testing.assert_allclose(-steps, expected, rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_updates_are_those_of_pytorch(scale):
    rate, b1, b2, eps = 0.01, 0.9, 0.999, 1e-8
    tx = make_optimiser(OptimConfig(name="radam", learning_rate=rate), 100)
    grads = scale * np.random.default_rng(0).standard_normal((30, 4))
    params = {"w": jnp.zeros(4)}
    state, w, m, v = tx.init(params), np.zeros(4), np.zeros(4), np.zeros(4)

    @jax.jit
    def update(g, state, params):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    for t, g in enumerate(grads, start=1):
        params, state = update({"w": jnp.asarray(g, jnp.float32)}, state, params)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        step, length, longest = m / (1 - b1**t), exact_length(t, b2), 2 / (1 - b2) - 1
        if length > 5:
            ratio = (length - 4) * (length - 2) * longest
            ratio /= (longest - 4) * (longest - 2) * length
            step = step * np.sqrt(ratio * (1 - b2**t)) / (np.sqrt(v) + eps)
        w = w - rate * step
        np.testing.assert_allclose(params["w"], w, rtol=2e-4, atol=2e-6 * max(scale, 1e-3))
