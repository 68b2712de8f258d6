"""A run that goes on with other settings: by request, written down, and never another run."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from tiny_task import TinyTask

from jaxcore.errors import UserError
from jaxcore.train import EMAConfig, OptimConfig, TrainConfig, fit, read_config
from jaxcore.train.groups import GroupConfig
from jaxcore.train.logging import Silent
from jaxcore.train.records import read_metrics_file
from jaxcore.train.schedules import ScheduleConfig

_CFG = TrainConfig(
    steps=4,
    optim=OptimConfig(learning_rate=0.1, schedule=ScheduleConfig(name="cosine")),
    log_every=1,
    tensorboard=False,
)


class _Measured(TinyTask):
    """One of its fields stands for one that evaluation alone reads."""

    changeable = ("poison",)


def _with(cfg, **optim):
    return dataclasses.replace(cfg, optim=dataclasses.replace(cfg.optim, **optim))


def _rates(run):
    records = read_metrics_file(run / "metrics.jsonl")
    return [r["learning_rate"] for r in records if r["kind"] == "train"]


def test_a_finished_run_goes_on_for_longer_by_request(tmp_path):
    run = tmp_path / "run"
    fit(_Measured(), _CFG, run, reporter=Silent())
    longer = dataclasses.replace(_with(_CFG, learning_rate=0.01, clip_norm=1.0), steps=8)
    longer = dataclasses.replace(longer, eval_every=2)
    with pytest.raises(UserError) as error:
        fit(_Measured(poison=(1,)), longer, run, reporter=Silent())
    for part in (
        "task_config.poison was [], now [1]",
        "train.steps was 4, now 8",
        "train.optim.learning_rate was 0.1, now 0.01",
        "train.optim.clip_norm was None, now 1.0",
        "ask for change_settings, on the command line --change-settings",
    ):
        assert part in str(error.value)
    assert "eval_every" not in str(error.value) and "changes" not in read_config(run)

    result = fit(_Measured(poison=(1,)), longer, run, reporter=Silent(), change_settings=True)
    assert int(result.state.step) == 8
    [count] = {int(x) for x in jax.tree.leaves(result.state.opt_state) if x.ndim == 0}
    assert count == 8  # the optimiser goes on where it stood
    # Update n has the rate of update n in a run of eight.
    expected = 0.01 * np.cos(np.pi / 2 * np.arange(5, 9) / 8) ** 2
    np.testing.assert_allclose(_rates(run)[4:], expected, rtol=1e-5, atol=1e-9)
    changes = read_config(run)["changes"]
    assert {"step": 4, "field": "train.steps", "before": 4, "after": 8} in changes
    assert {"step": 4, "field": "train.eval_every", "before": 0, "after": 2} in changes
    assert {one["field"] for one in changes} >= {"train.optim.clip_norm", "task_config.poison"}

    again = fit(_Measured(poison=(1,)), longer, run, reporter=Silent())  # they are its own now
    assert int(again.state.step) == 8 and read_config(run)["changes"] == changes
    with pytest.raises(UserError, match=r"train.steps of at least 8, which are done"):
        fit(
            _Measured(poison=(1,)),
            dataclasses.replace(longer, steps=6),
            run,
            reporter=Silent(),
            change_settings=True,
        )


def test_a_change_is_written_down_at_the_step_that_the_run_went_on_from(tmp_path):
    """That of the newest whole checkpoint, and not at all where there is none."""
    cfg, run = dataclasses.replace(_CFG, save_every=2), tmp_path / "run"
    fit(TinyTask(), cfg, run, reporter=Silent())
    before = (run / "config.json").read_bytes()
    (run / "checkpoints" / "4" / "loop" / "metadata").write_bytes(b"")
    longer = dataclasses.replace(cfg, steps=6)
    spoilt = tmp_path / "spoilt"
    shutil.copytree(run, spoilt)
    (spoilt / "checkpoints" / "2" / "loop" / "metadata").write_bytes(b"")
    with pytest.raises(UserError, match="only damaged ones"):
        fit(TinyTask(), longer, spoilt, reporter=Silent(), change_settings=True)
    assert (spoilt / "config.json").read_bytes() == before

    fit(TinyTask(), longer, run, reporter=Silent(), change_settings=True)
    [change] = read_config(run)["changes"]
    assert change == {"step": 2, "field": "train.steps", "before": 4, "after": 6}


def test_what_the_state_depends_on_never_changes_and_all_of_it_is_named(tmp_path):
    run = tmp_path / "run"
    fit(TinyTask(), dataclasses.replace(_CFG, steps=1), run, reporter=Silent())
    before = (run / "config.json").read_bytes()
    other = dataclasses.replace(
        _with(_CFG, name="lion", betas=(0.5, 0.9), groups=(GroupConfig.parse("first:lr=1"),)),
        seed=3,
        ema=EMAConfig(),
    )
    with pytest.raises(UserError) as error:
        fit(TinyTask(batch=4), other, run, reporter=Silent(), change_settings=True)
    for field in (
        "task_config.batch was 8, now 4",
        "train.seed was 0, now 3",
        "train.optim.name was 'adamw', now 'lion'",
        "train.optim.betas was",
        "train.optim.groups was []",
        "train.ema was None",
        "the state depends on it",
    ):
        assert field in str(error.value)
    assert (run / "config.json").read_bytes() == before


def test_the_rates_of_groups_may_change_by_request(tmp_path):
    run, cfg = tmp_path / "run", dataclasses.replace(_CFG, steps=2)
    fit(TinyTask(), _with(cfg, groups=(GroupConfig.parse("first:lr=1"),)), run, reporter=Silent())
    longer = dataclasses.replace(cfg, steps=3)
    longer = _with(longer, groups=(GroupConfig.parse("first:lr=0.5"),))
    with pytest.raises(UserError, match=r"train.optim.groups.0.learning_rate was 1.0, now 0.5"):
        fit(TinyTask(), longer, run, reporter=Silent())
    fit(TinyTask(), longer, run, reporter=Silent(), change_settings=True)
    other = _with(longer, groups=(GroupConfig.parse("second:lr=0.5"),))
    with pytest.raises(UserError, match=r"groups.0.pattern was 'first', now 'second' \(the state"):
        fit(TinyTask(), other, run, reporter=Silent(), change_settings=True)


def test_a_run_of_an_older_version_goes_on_with_what_its_settings_meant(tmp_path):
    """It had no field that says whether biases decay; they did."""
    cfg = dataclasses.replace(_with(_CFG, weight_decay=0.5), save_every=2)
    whole = _with(cfg, decay_all=True)
    straight = fit(TinyTask(), whole, tmp_path / "straight", reporter=Silent())

    run = tmp_path / "run"
    fit(TinyTask(), whole, run, reporter=Silent())
    (run / "checkpoints" / "4").rename(tmp_path / "gone")
    config = read_config(run)
    del config["train"]["optim"]["decay_all"], config["train"]["max_skipped"]
    (run / "config.json").write_text(json.dumps(config))
    result = fit(TinyTask(), cfg, run, resume=True, reporter=Silent())
    assert int(result.state.step) == 4
    jax.tree.map(np.testing.assert_array_equal, result.state.params, straight.state.params)
    assert read_config(run)["train"]["optim"]["decay_all"] and "changes" not in read_config(run)


def test_a_warm_up_longer_than_the_run_is_refused_before_anything_is_written(tmp_path):
    cfg = _with(_CFG, schedule=ScheduleConfig(name="warmup_cosine", warmup_steps=9))
    with pytest.raises(UserError, match="warmup-steps must be at most the 4 updates"):
        fit(TinyTask(), cfg, tmp_path / "run", reporter=Silent())
    assert not (tmp_path / "run").exists()
