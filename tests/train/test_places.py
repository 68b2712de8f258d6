"""Run directories in a bucket, and places that runs cannot lie in."""

import dataclasses
import os
from pathlib import Path

import chex
import fsspec
import pytest
from tiny_bucket import bucket
from tiny_task import TinyTask

from jaxcore.errors import UserError
from jaxcore.places import run_place
from jaxcore.train import TrainConfig, fit, load_params, read_config
from jaxcore.train.integrity import writing
from jaxcore.train.logging import Silent
from jaxcore.train.records import read_metrics_file

_CFG = TrainConfig(
    steps=4,
    log_every=1,
    save_every=0,
    eval_every=2,
    keep_last=1,
    best_metric="mse",
    best_mode="min",
)


@pytest.fixture
def objects(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where a folder "gs:" would be
    with bucket(monkeypatch) as found:
        yield found


def _events(run_dir):
    return [(r["kind"], r["step"]) for r in read_metrics_file(f"{run_dir}/metrics.jsonl")]


def test_a_run_in_a_bucket_is_the_one_on_the_disk_and_goes_on(objects, tmp_path):
    place = "gs://bucket/some/run"
    fit(TinyTask(), dataclasses.replace(_CFG, steps=2), place, reporter=Silent())
    objects["bucket/some/run/checkpoints/4/params/half"] = (1, b"")  # of a save that was killed
    gone_on = fit(TinyTask(), _CFG, place, reporter=Silent())
    whole = fit(TinyTask(), _CFG, tmp_path / "whole", reporter=Silent())
    chex.assert_trees_all_equal(gone_on.state.params, whole.state.params)
    assert _events(place) == _events(tmp_path / "whole")
    assert read_config(place)["train"] == _CFG.to_dict()
    for which in ("best", "last"):
        chex.assert_trees_all_equal(
            load_params(place, which), load_params(tmp_path / "whole", which)
        )
    names = {name.removeprefix("bucket/some/run/").partition("/")[0] for name in objects}
    assert names == {"config.json", "metrics.jsonl", "checkpoints", "samples", "tensorboard"}
    kept = {name.split("/")[4] for name in objects if "/checkpoints/" in name}
    assert kept == {"4"} and "bucket/some/run/checkpoints/4/params/half" not in objects
    assert [p.name for p in tmp_path.iterdir()] == ["whole"]


def test_a_bucket_that_fails_while_arrays_are_written_ends_in_a_sentence(objects):
    place = run_place("gs://bucket/run")
    with pytest.raises(UserError, match="a bucket that can be written, found gs://bucket/run: E"):
        with writing(place):  # as TensorStore says it
            raise ValueError("Error writing gs://bucket/run/manifest: gone [tensorstore_spec='{}']")


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("gs://bucket/run", r"Expected the package gcsfs for gs://bucket/run.*jaxcore\[gcs\]"),
        ("s3://bucket/run", "found s3://bucket/run: checkpoints cannot lie in s3://"),
        ("foo://x", "found foo://x: checkpoints cannot lie in foo://"),
        ("gs://", "Expected gs://BUCKET/FOLDER, found gs://"),
        (Path("gs://bucket/run"), "as text, such as 'gs://bucket/run', found the path gs:/bucket"),
    ],
)
def test_other_places_are_refused_before_any_work(place, sentence, tmp_path, monkeypatch):
    def missing(protocol):
        raise ImportError(protocol)

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    monkeypatch.chdir(tmp_path)
    for act in (lambda: fit(TinyTask(), _CFG, place), lambda: load_params(place)):
        with pytest.raises(UserError, match=sentence):
            act()
    assert os.listdir(tmp_path) == []
