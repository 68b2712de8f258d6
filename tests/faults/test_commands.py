"""Bad pictures, weights and disks: one sentence, exit code 2, and the folder as it was."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxcore.convert import write_safetensors
from jaxcore.models import adair
from jaxcore.models.base import ImageNetwork
from tests.tiny_weights import TINY, params, write_run


def content(folder):
    """Every file below a folder with its bytes, and every folder."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def refused(result, *words):
    code, out, err = result
    assert code == 2, (out, err)
    assert out == ""
    assert err.startswith("jaxcore: ") and len(err.splitlines()) == 1, err
    for word in words:
        assert word in err


def _png(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)).save(path)


def _cut(path, name="a.png"):
    _png(path / name)
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[: len(whole) // 2])


def _flip(path):
    _png(path / "a.png")
    changed = bytearray((path / "a.png").read_bytes())
    changed[len(changed) // 2] ^= 1
    (path / "a.png").write_bytes(changed)


def _floats(path, value, count):
    array = np.full((20, 20), 0.5, np.float32)
    array.reshape(-1)[:count] = value
    tifffile.imwrite(path / "a.tif", array)


PICTURES = {
    "missing": (lambda path: None, "a.png", "found nothing at"),
    "empty file": (lambda path: (path / "a.png").touch(), "a.png", "other or damaged"),
    "empty folder": (lambda path: (path / "a").mkdir(), "a", "found none in"),
    "text": (lambda path: (path / "a.png").write_text("no picture"), "a.png", "damaged"),
    "truncated png": (_cut, "a.png", "Expected a whole picture"),
    "truncated jpeg": (lambda path: _cut(path, "a.jpg"), "a.jpg", "Expected a whole picture"),
    "flipped bit": (_flip, "a.png", "Expected a whole picture"),
    "nan": (lambda path: _floats(path, np.nan, 3), "a.tif", "found 3 that are NaN or infinite"),
    "inf": (lambda path: _floats(path, -np.inf, 1), "a.tif", "found 1 that are NaN or infinite"),
}


@pytest.mark.parametrize("case", PICTURES)
def test_bad_pictures(call, weights, tmp_path, case):
    make, name, sentence = PICTURES[case]
    make(tmp_path)
    before = content(tmp_path)
    result = call(
        "restore",
        tmp_path / name,
        "-o",
        tmp_path / "new" / "out.png",
        "--weights",
        weights / "tiny.pth",
    )
    if name == "a":
        result = call(
            "restore", tmp_path / name, "-o", tmp_path / "new", "--weights", weights / "tiny.pth"
        )
    refused(result, sentence, name)
    assert content(tmp_path) == before


def _other_model(folder):
    write_safetensors(folder / "w", {"llama.layers.0.weight": np.zeros((3, 3), np.float32)})


def _changed(folder, change):
    tensors = adair.to_torch(params(), TINY)
    change(tensors)
    write_safetensors(folder / "w", tensors)


def _smaller(tensors):
    name = "encoder_level1.0.attn.qkv.weight"
    tensors[name] = tensors[name][:, :4].copy()


def _half(folder, source):
    raw = source.read_bytes()
    (folder / "w").write_bytes(raw[: len(raw) // 2])


def _foreign_run(folder):
    (folder / "w").mkdir()
    (folder / "w" / "config.json").write_text(json.dumps({"task_config": {"width": 6}}))


def _other_size(folder):
    write_run(folder / "w")
    bigger = adair.AdaIRConfig.restormer(dim=16, num_blocks=(1, 1, 1, 1), heads=(1, 1, 1, 1))
    config = {"task_config": {"model": "adair", "network": bigger.to_dict()}}
    (folder / "w" / "config.json").write_text(json.dumps(config))


def _no_checkpoint(folder):
    write_run(folder / "w")
    shutil.rmtree(folder / "w" / "checkpoints")


def _bad_json(folder):
    write_run(folder / "w")
    (folder / "w" / "config.json").write_text("{")


def _unknown_field(folder):
    write_run(folder / "w", network={**TINY.to_dict(), "depth": 3})


def _cut_checkpoint(folder):
    write_run(folder / "w")
    files = [p for p in (folder / "w" / "checkpoints" / "1" / "params").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


WEIGHTS = {
    "missing": (lambda folder, _: None, "found nothing at"),
    "empty folder": (lambda folder, _: (folder / "w").mkdir(), "run directory with config.json"),
    "empty file": (lambda folder, _: (folder / "w").touch(), "is empty"),
    "picture": (lambda folder, _: Image.new("L", (9, 9)).save(folder / "w", "PNG"), "a picture"),
    "other model": (lambda folder, _: _other_model(folder), "does not hold weights of adair"),
    "missing key": (
        lambda folder, _: _changed(folder, lambda t: t.pop("down1_2.body.0.weight")),
        "down1_2.body.0.weight",
    ),
    "other size": (lambda folder, _: _changed(folder, _smaller), "encoder_level1.0.attn.qkv"),
    "truncated pth": (lambda folder, w: _half(folder, w / "tiny.pth"), "refused"),
    "truncated safetensors": (lambda folder, w: _half(folder, w / "tiny.safetensors"), "damaged"),
    "run of another task": (lambda folder, _: _foreign_run(folder), "run of an image network"),
    "run of another size": (lambda folder, _: _other_size(folder), "does not fit this network"),
    "run without checkpoint": (lambda folder, _: _no_checkpoint(folder), "with checkpoints"),
    "run with damaged settings": (lambda folder, _: _bad_json(folder), "found no JSON"),
    "run with unknown settings": (
        lambda folder, _: _unknown_field(folder),
        "network.depth is not a field",
    ),
}


@pytest.mark.parametrize("command", ["restore", "convert"])
@pytest.mark.parametrize("case", WEIGHTS)
def test_bad_weights(call, weights, photo, tmp_path, case, command):
    make, sentence = WEIGHTS[case]
    make(tmp_path, weights)
    before = content(tmp_path)
    source = tmp_path / "w"
    if command == "restore":
        result = call("restore", photo, "-o", tmp_path / "new" / "a.png", "--weights", source)
    else:
        result = call("convert", source, tmp_path / "out.pth")
    refused(result, sentence)
    assert content(tmp_path) == before


def test_a_truncated_checkpoint(photo, tmp_path):
    """In a process of its own, because TensorStore's threads may answer after the command."""
    _cut_checkpoint(tmp_path)
    before = content(tmp_path)
    argv = ["restore", photo, "-o", tmp_path / "a.png", "--weights", tmp_path / "w"]
    command = [sys.executable, "-m", "jaxcore", *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True)
    refused((done.returncode, done.stdout, done.stderr), "damaged", "the steps 1, 2")
    assert content(tmp_path) == before


@pytest.mark.parametrize("model", ["nothing", "Adair"])
def test_unknown_network(call, weights, run, photo, tmp_path, model):
    for source in (weights / "tiny.pth", run):
        output = tmp_path / "out.png"
        argv = ["restore", photo, "-o", output, "--weights", source, "--model", model]
        refused(call(*argv), model)
        assert not output.exists()


def _raise(code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    return fail


def _half_written(self, data):
    with self.open("wb") as file:
        file.write(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _limit_file_size(monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# (what is broken, the sentence); root may write anywhere, so refusals are simulated.
DISKS = {
    "full": (lambda m: m.setattr(Path, "write_bytes", _half_written), "No space left"),
    "full at the end": (lambda m: m.setattr(os, "fsync", _raise(errno.ENOSPC)), "No space left"),
    "small": (_limit_file_size, "File too large"),
    "read-only": (lambda m: m.setattr(Path, "touch", _raise(errno.EROFS)), "Read-only file system"),
    "forbidden": (lambda m: m.setattr(os, "replace", _raise(errno.EACCES)), "Permission denied"),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("command", "case"),
    [
        *(("restore", case) for case in DISKS),
        # The writers of weights do not go through `write_bytes`.
        *(("convert.pth", case) for case in DISKS if case != "full"),
        *(("convert.safetensors", case) for case in DISKS if case != "full"),
    ],
)
def test_bad_disks(call, weights, tmp_path, monkeypatch, case, command, overwrite):
    _png(tmp_path / "photo.png")
    source = weights / "tiny.pth"
    output = tmp_path / "out" / command.replace("restore", "a.png")
    if overwrite:
        output.parent.mkdir()
        output.write_text("the old one")
    elif command != "restore":
        output.parent.mkdir()
    before = content(tmp_path)
    argv = ["restore", tmp_path / "photo.png", "-o", output, "--weights", source]
    argv = argv if command == "restore" else ["convert", source, output]
    monkeypatch.setattr(ImageNetwork, "restore", lambda self, params, pixels, cfg, **_: pixels)
    with monkeypatch.context() as broken:
        mend = DISKS[case][0](broken)
        try:
            result = call(*argv, *(["--overwrite"] * overwrite))
        finally:
            if mend is not None:
                mend()
    refused(result, DISKS[case][1], str(output))
    assert content(tmp_path) == before


def test_a_folder_that_may_not_be_written(call, photo, tmp_path, monkeypatch):
    """Noticed before the weights are even looked at."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    result = call("restore", photo, "-o", tmp_path / "a.png", "--weights", tmp_path / "gone")
    refused(result, "Expected a folder that can be written")


@pytest.mark.parametrize(
    "argv",
    [
        "restore {photo} -o {out} --weights {w} --nonsense 3",
        "convert {w} {out} --nonsense",
        "evaluate {w} --nonsense",
        "restore {photo} --weights {w}",
        "restore {photo} -o {out} --weights {w} --tile many",
        "nonsense",
        "",
    ],
)
def test_the_command_line_itself(call, photo, weights, tmp_path, argv):
    """The parser answers in its own words, with the right code and without side effects."""
    before = content(tmp_path)
    places = {"photo": photo, "out": tmp_path / "out.png", "w": weights / "tiny.pth"}
    code, out, err = call(*argv.format(**places).split())
    assert code == 2 and out == ""
    assert "Traceback" not in err and "jaxcore" in err
    if "--nonsense" in argv:
        assert "Unrecognized options: --nonsense" in err
    assert content(tmp_path) == before
