"""GGUF files in: numbers, settings, names, and one sentence for what cannot be read."""

import struct

import ml_dtypes
import numpy as np
import pytest

from jaxcore.convert import read_state_dict
from jaxcore.errors import UserError
from tests.gguf_files import SETTINGS, gguf_bytes, plain, small_tensors

TYPES = {0: np.float32, 1: np.float16, 30: ml_dtypes.bfloat16}


@pytest.fixture
def write(tmp_path):
    def written(tensors, settings=SETTINGS, **options):
        path = tmp_path / "a.gguf"
        path.write_bytes(gguf_bytes(tensors, settings, **options))
        return path

    return written


@pytest.mark.parametrize("options", [{}, {"version": 2}, {"alignment": 64}])
def test_every_type_is_read_as_the_format_says(write, options):
    tensors, numbers = small_tensors()
    file = read_state_dict(write(tensors, **options))
    assert file.format == "gguf" and set(file.tensors) == set(numbers)
    for name, values in numbers.items():
        kind, found = tensors[name][0], file.tensors[name]
        assert found.shape == values.shape and found.dtype == TYPES.get(kind, np.float32)
        np.testing.assert_array_equal(np.asarray(found, np.float32), values, err_msg=name)


def test_settings_keep_their_types(write):
    found = read_state_dict(write({})).metadata
    assert found["general.architecture"] == "llama" and found["a.flag"] is True
    assert found["llama.attention.head_count"] == 2 and found["a.float"] == 0.5
    assert found["some.texts"] == ["<s>", "ä", ""]
    assert found["some.numbers"].tolist() == [3, 1, 1]


def test_numbers_are_those_of_the_gguf_package(write):
    package = pytest.importorskip("gguf")
    path = write(small_tensors()[0])
    ours = read_state_dict(path).tensors
    for tensor in package.GGUFReader(path).tensors:
        values = package.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(np.asarray(ours[tensor.name], np.float32), values)


def test_rows_of_rotated_matrices_are_put_back(write):
    """llama.cpp keeps pairs (0, d/2), (1, d/2 + 1), ... of a head together."""
    official = np.arange(16 * 3, dtype=np.float32).reshape(16, 3)
    order = [
        head * 8 + half * 4 + pair for head in range(2) for pair in range(4) for half in (0, 1)
    ]
    tensors = {
        "blk.1.attn_q.weight": (0, (16, 3), plain(0, official[order])),
        "blk.1.attn_v.weight": (0, (16, 3), plain(0, official)),
        "blk.0.ffn_down.weight": (0, (16, 3), plain(0, official)),
        "token_embd.weight": (0, (16, 3), plain(0, official)),
        "output_norm.weight": (0, (3,), plain(0, official[0])),
    }
    found = read_state_dict(write(tensors)).tensors
    assert list(found) == [
        "model.layers.1.self_attn.q_proj.weight",
        "model.layers.1.self_attn.v_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
        "model.embed_tokens.weight",
        "model.norm.weight",
    ]
    for name, tensor in found.items():
        np.testing.assert_array_equal(np.asarray(tensor).reshape(-1, 3)[0], official[0], name)
        if tensor.ndim == 2:
            np.testing.assert_array_equal(tensor.read(), official)
    qwen = {**SETTINGS, "general.architecture": "qwen2"}
    bias = {"blk.0.attn_q.bias": (0, (16,), plain(0, official[:, 0]))}
    (found,) = read_state_dict(write(bias, qwen)).tensors.values()
    np.testing.assert_array_equal(found.read(), official[:, 0])
    (name,) = read_state_dict(write(bias, {"general.architecture": "other"})).tensors
    assert name == "blk.0.attn_q.bias"


VALUES = np.zeros((2, 32), np.float32)
ONE = {"a": (0, (2, 32), plain(0, VALUES))}


@pytest.mark.parametrize(
    ("tensors", "settings", "sentence"),
    [
        (
            {"a": (14, (2, 32), b"")},
            {},
            "'a' is Q6_K; those that are read are F32, F16, BF16, Q4_0",
        ),
        ({"a": (99, (2, 32), b"")}, {}, "'a' is an unknown type (99)"),
        ({"a": (3, (2, 30), b"")}, {}, "of shape (2, 30) cannot be cut into blocks of 32"),
        ({"a": (0, (2, 33), plain(0, VALUES))}, {}, "'a' reaches beyond the end of the file"),
        ({"a": (0, (2**62, 2**62), b"")}, {}, "impossible shape"),
        ({"a": (0, (1,) * 5, b"1234")}, {}, "'a' has 5 axes, more than 4"),
        (ONE, {"general.alignment": 12}, "alignment is 12 instead of a multiple of 8"),
        (
            {"blk.0.attn_q.weight": (0, (2, 32), plain(0, VALUES))},
            {"general.architecture": "llama", "llama.attention.head_count": 3},
            "does not divide 'blk.0.attn_q.weight' into heads",
        ),
    ],
)
def test_what_cannot_be_read_is_named(write, tensors, settings, sentence):
    with pytest.raises(UserError, match="refused") as error:
        read_state_dict(write(tensors, settings))
    assert sentence in str(error.value)


def test_counts_beyond_the_file_reserve_no_memory(write):
    content = bytearray(write(ONE).read_bytes())
    for place, sentence in ((8, "tensors"), (16, "settings"), (24, "characters")):
        broken = bytearray(content)
        broken[place : place + 8] = struct.pack("<Q", 2**60)
        path = write(ONE)
        path.write_bytes(broken)
        with pytest.raises(UserError, match=f"names 1,152,921,504,606,846,976 {sentence}"):
            read_state_dict(path)


def test_other_versions_and_tensors_on_top_of_each_other_are_refused(write):
    with pytest.raises(UserError, match="version 2 or 3, found one of version 1"):
        read_state_dict(write(ONE, version=1))
    with pytest.raises(UserError, match="of a big-endian machine"):
        read_state_dict(write(ONE, version=3 << 24))
    path = write({name: (0, (1024,), bytes(4096 * (name == "b"))) for name in "abc"})
    with pytest.raises(UserError, match=r"reaches beyond|share their bytes"):
        read_state_dict(path)


def test_every_cut_is_refused(write):
    path = write(small_tensors()[0])
    content = path.read_bytes()
    for size in range(4, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(UserError):
            read_state_dict(path)
    path.write_bytes(content)
    with pytest.raises(UserError, match="no place 'ema' inside"):
        read_state_dict(path, at="ema")


def test_a_folder_with_one_file_is_read(write):
    path = write(ONE)
    assert set(read_state_dict(path.parent).tensors) == {"a"}
