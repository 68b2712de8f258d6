import itertools
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from jaxcore.data.images import Picture, read_image, read_rgb, write_image
from jaxcore.errors import UserError
from tests.data.images.png_bytes import png

RNG = np.random.default_rng(0)
RGB8 = RNG.integers(0, 256, (9, 14, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (9, 14, 3), np.uint16)


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_every_bit_of_a_16_bit_png_arrives(tmp_path, channels, colour, interlace):
    array = RNG.integers(0, 65536, (9, 14, channels), np.uint16)
    (tmp_path / "a.png").write_bytes(png(array, 16, colour, interlace=interlace))
    picture = read_image(tmp_path / "a.png")
    assert (picture.depth, picture.grey) == (16, channels < 3)
    colours = array[..., : 3 if channels > 2 else 1]
    np.testing.assert_array_equal(picture.pixels, np.broadcast_to(colours, (9, 14, 3)))
    if channels in (2, 4):
        np.testing.assert_array_equal(picture.alpha, array[..., -1])
    else:
        assert picture.alpha is None
        np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), picture.pixels)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_bit_of_a_16_bit_tiff_arrives(tmp_path, channels, order, compression, tile):
    array = RNG.integers(0, 65536, (40, 50, channels), np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        array if channels > 1 else array[..., 0],
        byteorder=order,
        tile=tile,
        photometric="rgb" if channels > 1 else "minisblack",
        compression=compression,
        predictor=True if compression else None,
        extrasamples=["unassalpha"] * (channels == 4),
    )
    picture = read_image(tmp_path / "a.tif")
    assert picture.depth == 16
    np.testing.assert_array_equal(picture.pixels, np.broadcast_to(array[..., :3], (40, 50, 3)))
    if channels == 4:
        np.testing.assert_array_equal(picture.alpha, array[..., 3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"planarconfig": "separate"}, "16 bits in an arrangement"),
        ({"extrasamples": ["assocalpha"]}, "16 bits in an arrangement"),
    ],
)
def test_other_16_bit_tiffs_are_refused_not_reduced(tmp_path, options, message):
    shape = (3, 9, 14) if "planarconfig" in options else (9, 14, 4)
    array = RNG.integers(0, 65536, shape, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", **options)
    for read in (read_rgb, read_image):
        with pytest.raises(UserError, match=message):
            read(tmp_path / "a.tif")


def test_16_bit_ppm_is_refused(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 14 9 65535\n" + RGB16.astype(">u2").tobytes())
    with pytest.raises(UserError, match="values up to 65535"):
        read_rgb(tmp_path / "a.ppm")


CONVERTIBLE = {
    "RGB": RGB8,
    "L": RGB8[..., 0],
    "1": RGB8[..., 0] > 127,
}


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "ppm", "webp"])
@pytest.mark.parametrize("mode", CONVERTIBLE)
def test_8_bits_arrive_as_they_are(tmp_path, mode, ending):
    image = Image.fromarray(CONVERTIBLE[mode])
    assert image.mode == mode
    options = {"lossless": True} if ending == "webp" else {}
    image.save(tmp_path / f"a.{ending}", **options)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_rgb(tmp_path / f"a.{ending}"), expected)
    picture = read_image(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.depth == 8
    if ending not in ("webp", "ppm"):
        assert picture.grey == (mode != "RGB")


def test_grey_of_few_bits_spans_the_range(tmp_path):
    two_bits = np.array([[0b00011011]], np.uint8)  # 0, 1, 2, 3
    raw = png(two_bits, 2, 0)
    head = struct.pack(">2I5B", 4, 1, 2, 0, 0, 0, 0)
    raw = raw.replace(
        raw[8:33],
        struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)),
    )
    (tmp_path / "a.png").write_bytes(raw)
    assert read_rgb(tmp_path / "a.png")[0, :, 0].tolist() == [0, 85, 170, 255]


def test_palette(tmp_path):
    image = Image.fromarray(RGB8).quantize(16)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), np.asarray(image.convert("RGB")))
    image.save(tmp_path / "b.png", transparency=3)
    picture = read_image(tmp_path / "b.png")
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha == 0, np.asarray(image) == 3)
    with pytest.raises(UserError, match="transparent pixels"):
        read_rgb(tmp_path / "b.png")


@pytest.mark.parametrize("bits", [8, 16])
def test_transparent_colour_of_a_png(tmp_path, bits):
    array = RGB8 if bits == 8 else RGB16
    key = struct.pack(">3H", *(int(v) for v in array[2, 3]))
    (tmp_path / "a.png").write_bytes(png(array, bits, 2, (b"tRNS", key)))
    alpha = read_image(tmp_path / "a.png").alpha
    assert alpha is not None
    assert alpha[2, 3] == 0
    assert (alpha == 2**bits - 1).sum() == alpha.size - 1


def test_opaque_alpha_is_dropped_and_real_transparency_refused_for_training(tmp_path):
    for value, ok in ((255, True), (254, False)):
        alpha = np.full((9, 14, 1), 255, np.uint8)
        alpha[3, 3] = value
        Image.fromarray(np.concatenate([RGB8, alpha], -1)).save(tmp_path / "a.png")
        if ok:
            np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), RGB8)
        else:
            with pytest.raises(UserError, match="opaque"):
                read_rgb(tmp_path / "a.png")
        carried = read_image(tmp_path / "a.png").alpha
        assert carried is not None and carried[3, 3] == value


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    exif[271] = "Maker"
    exif.get_ifd(34665).update({40962: 14, 40963: 9, 33434: 0.01})
    for name in ("a.png", "a.jpg"):
        path = tmp_path / name
        Image.fromarray(RGB8).save(path, exif=exif, dpi=(300, 200))
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        picture = read_image(path)
        np.testing.assert_array_equal(picture.pixels, expected)
        np.testing.assert_array_equal(read_rgb(path), expected)
        write_image(tmp_path / f"out-{name}", picture.unit(), like=picture)
        with Image.open(tmp_path / f"out-{name}") as image:
            kept = image.getexif()
            assert (kept.get(274, 1), kept[271]) == (1, "Maker")
            details = kept.get_ifd(34665)
            assert (details[40962], details[40963]) == image.size
            sides = (300, 200) if orientation < 5 else (200, 300)
            assert np.round(image.info["dpi"]).tolist() == list(sides)


def _rich_png(path, array):
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "Günther")
    info.add_itxt("Note", "雨 rain")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[315] = "Artist"
    exif.get_ifd(34853).update({1: "N", 2: (48.0, 1.0, 2.0)})
    Image.fromarray(array).save(path, pnginfo=info, icc_profile=profile, exif=exif, dpi=(144, 144))
    return profile


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("depth", [8, 16])
def test_metadata_are_carried(tmp_path, ending, depth):
    profile = _rich_png(tmp_path / "a.png", RGB8)
    picture = read_image(tmp_path / "a.png")
    if depth == 16:
        wide = {"pixels": picture.pixels.astype(np.uint16) * 257}
        picture = Picture(**wide, about=picture.about)
    out = tmp_path / f"b.{ending}"
    write_image(out, picture.unit(), like=picture)
    back = read_image(out)
    assert back.depth == (depth if ending in ("png", "tif") else 8)
    assert back.about.icc == profile
    with Image.open(out) as image:
        exif = image.getexif()
        assert exif[315] == "Artist"
        assert exif.get_ifd(34853)[1] == "N"
        assert tuple(exif.get_ifd(34853)[2]) == (48.0, 1.0, 2.0)
        if ending != "webp":
            assert [round(float(d)) for d in image.info["dpi"]] == [144, 144]
        if ending == "png":
            assert isinstance(image, PngImagePlugin.PngImageFile)
            assert (image.text["Title"], image.text["Note"]) == ("Günther", "雨 rain")


def test_xmp_is_carried_without_its_orientation(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(RGB8).save(tmp_path / "a.jpg", xmp=xmp, exif=exif)
    picture = read_image(tmp_path / "a.jpg")
    for name in ("b.jpg", "b.png", "b.tif", "b.webp"):
        write_image(tmp_path / name, picture.unit(), like=picture)
        with Image.open(tmp_path / name) as image:
            kept = image.info["xmp"]
        assert kept.rstrip(b"\0") == xmp.replace(b'"6"', b'"1"'), name


def _cases():
    for ending, depths in (("png", (8, 16)), ("tif", (8, 16, 32)), ("npy", (8, 16, 32))):
        yield from itertools.product([ending], depths, (1, 2, 3, 4))


@pytest.mark.parametrize(("ending", "depth", "channels"), list(_cases()))
def test_written_files_read_back_exactly(tmp_path, ending, depth, channels):
    dtype = {8: np.uint8, 16: np.uint16, 32: np.float32}[depth]
    array = RNG.random((301, 1200, channels))  # several strips
    if depth < 32:
        array = np.round(array * (2**depth - 1))
    array = array.astype(dtype)
    np.save(tmp_path / "a.npy", array)
    picture = read_image(tmp_path / "a.npy")
    path = tmp_path / f"b.{ending}"
    write_image(path, picture.unit(), like=picture)
    if ending == "tif" and ((depth == 32 and channels > 1) or (depth == 16 and channels == 2)):
        np.testing.assert_allclose(tifffile.imread(path), array, rtol=1e-6)  # Pillow cannot
        return
    back = read_image(path)
    assert (back.depth, back.grey) == (depth, channels < 3)
    np.testing.assert_allclose(back.pixels, picture.pixels, rtol=1e-6)
    assert (back.alpha is None) == (picture.alpha is None) == (channels in (1, 3))
    if back.alpha is not None and picture.alpha is not None:
        np.testing.assert_allclose(back.alpha, picture.alpha, rtol=1e-6)
    if ending == "tif":
        np.testing.assert_allclose(tifffile.imread(path).reshape(array.shape), array, rtol=1e-6)


def test_16_bit_png_is_read_by_others(tmp_path):
    np.save(tmp_path / "a.npy", RGB16)
    picture = read_image(tmp_path / "a.npy")
    write_image(tmp_path / "a.png", picture.unit(), like=picture)
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), RGB16 >> 8)


def test_jpeg_keeps_quality(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(64))[..., None] * np.array([1, 0.5, 1.5]) / 192
    write_image(tmp_path / "a.jpg", smooth)
    back = read_image(tmp_path / "a.jpg")
    assert np.abs(back.unit() - smooth).max() < 0.03
    with Image.open(tmp_path / "a.jpg") as image:
        assert getattr(image, "layer")[0][1:3] == (1, 1)  # 4:4:4  # noqa: B009  # untyped


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_large_noise_is_written(tmp_path, ending):
    """What compresses worst, with much metadata."""
    _rich_png(tmp_path / "a.png", RGB8)
    about = read_image(tmp_path / "a.png").about
    noise = RNG.integers(0, 256, (900, 1100, 3), np.uint8)
    noise[..., 1] = 255 - noise[..., 0]
    picture = Picture(pixels=noise, about=about)
    write_image(tmp_path / f"b.{ending}", picture.unit(), like=picture)
    back = read_image(tmp_path / f"b.{ending}").pixels.astype(int)
    assert np.abs(back - noise).mean() <= (6 if ending == "jpg" else 0)


def test_values_are_clipped_and_rounded(tmp_path):
    values = np.broadcast_to(np.array([-0.5, 100.4 / 255, 1.5], np.float32), (2, 2, 3))
    write_image(tmp_path / "a.png", values)
    assert read_rgb(tmp_path / "a.png")[0, 0].tolist() == [0, 100, 255]


def test_grey_stays_grey(tmp_path):
    Image.fromarray(RGB8[..., 0]).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    tinted = picture.unit() + np.array([0.02, 0.0, -0.02], np.float32)
    write_image(tmp_path / "b.png", np.clip(tinted, 0, 1), like=picture)
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "L"


def test_transparency_is_not_lost_silently(tmp_path):
    array = np.concatenate([RGB8, RGB8[..., :1]], -1)
    Image.fromarray(array).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    with pytest.raises(UserError, match="transparency"):
        write_image(tmp_path / "a.jpg", picture.unit(), like=picture)
    write_image(tmp_path / "b.webp", picture.unit(), like=picture)
    np.testing.assert_array_equal(read_image(tmp_path / "b.webp").alpha, array[..., 3])


def test_float_pictures(tmp_path):
    grey = RNG.random((9, 14), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", grey)
    picture = read_image(tmp_path / "a.tif")
    assert (picture.depth, picture.grey) == (32, True)
    np.testing.assert_array_equal(picture.pixels[..., 1], grey)
    with pytest.raises(UserError, match="8 or 16 bits, found floating point"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize("ending", ["npy", "tif"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.nan, np.nan, 0.5], "found 2 that are NaN or infinite"),
        ([np.inf, 0.1, 0.5], "found 1 that are NaN or infinite"),
        ([0.0, 255.0, 1.0], r"in \[0, 1\], found 0 to 255"),
        ([0.0, -0.25, 1.0], r"in \[0, 1\], found -0.25 to 1"),
    ],
)
def test_float_values_are_checked(tmp_path, ending, values, message):
    array = np.full((4, 5), 0.5, np.float32)
    array[0, :3] = values
    path = tmp_path / f"a.{ending}"
    np.save(path, array) if ending == "npy" else tifffile.imwrite(path, array)
    with pytest.raises(UserError, match=message):
        read_image(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), r"\(2, 3, 4, 5\)"),
        (np.zeros((4, 5, 7), np.uint8), r"\(4, 5, 7\)"),
        (np.zeros((4, 5), np.int64), "int64"),
        (np.zeros((0, 5, 3), np.uint8), "without pixels"),
        (np.array([None, 3], object), "Python objects"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=message):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_cmyk_is_converted_and_that_is_said(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    inks.save(path)
    picture = read_image(path)
    assert picture.note.startswith("CMYK without a profile, read as RGB by a plain formula")
    assert np.abs(picture.pixels.astype(int) - (255, 0, 0)).max() < 8
    inks.save(path, icc_profile=b"no profile" * 20)
    picture = read_image(path)
    assert picture.note.startswith("CMYK with a profile that cannot be used")
    np.testing.assert_array_equal(picture.pixels, read_rgb(path))


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"rowsperstrip": 3}, {"byteorder": ">"}]
)
def test_floating_point_colour_tiff_is_read(tmp_path, options):
    values = np.random.default_rng(0).random((20, 24, 3), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", **options)
    picture = read_image(tmp_path / "a.tif")
    assert picture.depth == 32
    np.testing.assert_array_equal(picture.pixels, values)
    write_image(tmp_path / "b.tif", values, like=picture)
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif").pixels, values)
    raw = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match="whole picture"):
        read_image(tmp_path / "a.tif")


def test_floating_point_tiff_in_another_arrangement_is_named(tmp_path):
    values = np.zeros((32, 32, 3), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", tile=(16, 16))
    with pytest.raises(UserError, match="a floating-point TIFF of up to four channels"):
        read_image(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", values - 1, photometric="rgb")
    with pytest.raises(UserError, match=r"values in \[0, 1\], found -1"):
        read_image(tmp_path / "b.tif")


def test_no_resolution_is_invented(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").about.dpi is None
    write_image(tmp_path / "b.png", np.zeros((4, 4, 3)), like=read_image(tmp_path / "a.tif"))
    with Image.open(tmp_path / "b.png") as image:
        assert "dpi" not in image.info
