"""The deconvolution task through the one loop: simulated galaxies, files, exact resume."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcore.data.astro.galaxies import Population
from jaxcore.data.astro.telescopes import Telescope
from jaxcore.data.astro.training import StampData
from jaxcore.data.images.pipeline import Stage
from jaxcore.errors import UserError
from jaxcore.metrics.galaxies import nmse
from jaxcore.models import sunet
from jaxcore.models.sunet import SUNetConfig, normalise
from jaxcore.ops.starlet import Starlet
from jaxcore.train import EMAConfig, OptimConfig, TrainConfig, fit
from jaxcore.train.logging import Silent
from jaxcore.train.recipes import recipe
from jaxcore.train.records import read_metrics_file
from jaxcore.train.tasks.deconvolution import DeconvolutionTask

SMALL = Population(radius=(1.0, 2.0, 3.0), offset=1.0, clumps=2)
TRAIN = TrainConfig(
    steps=4,
    optim=OptimConfig(name="adam", learning_rate=1e-3),
    ema=EMAConfig(decay=0.9),
    save_every=2,
    sample_every=4,
    log_every=2,
    tensorboard=False,
)


@pytest.fixture(scope="module")
def task():
    """Galaxies of 16 pixels, seen in pixels twice as large."""
    data = StampData(
        count=10, held_out=3, galaxies=SMALL, telescope=Telescope(factor=2, fwhm=(3.0, 4.0))
    )
    stages = (Stage(patch=16, batch_size=2),)
    return DeconvolutionTask(
        network=SUNetConfig.tiny(depths=(1, 1, 1, 1)), data=data, stages=stages
    )


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, fit(task, TRAIN, out, reporter=Silent())


def test_a_run_records_every_step_of_the_method_and_draws_pictures(run, task):
    out, result = run
    assert set(result.metrics) == set(task.metric_names())
    assert all(np.isfinite(value) for value in result.metrics.values())
    for step in ("tikhonov", "network", "debias"):
        assert {f"{step}/{n}" for n in ("nmse", "flux_bias", "chi2", "ssim")} <= set(result.metrics)
    records = read_metrics_file(out / "metrics.jsonl")
    assert any("loss_tikhonov" in r for r in records if r["kind"] == "train")
    with Image.open(out / "samples" / "step_0000004_deconvolved.png") as picture:
        assert picture.width > 5 * 120 and picture.height > 2 * 120
    described = json.loads((out / "config.json").read_text())["task_config"]
    assert DeconvolutionTask.from_dict(described) == task


def test_a_resumed_run_ends_with_the_same_parameters_to_the_last_bit(run, task, tmp_path):
    out, whole = run
    again = tmp_path / "again"
    shutil.copytree(out, again)
    shutil.rmtree(again / "checkpoints" / "4")
    resumed = fit(task, TRAIN, again, resume=True, reporter=Silent())
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, whole.state.params)


def test_rows_are_made_from_their_seeds_and_the_network_gets_scaled_images(task):
    batch = next(task.batches(0, 0))

    @jax.jit
    def made(batch):
        seen = task.stamps(batch)
        return seen, task.pair(seen), dataclasses.replace(task, norm="official").pair(seen)

    seen, (given, wanted), (official, target) = made(batch)
    assert seen.observed.shape == (2, 8, 8) and seen.target.shape == (2, 16, 16)
    other = made({"seed": batch["seed"][::-1]})[0]
    np.testing.assert_allclose(other.observed[0], seen.observed[1], atol=1e-5)
    np.testing.assert_allclose(given.mean((1, 2)), 0, atol=1e-5)
    # What the network shall return is the target in the scale of what it gets.
    t = normalise(given)
    assert (nmse(given, wanted) < 1).all() and (t.peak > 0.5).all()
    np.testing.assert_allclose(target.max((1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(target.mean((1, 2)), 0, atol=1e-5)
    share = np.asarray(official / given)
    np.testing.assert_allclose(share, share[:, :1, :1] + 0 * share, rtol=1e-3)


def test_evaluation_has_galaxies_of_its_own_always_the_same(task, run):
    params = run[1].state.params
    seen = [one.seen for one in task.restored(params)]
    assert [len(one.target) for one in seen] == [2, 1]
    again = next(task.restored(params, limit=1)).seen
    np.testing.assert_allclose(again.target[0], seen[0].target[0], atol=1e-5)
    training = jax.jit(task.stamps)(next(task.batches(0, 0)))
    assert not np.allclose(training.target[0], seen[0].target[0], atol=1e-3)
    assert task.evaluation_size() == 3 and task.brief().evaluation_size() == 2
    assert task.steps_per_epoch() == 5


def test_pairs_and_stamps_of_a_folder_are_taken_instead(task, tmp_path):
    rng = np.random.default_rng(0)
    observed = rng.normal(size=(4, 8, 8)).astype(np.float32)
    target = rng.uniform(size=(4, 16, 16)).astype(np.float32)
    psf = np.eye(1, 256, 8 * 16 + 8, dtype=np.float32).reshape(16, 16)
    np.savez(tmp_path / "pairs.npz", observed=observed, target=target, psf=psf)
    paired = dataclasses.replace(task, data=StampData(root=str(tmp_path), held_out=2, turns=False))
    paired.check()
    assert paired.counts() == [("stamps", 2, 1, 2)] and paired.evaluation_size() == 2
    seen = paired.stamps(next(paired.batches(0, 0)))
    assert {float(a) for a in seen.target[:, 0, 0]} <= {float(a) for a in target[:, 0, 0]}
    (tmp_path / "pairs.npz").unlink()
    np.save(tmp_path / "alone.npy", target)
    alone = dataclasses.replace(paired, data=dataclasses.replace(paired.data, held_out=1))
    seen = alone.stamps(next(alone.batches(0, 0)))
    assert seen.observed.shape == seen.target.shape == (2, 16, 16)


def test_a_catalogue_gives_shapes_and_the_psf_of_the_target(task, tmp_path):
    rows, cols = np.indices((45, 45)) - 22
    psf = np.exp(-(rows**2 + cols**2) / 2 / 9.0)
    fit_ = np.tile(np.array([1.0, 8.0, 1.0, 0.7, 0, 0, 0, 0]), (3, 1))
    np.savez(tmp_path / "c.npz", sersicfit=fit_, mag_auto=np.ones(3), psf_acs=np.stack([psf] * 3))
    data = dataclasses.replace(task.data, catalog=str(tmp_path / "c.npz"), scale=0.09)
    known = dataclasses.replace(task, data=data)
    frozen = known.frozen()
    assert frozen["psfs"].shape == (3, 16, 16)
    seen = known.stamps(next(known.batches(0, 0)), frozen)
    assert bool(jnp.isfinite(seen.target).all())
    with pytest.raises(UserError, match="found none at"):
        dataclasses.replace(
            task, data=dataclasses.replace(task.data, catalog=str(tmp_path / "none.npz"))
        ).check()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"stages": (Stage(steps=1, patch=16, batch_size=2), Stage(patch=32, batch_size=2))},
            "one size",
        ),
        ({"stages": (Stage(patch=18, batch_size=2),)}, "multiple of 16, found 18"),
        ({"data": StampData(telescope=Telescope(factor=3))}, "multiple of 3, found 16"),
        ({"data": StampData(root="/nowhere")}, "a folder of stamps"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_run(task, change, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(task, **change).check()


def test_networks_of_colour_images_are_refused():
    with pytest.raises(UserError, match="one channel"):
        DeconvolutionTask(network=SUNetConfig.tiny(in_channels=3))


def test_what_is_evaluated_is_what_the_method_does_with_the_trained_network(task, tmp_path):
    own = dataclasses.replace(task, model="sunet", network=SUNetConfig.tiny(depths=(1, 1, 1, 1)))
    params = fit(own, TRAIN, tmp_path, reporter=Silent()).state.eval_params
    found = next(own.restored(params))
    seen = found.seen
    out = sunet.deconvolve(
        jnp.asarray(seen.observed)[:, None],
        jnp.asarray(seen.psf)[:, None],
        params,
        own.network,
        sigma=jnp.asarray(seen.sigma)[:, None],
        dictionary=Starlet(2),
    )
    for name, image in (("network", out.sunet), ("debias", out.image)):
        np.testing.assert_allclose(found.images[name], image[:, 0], atol=1e-4)


@pytest.mark.slow  # 500 updates of a network of 0.8 million parameters
def test_a_small_network_beats_tikhonov_and_debiasing_takes_its_bias_away(tmp_path):
    chosen = recipe("swin_deconv_small")
    found = fit(chosen.task, chosen.train, tmp_path, reporter=Silent()).metrics
    assert found["network/nmse"] < found["tikhonov/nmse"]
    # The network loses flux, and leaves more in the residual, than the filter before it.
    for name in ("flux_error", "chi2"):
        assert found[f"network/{name}"] > found[f"tikhonov/{name}"]
    assert found["debias/flux_error"] <= found["network/flux_error"] / 3
    assert found["debias/chi2"] < found["network/chi2"]
    assert found["debias/nmse"] <= found["network/nmse"]
