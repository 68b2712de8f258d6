"""Batches are drawn ahead of the steps, and nothing but the time shows it."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest
from plain_task import CFG, PlainTask, eventful, same

from jaxcore.errors import UserError
from jaxcore.train import fit
from jaxcore.train.feed import Feed
from jaxcore.train.logging import Silent

_AHEAD = dataclasses.replace(CFG, prefetch=3, save_every=2)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    cfg = dataclasses.replace(CFG, prefetch=0)
    return fit(PlainTask(), cfg, tmp_path_factory.mktemp("run"), reporter=Silent()).state


class _StopsAfter(Silent):
    """A reporter that fails after a step."""

    def __init__(self, step):
        self._step = step

    def advance(self, step):
        if step == self._step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_stopped_run_goes_on_after_the_last_batch_it_used(straight, tmp_path, step):
    with pytest.raises(KeyboardInterrupt):
        fit(PlainTask(), _AHEAD, tmp_path, reporter=_StopsAfter(step))
    assert not [t for t in threading.enumerate() if t.name == "jaxcore-feed"]
    result = fit(PlainTask(), _AHEAD, tmp_path, resume=True, reporter=Silent())
    same(result.state, straight)
    assert not [t for t in threading.enumerate() if t.name == "jaxcore-feed"]


def test_the_next_batches_are_drawn_while_a_step_is_not_over(tmp_path):
    drawn = threading.Event()

    class Waiting(Silent):
        def advance(self, step):
            assert step > 1 or drawn.wait(30)

    fit(eventful(drawn.set, "data", 3), _AHEAD, tmp_path, reporter=Waiting())  # the fourth


@pytest.mark.parametrize("ahead", [0, 2])
def test_so_many_wait_and_no_more_than_the_run_needs_are_drawn(ahead):
    class Numbers:
        drawn = 0

        def __next__(self):
            self.drawn += 1
            return {"x": np.float32(self.drawn)}

        def get_state(self):
            return self.drawn

    numbers, drawn = Numbers(), []
    with Feed(numbers, lambda batch: batch, ahead=ahead, count=5) as feed:
        for used in range(1, 6):
            assert next(feed).placed["x"] == used
            time.sleep(0.05)
            drawn.append(numbers.drawn)
    assert drawn == [min(used + ahead, 5) for used in range(1, 6)]


def test_an_error_of_the_data_comes_at_its_step(tmp_path):
    def fail():
        raise UserError("Expected a whole picture.")

    steps = []

    class Counting(Silent):
        def advance(self, step):
            steps.append(step)

    with pytest.raises(UserError, match="whole picture"):
        fit(eventful(fail, "data", 4), _AHEAD, tmp_path, reporter=Counting())
    assert steps == [1, 2, 3, 4]


def test_batches_are_put_as_the_caller_would_put_them():
    class Wide:
        def __next__(self):
            return {"x": np.ones((2, 1))}

        def get_state(self):
            return None

    with jax.enable_x64(True), Feed(Wide(), jax.device_put, ahead=1, count=1) as feed:
        assert next(feed).placed["x"].dtype == np.float64
    last = jax.devices()[-1]
    with jax.default_device(last), Feed(Wide(), jax.device_put, ahead=1, count=1) as feed:
        assert next(feed).placed["x"].devices() == {last}
