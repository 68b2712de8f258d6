import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.train.ema import EMAConfig, ema_decay, ema_update
from jaxcore.train.state import start_average

_ONLINE = np.sin(0.1 * np.arange(300)).astype(np.float32)  # the parameter after call n


def _averages(cfg, start):
    update = jax.jit(lambda average, params, n: ema_update(cfg, average, params, n))
    average, out = {"w": jnp.full((2,), start)}, []
    for n, value in enumerate(_ONLINE):
        average = update(average, {"w": jnp.full((2,), value)}, n)
        out.append(float(average["w"][0]))
    return np.array(out)


def test_constant_decay_starts_at_the_initial_parameters():
    expected, out = 5.0, []
    for value in _ONLINE:
        expected = 0.9 * expected + 0.1 * value
        out.append(expected)
    np.testing.assert_allclose(_averages(EMAConfig(decay=0.9), 5.0), out, rtol=1e-5, atol=1e-6)


def test_debias_equals_a_zero_start_with_bias_correction_and_forgets_the_initial_value():
    average, out = 0.0, []
    for n, value in enumerate(_ONLINE):
        average = 0.9 * average + 0.1 * value
        out.append(average / (1 - 0.9 ** (n + 1)))
    cfg = EMAConfig(decay=0.9, warmup="debias")
    np.testing.assert_allclose(_averages(cfg, 1e4), out, atol=1e-5)


def test_rddm_rule_written_out():
    """Every 10 calls; a copy up to 100; the first later call copies; then the power decay."""
    average, started, out = 0.0, False, []
    for n, value in enumerate(_ONLINE):
        if n % 10 == 0:
            if n <= 100 or not started:
                average = value
                started = n > 100
            decay = 0.0 if n <= 100 else min(0.995, 1 - (1 + n - 100) ** (-2 / 3))
            average = decay * average + (1 - decay) * value
        out.append(average)
    np.testing.assert_allclose(_averages(EMAConfig.rddm(), 7.0), out, atol=1e-6)


def test_an_average_of_bfloat16_parameters_moves():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    average = start_average({"w": jnp.zeros(2, jnp.bfloat16)})
    update = jax.jit(lambda average, n: ema_update(EMAConfig(decay=0.999), average, params, n))
    for n in range(200):
        average = update(average, n)
    np.testing.assert_allclose(average["w"], 1 - 0.999**200, rtol=1e-4)


def test_decays():
    assert float(ema_decay(EMAConfig(decay=0.5, warmup="ratio"), 0)) == np.float32(0.1)
    assert float(ema_decay(EMAConfig(decay=0.5, warmup="ratio"), 1000)) == 0.5
    assert float(ema_decay(EMAConfig.rddm(), 2920)) < 0.995
    assert float(ema_decay(EMAConfig.rddm(), 2940)) == np.float32(0.995)


def test_integer_leaves_are_copied():
    params = {"n": jnp.array(3), "w": jnp.ones(2)}
    after = ema_update(EMAConfig(decay=0.5), {"n": jnp.array(1), "w": jnp.zeros(2)}, params, 0)
    assert int(after["n"]) == 3
    assert after["w"].tolist() == [0.5, 0.5]


def test_config_round_trip_and_mistakes():
    assert EMAConfig.from_dict(json.loads(json.dumps(EMAConfig.rddm().to_dict()))).every == 10
    with pytest.raises(UserError, match=r"^decay .*; copy_until .*; inv_gamma .*; power must be"):
        EMAConfig(decay=1.0, copy_until=-1, inv_gamma=0.0, power=-1.0)
    with pytest.raises(UserError, match="warmup"):
        EMAConfig(warmup="slow")  # type: ignore[arg-type]  # the mistake under test
