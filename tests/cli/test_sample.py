"""``jaxcore sample``: grids and trajectories, and mistakes with exit code 2."""

import json
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcore.cli.sample import FILES
from jaxcore.convert import write_safetensors
from jaxcore.models import rddm
from jaxcore.models.rddm import RDDMConfig
from jaxcore.models.rddm.interop import to_ddpm_torch
from jaxcore.models.rddm.network import ddpm_unet
from jaxcore.models.rddm.process.coefficients import ddpm_betas
from tests.tiny_weights import params

UNET = {"dim": 8, "dim_mults": (1,), "groups": 4, "heads": 1, "dim_head": 4}
SIZES = {"unet": UNET, "schedule": {"timesteps": 20}}
RESTORES = RDDMConfig.low_light(**SIZES)
MAKES = RDDMConfig.path_independence(**SIZES)
MASKED = RDDMConfig.low_light(**SIZES, condition_channels=1)
THIRD = ddpm_unet.DDPMUnetConfig(dim=8, dim_mults=(1,), heads=1, dim_head=4)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffusion")
    for name, cfg in (("restores", RESTORES), ("makes", MAKES), ("masked", MASKED)):
        about = {"jaxcore": json.dumps({"model": "rddm", "config": cfg.to_dict()})}
        write_safetensors(
            folder / f"{name}.safetensors", rddm.to_torch(params(0, cfg, rddm), cfg), about
        )
    tensors = to_ddpm_torch(ddpm_unet.init(jax.random.key(0), THIRD), THIRD)
    state = {f"model.{key}": value for key, value in tensors.items()}
    write_safetensors(folder / "third.safetensors", state | {"betas": ddpm_betas("cosine", 20)})
    return folder


def size(path):
    with Image.open(path) as image:
        return image.size


def test_generation_writes_grid_trajectory_and_schedule(call, files, tmp_path):
    argv = ("sample", "--weights", files / "makes.safetensors", "--count", 4, "--size", 8, 16)
    argv = (*argv, "--steps", 3)
    code, out, err = call(*argv, "-o", tmp_path / "a")
    assert code == 0, err
    assert "4 pictures of 16x8 pixels, 3 steps" in out  # width and height
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(FILES)
    wide, high = size(tmp_path / "a" / "trajectory.png")
    assert wide > 3 * 96 and high > 4 * 96  # a column per step; image, residual, noise, clean
    settings = json.loads((tmp_path / "a" / "samples.json").read_text())
    assert settings["steps"] == 3 and settings["network"]["kind"] == "generation"
    read = [(tmp_path / "a" / name).read_bytes() for name in FILES[:2]]
    call(*argv, "-o", tmp_path / "b")
    assert [(tmp_path / "b" / name).read_bytes() for name in FILES[:2]] == read
    code, _, err = call(*argv, "-o", tmp_path / "a")
    assert code == 2 and "Expected a new folder" in err
    code, out, _ = call(
        *argv,
        "-o",
        tmp_path / "a",
        "--overwrite",
        "--seed",
        1,
        "--order",
        "residual_then_noise",
        "--alpha",
        "increased",
        "--ratio-a",
        2,
        "--beta",
        "average",
    )
    assert code == 0 and "6 steps" in out
    assert [(tmp_path / "a" / name).read_bytes() for name in FILES[:2]] != read


def test_restoration_shows_the_picture_and_its_restorations(call, files, photo, tmp_path):
    code, out, err = call(
        "sample",
        "--weights",
        files / "restores.safetensors",
        "--picture",
        photo,
        "--count",
        2,
        "--steps",
        2,
        "--eta",
        0.5,
        "-o",
        tmp_path / "out",
    )
    assert code == 0, err
    assert "2 pictures of 30x21 pixels, 2 steps" in out
    shown = np.asarray(Image.open(tmp_path / "out" / "samples.png"))
    with Image.open(photo) as image:
        np.testing.assert_array_equal(shown[4:25, 4:34], np.asarray(image))


def test_pictures_of_any_size_are_shown_as_they_are(call, tmp_path):
    cfg = RESTORES.replace(unet={"dim_mults": (1, 2)})
    about = {"jaxcore": json.dumps({"model": "rddm", "config": cfg.to_dict()})}
    weights, photo = tmp_path / "even.safetensors", tmp_path / "odd.png"
    write_safetensors(weights, rddm.to_torch(params(0, cfg, rddm), cfg), about)
    Image.fromarray(np.full((5, 7, 3), 90, np.uint8)).save(photo)
    argv = ("sample", "--weights", weights, "--picture", photo, "--count", 1, "--steps", 1)
    code, out, err = call(*argv, "-o", tmp_path / "out")
    assert code == 0 and "1 pictures of 7x5 pixels" in out, err
    settings = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert settings["size"] == [5, 7] and settings["picture"] == str(photo)


def test_nothing_is_written_where_a_picture_cannot_be_made(call, files, tmp_path, monkeypatch):
    argv = ("sample", "--weights", files / "makes.safetensors", "--count", 1, "--size", 4)
    (tmp_path / "file").touch()
    code, _, err = call(*argv, "-o", tmp_path / "file" / "out")
    assert code == 2 and "Expected a folder that can be written, found" in err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # not installed
    code, _, err = call(*argv, "-o", tmp_path / "out")
    assert code == 2 and "Expected matplotlib for plots" in err
    assert not (tmp_path / "out").exists()


def test_weights_of_another_package_generate(call, files, tmp_path):
    code, _out, err = call(
        "sample",
        "--weights",
        files / "third.safetensors",
        "--count",
        1,
        "--size",
        8,
        "--steps",
        2,
        "--clip-mode",
        "ddim_exact",
        "--prediction",
        "epsilon",
        "-o",
        tmp_path / "o",
    )
    assert code == 0, err
    assert json.loads((tmp_path / "o" / "samples.json").read_text())["network"]["dim"] == 8


@pytest.mark.parametrize(
    ("file", "options", "sentence"),
    [
        ("makes", ("--steps", 21), "between 1 and 20 sampling steps, found 21"),
        ("makes", ("--eta", 2), "eta between 0 and 1, found 2"),
        ("makes", ("--mode", "x0"), "a mode of pred_res_noise"),
        ("makes", ("--ratio-b", 2), "--beta beside --ratio-b, found the ratio alone"),
        ("makes", ("--prediction", "x0"), "no --prediction for networks of RDDM"),
        ("restores", ("--picture", "a.png", "--size", 64), "no --size beside --picture"),
        ("third", ("--preset", "deraining"), "leave the preset out"),
        ("makes", ("--count", 0), "a positive count and one or two positive sizes, found 0 and 64"),
        ("makes", ("--picture", "none.png"), "no --picture for a network that generates"),
        ("restores", (), "--picture for a network that restores, found none"),
        ("restores", ("--alpha", "average"), "time_conditioning='cumulative'"),
        ("masked", (), "without further conditions, found one with 1"),
        ("absent", (), "does not exist"),
        ("makes", ("--order", "sideways"), "sideways"),
    ],
)
def test_mistakes_end_in_one_sentence_and_write_nothing(
    call, files, tmp_path, file, options, sentence
):
    argv = ("sample", "--weights", files / f"{file}.safetensors", "-o", tmp_path / "out")
    code, out, err = call(*argv, *options)
    assert code == 2 and sentence in " ".join((out + err).split())
    assert not (tmp_path / "out").exists()
