"""Files that version 0.1.0 wrote: they load, and its unfinished runs go on to its own results.

`tests/fixtures` holds a DEA-Net run stopped half way and the weights it ended with, weight files of
the other networks, a simulation study stopped after two of three blocks with its results, the
fit of a selective estimator with its summary, and the settings of two more runs.
"""

import json
import shutil
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxcore import registry
from jaxcore.cli import main
from jaxcore.estimators.selective_iv import SelectiveIVResult
from jaxcore.train import TrainConfig, fit

FIXTURES = Path(__file__).parent / "fixtures"
HALF_WAY = 4219243202  # CRC-32 over the sorted names and tensors of the run's weights at step 2


def load_again(run):
    """The task and the settings of a run, from its own record."""
    config = json.loads((run / "config.json").read_text())
    task = registry.task_class(config["task"]).from_dict(config["task_config"])
    return task, TrainConfig.from_dict(config["train"])


@pytest.mark.parametrize("name", ["adair", "dea_net", "rddm"])
def test_weight_files_load_to_the_last_bit(name, tmp_path):
    source = FIXTURES / "weights" / f"{name}.safetensors"
    main(["convert", str(source), str(tmp_path / "again.safetensors")])
    before, after = load_file(source), load_file(tmp_path / "again.safetensors")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_a_run_loads_to_the_last_bit(tmp_path):
    run = FIXTURES / "runs" / "dea_net"
    main(["convert", str(run), str(tmp_path / "out.safetensors"), "--which", "last"])
    found = load_file(tmp_path / "out.safetensors")
    assert zlib.crc32(b"".join(k.encode() + found[k].tobytes() for k in sorted(found))) == HALF_WAY


@pytest.mark.parametrize("name", ["adair", "rddm"])
def test_settings_of_runs_are_understood(name):
    stored = json.loads((FIXTURES / "configs" / f"{name}.json").read_text())
    task = registry.task_class(stored["task"]).from_dict(stored["task_config"])
    train = TrainConfig.from_dict(stored["train"])
    assert task.model == name and task.data.root == "pairs" and task.stages[0].batch_size == 2
    assert train.steps == 4 and train.ema is not None
    assert type(task).from_dict(task.to_dict()) == task
    assert TrainConfig.from_dict(train.to_dict()) == train


@pytest.mark.slow
def test_a_stopped_training_ends_as_the_old_version_did(tmp_path, monkeypatch):
    shutil.copytree(FIXTURES / "runs" / "dea_net", tmp_path / "run")
    shutil.copytree(FIXTURES / "pairs", tmp_path / "pairs")
    monkeypatch.chdir(tmp_path)
    result = fit(*load_again(tmp_path / "run"), tmp_path / "run")
    assert int(result.state.step) == 4
    assert result.metrics["psnr"] == pytest.approx(5.430942535400391, abs=1e-3)
    main(["convert", "run", "end.safetensors", "--which", "last"])
    expected = load_file(FIXTURES / "weights" / "dea_net.safetensors")
    found = load_file("end.safetensors")
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], atol=1e-5, err_msg=key)


@pytest.mark.slow
def test_a_stopped_study_ends_as_the_old_version_did(tmp_path):
    shutil.copytree(FIXTURES / "runs" / "monte_carlo", tmp_path / "run")
    with jax.enable_x64(True):
        result = fit(*load_again(tmp_path / "run"), tmp_path / "run")
    expected = np.load(FIXTURES / "monte_carlo.npz")
    for name in ("theta", "se"):
        found = np.asarray(result.state.collections[name])
        np.testing.assert_allclose(found, expected[name], rtol=1e-6, atol=1e-9)


def test_a_saved_fit_says_what_it_said():
    result = SelectiveIVResult.load(FIXTURES / "saved_fit")
    told = (FIXTURES / "saved_fit.txt").read_text().splitlines()
    [row] = [line for line in told if line.startswith("ATE")]
    # Interval and p-value of its 50 clusters are by now those of Student's t.
    assert row.rpartition(" 0.0067")[0] in result.summary()
    low, high = result.confint()
    assert low < 0.797902 and 4.9524 < high
