"""The diffusion task on real pipelines: restoration with masks, generation, search, resume."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from jaxcore.data.images.kinds import Pairs, Photos, PlainImages
from jaxcore.data.images.pipeline import Stage
from jaxcore.data.images.preparation import Preparation
from jaxcore.errors import UserError
from jaxcore.models.rddm import RDDMConfig
from jaxcore.train import EMAConfig, OptimConfig, TrainConfig, create_state, fit
from jaxcore.train.logging import Silent
from jaxcore.train.recipes import recipe
from jaxcore.train.tasks.diffusion import DiffusionTask

TINY = {
    "unet": {"dim": 8, "dim_mults": (1,), "groups": 4},
    "schedule": {"timesteps": 10},
}
STAGES = (Stage(patch=8, batch_size=4),)
TRAIN = TrainConfig(
    steps=4,
    optim=OptimConfig(name="adam", learning_rate=1e-3, clip_norm=1.0),
    accum_steps=2,
    ema=EMAConfig(decay=0.5),
    save_every=2,
    log_every=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in "abc":
        for kind in ("degraded", "clean", "mask"):
            (root / kind).mkdir(exist_ok=True)
            pixels = rng.integers(0, 256, (12, 10, 3), np.uint8)
            Image.fromarray(pixels).save(root / kind / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def task(folder):
    data = Pairs(root=str(folder), condition_folder="mask", held_out=1)
    return DiffusionTask(
        network=RDDMConfig.low_light(**TINY, condition_channels=1),
        data=data,
        stages=STAGES,
        sample_steps=2,
    )


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, fit(task, TRAIN, out, reporter=Silent())


def test_restoration_with_masks_is_trained_and_evaluated(run):
    out, result = run
    assert np.isfinite([result.metrics[k] for k in ("psnr", "ssim", "pairs/gain")]).all()
    changed = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), result.state.params, result.state.ema_params
    )
    assert all(jax.tree.leaves(changed))
    assert list((out / "samples").glob("*restored.png"))


def test_the_run_directory_tells_the_task(run, task):
    out, _ = run
    described = json.loads((out / "config.json").read_text())
    assert described["task"] == "diffusion"
    assert DiffusionTask.from_dict(described["task_config"]) == task


def test_a_resumed_run_ends_with_the_same_parameters_to_the_last_bit(run, task, tmp_path):
    out, whole = run
    again = tmp_path / "again"
    shutil.copytree(out, again)
    shutil.rmtree(again / "checkpoints" / "4")
    resumed = fit(task, TRAIN, again, resume=True, reporter=Silent())
    for name in ("params", "ema_params"):
        trees = (getattr(r.state, name) for r in (resumed, whole))
        jax.tree.map(np.testing.assert_array_equal, *trees)


def test_generation_shows_pictures_and_reports_a_loss(folder):
    data = PlainImages(root=str(folder / "clean"), held_out=1)
    network = RDDMConfig.generation(**TINY, objective={"name": "pred_x0"})
    task = DiffusionTask(network=network, data=data, stages=STAGES, sample_steps=2, preview=3)
    state = task.init_state(jax.random.key(0), optax.identity())
    metrics = task.evaluate(state)
    assert metrics.keys() == {"held_out_loss"} and np.isfinite(metrics["held_out_loss"])
    picture = task.pictures(state)["generated"]
    assert picture.dtype == np.uint8 and picture.shape[0] > 2 * 8 and picture.shape[1] > 2 * 8
    assert next(task.batches(0, 0)).keys() == {"clean", "task"}


def test_a_search_is_finished_when_its_weight_has_left_the_middle(task):
    network = RDDMConfig.objective_search(**TINY)
    data = dataclasses.replace(task.data, condition_folder="")
    search = dataclasses.replace(task, network=network, data=data)
    state = search.init_state(jax.random.key(0), optax.identity())
    batch = next(search.batches(0, 0))
    loss = jax.jit(search.loss)({"params": state.params}, batch, jax.random.key(0), None)
    assert np.isfinite(loss.total) and float(loss.metrics["weight"].value()) == 0.5
    assert not search.finished(state) and not task.finished(state)
    params = {**state.params, "weight": np.float32(0.52)}
    assert search.finished(dataclasses.replace(state, params=params))


def test_translation_is_not_measured_against_strangers(folder):
    data = Pairs(root=str(folder), pair_by="unpaired", held_out=1)
    network = RDDMConfig.translation(**TINY, objective={"name": "pred_res"})
    task = DiffusionTask(network=network, data=data, stages=STAGES, sample_steps=1)
    state = task.init_state(jax.random.key(0), optax.identity())
    assert task.evaluate(state).keys() == {"held_out_loss"}
    assert task.pictures(state)["restored"].dtype == np.uint8


def test_settings_that_do_not_fit():
    network = RDDMConfig.tiny()
    with pytest.raises(UserError, match=r"sample_steps must be a whole number .* least 1, found 0"):
        DiffusionTask(network=network, sample_steps=0)
    with pytest.raises(UserError, match="sample_steps must be from 1 to 1000, found 1001"):
        DiffusionTask(network=network, sample_steps=1001)
    with pytest.raises(UserError, match="a multiple of 2, found 33"):
        DiffusionTask(network=network, stages=(Stage(patch=33, batch_size=1),)).check()
    with pytest.raises(UserError, match="Unknown protocol 'lab': expected one of rgb"):
        DiffusionTask(network=network, eval_protocol="lab")
    with pytest.raises(UserError, match="at most 16 pixels, to which images are resized"):
        DiffusionTask(network=network, data=Photos(prepare=Preparation(size=16))).check()
    with pytest.raises(UserError, match="condition_channels for the pictures in mask, found one w"):
        DiffusionTask(network=network, data=Pairs(root="x", condition_folder="mask"))
    with pytest.raises(UserError, match="at most 3 condition_channels, those of a picture, found"):
        DiffusionTask(network=RDDMConfig.tiny(condition_channels=4))
    with pytest.raises(UserError, match="preview must be a whole number of at least 1"):
        DiffusionTask(network=network, preview=0)


def test_masks_that_are_missing_in_the_evaluation_are_named(task):
    data, key = dataclasses.replace(task.data, condition_folder=""), jax.random.key(0)
    with pytest.raises(UserError, match=r"of the kind condition in group 'pairs', found none for"):
        dataclasses.replace(task, data=data).evaluate(create_state({}, optax.identity(), key=key))


def test_squares_of_any_size_are_used_whole(task):
    prepare = Preparation(size=24)
    whole = dataclasses.replace(
        task,
        data=dataclasses.replace(task.data, prepare=prepare),
        stages=(Stage(patch=24, batch_size=2),),
    )
    assert next(whole.batches(0, 0))["condition"].shape == (2, 24, 24, 3)
    assert [s["clean"].shape for _, s in whole.evaluation_samples()] == [(24, 24, 3)]


PUBLISHED = {
    "rddm_deraining": ("adam", 8e-5, 120_000, 2, 256, 5),
    "rddm_objective_search": ("adam", 8e-5, 80_000, 2, 256, 2),
    "rddm_low_light": ("adam", 8e-5, 80_000, 2, 256, 2),
    "rddm_shadow_removal": ("adam", 8e-5, 80_000, 2, 256, 5),
    "rddm_inpainting": ("radam", 2e-4, 100_000, 128, 64, 10),
    "rddm_translation": ("radam", 2e-4, 100_000, 128, 64, 10),
    "rddm_generation": ("radam", 2e-4, 100_000, 256, 64, 10),
    "rddm_path_independence": ("radam", 2e-4, 100_000, 256, 64, 10),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes(name):
    chosen = recipe(name)
    optim, stage = chosen.train.optim, chosen.task.stages[0]
    found = (optim.name, optim.learning_rate, chosen.train.steps, stage.batch_size, stage.patch)
    assert (*found, chosen.task.sample_steps) == PUBLISHED[name]
    assert chosen.train.accum_steps == 2 and optim.clip_norm == 1.0
    assert chosen.train.ema == EMAConfig.rddm()
    assert chosen.task.data.prepare.size == stage.patch
