"""What the pages of the networks print does what they say, on small random weights."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcore.convert import write_torch
from jaxcore.models import dea_net, rddm, sunet
from jaxcore.models.dea_net import contrastive
from jaxcore.models.deconvolution import gaussian_psf
from jaxcore.models.rddm import PRESETS, RDDMConfig
from jaxcore.train.tasks import restoration
from tests.cli.reader import FIVE, printed
from tests.data.images.test_layouts import grow
from tests.tiny_weights import params, write_run

UNET = {"dim": 8, "dim_mults": (1, 2, 2), "groups": 8}  # attention sees a sixteenth of the pixels
HAZE = dea_net.DEANetConfig(base_dim=4, depths=(1, 1, 1, 1, 1))
SIDE = 288  # pixels, more than the crops of the recipes


def write(path, shape=(SIDE, SIDE)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", shape[::-1], (90, 80, 70)).save(path)


@pytest.fixture
def run_printed(call):
    """Type the one command of a page that holds some words."""

    def run(page, *words):
        (argv,) = printed(f"models/{page}/README.md", *words)
        code, out, err = call(*argv)
        assert code == 0, err
        return out

    return run


@pytest.mark.filterwarnings("ignore:Expected the published numbers")
def test_the_published_training_and_evaluation_of_adair(folder, begun, run_printed):
    grow(Path("DATA"))
    write(Path("DATA/Train/Denoise/large.png"))
    run_printed("adair", "train adair_5d")
    ((task, start),) = begun
    assert task.data.tasks[-2:] == ("deblur", "enhance") and start is None
    said = run_printed("adair", "evaluate adair5d.ckpt")
    assert "dehaze" in said and Path("report/metrics.json").exists()
    assert FIVE.decoder  # the network of the file is the five-task one


@pytest.mark.filterwarnings("ignore:Expected the published numbers")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of a data set that is smaller than published
def test_trainings_of_dea_net(folder, begun, run_printed, monkeypatch):
    write(Path("PHOTOS/large.png"))
    for below in ("hazy/1_1_0.9.png", "clear/1.png"):
        for part in ("ITS", "SOTS/indoor"):
            write(Path("RESIDE", part, below))
    narrow = contrastive.vgg19_init(jax.random.key(0), width=4)
    write_torch("vgg19.pth", contrastive.vgg19_to_torch(narrow))
    read = functools.partial(contrastive.vgg19_from_torch, width=4)
    monkeypatch.setattr(restoration, "vgg19_from_torch", read)
    for words in ("train dea_net_demo", "train dea_net --data", "train dea_net_cr"):
        run_printed("dea_net", words)
    assert [task.contrastive_weight > 0 for task, _ in begun] == [False, False, True]


@pytest.fixture
def experiments(folder, monkeypatch):
    """Files of RDDM as its authors name them, of small networks."""
    for name, file in (("deraining", "model-140.pt"), ("shadow_removal", "model-80.pt")):
        cfg = getattr(RDDMConfig, name)(unet=UNET)
        monkeypatch.setitem(PRESETS, name, lambda cfg=cfg: cfg)
        weights = rddm.to_torch(params(0, cfg, rddm), cfg)
        averaged = {f"ema_model.{key}": value for key, value in weights.items()}
        write_torch(Path(file), averaged | {"step": np.array([7])}, wrap="ema", extra={"step": 9})
    for name in ("photo.png", "mask.png"):
        write(Path(name), (16, 24))
    for root in ("RAINDROP", "RAINDROP_TEST", "MY_PAIRS"):
        for below in ("degraded", "clean"):
            write(Path(root, below, "large.png"))
    write(Path("FOLDER/face.png"))
    return folder


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("restore PHOTOS", "RESTORED/one.png"),
        ("restore photo.png", "out.png"),
        ("convert model-140.pt", "raindrop.safetensors"),
    ],
)
def test_experiments_of_rddm(experiments, run_printed, words, written):
    run_printed("rddm", words)
    assert Path(written).exists()


def test_trainings_of_rddm(experiments, begun, run_printed):
    for words in ("train rddm_deraining", "train rddm --data", "train rddm_generation"):
        run_printed("rddm", words)
    assert [task.data.root for task, _ in begun] == ["RAINDROP", "MY_PAIRS", "FOLDER"]


@pytest.mark.slow  # commands on runs and samples of small networks are in the default run
def test_runs_of_rddm(experiments, run_printed):
    cfg = RDDMConfig.low_light(unet=UNET)
    for below in ("degraded", "clean"):
        write(Path("PAIRS", below, "one.png"), (16, 24))
    data = {"kind": "pairs", "root": "PAIRS", "eval_root": "PAIRS"}
    write_run(Path("runs/raindrop"), cfg, "rddm", data=data)
    write_run(Path("runs/mine"), cfg, "rddm")
    write_run(Path("runs/faces"), RDDMConfig.path_independence(unet=UNET), "rddm")
    run_printed("rddm", "evaluate runs/raindrop")
    assert Path("report/metrics.json").exists()
    for words in ("sample --weights runs/faces", "sample --weights runs/mine"):
        run_printed("rddm", words)
        Path("out").rename(words.split("/")[-1])


def test_the_denoiser_and_the_second_step_of_sunet(folder, begun, run_printed):
    fits = pytest.importorskip("astropy.io.fits")
    for name, channels in (("model_bestPSNR.pth", 3), ("SUNet_model_bestSSIM.pth", 1)):
        cfg = sunet.SUNetConfig.tiny(in_channels=channels)
        write_torch(Path(name), sunet.to_torch(params(0, cfg, sunet), cfg))
    psf = gaussian_psf((9, 9), 3.0)
    pixels = np.random.default_rng(0).normal(size=(24, 24)) + 300 * gaussian_psf((24, 24), 5.0)
    fits.writeto("image.fits", pixels.astype(np.float32))
    fits.writeto("psf.fits", psf)
    for words in ("convert SUNet", "deconvolve image.fits", "restore PHOTOS"):
        run_printed("sunet", words)
    assert Path("out.fits").exists() and Path("CLEAN/one.png").exists()
    for below in ("degraded", "clean"):
        write(Path("PAIRS", below, "one.png"))
    run_printed("sunet", "train sunet")
    assert len(begun) == 1
