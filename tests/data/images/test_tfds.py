"""Packing folders as TFDS sets and reading them: equal to the bit, resumable, no network."""

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tifffile
from PIL import Image

from jaxcore.cli.data import data as data_command
from jaxcore.data.images.kinds import TFDS, ImageData, describe, evaluation_groups, training_groups
from jaxcore.data.images.pack import pack
from jaxcore.data.images.pairs import PairedFolder
from jaxcore.data.images.pipeline import Stage, training_batches
from jaxcore.data.images.sources import Group
from jaxcore.data.images.tfds import tfds_source
from jaxcore.data.images.tfds_folder import open_folder
from jaxcore.errors import UserError


def image(seed, shape=(20, 24, 3), high=256):
    return np.random.default_rng(seed).integers(0, high, shape)


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, **options)


def write_pairs(folder, count=5):
    for i in range(count):
        write(folder / "degraded" / f"image{i}.png", image(i, (20 + i, 24, 3)))
        write(folder / "clean" / f"image{i}.png", image(100 + i, (20 + i, 24, 3)))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_pairs(tmp_path / "folder")


def assert_equal_sources(one, other):
    assert len(one) == len(other)
    for i in range(len(one)):
        a, b = one[i], other[i]
        assert a.keys() == b.keys() == {"degraded", "clean", "name"}
        assert a["name"] == b["name"]
        for key in ("degraded", "clean"):
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])


def test_packed_samples_equal_the_folder(folder, tmp_path):
    seen = []
    counts = pack(
        folder, tmp_path / "sets/my_pairs", shard_examples=2, progress=lambda *a: seen.append(a)
    )
    assert counts == {"train": 5}
    assert seen == [(i + 1, 5) for i in range(5)]
    shards = list((tmp_path / "sets/my_pairs/1.0.0").glob("*array_record*"))
    assert len(shards) == 3
    source = tfds_source("my_pairs", tmp_path / "sets", "train")
    assert_equal_sources(source, PairedFolder(folder / "degraded", folder / "clean"))
    part = tfds_source("my_pairs:1.0.0", tmp_path / "sets", "train[:40%]")
    assert [part[i]["name"] for i in range(len(part))] == ["image0", "image1"]


def test_training_through_tfds_equals_the_folder_and_resumes(folder, tmp_path):
    pack(folder, tmp_path / "pairs")
    cfg = TFDS(root=str(tmp_path), tfds_name="pairs", tasks=("derain",))
    groups = training_groups(cfg)
    assert describe(groups) == [("derain", 5, 1, 5)]

    def batches(groups):
        return training_batches(groups, stages=[Stage(patch=16, batch_size=3)], seed=1)

    pairs = [Group("derain", PairedFolder(folder / "degraded", folder / "clean"))]
    expected = list(itertools.islice(batches(pairs), 6))
    for done in range(6):
        iterator = batches(groups)
        got = list(itertools.islice(iterator, done))
        resumed = batches(groups)
        resumed.set_state(json.loads(json.dumps(iterator.get_state())))
        got += itertools.islice(resumed, 6 - done)
        for a, b in zip(got, expected, strict=True):
            for key in b:
                np.testing.assert_array_equal(a[key], b[key])


def test_splits_are_folders(tmp_path):
    for split in ("train", "test"):
        write_pairs(tmp_path / "folder" / split, 2 if split == "test" else 3)
    assert pack(tmp_path / "folder", tmp_path / "pairs") == {"test": 2, "train": 3}
    cfg = TFDS(root=str(tmp_path), tfds_name="pairs", eval_split="test")
    assert describe(training_groups(cfg)) == [("pairs", 3, 1, 3)]
    assert describe(evaluation_groups(cfg)) == [("pairs", 2, 1, 2)]


def test_clean_feature_alone_is_degraded_on_the_fly(folder, tmp_path):
    pack(folder, tmp_path / "pairs")
    fields = {"kind": "tfds", "root": str(tmp_path), "tfds_name": "pairs", "degraded_feature": ""}
    (group,) = training_groups(ImageData.from_dict({**fields, "tasks": ["haze"]}))
    assert group.degradation == "haze" and set(group.source[0]) == {"clean", "name"}
    with pytest.raises(UserError, match="Expected tasks"):
        ImageData.from_dict(fields)


def test_every_kind_of_file_is_read_back_exactly(tmp_path):
    """JPEG as it is; palettes, grey, other formats and turned images as PNG."""
    degraded, clean = tmp_path / "folder/degraded", tmp_path / "folder/clean"
    pixels = image(0).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("jpeg", "palette", "grey", "turned"):
        write(clean / f"{name}.png", pixels if name != "turned" else np.rot90(pixels))
    write(degraded / "jpeg.jpg", pixels, quality=70)
    Image.fromarray(pixels).quantize(16).save(degraded / "palette.png")
    write(degraded / "grey.bmp", pixels[..., 0])
    write(degraded / "turned.jpg", pixels, exif=exif)
    pack(tmp_path / "folder", tmp_path / "pairs")
    source = tfds_source("pairs", tmp_path, "train")
    assert_equal_sources(source, PairedFolder(degraded, clean))
    builder: Any = tfds.builder_from_directory(tmp_path / "pairs/1.0.0")
    skip = {"degraded": tfds.decode.SkipDecoding()}
    raw = builder.as_data_source(split="train", decoders=skip)
    stored = {item["name"].decode(): item["degraded"] for item in raw}
    assert stored["jpeg"] == (degraded / "jpeg.jpg").read_bytes()
    assert stored["turned"].startswith(b"\x89PNG")


def test_sixteen_bits_are_kept(folder, tmp_path):
    deep = image(7, high=65536).astype(np.uint16)
    for part in ("degraded", "clean"):
        tifffile.imwrite(folder / part / "z.tif", deep, photometric="rgb")
    pack(folder, tmp_path / "pairs")
    source = tfds_source("pairs", tmp_path, "train")
    pairs = PairedFolder(folder / "degraded", folder / "clean")
    np.testing.assert_array_equal(source[5]["clean"], deep)
    for i in range(5):  # the others became 16 bits without a change of value
        assert source[i]["clean"].dtype == np.uint16
        np.testing.assert_array_equal(source[i]["clean"], pairs[i]["clean"].astype(int) * 257)


def test_tfds_alone_opens_the_set(folder, tmp_path):
    """In a process that has none of our code, TensorFlow, or a network."""
    pack(folder, tmp_path / "pairs")
    code = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
import tensorflow_datasets as tfds
source = tfds.builder_from_directory(sys.argv[1] + "/pairs/1.0.0").as_data_source(split="train")
other = tfds.data_source("pairs", data_dir=sys.argv[1], split="train", download=False)
print(len(source), source[2]["name"].decode(), source[2]["clean"].sum(), len(other))
assert "tensorflow" not in sys.modules and "jaxcore" not in sys.modules
"""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=home,
        env={**os.environ, "HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["5", "image2", str(image(102, (22, 24, 3)).sum()), "5"]
    assert list(home.iterdir()) == []


def test_nothing_is_written_elsewhere_and_no_network(folder, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pack(folder, tmp_path / "pairs")
    tfds_source("pairs", tmp_path, "train")[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pairs"]
    assert [p.name for p in (tmp_path / "pairs").iterdir()] == ["1.0.0"]


def test_an_existing_folder_is_kept_or_replaced_whole(folder, tmp_path):
    out = tmp_path / "pairs"
    out.mkdir()
    (out / "precious.txt").write_text("old")
    with pytest.raises(UserError, match="exists already"):
        pack(folder, out)
    assert (out / "precious.txt").read_text() == "old"
    pack(folder, out, overwrite=True)
    assert [p.name for p in out.iterdir()] == ["1.0.0"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pairs"]


def test_a_failure_leaves_nothing(folder, tmp_path):
    path = folder / "clean" / "image4.png"
    path.write_bytes(path.read_bytes()[:-60])
    out = tmp_path / "pairs"
    out.mkdir()
    (out / "precious.txt").write_text("old")
    with pytest.raises(UserError, match=r"image4\.png"):
        pack(folder, out, overwrite=True)
    assert [p.name for p in out.iterdir()] == ["precious.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pairs"]


def test_a_wish_to_stop_leaves_nothing(folder, tmp_path):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(folder, tmp_path / "pairs", progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_folders_that_cannot_be_packed(folder, tmp_path):
    with pytest.raises(UserError, match="found no folder"):
        pack(tmp_path / "nowhere", tmp_path / "pairs")
    with pytest.raises(UserError, match="found neither"):
        pack(tmp_path, tmp_path / "pairs", degraded="low")
    with pytest.raises(UserError, match="name of small letters"):
        pack(folder, tmp_path / "My-Pairs")
    with pytest.raises(UserError, match="at least one pair in a file"):
        pack(folder, tmp_path / "pairs", shard_examples=0)
    (folder / "clean" / "image1.png").unlink()
    with pytest.raises(UserError, match="found 1 of 5 images"):
        pack(folder, tmp_path / "pairs")
    (tmp_path / "file").write_text("")
    write(folder / "clean" / "image1.png", image(101, (21, 24, 3)))
    with pytest.raises(UserError, match="cannot be written"):
        pack(folder, tmp_path / "file" / "pairs")


CUSTOM = "helpful.Features"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("features.json", "tensorflow_datasets.core.features.features_dict.FeaturesDict", CUSTOM),
        ("features.json", "tensorflow_datasets.core.features.image_feature.Image", CUSTOM),
        ("features.json", '"image": {', '"jsonFeature": {"json": "{}"}, "none": {'),
        ("features.json", None, {"type": CUSTOM, "content": {}}),
        ("dataset_info.json", '"name": "pairs"', '"features": {"pythonClassName": "helpful.F"}'),
        ("dataset_info.json", '"moduleName": "jaxcore"', '"moduleName": "helpful"'),
    ],
)
def test_no_module_that_a_set_names_is_imported(folder, tmp_path, monkeypatch, file, old, new):
    pack(folder, tmp_path / "pairs")
    path = tmp_path / "pairs/1.0.0" / file
    text = path.read_text()
    assert old is None or old in text
    path.write_text(json.dumps(new) if old is None else text.replace(old, new))
    (tmp_path / "helpful.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with contextlib.suppress(UserError):
        tfds_source("pairs", tmp_path, "train")[0]
    assert not (tmp_path / "ran").exists() and "helpful" not in sys.modules


def test_features_of_no_use_here_do_not_matter(folder, tmp_path):
    pack(folder, tmp_path / "pairs")
    path = tmp_path / "pairs/1.0.0/features.json"
    content = json.loads(path.read_text())
    content["featuresDict"]["features"]["label"] = {
        "pythonClassName": CUSTOM,
        "classLabel": {"numClasses": "10"},
    }
    path.write_text(json.dumps(content))
    assert len(tfds_source("pairs", tmp_path, "train")) == 5
    with pytest.raises(UserError, match=r"'label' to be an Image .* found Features of text"):
        tfds_source("pairs", tmp_path, "train", clean_feature="label")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"name": "pairs"', '"name": "../../secret"'),
        ('"name": "train"', '"name": "/etc"'),
        ('"filepathTemplate": "{DATASET}', '"filepathTemplate": "{DATASET:>999999999999}'),
        ('"filepathTemplate": "{DATASET}', '"filepathTemplate": "../{DATASET}'),
    ],
)
def test_names_that_leave_the_folder_of_a_set_are_refused(folder, tmp_path, old, new):
    pack(folder, tmp_path / "pairs")
    info = tmp_path / "pairs/1.0.0/dataset_info.json"
    text = info.read_text()
    assert old in text
    info.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=r"found: the name .* in dataset_info\.json"):
        tfds_source("pairs", tmp_path, "train")


def test_configs_and_versions_are_found(folder, tmp_path):
    pack(folder, tmp_path / "one/pairs")
    for version in ("1.2.0", "1.10.0", "2.0.0"):
        shutil.copytree(tmp_path / "one/pairs/1.0.0", tmp_path / "sets/pairs/small" / version)
    for name, version in (
        ("pairs/small", "2.0.0"),
        ("pairs/small:1.*.*", "1.10.0"),
        ("pairs/small:1.2.0", "1.2.0"),
    ):
        assert open_folder(name, tmp_path / "sets").path.name == version
    for name in ("pairs", "pairs/small:3.0.0", "../one/pairs", "pairs/.."):
        with pytest.raises(UserError, match="prepared in"):
            open_folder(name, tmp_path / "sets")
    metadata = tmp_path / "sets/pairs/.config/metadata.json"
    metadata.parent.mkdir()
    metadata.write_text('{"default_config_name": "small"}')
    assert open_folder("pairs", tmp_path / "sets").path.parent.name == "small"


def test_tensors_that_swell_are_refused(folder, tmp_path, monkeypatch):
    for part in ("degraded", "clean"):
        tifffile.imwrite(folder / part / "z.tif", np.zeros((600, 500, 3), np.uint16))
    pack(folder, tmp_path / "pairs")
    assert tfds_source("pairs", tmp_path, "train")[5]["clean"].nbytes == 1_800_000
    monkeypatch.setattr("jaxcore.data.images.tfds.MAX_BYTES", 1_000_000)
    with pytest.raises(UserError, match="at most 1,000,000 bytes of pixels, found 500x600"):
        tfds_source("pairs", tmp_path, "train")[5]


def test_sets_that_cannot_be_read(folder, tmp_path):
    pack(folder, tmp_path / "pairs")
    with pytest.raises(UserError, match=r"found no folder .*nowhere"):
        tfds_source("pairs", tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match="Expected the TFDS data set 'others' prepared in"):
        tfds_source("others", tmp_path, "train")
    with pytest.raises(UserError, match=r"Expected split 'test' .*\(which has train\)"):
        tfds_source("pairs", tmp_path, "test")
    with pytest.raises(UserError, match=r"features low, clean .* found clean, degraded, name"):
        tfds_source("pairs", tmp_path, "train", degraded_feature="low")
    with pytest.raises(UserError, match=r"'name' to be an Image .* found Text"):
        tfds_source("pairs", tmp_path, "train", clean_feature="name")
    info = tmp_path / "pairs/1.0.0/dataset_info.json"
    text = info.read_text()
    info.write_text(text.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="in the array_record format, found tfrecord"):
        tfds_source("pairs", tmp_path, "train")
    info.write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="Expected the TFDS data set 'pairs' prepared in"):
        tfds_source("pairs", tmp_path, "train")


def test_damaged_records_are_named(folder, tmp_path):
    pack(folder, tmp_path / "pairs")
    (shard,) = (tmp_path / "pairs/1.0.0").glob("*array_record*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(UserError, match=r"Expected (whole records|split 'train')"):
        source = tfds_source("pairs", tmp_path, "train")
        for i in range(len(source)):
            source[i]
    shard.unlink()
    with pytest.raises(UserError, match=r"Expected (whole records|split 'train')"):
        tfds_source("pairs", tmp_path, "train")[0]


def test_command(folder, tmp_path, capsys):
    data_command("pack", folder, tmp_path / "pairs")
    out = capsys.readouterr().out
    assert "train" in out and "5 pairs" in out and "--data.tfds-name pairs" in out
