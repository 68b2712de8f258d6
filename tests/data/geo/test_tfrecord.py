"""TFRecord files: read back as written, types that hold the pixels, files that are damaged."""

import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.data.geo import tfrecord, wire
from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.data.geo.tfrecord import open_tfrecord, write_tfrecord
from jaxcore.errors import UserError


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "a.tfrecord"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 2), np.uint8)
    write_tfrecord(path, KeyedImages(pixels, ["x", "y", "z"]), dtype=np.uint8)
    return path, pixels


def test_rows_are_read_in_any_order(written):
    path, pixels = written
    images = open_tfrecord(path)
    assert images.images.shape == (3, 4, 5, 2) and images.images.dtype == np.uint8
    np.testing.assert_array_equal(images.images[np.array([2, 0, 0])], pixels[[2, 0, 0]])
    np.testing.assert_array_equal(images.images[1], pixels[1])
    assert images.images[np.array([], int)].shape == (0, 4, 5, 2)
    assert images.rows_of(["z", "x"]).tolist() == [2, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint16", "int16", "int8"])
def test_every_type_comes_back(tmp_path, dtype):
    pixels = (np.arange(24).reshape(2, 3, 2, 2)).astype(dtype)
    path = tmp_path / "a.tfrecord"
    write_tfrecord(path, KeyedImages(pixels, [1, 2]), dtype=dtype)
    again = open_tfrecord(path).images[np.arange(2)]
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize(
    ("pixels", "dtype"),
    [
        (np.full((1, 2, 2, 1), 3001, np.uint16), np.float16),  # rounded
        (np.full((1, 2, 2, 1), 1e5, np.float32), np.float16),  # infinite
        (np.full((1, 2, 2, 1), 300, np.uint16), np.uint8),
        (np.full((1, 2, 2, 1), 0.5, np.float32), np.uint8),
    ],
)
def test_a_type_that_would_change_the_pixels_is_refused(tmp_path, pixels, dtype):
    with pytest.raises(UserError, match=r"can hold, found values up to .* in image 'a'"):
        write_tfrecord(tmp_path / "a.tfrecord", KeyedImages(pixels, ["a"]), dtype=dtype)
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_there_stays(written):
    path, pixels = written
    before = path.read_bytes()
    with pytest.raises(UserError, match="exists"):
        write_tfrecord(path, KeyedImages(pixels[:1], ["x"]))
    assert path.read_bytes() == before


def _changed(content, case):
    if case == "cut":
        return content[:-3]
    if case == "huge":  # a length beyond the file, with the right checksum
        size = struct.pack("<Q", 2**60)
        return size + struct.pack("<I", tfrecord.checksum(size)) + content[12:]
    if case == "bit":
        return content[:40] + bytes([content[40] ^ 1]) + content[41:]
    if case == "length":
        return bytes([content[0] ^ 1]) + content[1:]
    return b"no records"


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("cut", "169 of its 172 bytes at record 2"),
        ("huge", f"548 of its {2**60} bytes at record 0"),
        ("bit", "another checksum of its content at record 0"),
        ("length", "another checksum of its length at record 0"),
        ("text", "10 bytes that are no record"),
    ],
)
def test_a_damaged_file_is_one_sentence(written, case, sentence):
    path, _ = written
    path.write_bytes(_changed(path.read_bytes(), case))
    with pytest.raises(UserError, match=f"whole records in a.tfrecord, found {sentence}"):
        open_tfrecord(path)


def _record(**features):
    good = {
        "height": 2,
        "width": 2,
        "channels": 1,
        "raw_image": wire.tensor(np.zeros((1, 2, 2, 1), np.uint8)),
        "key": wire.text_tensor("k"),
    }
    content = wire.example({k: v for k, v in {**good, **features}.items() if v is not None})
    return _framed(content)


def _framed(content):
    size = struct.pack("<Q", len(content))
    crc = [struct.pack("<I", tfrecord.checksum(part)) for part in (size, content)]
    return size + crc[0] + content + crc[1]


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (lambda: _record(key=None), "no feature key"),
        (lambda: _record(height=7), r"pixels of shape \(2, 2, 1\) where \(7, 2, 1\) are declared"),
        (lambda: _record(raw_image=wire.text_tensor("a")), "text as pixels"),
        (lambda: _record(raw_image=wire.tensor(np.zeros((1, 2, 2, 1), np.uint8))[:-1]), "a field"),
        (lambda: _framed(b"\xff" * 20), "a number of more than 64 bits"),
        (lambda: _framed(b"\x0f" * 4), "a field of the unknown kind 7"),
        (lambda: _framed(b""), "no feature raw_image and key"),
    ],
)
def test_records_of_something_else_are_one_sentence(tmp_path, record, sentence):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(record())
    with pytest.raises(UserError, match=f"found {sentence}.* in record 0"):
        open_tfrecord(path)


def test_images_of_two_sizes_are_refused(tmp_path):
    other = _record(height=1, raw_image=wire.tensor(np.zeros((1, 1, 2, 1), np.uint8)))
    (tmp_path / "a").write_bytes(_record() + other)
    with pytest.raises(UserError, match="Expected images of equal shape and type in a, found"):
        open_tfrecord(tmp_path / "a")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_raise_value_error(content):
    for read in (wire.read_example, wire.read_tensor):
        try:
            read(memoryview(content))
        except ValueError:
            pass
