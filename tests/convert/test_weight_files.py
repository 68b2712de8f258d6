"""Files that PyTorch itself wrote (tests/convert/torch_files), and files that are no weights."""

import shutil
import zipfile
from collections import Counter
from pathlib import Path

import ml_dtypes  # noqa: F401 (np.dtype knows "bfloat16" by it)
import numpy as np
import pytest

from jaxcore.convert import (
    find_state_dict,
    read_state_dict,
    select_prefix,
    strip_prefix,
    write_safetensors,
)
from jaxcore.errors import UserError

FILES = Path(__file__).parent / "torch_files"


def expected_of(name):
    """Tensors of a file as PyTorch sees them."""
    with np.load(FILES / "expected.npz") as archive:
        keys = [key for key in archive.files if key.startswith(name + "/")]
        assert keys
        found = {}
        for key in keys:
            label, dtype = key.removeprefix(name + "/").rsplit("|", 1)
            value = archive[key]
            found[label] = value if value.dtype.name == dtype else value.view(np.dtype(dtype))
        return found


def assert_same(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape), key
        whole = found[key].read()
        assert (whole.dtype, whole.shape) == (value.dtype, value.shape), key
        assert whole.tobytes() == np.asarray(found[key]).tobytes() == value.tobytes(), key
        assert whole.flags.c_contiguous and whole.flags.writeable, key


@pytest.mark.parametrize(
    "name", ["kinds.pt", "kinds_legacy.pth", "kinds_protocol4.pt", "untyped.pt", "no_checksums.pt"]
)
def test_every_kind_of_tensor(name):
    state = read_state_dict(FILES / name)
    assert_same(state.tensors, expected_of(name))
    assert state.where == ""
    assert state.format == ("torch-legacy" if "legacy" in name else "torch")


def test_tensors_that_share_a_storage_become_independent():
    tensors = read_state_dict(FILES / "kinds.pt").tensors
    tensors["shared_a"].read()[:] = 0
    assert tensors["shared_b"].read().any()
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(tensors["shared_a"])[:] = 0


@pytest.mark.parametrize(
    ("name", "where", "metadata"),
    [
        ("lightning.ckpt", "state_dict", {"epoch": 3, "global_step": 40}),
        ("parallel.pk", "model", {"epoch": 2}),
        ("two_sets.pth", "params_ema", {}),
    ],
)
def test_training_checkpoints(name, where, metadata):
    state = read_state_dict(FILES / name)
    assert state.where == where
    assert metadata.items() <= state.metadata.items()
    assert_same(state.tensors, expected_of(name))


@pytest.mark.parametrize("name", ["lightning.ckpt", "parallel.pk"])
def test_wrappers_are_stripped(name):
    keys = read_state_dict(FILES / "two_sets.pth").tensors.keys()
    assert strip_prefix(read_state_dict(FILES / name).tensors, keys).keys() == keys


def test_what_is_left_alone_is_told():
    whole = read_state_dict(FILES / "diffusion.pt")
    assert whole.where == "ema"
    assert set(whole.unused) >= {"model"} and "ema" not in whole.unused
    assert read_state_dict(FILES / "kinds.pt").unused == ()


def test_a_place_and_a_prefix_can_be_named():
    average = read_state_dict(FILES / "diffusion.pt", at="ema", prefix="ema_model.")
    expected = select_prefix(expected_of("diffusion.pt"), "ema_model.")
    assert_same(average.tensors, expected)
    plain = read_state_dict(FILES / "two_sets.pth", at="params")
    assert plain.where == "params"
    np.testing.assert_array_equal(plain.tensors["0.weight"][...] * 2, expected["0.weight"])
    assert read_state_dict(FILES / "adversarial.pt", prefer=("gen",)).where == "gen"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adversarial.pt", {}, r"2 sets of weights.*gen \(8 entries\); disc \(8 entries\)"),
        ("adversarial.pt", {"at": "generator"}, "no 'generator' in the file.*disc, gen"),
        ("adversarial.pt", {"at": "gen/0.weight/x"}, "no 'gen/0.weight/x'.*no names"),
        ("adversarial.pt", {"at": "gen", "prefix": "net."}, "no key that begins with 'net.'"),
        ("whole_module.pt", {}, "whole module of the class torch.nn.modules.container.Sequential"),
        ("one_tensor.pt", {}, "single tensor without a name"),
        ("sparse.pt", {}, "'w' is a sparse tensor"),
        ("script.pt", {}, "TorchScript program"),
        ("expected.npz", {}, "a zip archive, but not one of PyTorch"),
    ],
)
def test_files_without_readable_weights(name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        read_state_dict(FILES / name, **options)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n <HTML>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b'{"weight_map": {}}', "JSON"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"random", "begins with b'random'"),
        (b"PK\x03\x04", "damaged or cut off"),
        (b"PK\x05\x06" + bytes(18), "not one of PyTorch"),
        (b"\x80", "damaged or cut off"),
        (b"\x80\x02}.", "a pickle, but not one of PyTorch"),
        (b"\xff\0\0\0\0\0\0\0{}", "damaged safetensors file"),
    ],
)
def test_other_files_are_named(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_state_dict(path)
    assert "weights.pth" in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(UserError, match="a folder without weights"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("name", ["kinds.pt", "kinds_legacy.pth", "lightning.ckpt"])
def test_truncation_anywhere_is_an_error(tmp_path, name):
    content = (FILES / name).read_bytes()
    path = tmp_path / name
    for size in range(1, len(content), 97):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=name):
            read_state_dict(path)


def test_damage_in_an_archive_never_goes_unnoticed_or_crashes(tmp_path):
    content = bytearray((FILES / "kinds.pt").read_bytes())
    expected = expected_of("kinds.pt")
    path = tmp_path / "damaged.pt"
    for position in range(0, len(content), 53):
        content[position] ^= 0x55
        path.write_bytes(content)
        try:
            assert_same(read_state_dict(path).tensors, expected)  # padding between the entries
        except UserError as error:
            assert "damaged.pt" in str(error)
        content[position] ^= 0x55


def test_damage_in_the_older_format_never_crashes(tmp_path):
    content = bytearray((FILES / "kinds_legacy.pth").read_bytes())
    path = tmp_path / "damaged.pth"
    outcomes = Counter()
    for position in range(0, len(content), 29):  # it has no checksums: data may change
        content[position] ^= 0x55
        path.write_bytes(content)
        try:
            for tensor in read_state_dict(path).tensors.values():
                tensor.read()
            outcomes["read"] += 1
        except UserError:
            outcomes["refused"] += 1
        content[position] ^= 0x55
    assert outcomes["refused"] > 20


def test_big_endian_archives(tmp_path):
    path = tmp_path / "big.pt"
    expected = expected_of("kinds.pt")
    widths = {}
    tensors = read_state_dict(FILES / "kinds.pt").tensors
    order = [key for key in tensors if key != "shared_b"]  # one storage each, in this order
    for index, key in enumerate(order):
        dtype = tensors[key].dtype
        widths[str(index)] = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    with zipfile.ZipFile(FILES / "kinds.pt") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("/byteorder"):
                content = b"big"
            if "/data/" in name:
                width = widths[name.rsplit("/", 1)[1]]
                content = np.frombuffer(content, f"u{width}").byteswap().tobytes()
            new.writestr(name, content)
    assert_same(read_state_dict(path).tensors, expected)


def test_the_extension_does_not_matter(tmp_path):
    path = tmp_path / "weights.pth"
    write_safetensors(path, {"w": np.ones(2, np.float32)}, {"from": "here"})
    state = read_state_dict(path)
    assert (state.format, state.metadata) == ("safetensors", {"from": "here"})
    shutil.copy(FILES / "no_checksums.pt", tmp_path / "w.safetensors")
    assert read_state_dict(tmp_path / "w.safetensors").format == "torch"
    with pytest.raises(UserError, match="no place 'ema'"):
        read_state_dict(path, at="ema")


def test_truncated_safetensors(tmp_path):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"w": np.ones(20, np.float32)})
    content = path.read_bytes()
    for size in (9, 40, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match="damaged safetensors file"):
            read_state_dict(path)


def test_choice_among_entries():
    w = {"w": np.zeros(1)}
    assert find_state_dict(w).where == ""
    assert find_state_dict({"state": {"model": w}}).where == "state/model"
    assert find_state_dict({"model": {"params": w, "params_ema": w}}).where == "model/params_ema"
    assert find_state_dict({"ema": 0.999, "model": w}).where == "model"
    assert find_state_dict({"ema": None, "optimizer": {"state": {0: w}}, "g": w}).where == "g"
    mixed = find_state_dict({"w": np.zeros(1), "step": 3})
    assert (list(mixed.tensors), mixed.skipped) == (["w"], ("step",))
    loop: dict = {"epoch": 1}
    loop["self"] = loop
    loop["model"] = loop
    loop["deep"] = {"w": np.zeros(1)}
    assert find_state_dict(loop).where.endswith("deep")
    del loop["deep"]
    chain: dict = {}
    for _ in range(100_000):
        chain = {"model": chain}
    for tree in (loop, chain, {}, [], None, 3, {"a": {1: w}}):
        with pytest.raises(UserError, match="no named tensors"):
            find_state_dict(tree)


def test_fixture_folder_is_small():
    assert sum(path.stat().st_size for path in FILES.iterdir()) < 300_000
