import json
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.errors import UserError
from jaxcore.train import schedules
from jaxcore.train.recipes import adair_schedule
from jaxcore.train.schedules import ScheduleConfig, make_schedule

_GOLDEN = Path(__file__).parents[1] / "golden" / "adair" / "lr_schedule.npz"


def test_adair_official_equals_the_released_code_to_the_last_bit():
    golden = np.load(_GOLDEN)
    base = json.loads(str(golden["config"]))["base"]
    with jax.enable_x64(True):
        rates = jax.jit(adair_schedule.adair_official(base, 7))(np.arange(180) * 7 + 3)
    assert rates.dtype == np.float64
    np.testing.assert_array_equal(rates, golden["out/lr"])


def test_adair_official_in_float32_and_beyond_its_last_epoch():
    golden = np.load(_GOLDEN)["out/lr"]
    rates = adair_schedule.adair_official(2e-4, 7)(np.arange(200) * 7)
    np.testing.assert_array_equal(rates[:180], golden.astype(np.float32))
    np.testing.assert_array_equal(rates[180:], np.float32(golden[-1]))


def test_adair_official_spreads_the_150_published_epochs_over_a_short_run():
    rate = make_schedule(ScheduleConfig(name="adair_official"), 2e-4, 300)
    assert float(rate(0)) == float(rate(3)) == 0.0  # the quirk: two epochs of two steps at rate 0
    assert float(rate(4)) > 0.0
    np.testing.assert_allclose(rate(299), 1.80e-5, rtol=2e-3)


def test_cosine_has_the_rates_of_dea_net():
    with jax.enable_x64(True):
        rate = jax.jit(schedules.cosine(1e-4, 1_500_000, floor=1e-6))
        np.testing.assert_allclose(rate(0), 9.9999999999891e-05, rtol=1e-14)
        np.testing.assert_allclose(rate(749_999), 5.05e-5, rtol=1e-14)
        assert float(rate(1_499_999)) == 1e-6


def test_cosine_keeps_its_relative_precision_in_float32():
    total = 100_000
    steps = np.arange(0, total, 997)
    exact = np.cos(np.pi / 2 * (steps + 1) / total) ** 2
    np.testing.assert_allclose(schedules.cosine(1.0, total)(steps), exact, rtol=2e-6)


def test_fixed_warms_up_from_the_first_step_and_ends_at_zero():
    rates = np.asarray(adair_schedule.fixed(1.0, 120)(np.arange(120)))
    assert rates[0] == np.float32(0.1)
    assert rates.argmax() == 9 and rates[9] == 1.0
    assert np.all(np.diff(rates[9:]) < 0)
    assert rates[-1] == 0.0


@settings(deadline=None, max_examples=25)
@given(
    name=st.sampled_from(["constant", "cosine", "warmup_cosine", "adair_official", "fixed"]),
    total=st.integers(1, 500),
    warmup=st.none() | st.integers(0, 20),
)
def test_every_schedule_stays_between_zero_and_its_peak(name, total, warmup):
    rate = make_schedule(ScheduleConfig(name=name, warmup_steps=warmup), 0.3, total)
    rates = np.asarray(rate(np.arange(512)))
    assert np.all(np.isfinite(rates))
    assert np.all((rates >= 0.0) & (rates <= np.float32(0.3)))


def test_config_round_trip_and_mistakes():
    cfg = ScheduleConfig(name="warmup_cosine", warmup_steps=5, floor=1e-6)
    assert ScheduleConfig.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    with pytest.raises(UserError, match=r"name must be one of .*found 'linear'"):
        ScheduleConfig(name="linear")
    with pytest.raises(UserError, match="floor"):
        ScheduleConfig(floor=-1.0)


def test_the_table_of_schedules_is_open(monkeypatch):
    def halves(config, peak, total_steps):
        return lambda step: peak * 0.5 ** (step // total_steps)

    with pytest.raises(UserError, match=r"name must be one of constant, cos.*'halves'"):
        ScheduleConfig(name="halves")
    monkeypatch.setitem(schedules.SCHEDULES, "halves", halves)
    assert make_schedule(ScheduleConfig(name="halves"), 2.0, 10)(25) == 0.5
