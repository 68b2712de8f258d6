"""A run tried out: what is said of it, and that nothing is written."""

import dataclasses
import os
from typing import Any

import jax
import pytest
from tiny_task import TinyTask

from jaxcore.errors import UserError
from jaxcore.parallel import make_mesh
from jaxcore.train import TrainConfig, fit
from jaxcore.train.dry_run import dry_run
from jaxcore.train.logging import Silent

_CFG = TrainConfig(steps=100, eval_every=30, best_metric="mse", best_mode="min")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Long(TinyTask):
    """Its evaluation looks at forty rows, and briefly at one."""

    rows: int = 40

    def brief(self) -> Any:
        return dataclasses.replace(self, rows=1)

    def evaluation_size(self) -> int:
        return self.rows

    def evaluate(self, state: Any, frozen: Any) -> dict[str, float]:
        return {**super().evaluate(state, frozen), "rows": float(self.rows)}


def test_it_says_what_a_run_is_made_of_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = dry_run(_Long(), _CFG)
    task = TinyTask()
    assert found.batch == {
        "x": f"float32 ({task.batch}, 6)",
        "y": f"float32 ({task.batch}, 2)",
    }
    assert found.parameters == 6 * 8 + 8 * 2 + 2
    assert found.parameter_bytes == 4 * found.parameters
    assert found.state_bytes > found.optimiser_bytes >= 2 * found.parameter_bytes  # Adam's moments
    assert {"loss", "mae", "grad_norm", "skipped"} <= set(found.step_metrics)
    assert found.evaluation_metrics["rows"] == 1
    assert found.step_memory is not None and found.step_memory > found.state_bytes
    assert found.evaluations == 4  # after 30, 60, 90 and at the end
    least = 100 * found.step_seconds + 4 * found.evaluation_seconds
    assert found.total_seconds == pytest.approx(least + found.compile_seconds)
    text = str(found)
    assert "parameters        66 (0.264 kB)" in text and "100 steps, 4 evaluations" in text
    assert os.listdir(tmp_path) == []


def test_the_time_of_an_evaluation_is_that_of_all_its_items(monkeypatch):
    # Compilation, a batch (rollouts belong to it), a step, a short evaluation.
    clock = iter([0.0, 1.0, 5.0, 5.25, 10.0, 10.5, 20.0, 22.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock, 30.0))
    found = dry_run(_Long(), _CFG)
    assert found.evaluation_seconds == 80.0
    assert found.total_seconds == 1.0 + 100 * 0.75 + 4 * 80.0


def test_what_a_run_would_stumble_over_is_found():
    with pytest.raises(UserError, match=r"best-metric 'psnr' is not among .*mse"):
        dry_run(TinyTask(), dataclasses.replace(_CFG, best_metric="psnr"))

    class Short(TinyTask):
        def batches(self, seed, start_step) -> Any:
            return iter(())

    with pytest.raises(UserError, match="Expected data for two steps"):
        dry_run(Short(), _CFG)


@pytest.mark.slow
def test_several_devices_are_tried_out_together():
    found = dry_run(TinyTask(hidden=8192), _CFG, mesh=make_mesh(fsdp=2))
    alone = dry_run(TinyTask(hidden=8192), _CFG)
    assert found.parameters == alone.parameters
    assert found.step_memory < alone.step_memory  # each holds half of the parameters
    assert jax.device_count() == 2


def test_a_run_of_hours_says_so_after_three_steps(tmp_path):
    class Ending(TinyTask):
        def finished(self, state) -> Any:
            return True

    class Notes(Silent):
        said = ""

        def message(self, text):
            self.said += text

    notes = Notes()
    cfg = TrainConfig(steps=10**9, log_every=4, save_every=0, tensorboard=False)
    assert int(fit(Ending(), cfg, tmp_path, reporter=notes).state.step) == 4
    assert "of training from here (h:mm:ss)" in notes.said
