"""Whatever ends a run, what it has reached is saved first, and going on is as if it never ended."""

import dataclasses
import os
import signal

import pytest
from plain_task import CFG, Heard, PlainTask, eventful, same

from jaxcore.errors import UserError
from jaxcore.train import fit
from jaxcore.train.checkpoint import complete_steps
from jaxcore.train.logging import Silent


def _fails(error):
    def event():
        raise error

    return event


def _interrupted_twice():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    where = tmp_path_factory.mktemp("straight") / "run"
    return where, fit(PlainTask(), CFG, where, reporter=Silent())


ENDINGS = {  # what happens, where, before which batch or after which step; the step that is saved
    "a missing file": (OSError("gone"), "data", 4, 4),
    "bad data": (UserError("a damaged picture"), "data", 4, 4),
    "no memory": (MemoryError("much"), "data", 4, 4),
    "an evaluation": (ZeroDivisionError("none"), "evaluate", 3, 3),
    "a picture": (IndexError("no such one"), "pictures", 3, 3),
    "the last evaluation": (UserError("a damaged picture"), "evaluate", 6, 6),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_the_last_good_state_is_saved_first(straight, tmp_path, case):
    error, where, number, step = ENDINGS[case]
    heard = Heard()
    with pytest.raises(type(error)) as caught:
        fit(eventful(_fails(error), where, number), CFG, tmp_path, reporter=heard)
    assert caught.value is error and any(e.name == "event" for e in caught.traceback)
    assert complete_steps(tmp_path / "checkpoints")[-1] == step
    assert heard.messages[-1] == f"Saved step {step} before the run ended."
    result = fit(PlainTask(), CFG, tmp_path, resume=True, reporter=Silent())
    same(result.state, straight[1].state)


def test_a_second_ctrl_c_ends_the_run_at_once_and_saves_too(straight, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(eventful(_interrupted_twice, "data", 4), CFG, tmp_path, reporter=Silent())
    assert complete_steps(tmp_path / "checkpoints")[-1] == 4
    same(fit(PlainTask(), CFG, tmp_path, reporter=Silent()).state, straight[1].state)


def test_parameters_that_are_not_finite_never_take_the_place_of_good_ones(tmp_path):
    cfg = dataclasses.replace(CFG, eval_every=0, sample_every=0, save_every=1, keep_last=1)
    heard = Heard()
    with pytest.raises(UserError, match=r"Expected finite parameters after step 3, found NaN or"):
        fit(PlainTask(poison=(2,)), cfg, tmp_path, reporter=heard)
    assert complete_steps(tmp_path / "checkpoints") == [2]
    assert heard.messages[-1].startswith("Nothing was saved after the last checkpoint")
