"""The commands with RDDM: samplers, masks, official files, training in one and two phases."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from jaxcore import convert
from jaxcore.convert import read_sets, read_state_dict, write_torch
from jaxcore.data.images import read_image, read_rgb
from jaxcore.models import rddm
from jaxcore.models.rddm import PRESETS, RDDMConfig
from tests.tiny_weights import params

SMALL = {"dim": 8, "dim_mults": (1,), "groups": 8}
PLAIN, MASKED = RDDMConfig.low_light(unet=SMALL), RDDMConfig.shadow_removal(unet=SMALL)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Official files: low light as a whole checkpoint, shadow removal as bare weights."""
    folder = tmp_path_factory.mktemp("rddm")
    for name, cfg in (("light", PLAIN), ("shadow", MASKED)):
        weights = rddm.to_torch(params(0, cfg, rddm), cfg)
        write_torch(folder / f"{name}.pt", weights)
    averaged = {f"ema_model.{k}": v for k, v in weights.items()} | {"step": np.array([7])}
    write_torch(folder / "model-80.pt", averaged, wrap="ema", extra={"step": 80_000})
    return folder


def test_steps_and_seed_reach_the_sampler(call, files, photo, tmp_path):
    weights, output = files / "light.pt", tmp_path / "out.png"
    given = ("--weights", weights, "--model", "rddm", "--steps", 1, "--seed", 3)
    code, _, err = call("restore", photo, "-o", output, *given)
    assert (code, err) == (0, "")
    expected = rddm.restore(
        params(0, PLAIN, rddm), read_image(photo).unit(), PLAIN, steps=1, seed=3
    )
    assert np.abs(read_rgb(output) / 255 - expected).max() <= 0.5 / 255 + 1e-5


def test_a_mask_is_shown_and_missed(call, files, photo, tmp_path, monkeypatch):
    cfg = RDDMConfig.shadow_removal(unet=SMALL)
    monkeypatch.setitem(PRESETS, "shadow_removal", lambda: cfg)
    masks = tmp_path / "masks"
    masks.mkdir()
    height, width = read_rgb(photo).shape[:2]
    Image.fromarray(np.full((height, width), 255, np.uint8)).save(masks / f"{photo.stem}.png")
    given = ("--weights", files / "model-80.pt", "--model", "rddm", "--preset", "shadow_removal")
    given += ("--steps", 1)
    code, _, err = call("restore", photo, "-o", tmp_path / "a.png", *given, "--condition", masks)
    assert (code, err) == (0, "")
    code, _, err = call("restore", photo, "-o", tmp_path / "b.png", *given)
    assert code == 2 and f"Expected a condition of shape ({height}, {width}, 3), such as" in err
    (masks / f"{photo.stem}.png").rename(masks / "other.png")
    code, _, err = call("restore", photo, "-o", tmp_path / "b.png", *given, "--condition", masks)
    assert code == 2 and f"one picture named {photo.stem} in {masks}, found 0" in err
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--preset deraining", "Expected weights of 2 network(s) with 6 input channels"),
        ("--preset dehazing", "Expected as preset of rddm one of deraining, low_light"),
        ("--seed -1", "Expected a seed of at least 0, found -1."),
        ("--condition mask.png", "no --condition for networks without further channels"),
        ("--steps 0", "between 1 and 1000 sampling steps, found 0"),
        ("--tile 33 --overlap 40", "overlap must be from 0 to below the tile 33"),
    ],
)
def test_mistakes(call, files, photo, tmp_path, monkeypatch, options, message):
    (tmp_path / "mask.png").touch()
    monkeypatch.chdir(tmp_path)
    given = ("--weights", files / "light.pt", "--model", "rddm", *options.split())
    code, _, err = call("restore", photo, "-o", tmp_path / "out.png", *given)
    assert code == 2 and message in err and len(err.splitlines()) == 1


def test_other_networks_take_no_steps(call, weights, photo, tmp_path):
    given = ("--weights", weights / "tiny.pth", "--steps", 2)
    code, _, err = call("restore", photo, "-o", tmp_path / "out.png", *given)
    assert code == 2 and "The network adair has no steps: leave --steps out." in err
    given = ("--weights", weights / "tiny.pth", "--preset", "deraining")
    code, _, err = call("restore", photo, "-o", tmp_path / "out.png", *given)
    assert code == 2 and "Expected as preset of adair none, found 'deraining'." in err


def test_convert_says_what_it_leaves_alone(call, files, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "shadow_removal", lambda: MASKED)

    def with_optimiser(path):
        return [dataclasses.replace(file, unused=("model", "opt0")) for file in read_sets(path)]

    monkeypatch.setattr(convert, "read_sets", with_optimiser)
    out = tmp_path / "clean.pt"
    given = ("--model", "rddm", "--preset", "shadow_removal")
    code, text, err = call("convert", files / "model-80.pt", out, *given)
    assert (code, err) == (0, "")
    assert "taken from 'ema'; left alone: model, opt0" in text
    stored = read_state_dict(files / "shadow.pt").tensors
    again = read_state_dict(out).tensors
    assert again.keys() == stored.keys()
    for key, value in stored.items():
        np.testing.assert_array_equal(again[key], value)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        clean = rng.integers(0, 256, (24, 20, 3), np.uint8)
        for folder, image in (("clean", clean), ("degraded", clean // 2)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(image).save(root / folder / f"{name}.png")
    return root


def training(recipe, pairs, out, *more):
    sizes = "--network.unet.dim 8 --network.unet.dim-mults 1 --network.schedule.timesteps 20"
    sizes += " --stages.0.patch 8 --data.prepare.size 8 --data.held-out 1 --sample-steps 2"
    sizes += " --eval-protocol rgb"
    return ["train", recipe, "--data.root", pairs, "-o", out, *sizes.split(), *more]


@pytest.mark.slow  # by default test_train.py has the commands, train/test_diffusion.py the task
def test_training_and_evaluation(pairs, tmp_path, call):
    run = tmp_path / "run"
    code, out, err = call(*training("rddm_low_light", pairs, run, "--train.steps", 1))
    assert code == 0 and "trained 1 steps" in out
    code, out, err = call("evaluate", run, "-o", tmp_path / "report", "--steps", 1)
    assert (code, err) == (0, "") and "PSNR in" in out
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert np.isfinite(metrics["lowlight/psnr"])
    code, _, err = call("evaluate", run, "--data.kind", "pairs", "--data.pair-by", "unpaired")
    assert code == 2 and "Expected pairs that belong together" in err
    code, _, err = call("evaluate", run, "--preset", "deraining")
    assert code == 2 and "A run knows its configuration" in err


@pytest.mark.slow
def test_a_search_is_followed_by_training_of_what_it_found(pairs, tmp_path, call):
    run = tmp_path / "run"
    more = ("--train.steps", 30, "--train.optim.learning-rate", 0.008, "--train.log-every", 1)
    argv = training("rddm_objective_search", pairs, run, *more)
    code, out, _ = call(*argv)
    assert code == 0 and "objective found: pred_" in out
    found = json.loads((run / "trained" / "config.json").read_text())
    assert found["task_config"]["network"]["objective"]["name"] in ("pred_res", "pred_noise")
    code, out, _ = call(*argv)  # nothing is left to do
    assert code == 0 and "objective found: pred_" in out
