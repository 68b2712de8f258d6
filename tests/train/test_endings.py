"""Whatever ends a run, what it has reached is saved first, and going on is as if it never ended."""

import dataclasses
import os
import signal

import numpy as np
import pytest
from plain_task import CFG, Heard, PlainTask, eventful, records, same

from jaxcore.errors import UserError
from jaxcore.train import fit, load_params
from jaxcore.train.logging import Silent
from jaxcore.train.steps import complete_steps


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


@pytest.fixture
def ctrl_c():
    """Python's own answer to it, which parallel tests switch off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_ends_the_run_at_once_and_saves_too(straight, tmp_path, ctrl_c):
    cfg = dataclasses.replace(CFG, prefetch=0)  # signals reach the main thread only
    with pytest.raises(KeyboardInterrupt):
        fit(eventful(_interrupted_twice, "data", 4), cfg, tmp_path, reporter=Silent())
    assert complete_steps(tmp_path / "checkpoints")[-1] == 4
    same(fit(PlainTask(), CFG, tmp_path, reporter=Silent()).state, straight[1].state)


def test_parameters_that_are_not_finite_never_take_the_place_of_good_ones(tmp_path):
    cfg = dataclasses.replace(CFG, eval_every=0, sample_every=0, save_every=1, keep_last=1)
    heard = Heard()
    with pytest.raises(UserError, match=r"Expected finite parameters after step 3, found NaN or"):
        fit(PlainTask(poison=(2,)), cfg, tmp_path, reporter=heard)
    assert complete_steps(tmp_path / "checkpoints") == [2]
    assert heard.messages[-1].startswith("Nothing was saved after the last checkpoint")


@pytest.mark.parametrize("best_mode", ["min", "max"])  # in one of them step 3 is the best
def test_a_stop_on_a_step_of_evaluation_changes_nothing(tmp_path, best_mode):
    cfg = dataclasses.replace(CFG, log_every=3, keep_last=1, best_mode=best_mode, prefetch=0)
    fit(PlainTask(), cfg, tmp_path / "straight", reporter=Silent())
    stop = eventful(lambda: os.kill(os.getpid(), signal.SIGTERM), "data", 2)
    first = fit(stop, cfg, tmp_path / "run", reporter=Silent())
    assert first.interrupted and int(first.state.step) == 3 and not first.metrics
    fit(PlainTask(), cfg, tmp_path / "run", reporter=Silent())
    assert records(tmp_path / "run") == records(tmp_path / "straight")
    for kind in ("checkpoints", "samples"):
        names = [sorted(os.listdir(tmp_path / run / kind)) for run in ("run", "straight")]
        assert names[0] == names[1]
    best = [load_params(tmp_path / run)["w"] for run in ("run", "straight")]
    np.testing.assert_array_equal(*best)


def test_what_was_left_after_the_last_step_is_done_by_the_next_call(tmp_path):
    failing = eventful(_fails(UserError("a damaged picture")), "pictures", 6)
    with pytest.raises(UserError, match="a damaged picture"):
        fit(failing, CFG, tmp_path, reporter=Silent())
    result = fit(PlainTask(), CFG, tmp_path, reporter=Silent())
    assert (
        result.metrics.keys() == {"mse"} and (tmp_path / "samples/step_0000006_signs.png").exists()
    )
    kinds = [(r["kind"], r["step"]) for r in records(tmp_path)]
    assert kinds.count(("eval", 6)) == 1
