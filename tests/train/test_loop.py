import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_task import TinyTask

from jaxcore.errors import UserError
from jaxcore.parallel import make_mesh
from jaxcore.train import (
    EMAConfig,
    GroupConfig,
    Loss,
    OptimConfig,
    TrainConfig,
    fit,
    load_params,
    read_config,
)
from jaxcore.train.logging import Silent
from jaxcore.train.records import read_metrics_file
from jaxcore.train.schedules import ScheduleConfig

_CFG = TrainConfig(
    steps=12,
    optim=OptimConfig(learning_rate=1e-2, clip_norm=1.0),
    accum_steps=2,
    ema=EMAConfig(decay=0.9),
    log_every=4,
    eval_every=6,
    save_every=5,
    sample_every=6,
    keep_last=2,
    best_metric="mse",
    best_mode="min",
)
_QUIET = dataclasses.replace(
    _CFG, accum_steps=1, ema=None, eval_every=0, sample_every=0, save_every=0, tensorboard=False
)


class _Notes(Silent):
    def __init__(self):
        self.events = []

    def begin(self, step, total):
        self.events.append(("begin", step, total))

    def train(self, step, metrics):
        self.events.append(("train", step, dict(metrics)))

    def evaluation(self, step, metrics):
        self.events.append(("eval", step, dict(metrics)))

    def message(self, text):
        self.events.append(("message", text))

    def end(self):
        self.events.append(("end",))


class _Counting(TinyTask):
    traces = 0

    def loss(self, variables, batch, key, frozen):
        type(self).traces += 1
        return super().loss(variables, batch, key, frozen)


def _equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    where = tmp_path_factory.mktemp("runs") / "tiny"
    notes = _Notes()
    _Counting.traces = 0
    result = fit(_Counting(), _CFG, where, reporter=notes, extra_config={"who": "test"})
    return where, result, notes.events, _Counting.traces


def test_the_step_is_traced_for_one_compilation_only(run):
    assert run[3] == 2  # shapes for the accumulation, and the compilation itself


def test_the_run_directory_says_what_was_run(run):
    config = read_config(run[0])
    assert config["task"] == "tiny" and config["extra"] == {"who": "test"}
    assert TinyTask.from_dict(config["task_config"]) == TinyTask()
    assert TrainConfig.from_dict(config["train"]) == _CFG


def test_metrics_file(run):
    records = read_metrics_file(run[0] / "metrics.jsonl")
    steps = [(r["kind"], r["step"]) for r in records]
    assert steps == [("train", 4), ("eval", 6), ("train", 8), ("train", 12), ("eval", 12)]
    train = records[-2]
    assert {"loss", "mae", "grad_norm", "learning_rate", "skipped"} <= set(train)
    assert train["items_per_second"] > 0
    assert records[-1]["mse"] == run[1].metrics["mse"]


def test_reporter_hears_everything_in_order(run):
    kinds = [event[0] for event in run[2]]
    assert kinds[0] == "begin" and kinds[-1] == "end"
    assert kinds.count("train") == 3 and kinds.count("eval") == 2


def test_pictures_and_event_files(run):
    for step in (6, 12):
        with Image.open(run[0] / "samples" / f"step_{step:07d}_kernel.png") as picture:
            assert picture.size == (8, 6) and picture.mode == "RGB"
    assert len(list((run[0] / "tensorboard").glob("events.*"))) == 1
    leftovers = [p for p in run[0].rglob("*") if p.name.endswith(".tmp") or "orbax-" in p.name]
    assert leftovers == []


def test_the_last_and_the_best_checkpoints_are_kept_and_found(run):
    where, result, _, _ = run
    kept = sorted(int(p.name) for p in (where / "checkpoints").iterdir())
    assert kept == [10, 12]
    _equal(load_params(where, "last", ema=False), result.state.params)
    _equal(load_params(where, "ema"), result.state.ema_params)
    _equal(load_params(where), result.state.ema_params)  # best, as it was evaluated
    assert int(result.state.step) == 12 and not result.interrupted


def test_a_finished_run_is_not_trained_again(run):
    where, result, _, _ = run
    before = (where / "metrics.jsonl").read_bytes()
    again = fit(TinyTask(), _CFG, where, reporter=Silent())
    _equal(again.state.params, result.state.params)
    assert again.metrics == result.metrics
    assert (where / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (TinyTask(hidden=9), {}, "task_config.hidden was 8, now 9"),
        (TinyTask(), {"optim": OptimConfig(learning_rate=1e-3)}, "learning_rate was 0.01"),
        (TinyTask(), {"seed": 1}, "train.seed was 0, now 1"),
    ],
)
def test_another_runs_directory_is_refused(run, task, change, message):
    with pytest.raises(UserError, match=message):
        fit(task, dataclasses.replace(_CFG, **change), run[0], reporter=Silent())
    assert read_config(run[0])["train"]["seed"] == 0


def test_resume_can_be_demanded_or_forbidden(run, tmp_path):
    with pytest.raises(UserError, match="Expected a checkpoint to resume from"):
        fit(TinyTask(), _CFG, tmp_path / "new", resume=True)
    with pytest.raises(UserError, match="without checkpoints"):
        fit(TinyTask(), _CFG, run[0], resume=False)


def test_best_is_kept_when_later_ones_are_worse(tmp_path):
    class Worsening(TinyTask):
        def evaluate(self, state, frozen):
            scores.append(0)
            return {"mse": {1: 2.0, 2: 1.0}.get(len(scores), 3.0)}

    scores = []
    cfg = dataclasses.replace(_QUIET, eval_every=1, keep_last=1, best_metric="mse", steps=4)
    fit(Worsening(), cfg, tmp_path / "run", reporter=Silent())
    assert sorted(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()) == [2, 4]
    best, last = load_params(tmp_path / "run"), load_params(tmp_path / "run", "last")
    assert not np.array_equal(best["first"]["kernel"], last["first"]["kernel"])
    _equal(best, load_params(tmp_path / "run", 2))
    with pytest.raises(UserError, match=r"Expected checkpoint 3 in .*found 2, 4"):
        load_params(tmp_path / "run", 3)
    with pytest.raises(UserError, match="moving average"):
        load_params(tmp_path / "run", "ema")


def test_bad_batches_are_skipped_and_counted_and_frozen_leaves_stay(tmp_path):
    notes = _Notes()
    task = TinyTask(poison=(1, 5), freeze=True)
    result = fit(task, _QUIET, tmp_path / "run", reporter=notes)
    assert int(result.state.skipped) == 2 and int(result.state.step) == 12
    start = task.init_params(jax.random.fold_in(jax.random.key(0), 0))
    _equal(result.state.params["first"], start["first"])
    assert not np.array_equal(result.state.params["second"]["bias"], start["second"]["bias"])
    logged = [event[2] for event in notes.events if event[0] == "train"]
    assert [m["skipped"] for m in logged] == [1.0, 2.0, 2.0]
    assert all(np.isfinite(m["loss"]) for m in logged)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _NoGradient(TinyTask):
    """A finite loss whose gradient is not: that of a root at 0."""

    def loss(self, variables: Any, batch: Any, key: Any, frozen: Any) -> Loss:
        found = super().loss(variables, batch, key, frozen)
        zero = 0 * variables["params"]["second"]["bias"][0]
        return found._replace(total=found.total + jnp.sqrt(zero))


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is(tmp_path):
    cfg = dataclasses.replace(_QUIET, max_skipped=3)
    with pytest.raises(UserError, match=r"last 3 steps up to step 3 \(loss 0\..*norm nan\)"):
        fit(_NoGradient(), cfg, tmp_path / "run", reporter=Silent())


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("log_every", [0, 1])
def test_updates_that_do_not_happen_end_the_run(tmp_path, log_every, skip):
    """Counted in steps, whatever is logged; what is saved is good."""
    cfg = dataclasses.replace(
        _QUIET, log_every=log_every, save_every=2, max_skipped=3, skip_nonfinite=skip
    )
    task = TinyTask(poison=(0, 1, 3, 4, 6, 7, 8, 9))
    if not skip:
        task = TinyTask(poison=(5, 6, 7, 8, 9))
    message = (
        r"last 3 steps up to step 9 \(loss nan, gradient norm nan\)"
        if skip
        else r"finite parameters, found NaN or infinity in first/kernel up to step 6 \(loss nan"
    )
    with pytest.raises(UserError, match=message):
        fit(task, cfg, tmp_path / "run", reporter=Silent())
    saved = load_params(tmp_path / "run", "last")
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(saved))


def test_the_count_in_a_row_survives_a_restart(tmp_path):
    cfg = dataclasses.replace(_QUIET, log_every=0, max_skipped=4)
    task = TinyTask(poison=(1, 2, 3, 4))
    fit(task, dataclasses.replace(cfg, steps=4), tmp_path / "run", reporter=Silent())
    with pytest.raises(UserError, match="last 4 steps up to step 5"):
        fit(task, cfg, tmp_path / "run", reporter=Silent())


def test_a_run_that_learns_nothing_is_no_success(tmp_path):
    """Fewer steps than end a run early, none of them with an update; also when asked again."""
    task, cfg = TinyTask(poison=tuple(range(12))), dataclasses.replace(_QUIET, log_every=1)
    for _ in range(2):
        with pytest.raises(UserError, match="found NaN or infinity in all 12, so that nothing"):
            fit(task, cfg, tmp_path / "run", reporter=Silent())
    records = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[0]["loss"] is None and records[0]["learning_rate"] == pytest.approx(0.01)


def test_the_logged_learning_rate_is_the_one_applied(tmp_path):
    """What is left out does not count for the schedule; groups have their own."""
    schedule = ScheduleConfig(name="warmup_cosine", warmup_steps=8)
    groups = (GroupConfig.parse("second:lr=0.1"),)
    optim = OptimConfig(name="sgd", momentum=0.0, learning_rate=1.0, schedule=schedule)
    cfg = dataclasses.replace(
        _QUIET, log_every=1, steps=8, optim=dataclasses.replace(optim, groups=groups)
    )
    notes = _Notes()
    fit(TinyTask(poison=(2, 3, 5)), cfg, tmp_path / "run", reporter=notes)
    logged = [event[2] for event in notes.events if event[0] == "train"]
    applied = [1, 2, 2, 2, 3, 3, 4, 5]  # updates so far, each of them an eighth of the way up
    np.testing.assert_allclose([m["learning_rate"] for m in logged], np.array(applied) / 8)
    own = [m["learning_rate/second"] for m in logged]
    np.testing.assert_allclose(own, np.array(applied) / 80, rtol=1e-6)
    said = [event[1] for event in notes.events if event[0] == "message"]
    assert "Optimiser groups: 'second' 18 parameters, learning rate 0.1" in said[0]
    assert said[-1] == "3 of 8 updates were left out: loss or gradient were not finite."


def test_a_jump_of_the_loss_is_reported_and_the_run_goes_on(tmp_path):
    class Jumping(TinyTask):
        def batches(self, seed: int, start_step: int) -> Any:
            data = super().batches(seed, start_step)

            class Stream:
                def __next__(self) -> Any:
                    number = data.get_state()["next_index"]
                    batch = next(data)
                    return batch if number not in (30, 32) else {**batch, "y": batch["y"] + 100}

                def get_state(self) -> Any:
                    return data.get_state()

                def set_state(self, state: Any) -> None:
                    data.set_state(state)

            return Stream()

    cfg = dataclasses.replace(_QUIET, steps=34, log_every=2)
    notes = _Notes()
    fit(Jumping(), cfg, tmp_path / "run", reporter=notes)
    records = read_metrics_file(tmp_path / "run" / "metrics.jsonl")
    assert [(r["kind"], r["step"]) for r in records if r["step"] in (31, 32, 33)] == [
        ("spike", 31),
        ("train", 32),
    ]
    spike = next(r for r in records if r["kind"] == "spike")
    assert spike["loss"] > 1000 > 1 > spike["median"]
    said = [event[1] for event in notes.events if event[0] == "message"]
    assert len(said) == 1 and said[0].startswith("Step 31: the loss jumped to ")


@pytest.mark.parametrize("tells", [True, False])
def test_a_misspelt_best_metric_is_noticed_before_the_first_step(tmp_path, tells):
    class Untrained(TinyTask):
        def metric_names(self) -> Any:
            return ("mse",) if tells else None

        def loss(self, variables: Any, batch: Any, key: Any, frozen: Any) -> Any:
            raise AssertionError("a step")

    cfg = dataclasses.replace(_QUIET, best_metric="psnr")
    with pytest.raises(UserError, match="'psnr' is not among the metrics of the evaluation: mse"):
        fit(Untrained(), cfg, tmp_path / "run", reporter=Silent())


def test_fine_tuning_starts_from_given_weights_but_never_over_a_checkpoint(run, tmp_path):
    given = load_params(run[0])
    cfg = dataclasses.replace(_QUIET, steps=1, optim=OptimConfig(learning_rate=1e-12))
    tuned = fit(TinyTask(), cfg, tmp_path / "run", reporter=Silent(), init_params=given)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), tuned.state.params, given
    )
    other = jax.tree.map(lambda x: x + 1.0, given)
    again = fit(TinyTask(), cfg, tmp_path / "run", reporter=Silent(), init_params=other)
    _equal(again.state.params, tuned.state.params)
    with pytest.raises(UserError, match=r"first/kernel expected \(6, 9\), found \(6, 8\)"):
        fit(TinyTask(hidden=9), cfg, tmp_path / "new", reporter=Silent(), init_params=given)


def test_data_that_end_are_named(tmp_path):
    class Ended:
        def __next__(self) -> Any:
            raise StopIteration

        def get_state(self) -> Any:
            return 0

        def set_state(self, state: Any) -> None: ...

    class Short(TinyTask):
        def batches(self, seed: int, start_step: int) -> Any:
            return Ended()

    with pytest.raises(UserError, match="Expected data for 12 steps, found none after step 0"):
        fit(Short(), _QUIET, tmp_path / "a", reporter=Silent())


@pytest.mark.parametrize("axes", [{"data": 2}, {"data": 1, "fsdp": 2}])
def test_two_devices_give_the_run_of_one_and_resume_each_other(tmp_path, axes):
    task = TinyTask(hidden=8192)  # large enough to be split
    cfg = dataclasses.replace(_QUIET, steps=4, save_every=2, max_in_flight=1)
    alone = fit(task, cfg, tmp_path / "alone", reporter=Silent())
    half = dataclasses.replace(cfg, steps=2)
    fit(task, half, tmp_path / "run", mesh=make_mesh(**axes), reporter=Silent())
    other = make_mesh(data=2) if "fsdp" in axes else make_mesh(fsdp=2)
    result = fit(task, cfg, tmp_path / "run", mesh=other, reporter=Silent())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        jax.device_get(result.state.params),
        jax.device_get(alone.state.params),
    )
    split = result.state.params["first"]["kernel"].sharding.is_fully_replicated
    assert split == ("fsdp" in axes)
    _equal(load_params(tmp_path / "run"), jax.device_get(result.state.params))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shifted(TinyTask):
    """Its loss takes what no step changes and no checkpoint holds."""

    def frozen(self) -> Any:
        return {"shift": np.full((1, 2), 0.5, np.float32)}

    def loss(self, variables: Any, batch: Any, key: Any, frozen: Any) -> Any:
        shifted = {**batch, "y": batch["y"] + frozen["shift"]}
        return super().loss(variables, shifted, key, frozen)


def test_what_is_frozen_reaches_the_loss_and_no_checkpoint(tmp_path):
    cfg = dataclasses.replace(_QUIET, steps=4, max_in_flight=1)
    alone = fit(_Shifted(), cfg, tmp_path / "alone", reporter=Silent())
    half = dataclasses.replace(cfg, steps=2)
    fit(_Shifted(), half, tmp_path / "run", mesh=make_mesh(), reporter=Silent())
    resumed = fit(_Shifted(), cfg, tmp_path / "run", reporter=Silent())
    assert alone.state.collections == resumed.state.collections == {}
    bias, again = (run.state.params["second"]["bias"] for run in (alone, resumed))
    np.testing.assert_allclose(again, bias, rtol=1e-4, atol=1e-5)
    assert bias.min() > 0.02  # on its way from 0 to the shift


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(tmp_path):
    with pytest.raises(UserError, match="7 rows does not divide over 2 devices"):
        fit(TinyTask(batch=7), _QUIET, tmp_path / "run", mesh=make_mesh(), reporter=Silent())


@dataclasses.dataclass(frozen=True, kw_only=True)
class _EndingTask(TinyTask):
    """Ends when its weights have moved, which they have after the first update."""

    def finished(self, state: Any) -> bool:
        return bool(np.any(np.asarray(state.params["second"]["bias"]) != 0))


def test_a_task_may_end_its_run_when_metrics_are_logged(tmp_path):
    cfg = dataclasses.replace(_CFG, steps=9, log_every=2, save_every=0)
    result = fit(_EndingTask(), cfg, tmp_path / "run", reporter=Silent())
    assert int(result.state.step) == 2 and not result.interrupted
    assert result.metrics
    kept = load_params(tmp_path / "run", "last", ema=False)
    jax.tree.map(np.testing.assert_array_equal, kept, result.state.params)
