import dataclasses
import io
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxcore import registry
from jaxcore.atomic import write_json
from jaxcore.errors import UserError
from jaxcore.train.changes import check_same_run
from jaxcore.train.config import TrainConfig, describe_run
from jaxcore.train.journal import Journal
from jaxcore.train.logging import Bar, Lines, Pace, Silent, default_reporter
from jaxcore.train.optim import OptimConfig
from jaxcore.train.records import MetricsFile, TensorBoard, read_metrics_file, write_sample
from jaxcore.train.run_directory import read_config
from jaxcore.train.schedules import ScheduleConfig


def test_metrics_file_is_cut_to_the_restored_step_and_stays_strict_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, keep_to=0)
    for step in (2, 4, 6):
        file.write(
            "train", step, {"loss": np.float32(np.nan), "inf": float("inf"), "n": np.int32(3)}
        )
    file.close()
    with path.open("a") as torn:
        torn.write('{"step": 3, "lo')
    MetricsFile(path, keep_to=4).close()
    lines = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    assert "NaN" not in lines[0] and "Infinity" not in lines[0]
    assert read_metrics_file(path)[0] == {
        "kind": "train",
        "step": 2,
        "loss": None,
        "inf": None,
        "n": 3,
    }
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"step": \xff}', "not UTF-8 in line 1"),
        (b"[" * 100_000, "levels deep in line 1"),
        (b'{"step": "3"}', "found '3' in record 1"),
        (b'{"step": true}', "found True in record 1"),
        (b'{"loss": 1}', "found None in record 1"),
    ],
)
def test_a_metrics_file_of_something_else_is_left_as_it_is(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    content = line + b'\n{"step": 4}\n'
    path.write_bytes(content)
    for read in (lambda: MetricsFile(path, keep_to=4), lambda: read_metrics_file(path)):
        with pytest.raises(UserError, match=message):
            read()
    assert path.read_bytes() == content and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "a list instead of an object"),
        ("null", "null instead of an object"),
        ("[" * 200_000, "levels deep"),
        ('{"train": []}', r"fields in train of .*config\.json, found \[\]"),
        ('{"task_config": 3}', "fields in task_config"),
        ('{"train": {"steps": "ten"}}', "train.steps must be a whole number.*found 'ten'"),
        ('{"train": {"steps": 1, "optim": [1]}}', "train.optim must be fields of OptimConfig"),
        ('{"train": {}}', "train.steps of TrainConfig is missing"),
        ('{"format": "a fit"}', "train.steps of TrainConfig is missing"),
    ],
)
def test_settings_of_a_stranger_are_refused_in_one_sentence(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        check_same_run(read_config(tmp_path), _stored(), tmp_path)


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4, 3), np.float32), np.zeros((1, 4, 4, 3), np.uint8)]
)
def test_only_uint8_pictures_are_written(tmp_path, picture):
    with pytest.raises(UserError, match="must be uint8"):
        write_sample(tmp_path / "a.png", picture)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_gone_when_the_run_goes_on(tmp_path):
    left = [".metrics.jsonl.01234567.tmp", "samples/.step_0000004_a.png.89abcdef.tmp"]
    kept = [".old.run.01234567.old", "notes.tmp", ".config.json.0123.tmp"]
    (tmp_path / "samples").mkdir()
    for name in left + kept:
        (tmp_path / name).touch()
    with Journal(tmp_path, 0, Silent(), tensorboard=False):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.jsonl", "samples", *kept}
    assert not list((tmp_path / "samples").iterdir())


def test_names_of_metrics_can_do_nothing_to_a_terminal():
    for make in (Lines, lambda stream: Bar(Console(file=stream, width=80))):
        stream = io.StringIO()
        make(stream).message("step 1: \x1b]0;title\x07 1.5\nstep 2")
        assert stream.getvalue() == "step 1: \\x1b]0;title\\x07 1.5\nstep 2\n"


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_tensorboard_is_optional(tmp_path, monkeypatch):
    TensorBoard(tmp_path / "off", start=0, enabled=False).scalars("train", 1, {"loss": 1.0})
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    board = TensorBoard(tmp_path / "absent", start=0)
    board.scalars("train", 1, {"loss": 1.0})
    board.picture("a", 1, np.zeros((4, 4, 3), np.uint8))
    board.close()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_no_point_for_a_loss_without_rows(tmp_path, monkeypatch):
    points = []
    writer = types.SimpleNamespace(add_scalar=lambda *p: points.append(p), close=lambda: None)
    library = types.SimpleNamespace(SummaryWriter=lambda *_, **__: writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", library)
    board = TensorBoard(tmp_path, start=0)
    board.scalars("train", 1, {"loss": 1.0, "loss_haze": float("nan")})
    board.close()
    assert points == [("train/loss", 1.0, 1)]


_METRICS = {"loss": 0.5, "skipped": 2.0, "items_per_second": 12.34, "seconds_left": 125.0}


def test_lines_for_a_log_file():
    stream = io.StringIO()
    reporter = Lines(stream)
    reporter.begin(0, 20)
    reporter.train(10, _METRICS)
    reporter.evaluation(10, {"psnr": 27.3456, "ssim": 0.9})
    assert stream.getvalue().splitlines() == [
        "step 10/20: loss 0.5, 2 steps skipped, 12.3 images/s, 2:05 left",
        "step 10/20: evaluation: psnr 27.35, ssim 0.9",
    ]


def test_the_bar_shows_loss_rate_and_time_left():
    stream = io.StringIO()
    bar = Bar(Console(file=stream, force_terminal=True, width=160))
    bar.begin(0, 20)
    bar.advance(10)
    bar.train(10, _METRICS)
    bar.evaluation(10, {"psnr": 27.3456})
    bar.end()
    text = stream.getvalue()
    assert "10/20" in text and "loss 0.5, 2 skipped, 12.3 images/s" in text
    assert "step 10: psnr 27.35" in text


def test_lines_are_the_default_where_there_is_no_terminal():
    assert isinstance(default_reporter(), Lines)


def test_the_pace_leaves_pauses_out(monkeypatch):
    clock = iter([0.0, 0.0, 10.0, 12.0, 12.0, 12.0, 12.0])
    monkeypatch.setattr(Pace, "now", staticmethod(lambda: next(clock)))
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    pace = Pace()
    pace.restart()  # at 0
    for _ in range(4):
        pace.count(8)
    pace.pause(pace.now())  # from 0 to 10
    assert pace.read(6) == {"items_per_second": 16.0, "seconds_left": 3.0}
    assert pace.read(6) == {}  # nothing was done since


def _stored(**changes):
    return {
        "task": "t",
        "task_config": {},
        "train": TrainConfig(**{"steps": 10, **changes}).to_dict(),
    }


def test_settings_that_do_not_change_the_numbers_may_differ(tmp_path):
    check_same_run(_stored(), _stored(log_every=1, save_every=1, keep_last=9), tmp_path)


def test_a_run_may_be_made_longer_under_a_constant_rate_only(tmp_path):
    check_same_run(_stored(), _stored(steps=20), tmp_path)
    with pytest.raises(UserError, match=r"train\.steps was 10, now 5"):
        check_same_run(_stored(), _stored(steps=5), tmp_path)
    optim = OptimConfig(schedule=ScheduleConfig(name="cosine"))
    with pytest.raises(UserError, match=r"train\.steps was 10, now 20"):
        check_same_run(_stored(optim=optim), _stored(optim=optim, steps=20), tmp_path)


@pytest.mark.parametrize("name", ["adair", "rddm"])
def test_a_run_of_an_older_version_is_the_same_run(name, tmp_path):
    """Its record has other fields: those of all kinds of data, and none that came later."""
    path = Path(__file__).parents[1] / "fixtures/configs" / f"{name}.json"
    stored = json.loads(path.read_text())
    task = registry.task_class(stored["task"]).from_dict(stored["task_config"])
    train = TrainConfig.from_dict(stored["train"])
    check_same_run(stored, describe_run(task, train, {}), tmp_path)
    other = dataclasses.replace(task, crop_multiple=8)
    with pytest.raises(UserError, match=r"task_config\.crop_multiple was 16, now 8"):
        check_same_run(stored, describe_run(other, train, {}), tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"accum_steps": 0}, {"log_every": -1}, {"best_mode": "largest"}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        TrainConfig(**{"steps": 1, **wrong})
