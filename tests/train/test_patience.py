"""Runs that end when they no longer get better."""

import dataclasses
import shutil
from typing import Any

import chex
import numpy as np
import pytest
from tiny_task import TinyTask

from jaxcore.errors import UserError
from jaxcore.train import TrainConfig, fit, load_params
from jaxcore.train.logging import Silent
from jaxcore.train.records import read_metrics_file

_CFG = TrainConfig(
    steps=20,
    eval_every=2,
    save_every=0,
    keep_last=2,
    best_metric="mse",
    best_mode="min",
    patience=2,
    tensorboard=False,
)
_SCORES = {2: 3.0, 4: 2.0, 6: float("nan"), 8: 2.0, 10: 2.5}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scripted(TinyTask):
    """Its scores are written beforehand; data end where a test wants a run to break off."""

    def evaluate(self, state: Any, frozen: Any) -> dict[str, float]:
        return {"mse": _SCORES[int(state.step)]}


class _Notes(Silent):
    def __init__(self):
        self.said = []

    def message(self, text):
        self.said.append(text)


def _evaluated(run_dir):
    return [r["step"] for r in read_metrics_file(run_dir / "metrics.jsonl") if r["kind"] == "eval"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    where, notes = tmp_path_factory.mktemp("patience") / "run", _Notes()
    return where, fit(_Scripted(), _CFG, where, reporter=notes), notes.said


def test_a_run_ends_after_so_many_evaluations_without_a_better_one(stopped):
    where, result, said = stopped
    assert int(result.state.step) == 8 and not result.interrupted
    assert result.metrics == {"mse": 2.0} and _evaluated(where) == [2, 4, 6, 8]
    assert said[-1] == "Stopped at step 8 of 20: no better mse in 2 evaluations (patience)."
    chex.assert_trees_all_equal(load_params(where, "last"), result.state.params)
    best = load_params(where)  # of step 4
    assert not np.array_equal(best["second"]["bias"], result.state.params["second"]["bias"])


def test_it_says_so_and_does_not_train_on_when_it_is_called_again(stopped):
    where, result, _ = stopped
    before, notes = (where / "metrics.jsonl").read_bytes(), _Notes()
    again = fit(_Scripted(), _CFG, where, reporter=notes)
    chex.assert_trees_all_equal(again.state.params, result.state.params)
    assert again.metrics == result.metrics
    assert notes.said[-1] == "Stopped at step 8 of 20: no better mse in 2 evaluations (patience)."
    assert (where / "metrics.jsonl").read_bytes() == before


def test_with_more_patience_it_goes_on(stopped, tmp_path):
    run_dir = shutil.copytree(stopped[0], tmp_path / "run")
    more = dataclasses.replace(_CFG, patience=3)
    assert int(fit(_Scripted(), more, run_dir, reporter=Silent()).state.step) == 10


def test_a_run_that_was_killed_ends_where_it_would_have(stopped, tmp_path):
    run_dir = shutil.copytree(stopped[0], tmp_path / "run")
    shutil.rmtree(run_dir / "checkpoints" / "8")  # evaluations after the one of step 4 remain
    result = fit(_Scripted(), _CFG, run_dir, reporter=Silent())
    assert int(result.state.step) == 8 and _evaluated(run_dir) == [2, 4, 6, 8]
    chex.assert_trees_all_equal(result.state.params, stopped[1].state.params)


@pytest.mark.slow  # the killed one guards the same by default
def test_a_run_that_failed_after_an_evaluation_ends_where_it_would_have(stopped, tmp_path):
    class Breaking(_Scripted):
        def experience(self, state, batch, key, frozen) -> Any:
            if int(state.step) == 6:
                raise UserError("broken off")
            return None

    with pytest.raises(UserError, match="broken off"):
        fit(Breaking(), _CFG, tmp_path, reporter=Silent())
    result = fit(_Scripted(), _CFG, tmp_path, reporter=Silent())
    assert int(result.state.step) == 8 and _evaluated(tmp_path) == [2, 4, 6, 8]
    chex.assert_trees_all_equal(result.state.params, stopped[1].state.params)


@pytest.mark.parametrize("change", [{"best_metric": None}, {"eval_every": 0}])
def test_it_needs_a_metric_and_evaluations(change):
    with pytest.raises(UserError, match="patience must be None without best_metric and eval_every"):
        dataclasses.replace(_CFG, **change)
