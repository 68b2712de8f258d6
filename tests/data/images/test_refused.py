"""Pictures that are refused: animations, damaged and oversized files, other colour spaces."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from jaxcore.data.images import read_image, read_rgb, write_image
from jaxcore.errors import UserError
from tests.data.images.png_bytes import png

RNG = np.random.default_rng(1)
RGB8 = RNG.integers(0, 256, (9, 14, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (9, 14, 3), np.uint16)


def _frames(path, **options):
    images = [Image.fromarray(RGB8), Image.fromarray(255 - RGB8)]
    images[0].save(path, save_all=True, append_images=images[1:], **options)


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_animations_are_refused(tmp_path, ending):
    _frames(tmp_path / f"a.{ending}")
    with pytest.raises(UserError, match=r"one still picture, found (2 frames|several pages)"):
        read_rgb(tmp_path / f"a.{ending}")


def test_photographs_with_a_second_picture_inside_are_read(tmp_path):
    _frames(tmp_path / "a.jpg", format="MPO")
    picture = read_image(tmp_path / "a.jpg")
    assert picture.format == "JPEG"
    assert np.abs(picture.pixels.astype(int) - RGB8).mean() < 60


@pytest.mark.parametrize("mode", ["LAB", "I"])
def test_other_colour_spaces_are_refused(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="Expected a grey or RGB picture"):
        read_rgb(tmp_path / "a.tif")


def test_size_is_checked_before_decoding(tmp_path, monkeypatch):
    huge = struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    raw = bytearray(png(RGB8, 8, 2))
    raw[16:29] = huge
    raw[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + huge))
    (tmp_path / "a.png").write_bytes(raw)
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)  # decoding would fail
    with pytest.raises(
        UserError, match=r"at most 1,073,741,824 bytes .*60000x60000, which take 10,8"
    ):
        read_rgb(tmp_path / "a.png")
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (30, 20, 3))
    del array
    with pytest.raises(
        UserError, match="at most 500 bytes of pixels, found 20x30, which take 1,800"
    ):
        read_rgb(tmp_path / "a.npy", max_bytes=500)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(UserError):
        read_rgb(tmp_path / "a.png", max_bytes=10)
    assert before == Image.MAX_IMAGE_PIXELS


def test_of_many_pages_only_the_first_is_looked_at(tmp_path):
    """All share one strip; Pillow takes minutes to count them."""
    tags = ((256, 4), (257, 4), (258, 8), (259, 1), (262, 1), (273, 8), (278, 4), (279, 16))
    count, size = 100_000, 2 + 12 * len(tags) + 4
    parts = [b"II*\0", struct.pack("<I", 24), bytes(16)]
    for i in range(count):
        parts.append(struct.pack("<H", len(tags)))
        parts += [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
        parts.append(struct.pack("<I", 24 + (i + 1) * size if i + 1 < count else 0))
    (tmp_path / "a.tif").write_bytes(b"".join(parts))
    began = time.process_time()
    for read in (read_rgb, read_image):
        with pytest.raises(UserError, match="one still picture, found several pages"):
            read(tmp_path / "a.tif")
    assert time.process_time() - began < 5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_memory_is_at_most_three_times_the_pixels(tmp_path, kind):
    side = 3000
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(tmp_path / "a", kind)
    code = """
import pathlib, resource, sys
from jaxcore.data.images import read_rgb
folder = pathlib.Path(sys.argv[1])
small = folder / "b.ppm"
small.write_bytes(b"P6 1 1 255 abc")
read_rgb(small)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_rgb(folder / "a")
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 3 * side * side * 3 + 2**24


def _encoded(kind):
    buffer = io.BytesIO()
    if kind == "NPY":
        np.save(buffer, RGB8)
    elif kind == "TIFF32":
        tifffile.imwrite(buffer, RGB8 / np.float32(255), photometric="rgb", compression="zlib")
    elif kind == "PNG16":
        return png(RGB16, 16, 2)
    else:
        noise = RNG.integers(0, 256, (40, 40, 3), np.uint8)
        options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
        Image.fromarray(noise).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "PNG16", "JPEG", "TIFF", "WEBP", "BMP", "PPM", "NPY"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path, kind, share):
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    content = _encoded(kind)
    path = tmp_path / "a.img"
    path.write_bytes(content[: int(share * len(content))])
    for read in (read_rgb, read_image):
        with pytest.raises(UserError, match=r"a\.img") as info:
            read(path)
        assert "\n" not in str(info.value)


def test_flipped_bits_of_a_png_are_noticed(tmp_path):
    content = bytearray(_encoded("PNG"))
    content[len(content) // 2] ^= 4
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png"):
        read_rgb(tmp_path / "a.png")


_KINDS = ("PNG", "PNG16", "JPEG", "TIFF", "TIFF32", "WEBP", "BMP", "PPM", "NPY")


@pytest.mark.filterwarnings("ignore")
@settings(
    deadline=None,
    derandomize=True,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(_KINDS),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damaged_files_give_a_picture_or_a_sentence(tmp_path, kind, changes):
    content = bytearray(_encoded(kind))
    for place, value in changes:
        content[int(place**3 * len(content))] = value  # mostly in the header
    (tmp_path / "a.img").write_bytes(content)
    try:
        picture = read_image(tmp_path / "a.img", max_bytes=1_000_000)
    except UserError:
        return
    assert picture.pixels.ndim == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "found no file"),
        (b"", "other or damaged content"),
        (b"<html>404</html>", "other or damaged content"),
        (b"GIF89a", "a GIF, which has to be converted"),
    ],
)
def test_what_is_not_a_picture(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_rgb(tmp_path / "a.png")


def test_a_folder_is_not_a_picture(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        read_rgb(tmp_path)


def test_new_files_have_ordinary_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write_image(tmp_path / "deep" / "a.png", RGB8 / 255)
    finally:
        os.umask(before)
    assert (tmp_path / "deep" / "a.png").stat().st_mode & 0o777 == 0o640


def test_bad_arguments_of_the_writer(tmp_path):
    write_image(tmp_path / "a.png", RGB8 / 255)
    before = (tmp_path / "a.png").read_bytes()
    bad = RGB8 / 255
    bad[0, 0, 0] = np.nan
    cases = [
        ("a.png", RGB8 / 255, "exists already"),
        ("a.gif", RGB8 / 255, "ending in"),
        ("a", RGB8 / 255, "ending in"),
        ("b.png", bad, "found 1 NaN or infinite"),
        ("b.png", RGB8[..., 0] / 255, "height, width, 3"),
        ("b.pgm", RGB8 / 255, "has colour"),
        ("a.png/b.png", RGB8 / 255, "cannot be made"),
    ]
    for name, image, message in cases:
        with pytest.raises(UserError, match=message):
            write_image(tmp_path / name, image)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before
    write_image(tmp_path / "a.png", 1 - RGB8 / 255, overwrite=True)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), 255 - RGB8)
