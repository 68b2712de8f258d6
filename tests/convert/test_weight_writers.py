"""Written files: read back exactly, atomic, and readable by PyTorch (marker ``torch``)."""

import importlib
import os
import resource
import sys
import zipfile
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.convert import read_state_dict, write_safetensors, write_torch
from jaxcore.convert.rebuild import DTYPES
from jaxcore.errors import UserError

WRITERS = [write_safetensors, write_torch]


def every_dtype():
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.integers(0, 2, (3, 4)).astype(dtype) for name, (_, dtype) in DTYPES.items()
    }
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    return tensors | {
        "transposed": base.T,
        "sliced": base[:, ::2],
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "thin": base[:, :1],
        "swapped": base.astype(base.dtype.newbyteorder()),
        "ünïcode.weight": base,
    }


def of_safetensors(tensors):
    """Without the dtype that safetensors lacks."""
    return {k: v for k, v in tensors.items() if k != "complex128"}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype.name == value.dtype.name, key
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_torch_files_round_trip(tmp_path):
    path = tmp_path / "w.pth"
    write_torch(path, every_dtype())
    assert_same(read_state_dict(path).tensors, every_dtype())


def test_safetensors_files_round_trip(tmp_path):
    path = tmp_path / "w.safetensors"
    tensors = of_safetensors(every_dtype())
    write_safetensors(path, tensors, {"model": "adair"})
    state = read_state_dict(path)
    assert_same(state.tensors, tensors)
    assert state.metadata == {"model": "adair"}


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["f4", "f2", ml_dtypes.bfloat16]))
def test_every_bit_survives(tmp_path_factory, seed, dtype):
    rng = np.random.default_rng(seed)
    value = np.frombuffer(rng.bytes(64), dtype)
    folder = tmp_path_factory.mktemp("bits")
    for writer in WRITERS:
        writer(folder / "w", {"w": value}, overwrite=True)
        found = read_state_dict(folder / "w").tensors["w"]
        assert (found.dtype, found.read().tobytes()) == (value.dtype, value.tobytes())


def test_wrapped_files(tmp_path):
    path = tmp_path / "w.ckpt"
    extra = {"epoch": 3, "big": 2**40, "low": -300, "lr": 0.5, "flag": True, "who": "x"}
    write_torch(path, {"w": np.ones(2)}, prefix="net.", wrap="state_dict", extra=extra)
    state = read_state_dict(path)
    assert (state.where, state.metadata, list(state.tensors)) == ("state_dict", extra, ["net.w"])
    with pytest.raises(UserError, match="expected 'wrap'"):
        write_torch(tmp_path / "x", {}, extra=extra)
    with pytest.raises(UserError, match="is a list"):
        write_torch(tmp_path / "x", {}, wrap="w", extra={"a": cast(Any, [])})
    assert os.listdir(tmp_path) == ["w.ckpt"]


def test_equal_tensors_give_equal_files_whatever_the_name(tmp_path):
    for name in ("a.pt", "b.pt"):
        write_torch(tmp_path / name, every_dtype())
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_storages_are_aligned(tmp_path):
    path = tmp_path / "w.pt"
    write_torch(path, {"w": np.ones(3, np.float32), "v": np.full(2, 7, np.float32)})
    content = path.read_bytes()
    assert content.index(np.ones(3, np.float32).tobytes()) % 64 == 0
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("archive/byteorder") == sys.byteorder.encode()


@pytest.mark.parametrize("writer", WRITERS)
def test_nothing_is_overwritten_unasked(tmp_path, writer):
    path = tmp_path / "w"
    path.write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        writer(path, {"w": np.ones(2)})
    assert path.read_text() == "precious"
    writer(path, {"w": np.ones(2)}, overwrite=True)
    assert_same(read_state_dict(path).tensors, {"w": np.ones(2)})
    assert os.listdir(tmp_path) == ["w"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, writer):
    path = tmp_path / "w"
    path.write_text("precious")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the same failure as a full disk
    try:
        with pytest.raises(UserError, match=r"cannot be written: .*[Ff]ile too large"):
            writer(path, {"w": np.ones(1_000_000)}, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["w"]
    assert path.read_text() == "precious"


@pytest.mark.parametrize("writer", WRITERS)
def test_impossible_places_and_values(tmp_path, writer):
    with pytest.raises(UserError, match="cannot be written: No such file or directory"):
        writer(tmp_path / "none" / "w", {"w": np.ones(2)})
    with pytest.raises(UserError, match="is a folder"):
        writer(tmp_path, {"w": np.ones(2)}, overwrite=True)
    for value in (np.array(["text"]), np.array([None]), np.zeros(2, np.longdouble)):
        with pytest.raises(UserError, match=r"'w' is .*: expected one of float64"):
            writer(tmp_path / "w", {"w": value})
    assert os.listdir(tmp_path) == []


def test_safetensors_names_a_dtype_it_lacks(tmp_path):
    with pytest.raises(UserError, match="complex128"):
        write_safetensors(tmp_path / "w", {"w": np.ones(2, np.complex128)})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_new_files_have_the_usual_permissions(tmp_path, writer):
    (tmp_path / "plain").touch()
    writer(tmp_path / "w", {"w": np.ones(2)})
    assert (tmp_path / "w").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.fixture
def torch():
    return importlib.import_module("torch")


def as_numpy(torch, tensor):
    name = str(tensor.dtype).removeprefix("torch.")
    if name == "bfloat16" or name.startswith("float8"):
        width = {1: torch.uint8, 2: torch.int16}[tensor.element_size()]
        return tensor.view(width).numpy().view(DTYPES[name][1])
    return tensor.numpy()


@pytest.mark.torch
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_what_was_written(torch, tmp_path, mmap):
    path = tmp_path / "w.ckpt"
    write_torch(path, every_dtype(), prefix="net.", wrap="state_dict", extra={"epoch": 3})
    found = torch.load(path, weights_only=True, mmap=mmap)
    assert found["epoch"] == 3
    arrays = {k.removeprefix("net."): as_numpy(torch, v) for k, v in found["state_dict"].items()}
    assert_same(arrays, every_dtype())
    assert all(v.is_contiguous() for v in found["state_dict"].values())


@pytest.mark.torch
def test_torch_loads_a_module_and_gives_it_back(torch, tmp_path):
    module = torch.nn.Conv2d(3, 4, 3)
    torch.save(module.state_dict(), tmp_path / "theirs.pt")
    state = read_state_dict(tmp_path / "theirs.pt").tensors
    write_torch(tmp_path / "ours.pt", state)
    other = torch.nn.Conv2d(3, 4, 3)
    other.load_state_dict(torch.load(tmp_path / "ours.pt", weights_only=True), strict=True)
    assert torch.equal(other.weight, module.weight)
