"""Weak instruments: Anderson-Rubin sets hold the truth where Wald intervals do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.estimators import influence
from jaxcore.estimators.linear_iv import anderson_rubin

pytestmark = pytest.mark.statistical

N, REPS = 300, 2000


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0])
def test_sets_of_weak_instruments(strength):
    def one(key):
        kz, ku, kv, ke = jax.random.split(key, 4)
        z, u = jax.random.normal(kz, (N,)), jax.random.normal(ku, (N,))
        d = strength * z + 2 * u + jax.random.normal(kv, (N,))
        y = d + 2 * u + jax.random.normal(ke, (N,))
        zero = jnp.zeros(N)
        score = influence.partially_linear_iv(y, d, z, zero, zero, zero)
        e = influence.solve(score)
        q = anderson_rubin(score).quadratic
        inside = q[0] + q[1] + q[2] <= 0  # the truth is one
        return inside, jnp.abs(e.theta - 1) <= 1.96 * e.se

    with jax.enable_x64(True):
        robust, wald = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), REPS))
    print(f"strength {strength}: robust {np.mean(robust):.3f}, Wald {np.mean(wald):.3f}")
    assert 0.935 <= np.mean(robust) <= 0.965
    if strength == 0:
        assert np.mean(wald) < 0.93
