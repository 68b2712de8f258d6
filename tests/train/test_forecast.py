"""What is said of a long run before its program is compiled."""

import re

import jax
import pytest
from tiny_task import TinyTask

from jaxcore.errors import UserError
from jaxcore.parallel import put_batch
from jaxcore.train import TrainConfig, fit, forecast
from jaxcore.train.logging import Silent
from jaxcore.train.prepare import prepare

_WIDE = TinyTask(hidden=1024)
_LONG = 10**11  # steps: days of the two layers


class _Heard(Silent):
    """Keeps what is said, and when steps are enqueued."""

    def __init__(self):
        self.events = []

    def message(self, text):
        self.events.append(text)

    def advance(self, step):
        self.events.append(step)


def asked(task, steps):
    ready = prepare(task, TrainConfig(steps=steps))
    batch = put_batch(next(task.batches(0, 0)), None)
    return forecast.forecast(ready.step, (ready.initial_state(), batch, ready.frozen), steps)


def test_a_long_run_is_announced_before_its_first_step(tmp_path):
    heard = _Heard()
    ends = TinyTask(hidden=1024, poison=(0, 1, 2))  # no loss of its first steps is finite
    with pytest.raises(UserError, match="in a row"):
        fit(ends, TrainConfig(steps=_LONG, max_skipped=2), tmp_path / "run", reporter=heard)
    before = [event for event in heard.events[: heard.events.index(1)] if "steps take" in event]
    assert len(before) == 1 and "100,000,000,000 steps take at least" in before[0]
    assert "GB of memory" in before[0] and "--dry-run" in before[0]


def test_the_least_time_grows_with_the_steps():
    steps = 100 * _LONG, 900 * _LONG  # days on a quick processor too
    days = [float(re.findall(r"at least ([\d.]+) days", asked(_WIDE, n))[0]) for n in steps]
    assert 4 < days[1] / days[0] < 20


def test_a_short_run_goes_without_a_word():
    assert asked(_WIDE, 100) == ""


def test_a_step_that_does_not_fit_into_the_memory_is_told(monkeypatch):
    monkeypatch.setattr(forecast, "free_memory", lambda: 1000)
    said = asked(_WIDE, 100)
    assert said.startswith("a step takes about 0.0 GB") and "fewer rows or smaller crops" in said


def test_the_memory_is_about_what_the_compiler_says():
    ready = prepare(_WIDE, TrainConfig(steps=10))
    batch = put_batch(next(_WIDE.batches(0, 0)), None)
    args = (ready.initial_state(), batch, ready.frozen)
    found = ready.step.lower(*args).compile().memory_analysis()
    whole = found.argument_size_in_bytes + found.temp_size_in_bytes
    assert forecast.step_bytes(ready.step, args) == pytest.approx(whole, rel=0.5)
    assert all(not leaf.is_deleted() for leaf in jax.tree.leaves(args[0]))
