"""The restoration task on real pipelines: records, pictures, exact resume."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcore.data.images.kinds import CleanImages
from jaxcore.data.images.pipeline import Stage
from jaxcore.errors import UserError
from jaxcore.models.adair import AdaIRConfig
from jaxcore.train import OptimConfig, TrainConfig, fit
from jaxcore.train.logging import Silent
from jaxcore.train.recipes import names, recipe, resolve
from jaxcore.train.records import read_metrics_file
from jaxcore.train.tasks.restoration import RestorationTask, Score, summarise
from jaxcore.weights import load
from tests.tiny_network import TinyConfig

TRAIN = TrainConfig(
    steps=4, optim=OptimConfig(learning_rate=1e-3), save_every=2, sample_every=4, log_every=2
)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Three small clean images, one of them held out, degraded in two ways."""
    root = tmp_path_factory.mktemp("clean")
    rng = np.random.default_rng(0)
    for name in "abc":
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
        coarse.resize((48, 40), Image.Resampling.BICUBIC).save(root / f"{name}.png")
    data = CleanImages(root=str(root), tasks=("noise25", "haze"), held_out=1)
    stages = (Stage(patch=16, batch_size=2),)
    return RestorationTask(model="tiny", network=TinyConfig(), data=data, stages=stages)


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, fit(task, TRAIN, out, reporter=Silent())


def test_a_run_records_every_degradation(run):
    out, result = run
    for group in ("noise25", "haze"):
        for name in ("psnr_in", "psnr", "ssim_in", "ssim", "gain"):
            assert np.isfinite(result.metrics[f"{group}/{name}"])
    gains = [result.metrics[f"{g}/gain"] for g in ("noise25", "haze")]
    assert result.metrics["gain"] == pytest.approx(np.mean(gains))
    records = read_metrics_file(out / "metrics.jsonl")
    losses = {k for r in records if r["kind"] == "train" for k in r if k.startswith("loss_")}
    assert losses == {"loss_noise25", "loss_haze"}
    with Image.open(out / "samples" / "step_0000004_restored.png") as picture:
        assert picture.width > 3 * 48 and picture.height > 2 * 32


def test_the_run_directory_tells_the_task(run, task):
    out, _ = run
    described = json.loads((out / "config.json").read_text())["task_config"]
    assert RestorationTask.from_dict(described) == task


def test_a_resumed_run_ends_with_the_same_parameters_to_the_last_bit(run, task, tmp_path):
    out, whole = run
    again = tmp_path / "again"
    shutil.copytree(out, again)
    shutil.rmtree(again / "checkpoints" / "4")
    resumed = fit(task, TRAIN, again, resume=True, reporter=Silent())
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, whole.state.params)


@pytest.fixture(scope="module")
def adair_run(task, tmp_path_factory):
    """A run of AdaIR, the parameters it began with, and its folder."""
    network = AdaIRConfig.tiny(dim=8, heads=(1, 1, 1, 1), mask_mode="soft")
    task = dataclasses.replace(task, model="adair", network=network)
    start = task.init_params(jax.random.fold_in(jax.random.key(TRAIN.seed), 0))
    out = tmp_path_factory.mktemp("adair")
    return start, fit(task, TRAIN, out, reporter=Silent()), out


def test_the_threshold_of_a_soft_window_learns_and_dead_weights_stay(adair_run):
    start, result, _ = adair_run
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), start, result.state.params)["fre3"]
    assert changed["mining"]["rate_conv_2"]["kernel"]
    assert not changed["conv"]["kernel"] and not changed["score_gen"]["kernel"]


def test_a_run_of_adair_is_measured_and_can_be_used(adair_run):
    _, result, out = adair_run
    assert np.isfinite([result.metrics[k] for k in ("psnr", "ssim", "gain")]).all()
    found = load(out, which="last")
    same = jax.tree.map(np.array_equal, found.params, result.state.eval_params)
    assert found.cfg.mask_mode == "soft" and all(jax.tree.leaves(same))


def test_only_the_first_images_are_evaluated_when_asked(task):
    assert task.evaluation_size() == 2
    assert dataclasses.replace(task, eval_images=0).evaluation_size() == 0


def test_every_degradation_counts_once_in_the_mean():
    scores = [Score("a", "1", 10, 20, 0, 0), Score("a", "2", 10, 30, 0, 0)]
    scores.append(Score("b", "1", 0, 5, 0, 1))
    metrics = summarise(iter(scores))
    assert metrics["psnr"] == pytest.approx((25 + 5) / 2)
    assert metrics["gain"] == pytest.approx((15 + 5) / 2)


@pytest.mark.parametrize("name", names())
def test_every_recipe_can_be_described(name):
    chosen = recipe(name)
    assert type(chosen.task).from_dict(chosen.task.to_dict()) == chosen.task
    assert TrainConfig.from_dict(chosen.train.to_dict()) == chosen.train


def test_recipes_are_listed_of_every_network_and_imported_of_one():
    code = """
import sys
from jaxcore import registry
from jaxcore.train.recipes import names, recipe
recipe("dea_net")
networks = [registry.network(name) for name in registry.networks()]
of_networks = {network.recipes for network in networks if network.recipes}
recipes = of_networks & set(sys.modules)
assert recipes - {"jaxcore.train.recipes.demo"} == {"jaxcore.train.recipes.dea_net"}, recipes
modules = [__import__(name, fromlist="_") for name in of_networks]
print({name for module in modules for name in module.RECIPES} ^ set(names()))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr


def test_epochs_become_steps(task):
    chosen = dataclasses.replace(recipe("adair"), task=task, epochs=3)
    assert resolve(chosen).train.steps == 3 * (2 * 2 // 2)
    large = dataclasses.replace(task, stages=(Stage(patch=16, batch_size=64),))
    with pytest.raises(UserError, match="at least one batch of 64"):
        resolve(dataclasses.replace(chosen, task=large))


def test_an_unknown_recipe_or_loss_or_another_network_is_named(task):
    with pytest.raises(UserError, match="Unknown recipe 'adair_7d'"):
        recipe("adair_7d")
    with pytest.raises(UserError, match="loss_type must be"):
        dataclasses.replace(task, loss_type="l3")
    with pytest.raises(UserError, match="DEANetConfig for the model 'dea_net', found Tiny"):
        dataclasses.replace(task, model="dea_net")
