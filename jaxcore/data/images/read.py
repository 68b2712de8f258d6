"""Reading pictures.

Read are PNG, JPEG, TIFF, WebP, BMP, PPM and PGM of 8 bits, PNG and TIFF of 16, TIFF of
floating point, and NumPy arrays (`.npy`) of 8 and 16 bits and floating point. Pillow reads colour
of 16 bits as 8; here every bit arrives, or the file is refused. CMYK of 8 bits becomes sRGB through
the profile of the file, or by Pillow's plain formula where it has none, and `Picture.note` says so.
Refused in one sentence, because any reading would be a guess: animations and files of several
pages, Lab, damaged and truncated files. So is a picture that would take more than `MAX_BYTES`,
before anything is decoded; decoding takes at most three times what the picture takes, and the file.

A colour profile is carried along, not applied: numbers in, numbers out.
"""

import dataclasses
import functools
import io
import operator
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8, UInt16

from jaxcore.data.images.crops import to_float
from jaxcore.data.images.float_tiff import read_float_tiff
from jaxcore.data.images.formats import FORMATS
from jaxcore.data.images.metadata import UPRIGHT, Metadata, describe, orientation_of
from jaxcore.data.npy import open_npy
from jaxcore.errors import UserError

MAX_BYTES = 2**30
"""Bytes that the RGB (or RGBA) pixels of a picture may take by default.

A guard against tiny files that swell: 1 GiB holds 357 million pixels of 8 bits, 178 million of 16;
the largest cameras have 151 million.
"""
_STRIP = 2**24  # bytes of Pillow's pixels that are converted together


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """An upright picture and everything its file said about it.

    Attributes:
      pixels: RGB, (height, width, 3); uint8, uint16, or float32 in [0, 1]. Grey is repeated.
      alpha: opacity, (height, width), of the type of ``pixels``; None without it.
      grey: whether the file has one colour channel.
      format: "PNG", "JPEG", ..., "NPY".
      about: colour profile, EXIF, resolution, comments.
      note: what was done to read it, where that is more than reading.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    format: str = ""
    about: Metadata = dataclasses.field(default_factory=Metadata)
    note: str = ""

    @property
    def depth(self) -> int:
        """Bits per channel: 8, 16, or 32 for floating point."""
        return 8 * self.pixels.itemsize

    def unit(self) -> Float[np.ndarray, "h w 3"]:
        """The colours as float32 in [0, 1]."""
        return to_float(self.pixels)


def read_rgb(
    path: str | Path, *, max_bytes: int = MAX_BYTES
) -> UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w 3"]:
    """Read a picture of whole numbers as RGB, turned upright; grey is repeated.

    A fully opaque alpha channel is dropped.

    Raises:
      UserError: missing, damaged, too large, floating-point, or with real transparency.
    """
    samples, *_ = _read(Path(path), max_bytes, full=False)
    if samples.dtype.kind == "f":
        raise UserError(f"Expected a picture of 8 or 16 bits, found floating point in {path}.")
    rgb, alpha, _ = _split(samples)
    if alpha is not None and (alpha != np.iinfo(alpha.dtype).max).any():
        raise UserError(f"Expected an opaque picture, found transparent pixels in {path}.")
    return rgb


def read_image(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Picture:
    """Read a picture with its alpha channel and metadata, turned upright.

    Args:
      path: the file; its content decides the format.
      max_bytes: what the pixels may take: width x height x channels x bytes of a sample.

    Raises:
      UserError: missing, damaged, too large, of a kind that is not read (see the module), or
        floating point outside [0, 1] or not finite.
    """
    samples, kind, about, note = _read(Path(path), max_bytes, full=True)
    if samples.dtype.kind == "f":
        _check_floats(samples, str(path))
    rgb, alpha, grey = _split(samples)
    return Picture(pixels=rgb, alpha=alpha, grey=grey, format=kind, about=about, note=note)


def _check_floats(samples: np.ndarray, where: str) -> None:
    bad = samples.size - int(np.isfinite(samples).sum())
    if bad:
        raise UserError(f"Expected finite values, found {bad} that are NaN or infinite in {where}.")
    low, high = samples.min(), samples.max()
    if low < 0 or high > 1:
        raise UserError(f"Expected values in [0, 1], found {low:g} to {high:g} in {where}.")


def _split(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """(height, width, 1 to 4 channels) as RGB, alpha, and whether it was grey."""
    channels = samples.shape[-1]
    alpha = np.ascontiguousarray(samples[..., -1]) if channels in (2, 4) else None
    if channels < 3:
        return np.repeat(samples[..., :1], 3, axis=-1), alpha, True
    return np.ascontiguousarray(samples[..., :3]), alpha, False


def check_size(width: int, height: int, pixel: int, limit: int, where: str | Path) -> None:
    """Refuse a picture before memory is taken for it.

    Args:
      width: in pixels.
      height: in pixels.
      pixel: bytes of one pixel.
      limit: bytes of all pixels.
      where: the file, for the message.

    Raises:
      UserError: no pixels, or more bytes than the limit.
    """
    if width <= 0 or height <= 0:
        raise UserError(f"Expected a picture, found one without pixels in {where}.")
    if (size := width * height * pixel) > limit:
        raise UserError(
            f"Expected at most {limit:,} bytes of pixels, found {width}x{height}, which take "
            f"{size:,}, in {where}."
        )


_Content = tuple[np.ndarray, str, Metadata, str]
"""Samples (height, width, channels), format, metadata and what was done to read them."""


def _read(path: Path, limit: int, *, full: bool) -> _Content:
    try:
        with path.open("rb") as file:
            magic = file.read(6)
            file.seek(0)
            if magic == b"\x93NUMPY":
                return _read_npy(path, limit), "NPY", Metadata(), ""
            return _read_pillow(file, path, limit, full)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"Expected a picture, found no file {path}.") from None
    except (IsADirectoryError, PermissionError, NotADirectoryError) as error:
        raise UserError(f"Expected a picture, found {path}: {error.strerror}.") from None
    except Exception as error:  # damaged files make the decoders raise nearly anything
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(f"Expected a whole picture, found {path}: {reason}.") from error


def _read_npy(path: Path, limit: int) -> np.ndarray:
    array = open_npy(path)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 2, 3, 4):
        raise UserError(
            "Expected an array (height, width) or (height, width, 1 to 4 channels), found "
            f"{array.shape} in {path}."
        )
    floating = np.issubdtype(array.dtype, np.floating)
    if not floating and array.dtype.name not in ("uint8", "uint16"):
        raise UserError(f"Expected uint8, uint16 or floating point, found {array.dtype} in {path}.")
    channels = {1: 3, 2: 4}.get(array.shape[-1], array.shape[-1])
    pixel = channels * (4 if floating else array.dtype.itemsize)
    check_size(array.shape[1], array.shape[0], pixel, limit, path)
    with np.errstate(over="ignore"):  # infinities are reported later
        return np.array(array, np.float32 if floating else array.dtype.name)


_READ = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM")
_LOCK = threading.Lock()


def open_image(file: Any) -> Any:
    """Open an image with Pillow, for its header: only the formats that are read here.

    Pillow's own limit on pixels is left out: it is a global, and may lie below ours.

    Args:
      file: opened in binary mode.
    """
    from PIL import Image

    file.seek(0)
    with _LOCK:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=_READ)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _read_pillow(file: Any, path: Path, limit: int, full: bool) -> _Content:
    from PIL import UnidentifiedImageError

    try:
        image = open_image(file)
    except UnidentifiedImageError:
        check = functools.partial(check_size, limit=limit, where=path)
        floats = read_float_tiff(file, check, path)
        if floats is not None:
            return floats, "TIFF", Metadata(), ""
        found = _foreign(file) or "other or damaged content"
        raise UserError(
            f"Expected a picture ({', '.join(FORMATS)}), found {found} in {path}."
        ) from None
    with image:
        check_size(image.width, image.height, _pixel(image), limit, path)
        # A TIFF has to be walked through to count its pages. MPO is of cameras: the first picture
        # is the photograph.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            found = "several pages" if image.format == "TIFF" else f"{image.n_frames} frames"
            raise UserError(f"Expected one still picture, found {found} in {path}.")
        kind = "JPEG" if image.format == "MPO" else image.format
        if kind == "PNG":
            open_image(file).verify()  # the checksums, which decoding does not look at
        note = ""
        if image.mode == "CMYK" and _unreadable(image, _raw(image)) is None:
            shown, note = _from_cmyk(image)
            samples = _array(shown, channels=3, dtype=np.uint8, take=np.asarray)
        else:
            samples = _samples(image, file, path)
        orientation = orientation_of(image)
        about = describe(image, orientation) if full else Metadata()
    return UPRIGHT[orientation](samples), kind, about, note


# What people have besides: (place in the file, bytes) -> name.
_FOREIGN = {
    (0, b"GIF8"): "a GIF",
    (4, b"ftypheic"): "HEIC",
    (4, b"ftypheix"): "HEIC",
    (4, b"ftypmif1"): "HEIC",
    (4, b"ftypavif"): "AVIF",
    (0, b"\xff\x0a"): "JPEG XL",
    (4, b"JXL "): "JPEG XL",
    (0, b"8BPS"): "a Photoshop file",
    (0, b"%PDF"): "a PDF",
    (0, b"<svg"): "an SVG",
    (4, b"ftypisom"): "a video",
    (4, b"ftypmp42"): "a video",
}


def _foreign(file: Any) -> str | None:
    """Name of a known format that is not read here."""
    file.seek(0)
    head = file.read(16)
    found = (name for (at, sign), name in _FOREIGN.items() if head[at:].startswith(sign))
    name = next(found, None)
    return None if name is None else f"{name}, which has to be converted first,"


def _from_cmyk(image: Any) -> tuple[Any, str]:
    """A decoded CMYK image as RGB, and how."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    image.load()
    note = "CMYK without a profile, read as RGB by a plain formula: colours are approximate"
    if profile:
        try:
            made = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError):
            note = "CMYK with a profile that cannot be used, read as RGB by a plain formula"
        else:
            return made, "CMYK, converted to sRGB through its profile"
    return image.convert("RGB"), note


def _raw(image: Any) -> set[Any]:
    """How the samples of an image that is not decoded yet are packed."""
    return {tile.args[0] if isinstance(tile.args, tuple) else tile.args for tile in image.tile}


def _pixel(image: Any) -> int:
    """Bytes of one pixel as RGB or RGBA."""
    clear = "transparency" in image.info or image.mode in _CLEAR
    wide = image.mode.startswith("I;16") or any(";16" in str(raw) for raw in _raw(image))
    return (4 if clear else 3) * (4 if image.mode == "F" else 2 if wide else 1)


def _array(*images: Any, channels: int, dtype: Any, take: Callable[..., Any]) -> np.ndarray:
    """An array (height, width, channels) from images, decoded whole but converted in strips.

    Pillow keeps four bytes of every colour pixel; a second whole copy is never made.

    Args:
      *images: of one size.
      channels: of the array.
      dtype: of the array.
      take: the same strip of each image -> its part of the array.
    """
    width, height = images[0].size
    out = np.empty((height, width, channels), dtype)
    rows = max(1, _STRIP // (4 * width))
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        part = np.asarray(take(*(image.crop(box) for image in images)), dtype)
        out[box[1] : box[3]] = part.reshape(-1, width, channels)
    return out


def _samples(image: Any, file: Any, path: Path) -> np.ndarray:
    """Decode to (height, width, channels) without loss of depth."""
    raw = _raw(image)
    key = image.info.get("transparency")
    if problem := _unreadable(image, raw):
        raise UserError(
            f"Expected a grey or RGB picture of 8 or 16 bits, found {problem} in {path}."
        )
    if any(isinstance(r, str) and ";16" in r for r in raw) and image.mode in ("RGB", "RGBA"):
        return _with_key(_wide(image, file, str(*raw)), key)
    if image.mode.startswith("I;16"):
        return _with_key(_array(image, channels=1, dtype=np.uint16, take=np.asarray), key)
    if image.mode == "F":
        return _array(image, channels=1, dtype=np.float32, take=np.asarray)
    clear = key is not None or image.mode in _CLEAR
    mode = ("LA" if clear else "L") if image.mode in ("1", "L", "La", "LA") else "RGB"
    mode = "RGBA" if mode == "RGB" and clear else mode
    take = operator.methodcaller("convert", mode)
    return _array(image, channels=len(mode), dtype=np.uint8, take=take)


_CLEAR = ("PA", "La", "LA", "RGBa", "RGBA")
_MODES = ("1", "L", "La", "LA", "P", "PA", "RGB", "RGBX", "RGBa", "RGBA", "YCbCr", "CMYK", "F")
_WIDE = ("RGB;16L", "RGB;16B", "RGB;16N", "RGBA;16L", "RGBA;16B", "RGBA;16N", "LA;16B")


def _unreadable(image: Any, raw: set[Any]) -> str | None:
    """What is wrong with the kind of samples, None if they can be read exactly."""
    tags = getattr(image, "tag_v2", {})
    bits = max(tags.get(258, (8,)))
    if image.mode.startswith("I;16"):
        inverted = tags.get(262) == 0
        if bits == 12 or inverted:
            return "12 bits" if bits == 12 else "16 bits with white as zero"
        return None
    if image.mode not in _MODES:
        return {"I": "whole numbers of 16 (signed) or 32 bits"}.get(image.mode, image.mode)
    wide = bits > 8 or any(isinstance(r, str) and ";16" in r for r in raw)
    if image.mode != "F" and wide and not (len(raw) == 1 and raw <= set(_WIDE)):
        return f"{bits} bits in an arrangement that is not read"
    for tile in image.tile:
        if tile.codec_name.startswith("ppm") and tile.args[-1] != 255 and image.mode != "F":
            return f"values up to {tile.args[-1]}"
    return None


def _wide(image: Any, file: Any, raw: str) -> np.ndarray:
    """Colour of 16 bits, by decoding the high and the low bytes one after the other.

    Pillow unpacks such samples to their high byte. In the other byte order it unpacks the low
    one.
    """
    if raw == "LA;16B":
        planes = _retell(image, "RGBA")  # the four bytes as they are
        return _array(planes, channels=2, dtype=np.uint16, take=_joined_pairs)
    with open_image(file) as again:
        order = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}[raw[-1]]
        image.load()  # before the other moves the place in the file
        low = _retell(again, raw[:-1] + order)
        channels = len(image.mode)
        return _array(image, low, channels=channels, dtype=np.uint16, take=_joined)


def _joined(high: Any, low: Any) -> np.ndarray:
    """Samples of 16 bits from their two bytes."""
    return np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)


def _joined_pairs(planes: Any) -> np.ndarray:
    """Samples of 16 bits from bytes that follow each other."""
    samples = np.asarray(planes)
    return _joined(samples[..., ::2], samples[..., 1::2])


def _retell(image: Any, raw: str) -> Any:
    """Have the tiles of an image that is not decoded yet unpacked in another way."""
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in image.tile
    ]
    return image


def _with_key(samples: np.ndarray, key: Any) -> np.ndarray:
    """Add alpha: 0 where a pixel has the one colour that a PNG declares transparent."""
    if key is None:
        return samples
    opaque = (samples != np.asarray(key, np.uint16)).any(axis=-1, keepdims=True)
    return np.concatenate([samples, opaque * np.uint16(65535)], axis=-1)
