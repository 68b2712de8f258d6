# ruff: noqa: F811  # fixtures that are imported
"""`jaxcore.weights.load`: from runs and files to a network with its weights."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcore.convert import write_safetensors
from jaxcore.errors import UserError
from jaxcore.models import adair
from jaxcore.models.config import computed_like
from jaxcore.train.recipes import recipe
from jaxcore.weights import NOISE, SHIPPED, Shipped, describe, load, shipped
from tests.clean_photographs import check_clean_photographs
from tests.tiny_weights import TINY, params, run, weights, write_run  # noqa: F401  # fixtures


def same(found, seed):
    jax.tree.map(np.testing.assert_array_equal, found, params(seed))


def test_a_run_gives_the_checkpoint_that_is_asked_for(run):
    for which, seed in (("best", 1), ("last", 2)):
        found = load(run, which=which)
        assert (found.network.name, found.cfg, found.notes) == ("adair", TINY, ())
        same(found.params, seed)
    with pytest.raises(UserError, match="moving average"):
        load(run, which="ema")


@pytest.mark.parametrize("name", ["tiny.safetensors", "tiny.pth", "tiny.ckpt", "compiled.pt"])
def test_files_of_the_official_code_tell_their_sizes(weights, name):
    found = load(str(weights / name))
    assert (found.network.name, found.cfg) == ("adair", TINY)
    same(found.params, 0)
    assert found.notes == ()


def test_a_description_tells_what_weights_do_not(tmp_path):
    cfg = dataclasses.replace(TINY, remat=True)
    tensors = adair.to_torch(params(cfg=cfg), cfg)
    write_safetensors(tmp_path / "w.safetensors", tensors, describe(adair.NETWORK, cfg))
    assert load(tmp_path / "w.safetensors").cfg == cfg


def test_older_runs_without_the_name_of_the_network_are_of_adair(tmp_path):
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    del content["task_config"]["model"]
    path.write_text(json.dumps(content))
    assert load(tmp_path / "run").network.name == "adair"


def test_a_run_of_an_older_release_lacks_fields_that_came_later(tmp_path):
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    del content["task_config"]["network"]["spectral"]
    path.write_text(json.dumps(content))
    assert load(tmp_path / "run").cfg == TINY


def test_the_network_must_be_the_one_asked_for(run, weights, tmp_path):
    with pytest.raises(UserError, match="Expected weights of rddm, found weights of adair"):
        load(run, model="rddm")
    with pytest.raises(UserError, match=r"tiny.pth does not hold weights of rddm: "):
        load(weights / "tiny.pth", model="rddm")
    with pytest.raises(UserError, match=r"Unknown network 'resnet': expected one of adair"):
        load(weights / "tiny.pth", model="resnet")


def test_presets_are_for_files_of_networks_that_have_them(run, weights):
    with pytest.raises(UserError, match="leave the preset 'deraining' out"):
        load(run, preset="deraining")
    with pytest.raises(UserError, match=r"Expected as preset of adair none, found 'deraining'"):
        load(weights / "tiny.pth", preset="deraining")
    with pytest.raises(UserError, match=r"of rddm one of deraining, .* found 'x'"):
        load(weights / "tiny.pth", model="rddm", preset="x")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"found nothing at .*gone.pth"):
        load(tmp_path / "gone.pth")
    with pytest.raises(UserError, match=r"Expected a run directory with config.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    "entry", ["{", "[]", '{"model": "adair"}', '{"model": "adair", "config": 3}']
)
def test_a_damaged_description_is_refused(tmp_path, entry):
    tensors = adair.to_torch(params(), TINY)
    write_safetensors(tmp_path / "a.safetensors", tensors, {"jaxcore": entry})
    with pytest.raises(UserError, match="Expected a model and its configuration"):
        load(tmp_path / "a.safetensors")


def test_weights_of_the_library_are_small_and_say_what_they_are():
    for name, own in SHIPPED.items():
        found = load(name)
        assert found.network.name == own.network and found.cfg.dtype == "float32"
        for leaf in jax.tree.leaves(found.params):
            assert leaf.dtype == np.float32 and np.isfinite(leaf).all()
    assert sum(own.path.stat().st_size for own in SHIPPED.values()) < 12e6


def test_the_page_of_the_weights_names_every_author_of_a_photograph():
    page = " ".join((NOISE.path.parent / "README.md").read_text().split())
    listed = json.loads(Path("benchmarks/photographs.json").read_text())["packages"]
    for package in listed:
        licence = package["licence"].replace("-", " ")
        assert f"| {package['by']} | {licence} |" in page
        assert all(Path(name).stem.partition("_by_")[0] in page for name in package["pictures"])


def test_they_are_loaded_by_name_and_without_a_source_the_first_of_them(weights, monkeypatch):
    monkeypatch.setattr(Shipped, "path", property(lambda _: weights / "tiny.safetensors"))
    same(load().params, 0)
    same(load("noise").params, 0)
    with pytest.raises(UserError, match="Expected weights 'none', found with jaxcore noise"):
        shipped("none")


@pytest.mark.parametrize(
    ("name", "own_recipe", "same"),
    [
        ("noise", "adair_photos", ("network", "data")),
        ("haze", "dea_net_photos", ("network", "data", "stages", "optim", "steps", "ema")),
    ],
)
def test_the_recipes_are_those_that_the_weights_were_trained_by(name, own_recipe, same):
    made, stored = recipe(own_recipe), f"benchmarks/results/shipped_weights_{name}.json"
    kept = json.loads(Path(stored).read_text())
    kept["task_config"]["data"]["root"] = ""
    settings = json.loads(json.dumps({**made.task.to_dict(), **made.train.to_dict()}))
    for network in (settings["network"], kept["task_config"]["network"]):
        del network["scan_blocks"]  # in loops or one after another: the same numbers
    for field in same:
        assert settings[field] == {**kept["task_config"], **kept["train"]}[field], field
    assert computed_like(load(name).cfg, made.task.network) == made.task.network


@pytest.mark.slow
def test_the_weights_of_the_library_leave_clean_photographs_alone():
    check_clean_photographs(load())
