"""The trace of a few steps."""

import dataclasses
from typing import Any

import jax
import pytest
from tiny_task import TinyTask

from jaxcore.errors import UserError
from jaxcore.train import TrainConfig, fit
from jaxcore.train.logging import Silent

_CFG = TrainConfig(steps=6, save_every=0, tensorboard=False, profile="3:4")


def _traced(run_dir):
    """Numbers of the steps in the only trace there is."""
    (file,) = (run_dir / "profile").rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    events = [event for plane in planes for line in plane.lines for event in line.events]
    named = [dict(event.stats) for event in events if event.name == "train"]
    return sorted({int(stats["step_num"]) for stats in named if "step_num" in stats})


def test_only_the_steps_that_were_named_are_traced(tmp_path):
    fit(TinyTask(), _CFG, tmp_path / "run", reporter=Silent())
    assert _traced(tmp_path / "run") == [3, 4]


@pytest.mark.slow
def test_a_run_that_ends_between_leaves_a_whole_trace(tmp_path):
    class Failing(TinyTask):
        def experience(self, state, batch, key, frozen) -> Any:
            if int(state.step) == 3:
                raise UserError("no more")
            return None

    with pytest.raises(UserError, match="no more"):
        fit(Failing(), _CFG, tmp_path / "run", reporter=Silent())
    assert 3 in _traced(tmp_path / "run")


@pytest.mark.parametrize("steps", ["10", "0:3", "5:4", "a:b", ":", "1:2:3", "-1:2"])
def test_steps_that_cannot_be_are_refused_when_the_settings_are_made(steps):
    with pytest.raises(UserError, match=f"profile must be FIRST:LAST.*found '{steps}'"):
        TrainConfig(steps=12, profile=steps)


def test_steps_after_the_last_one_are_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match="profile must name steps up to 6, the last one"):
        fit(TinyTask(), dataclasses.replace(_CFG, profile="5:7"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
