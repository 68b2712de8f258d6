"""FITS files in and out: every kind of pixels, HDU and packing arrives right or is refused."""

import bz2
import gzip
import lzma
import sys

import numpy as np
import pytest
from astropy.io import fits

from jaxcore.data.astro import FitsImage, check_units, per_area, read_fits, write_fits
from jaxcore.errors import UserError

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(10, 2, (20, 24)).astype(np.float32)
WHOLE = RNG.integers(0, 100, (6, 8))


@pytest.fixture
def many(tmp_path):
    """A file with a table, planes and compressed tiles behind an empty first HDU."""
    table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.ones(3))], name="CAT")
    hdus = [
        fits.ImageHDU(IMAGE, name="SCI"),
        fits.CompImageHDU(IMAGE, name="ERR", quantize_level=0),
    ]
    twice = [fits.ImageHDU(IMAGE + 1, name="SCI", ver=2), fits.ImageHDU(WHOLE, name="DQ")]
    path = tmp_path / "many.fits"
    fits.HDUList([fits.PrimaryHDU(), table, *hdus, *twice]).writeto(path)
    return path


@pytest.mark.parametrize(
    ("hdu", "expected", "number"),
    [(None, IMAGE, 2), (2, IMAGE, 2), ("sci", IMAGE, 2), ("SCI,2", IMAGE + 1, 4), ("DQ", WHOLE, 5)],
)
def test_an_hdu_is_found_by_number_and_name(many, hdu, expected, number):
    image = read_fits(many, hdu)
    assert image.hdu == number
    np.testing.assert_array_equal(image.pixels, expected)


@pytest.mark.parametrize(
    ("hdu", "sentence"),
    [
        ("CAT", "found a table; images are in HDU 2 (SCI), HDU 3 (ERR), HDU 4 (SCI), HDU 5 (DQ)."),
        (0, "Expected an image in HDU 0"),
        (9, "found no HDU 9; images are in HDU 2 (SCI)"),
        ("WHT", "found no HDU WHT; images are in"),
        ("-1", "found no HDU -1"),
    ],
)
def test_a_wrong_hdu_is_named_with_the_right_ones(many, hdu, sentence):
    with pytest.raises(UserError) as error:
        read_fits(many, hdu)
    assert sentence in str(error.value)


@pytest.mark.parametrize("kind", [">i2", ">i4", ">i8", "u1", ">u2", ">u4", ">f4", ">f8"])
@pytest.mark.parametrize("tiles", [False, True])
def test_pixels_of_every_kind_arrive_in_the_order_of_the_machine(tmp_path, kind, tiles):
    pixels = WHOLE.astype(kind)
    if kind in (">u2", ">u4"):  # stored with BZERO
        pixels = pixels + np.array(np.iinfo(kind).max - 100, kind)
    packed = [fits.PrimaryHDU(), fits.CompImageHDU(pixels, quantize_level=0)] if tiles else None
    path = tmp_path / "a.fits"
    if tiles and kind == ">i8":
        pytest.skip("the format has no compressed whole numbers of 64 bits")
    fits.HDUList(packed or [fits.PrimaryHDU(pixels)]).writeto(path)
    read = read_fits(path).pixels
    assert read.dtype.isnative and read.dtype.kind == "f"
    np.testing.assert_array_equal(read, pixels.astype(float))


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize(("scale", "zero"), [(1, 0), (0.5, -3), (1, 32768)])
def test_whole_numbers_are_scaled_and_blank_ones_are_missing(tmp_path, tiles, scale, zero):
    hdu = fits.ImageHDU(WHOLE.astype(np.int16))
    blank = int(WHOLE[2, 3])
    if tiles:
        hdu = fits.CompImageHDU(WHOLE.astype(np.int16))
    hdu.header.update(BLANK=blank, BSCALE=scale, BZERO=zero)
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    expected = np.where(WHOLE == blank, np.nan, WHOLE * scale + zero)
    np.testing.assert_allclose(read_fits(path).pixels, expected)
    # What is written has no scale that would be applied once more.
    write_fits(tmp_path / "b.fits", [read_fits(path)])
    np.testing.assert_allclose(read_fits(tmp_path / "b.fits").pixels, expected, rtol=1e-6)
    cards = fits.getheader(tmp_path / "b.fits", 1)
    assert not {"BSCALE", "BZERO", "BLANK"} & set(cards)


def test_tiles_may_be_smaller_than_the_pixels_they_hold(tmp_path):
    path = tmp_path / "a.fits.fz"
    flat = np.ones((300, 300), np.int32)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(flat)]).writeto(path)
    assert path.stat().st_size < flat.nbytes / 2
    np.testing.assert_array_equal(read_fits(path).pixels, flat)
    path.write_bytes(path.read_bytes()[:-2880])
    with pytest.raises(UserError, match="cut off"):
        read_fits(path)


def test_missing_pixels_of_compressed_floats_stay_single(tmp_path):
    pixels = IMAGE.copy()
    pixels[3, 5:7] = np.nan
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels)]).writeto(path)
    assert np.argwhere(np.isnan(read_fits(path).pixels)).tolist() == [[3, 5], [3, 6]]


def test_missing_whole_numbers_of_compressed_tiles_are_missing(tmp_path):
    """Some archives name them by ZBLANK, which is meant for floating point."""
    pixels = WHOLE.astype(np.int16)
    file = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, compression_type="RICE_1")])
    file.writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    card = f"ZBLANK  = {int(pixels[1, 1]):>20}".ljust(80).encode()
    at = content.rindex(b"END" + b" " * 77)
    (tmp_path / "a.fits").write_bytes(
        content[:at] + card + content[at : at + 80] + content[at + 160 :]
    )
    read = read_fits(tmp_path / "a.fits").pixels
    np.testing.assert_array_equal(read, np.where(pixels == pixels[1, 1], np.nan, pixels))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_are_read(tmp_path, pack):
    fits.writeto(tmp_path / "a.fits", IMAGE)
    (tmp_path / "b.fits.gz").write_bytes(pack((tmp_path / "a.fits").read_bytes()))
    np.testing.assert_array_equal(read_fits(tmp_path / "b.fits.gz").pixels, IMAGE)


def _announced(path, **cards):
    """A small file whose header says more than is there."""
    fits.writeto(path, np.zeros((4, 4), np.float32))
    content = path.read_bytes()
    for name, value in cards.items():
        at = content.index(name.encode().ljust(8) + b"=")
        content = content[:at] + f"{name:<8}= {value:>20}".encode() + content[at + 30 :]
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("cards", "sentence"),
    [
        ({"NAXIS1": 4_000_000_000}, "it is cut off"),
        ({"NAXIS1": -4}, "Expected"),
        ({"BITPIX": 17}, "Expected"),
        ({"NAXIS": 999}, "Expected"),
    ],
)
def test_what_a_header_announces_is_compared_with_the_file(tmp_path, cards, sentence):
    _announced(tmp_path / "a.fits", **cards)
    with pytest.raises(UserError, match=sentence):
        read_fits(tmp_path / "a.fits")


def test_a_small_packed_file_cannot_ask_for_gigabytes(tmp_path):
    path = tmp_path / "bomb.fits.xz"
    fits.writeto(tmp_path / "a.fits", np.zeros((4, 4), np.float32))
    path.write_bytes(lzma.compress((tmp_path / "a.fits").read_bytes() + bytes(2**26)))
    with pytest.raises(UserError, match=r"Expected at most .* found more"):
        read_fits(path)


def test_an_image_beyond_the_bound_is_refused(many):
    with pytest.raises(UserError, match=r"1,000 bytes, found 20 x 24 pixels in HDU 2"):
        read_fits(many, max_bytes=1000)


@pytest.mark.parametrize("content", [b"", b"hello" * 1000, b"\x89PNG" + bytes(100), b"\x1f\x8bxx"])
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "a.fits").write_bytes(content)
    with pytest.raises(UserError, match="Expected an image in "):
        read_fits(tmp_path / "a.fits")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "a.fits", tmp_path):
        with pytest.raises(UserError, match="Expected an image in the FITS file"):
            read_fits(path)


def test_a_word_for_a_scale_is_refused(tmp_path):
    fits.writeto(tmp_path / "a.fits", WHOLE.astype(np.int16))
    content = (tmp_path / "a.fits").read_bytes()
    card = b"BSCALE  = 'one     '".ljust(80)
    (tmp_path / "a.fits").write_bytes(content.replace(b"EXTEND".ljust(8) + b"=", card + b"XX", 1))
    content = (tmp_path / "a.fits").read_bytes()
    with pytest.raises(UserError, match=r"BSCALE|damaged|cut off"):
        read_fits(tmp_path / "a.fits")


def test_a_card_against_the_standard_does_not_stop_the_rest(tmp_path):
    fits.writeto(tmp_path / "a.fits", IMAGE, fits.Header({"GAIN": 12345, "OBJECT": "M51"}))
    content = (tmp_path / "a.fits").read_bytes().replace(b"12345", b"1,2,3")
    (tmp_path / "a.fits").write_bytes(content)
    image = read_fits(tmp_path / "a.fits")
    assert image.header["GAIN"] == "1,2,3"  # a text, as it is no number
    assert image.header["OBJECT"] == "M51"


def test_cards_and_history_are_kept_and_checksums_are_not(tmp_path):
    path, out = tmp_path / "a.fits", tmp_path / "b.fits.gz"
    first = fits.PrimaryHDU(header=fits.Header({"TELESCOP": "VLT"}))
    second = fits.ImageHDU(IMAGE, fits.Header({"OBJECT": "M51", "BUNIT": "nJy"}), name="SCI")
    fits.HDUList([first, second]).writeto(path, checksum=True)
    write_fits(out, [read_fits(path)], ["one", "twö\nlines"])
    with fits.open(out) as file:
        assert file[0].header["TELESCOP"] == "VLT" and file[0].data is None
        cards = file["SCI"].header
        assert (cards["OBJECT"], cards["BITPIX"]) == ("M51", -32)
        assert list(cards["HISTORY"]) == ["one", "tw\\xf6\\nlines"]
        assert "CHECKSUM" not in cards and "DATASUM" not in cards
        np.testing.assert_array_equal(file["SCI"].data, IMAGE)


def test_a_file_is_not_replaced_unless_asked_for(tmp_path):
    image = FitsImage(pixels=IMAGE, header=fits.Header())
    write_fits(tmp_path / "a.fits", [image])
    with pytest.raises(UserError, match="exists already"):
        write_fits(tmp_path / "a.fits", [image])
    write_fits(tmp_path / "a.fits", [image], overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.fits"]


def test_units_are_compared_by_what_they_measure():
    names = ("the image", "the variance")
    assert check_units("", "Jy", names) == check_units("Jy", "", names) == 1
    assert check_units("electrons", "electrons", names) == 1
    assert check_units("nJy", "uJy", names) == pytest.approx(1000)
    assert check_units("electron/s", "electron2/s2", names, 2) == 1
    assert check_units("Jy", "1/mJy2", names, -2) == pytest.approx(1e6)
    assert check_units("counts", "counts squared", names, 2) == 1  # no units: nothing to compare
    for other, power in (("m", 1), ("Jy", 2)):
        with pytest.raises(UserError, match="unit of the image"):
            check_units("Jy", other, names, power)


def test_brightness_per_angle_is_told_from_flux():
    assert [per_area(u) for u in ("MJy sr-1", "erg/s/cm2/arcsec2", "Jy/beam", "adu", "what")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    with pytest.raises(UserError, match="pixels that add up"):
        per_area("mag/arcsec2")


def test_without_astropy_a_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "astropy.io", None)
    with pytest.raises(UserError, match=r"pip install 'jaxcore\[astro\]'"):
        read_fits(tmp_path / "a.fits")
