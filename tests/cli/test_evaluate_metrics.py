"""``jaxcore evaluate --metrics``: further metrics on weights of the user."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from jaxcore.convert import write_torch
from jaxcore.metrics import inception
from tests.metric_weights import heads_of, thin


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    lins, both = heads_of([3] * 5)
    head = {"fc.weight": np.zeros((1008, 4), np.float32)}
    stem = {"Conv2d_1a_3x3.conv.weight": np.zeros((2, 3, 3, 3), np.float32)}
    tensors = {
        "alexnet": thin("alex") | {"classifier.1.weight": np.zeros((2, 2), np.float32)},
        "vgg16": thin("vgg"),
        "vgg19": thin("vgg") | {"features.34.weight": np.zeros((3, 3, 3, 3), np.float32)},
        "lpips": lins,
        "dists": both,
        "fid": stem | head,
        "inception": stem | {"fc.weight": np.zeros((1000, 4), np.float32)},
    }
    for name, state in tensors.items():
        write_torch(folder / f"{name}.pth", state)
    for kind in ("degraded", "clean"):
        (folder / "pairs" / kind).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (48, 40, 3), np.uint8)
            if kind == "degraded":
                pixels = pixels // 2
            Image.fromarray(pixels).save(folder / "pairs" / kind / f"{i}.png")
    return folder


def argv(weights, files, *more):
    data = ["--data.kind", "pairs", "--data.root", files / "pairs"]
    return ["evaluate", weights / "tiny.pth", *data, *more]


def test_further_metrics_are_printed_and_written(call, weights, files, tmp_path, monkeypatch):
    def features(weights, images, *, fid):
        assert fid
        return np.asarray(images).mean((1, 2))

    monkeypatch.setattr(inception, "inception_compiled", features)
    used = [files / f"{name}.pth" for name in ("lpips", "vgg16", "alexnet", "dists", "fid")]
    more = ["--metrics", "lpips", "dists", "fid", "--metric-weights", *used]
    code, out, err = call(*argv(weights, files, *more, "-o", tmp_path / "out"))
    assert (code, err) == (0, "")
    assert "a Frechet distance of 3 pictures is far above that of many" in out
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for name in ("lpips_alex", "dists", "fid"):
        assert found[f"pairs/{name}"] > 0 and found[f"pairs/{name}_in"] > 0
        assert f"pairs/{name} " in out
    with (tmp_path / "out" / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    mean = np.mean([float(row["lpips_alex"]) for row in rows])
    assert len(rows) == 3 and mean == pytest.approx(found["pairs/lpips_alex"], rel=1e-5)


def test_another_inception_gives_no_fid(call, weights, files, tmp_path, monkeypatch):
    monkeypatch.setattr(
        inception, "inception_compiled", lambda w, images, fid: np.asarray(images).mean((1, 2))
    )
    more = ["--metrics", "fid", "--metric-weights", files / "inception.pth"]
    code, out, _ = call(*argv(weights, files, *more))
    assert code == 0 and "frechet_torchvision" in out and "/fid" not in out


@pytest.mark.parametrize(
    ("metrics", "names", "sentence"),
    [
        ("lpips", "", "alexnet or vgg16 of torchvision and with the linear layers of LPIPS"),
        ("lpips", "lpips", "for lpips, found none that fit"),
        ("dists", "vgg16", "alpha and beta of DISTS"),
        ("fid", "alexnet", "Inception v3 of FID, or of torchvision for fid"),
        ("dists", "vgg19 dists", "Expected weights of a metric"),
        ("dists", "dists dists", "found a second one"),
        ("", "dists", "Expected --metrics beside --metric-weights"),
    ],
)
def test_missing_or_wrong_weights_are_told_first(call, weights, files, metrics, names, sentence):
    used = [files / f"{name}.pth" for name in names.split()]
    more = ["--metrics", *metrics.split()] if metrics else []
    more += ["--metric-weights", *used] if used else []
    code, out, err = call(*argv(weights, files, *more))
    assert (code, out) == (2, "") and sentence in err and len(err.splitlines()) == 1
