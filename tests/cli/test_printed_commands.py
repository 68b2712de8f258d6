"""What the pages print does what they say, on small random weights."""

import json
import shutil
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcore.cli.web import Page
from jaxcore.convert import write_torch
from jaxcore.models import adair, dea_net, sunet
from jaxcore.models.deconvolution import gaussian_psf
from jaxcore.weights import Shipped
from tests.cli.reader import printed
from tests.clips import write_clip
from tests.data.images.test_layouts import grow
from tests.tiny_weights import TINY, params, write_run

MAPS = (("DQ", 0), ("VAR", 1))  # of FITS images
HAZE = dea_net.DEANetConfig(base_dim=4, depths=(1, 1, 1, 1, 1))


@pytest.fixture
def whole(folder, run, monkeypatch):
    """The reader's folder with what the pages speak of."""
    monkeypatch.setattr(Shipped, "path", property(lambda _: run))  # smaller than those there
    Path("shots").mkdir()
    for name in ("noisy.jpg", "hazy.jpg", "photo.jpg", "photo.png", "shots/a.png", "shots/b.png"):
        Image.new("RGB", (24, 16), (90, 80, 70)).save(name)
    write_clip(Path("clip.mp4"), frames=3)
    grow(Path("DATA"))
    Image.new("RGB", (160, 136), (90, 80, 70)).save("DATA/Train/Denoise/large.png")
    Path("adair5d.ckpt").unlink()
    write_torch(Path("adair5d.ckpt"), adair.to_torch(params(), TINY), prefix="net.")
    config = json.loads((run / "config.json").read_text())
    data = {"kind": "pairs", "root": "PAIRS", "eval_root": "PAIRS"}
    config["task_config"] |= {"data": data, "eval_side": 16}
    for name in ("demo", "mine", "adair"):
        shutil.copytree(run, Path("runs", name))
        Path("runs", name, "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.filterwarnings("ignore:Expected the published numbers")
@pytest.mark.parametrize(
    ("page", "words", "written"),
    [
        ("README.md", "restore noisy.jpg", "clean.jpg"),
        ("README.md", "restore hazy.jpg", "clear.jpg"),
        ("README.md", "restore photo.jpg", "restored.jpg"),
        ("README.md", "restore 'shots", "restored/b.png"),
        ("README.md", "restore clip.mp4", "restored.mp4"),
        ("README.md", "train adair_cpu", None),
        ("README.md", "train adair --data.root PAIRS", None),
        ("README.md", "train adair_5d", None),
        ("README.md", "train adair --data.kind clean", None),
        ("README.md", "data pack", "pairs_packed/1.0.0/features.json"),
        ("README.md", "evaluate runs/mine", "report/metrics.json"),
        ("models/adair/README.md", "restore PHOTOS", "RESTORED/one.png"),
        ("models/adair/README.md", "convert runs/adair", "adair.pth"),
    ],
)
def test_what_is_printed_works(whole, begun, call, page, words, written):
    commands = printed(page, words)
    for argv in commands:
        code, _, err = call(*argv)
        assert code == 0, err
    assert Path(written).exists() if written else len(begun) == len(commands)


def test_the_printed_page_opens(whole, call, monkeypatch):
    """On a free port rather than the printed one, which others may have."""

    def serve(page):
        with urllib.request.urlopen(page.address) as answer:
            assert b"Restore a photograph" in answer.read()
        raise KeyboardInterrupt

    monkeypatch.setattr(Page, "serve", lambda page: in_thread(page, serve))
    (argv,) = printed("README.md", "serve")
    code, out, err = call(*argv, "--port", "0")
    assert code == 0, err
    assert "open http://127.0.0.1:" in out and out.endswith("ended\n")


def in_thread(page, visit, serve=Page.serve):
    """The page answers while it is visited."""
    thread = threading.Thread(target=serve, args=(page,), daemon=True)
    thread.start()
    try:
        visit(page)
    finally:
        page.stop()
        thread.join()


def test_an_evaluation_says_why_its_figures_are_not_those_of_the_training(whole, call):
    (argv,) = printed("README.md", "evaluate runs/mine")
    _, out, _ = call(*argv)
    assert "on whole pictures (during the training: central squares of 16 pixels)" in out


def test_what_the_page_of_dea_net_prints_works(folder, call):
    drawn = params(cfg=HAZE, module=dea_net)
    write_torch(Path("PSNR4131_SSIM9945.pth"), dea_net.to_torch(drawn, HAZE))
    write_run(folder / "runs" / "its", HAZE, model="dea_net")
    for words in ("restore PHOTOS", "convert runs/its its.pth", "convert runs/its its_train.pth"):
        (argv,) = printed("models/dea_net/README.md", words)
        code, _, err = call(*argv)
        assert code == 0, err
    assert Path("CLEAR/one.png").exists() and Path("its.pth").exists()


@pytest.mark.parametrize(
    ("page", "words", "written"),
    [
        ("README.md", "--report report", ("out.fits", "report/steps.png")),
        ("README.md", "--weights runs/swin", ("network.fits",)),
        ("README.md", "'night/*.fits'", ("night_out/a.fits", "night_out/b.fits")),
        ("models/deconvolution/README.md", "cube.fits", ("cube_out.fits",)),
        ("models/deconvolution/README.md", "runs/a", ("ensemble.fits",)),
        ("models/deconvolution/README.md", "quasar.fits", ("host.fits",)),
        ("models/deconvolution/README.md", "richardson-lucy", ("night_out/a.fits",)),
    ],
)
def test_what_is_printed_of_fits_images_works(tmp_path, monkeypatch, call, page, words, written):
    fits = pytest.importorskip("astropy.io.fits")
    monkeypatch.chdir(tmp_path)
    rng, psf = np.random.default_rng(0), gaussian_psf((9, 9), 3.0)
    pixels = rng.normal(size=(2, 24, 24)) + 300 * gaussian_psf((24, 24), 5.0)
    maps = [fits.ImageHDU(np.full((24, 24), n, np.float32), name=name) for name, n in MAPS]
    Path("night").mkdir()
    for name in ("image", "night/a", "night/b"):
        fits.HDUList([fits.PrimaryHDU(pixels[0]), *maps]).writeto(f"{name}.fits")
    fits.HDUList([fits.PrimaryHDU(pixels), *maps]).writeto("cube.fits")
    fits.writeto("psf.fits", psf)
    fits.writeto("psfs.fits", np.stack([psf, psf]))
    quasar = np.zeros((96, 108))
    quasar[84:93, 97:106] = 3000 * psf  # with its middle where the command says
    fits.writeto("quasar.fits", (quasar + rng.normal(size=quasar.shape)).astype(np.float32))
    for name in ("swin", "a", "b"):
        write_run(Path("runs", name), sunet.SUNetConfig.tiny(), model="sunet")
    (argv,) = printed(page, "deconvolve", words)
    code, _, err = call(*argv)
    assert code == 0, err
    assert all(Path(name).exists() for name in written)
