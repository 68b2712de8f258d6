"""The commands on DEA-Net, whose weights have two forms."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcore.convert import read_state_dict, write_torch
from jaxcore.models import dea_net
from jaxcore.train import EXIT_INTERRUPTED
from jaxcore.weights import load
from tests.tiny_weights import params, write_run

CFG = dea_net.DEANetConfig(base_dim=4, depths=(1, 1, 1, 1, 1))
SIZES = "--network.base-dim 4 --network.depths 1 1 1 1 1".split()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Official files of both forms, one as the training leaves it, and a run."""
    folder = tmp_path_factory.mktemp("dea_net")
    weights = dea_net.to_torch(params(0, CFG, dea_net), CFG)
    write_torch(
        folder / "train.pth", weights, prefix="module.", wrap="model", extra={"epoch": 3, "step": 9}
    )
    merged, cfg = dea_net.deploy(params(0, CFG, dea_net), CFG)
    official = dea_net.to_torch(merged, cfg)
    write_torch(folder / "deploy.pth", official)
    for name, change in (
        ("missing", lambda w: w.pop("mix1.conv.bias")),
        ("extra", lambda w: w.update(skip=np.zeros((2, 3), np.float32))),
        ("misshaped", lambda w: w.update({"up3.0.bias": np.zeros(4, np.float32)})),
    ):
        damaged = dict(official)
        change(damaged)
        write_torch(folder / f"{name}.pth", damaged)
    write_run(folder / "run", CFG, model="dea_net")
    pixels = np.random.default_rng(0).integers(0, 256, (11, 22, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder


@pytest.mark.parametrize(("source", "seed"), [("train.pth", 0), ("run", 1)])
def test_merging_on_export(call, files, tmp_path, source, seed):
    output = tmp_path / "deploy.pth"
    argv = ("--model", "dea_net", "--deploy")
    code, out, err = call("convert", files / source, output, *argv)
    assert (code, err) == (0, "") and "tensors of dea_net" in out
    found = load(output, model="dea_net")
    assert (found.network.name, found.cfg) == ("dea_net", CFG.deployed())
    expected = dea_net.deploy(params(seed, CFG, dea_net), CFG)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.params, expected)
    assert read_state_dict(output).tensors["level3_block1.conv1.weight"].shape == (16, 16, 3, 3)
    # Without --deploy the form stays.
    assert call("convert", files / source, tmp_path / "same.pth", "--model", "dea_net")[0] == 0
    assert load(tmp_path / "same.pth", model="dea_net").cfg == CFG


def test_a_small_picture_is_restored_alike_by_both_forms(call, files, tmp_path):
    pixels = []
    for name in ("train", "deploy"):
        output = tmp_path / f"{name}.png"
        argv = ("--weights", files / f"{name}.pth", "--model", "dea_net")
        assert call("restore", files / "photo.png", "-o", output, *argv)[0] == 0
        with Image.open(output) as image:
            pixels.append(np.asarray(image, np.int16))
    assert pixels[0].shape == (11, 22, 3)
    assert np.abs(pixels[0] - pixels[1]).max() <= 1


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("convert {d}/missing.pth {out}/a.pth --model dea_net", "1 missing: mix1.conv.bias"),
        ("convert {d}/extra.pth {out}/a.pth --model dea_net", "1 unexpected: skip"),
        ("convert {d}/misshaped.pth {out}/a.pth --model dea_net", "up3.0.bias expected (3,)"),
        ("convert {d}/deploy.pth {out}/a.pth --model adair", "does not hold weights of adair"),
        (
            "train dea_net_demo -o {out}/run --init {d}/train.pth --network.form deploy",
            "found the five kernels of training (form 'train'): merge them",
        ),
        ("train dea_net_demo -o {out}/run --contrastive-weight 0.1", "torchvision's vgg19"),
        ("train dea_net_demo -o {out}/run --contrastive-weight 0.1 --vgg {d}/a.pth", "a.pth"),
    ],
)
def test_mistakes_end_in_one_sentence(call, files, tmp_path, argv, sentence):
    words = argv.format(d=files, out=tmp_path).split()
    code, out, err = call(*words, *(SIZES if words[0] == "train" else ()))
    assert code == 2, out
    assert sentence in err and len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("*.pth")) and not (tmp_path / "run").exists()


def test_other_networks_have_one_form(call, run, tmp_path):
    code, _, err = call("convert", run, tmp_path / "a.pth", "--deploy")
    assert code == 2 and "adair has one form only" in err


def test_the_dehazing_protocol_measures_whole_images(call, files, tmp_path):
    # Padded to 16x24, for which the network is compiled in this file anyway.
    pixels = np.random.default_rng(1).integers(0, 256, (16, 22, 3), np.uint8)
    for side in ("degraded", "clean"):
        (tmp_path / side).mkdir()
        Image.fromarray(pixels).save(tmp_path / side / "a.png")
    argv = ("evaluate", files / "deploy.pth", "--model", "dea_net", "--data.root", tmp_path)
    code, _, err = call(*argv)
    assert code == 2 and "no root" in err  # of the photographs, which are the default
    argv += ("--data.kind", "pairs")
    psnr = {}
    for name, options in {
        "rgb": (),
        "rgb_gaussian": (),
        "cropped": ("--crop-multiple", 16),
    }.items():
        protocol = "rgb_gaussian" if name == "cropped" else name
        out = tmp_path / name
        assert call(*argv, "-o", out, "--protocol", protocol, *options)[0] == 0
        psnr[name] = json.loads((out / "metrics.json").read_text())["psnr"]
    assert psnr["cropped"] == pytest.approx(psnr["rgb"])  # both of the 16x16 pixels in the middle
    assert abs(psnr["rgb_gaussian"] - psnr["rgb"]) > 1e-3


def test_the_demo_of_this_network_trains_it_on_haze_in_a_folder_of_its_own(
    call, monkeypatch, tmp_path
):
    asked = []

    def fit(task, cfg, out, *, init_params):
        assert init_params is not None
        asked.append((task.model, task.group_names, cfg.steps, out))
        return SimpleNamespace(interrupted=True)

    monkeypatch.setattr("jaxcore.train.fit", fit)
    monkeypatch.chdir(tmp_path)
    code, out, err = call("demo", "--model", "dea_net", "--steps", "7")
    assert code == EXIT_INTERRUPTED, err
    assert asked == [("dea_net", ("haze",), 7, Path("runs/demo_dea_net"))] and "haze" in out
