"""Arrays as the bytes of image files, with metadata; 16 bits per channel where the format can.

Pillow writes one grey channel of 16 bits at most, so PNG and TIFF of more depth are written here.
"""

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcore.data.images.metadata import Metadata
from jaxcore.errors import UserError

Encode = Callable[[np.ndarray, Metadata], bytes]
"""(height, width, channels) uint8, uint16 or float32, and metadata -> content of the file."""


@dataclasses.dataclass(frozen=True)
class Format:
    """What the files of one ending can hold."""

    encode: Encode
    depths: tuple[int, ...] = (8,)  # bits per channel; 32 is floating point
    channels: tuple[int, ...] = (1, 3)  # grey, grey and alpha, RGB, RGBA


def _pillow(array: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def _save(array: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()  # not the file itself: Pillow would hide why the disk refuses it
    _pillow(array).save(buffer, kind, **{k: v for k, v in options.items() if v is not None})
    return buffer.getvalue()


def _jpeg(array: np.ndarray, about: Metadata) -> bytes:
    # Without `optimize`, for which Pillow reserves too small a buffer for noisy pictures.
    return _save(
        array,
        "JPEG",
        quality=95,
        subsampling="4:4:4",
        icc_profile=about.icc,
        exif=about.exif,
        xmp=about.xmp,
        dpi=about.dpi,
    )


def _webp(array: np.ndarray, about: Metadata) -> bytes:
    return _save(
        array,
        "WEBP",
        lossless=True,
        exact=True,
        icc_profile=about.icc,
        exif=about.exif,
        xmp=about.xmp,
    )


def _bmp(array: np.ndarray, about: Metadata) -> bytes:
    return _save(array, "BMP", dpi=about.dpi)


def _ppm(array: np.ndarray, about: Metadata) -> bytes:
    return _save(array, "PPM")


def _npy(array: np.ndarray, about: Metadata) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array[..., 0] if array.shape[-1] == 1 else array, allow_pickle=False)
    return buffer.getvalue()


def _png(array: np.ndarray, about: Metadata) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in about.text:
        info.add_text(key, value)
    if about.xmp:
        info.add_itxt("XML:com.adobe.xmp", about.xmp.decode("utf-8", "replace"))
    if array.dtype == np.uint8:
        return _save(
            array, "PNG", pnginfo=info, icc_profile=about.icc, exif=about.exif, dpi=about.dpi
        )
    return _png16(array, about, [chunk[:2] for chunk in info.chunks])


def _png16(array: np.ndarray, about: Metadata, text: list[tuple[bytes, bytes]]) -> bytes:
    height, width, channels = array.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [(b"IHDR", struct.pack(">2I5B", width, height, 16, colour, 0, 0, 0))]
    if about.icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(about.icc)))
    if about.dpi:
        per_metre = [round(d / 0.0254) for d in about.dpi]
        chunks.append((b"pHYs", struct.pack(">2IB", *per_metre, 1)))
    chunks += text
    if about.exif:
        chunks.append((b"eXIf", about.exif.removeprefix(b"Exif\0\0")))
    rows = array.astype(">u2").view(np.uint8).reshape(height, -1)
    chunks += [(b"IDAT", zlib.compress(_filter(rows, 2 * channels), 6)), (b"IEND", b"")]
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in chunks:
        if len(data) >= 2**31:
            raise UserError("A PNG of 16 bits holds at most 2 GB of compressed pixels.")
        check = struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
        parts += [struct.pack(">I", len(data)), name, data, check]
    return b"".join(parts)


def _filter(rows: np.ndarray, step: int) -> bytes:
    """Put the better of the filters Sub and Up before each row: the smaller sum of differences."""
    left, above = np.zeros_like(rows), np.zeros_like(rows)
    left[:, step:] = rows[:, :-step]
    above[1:] = rows[:-1]
    out = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    candidates = [rows - left, rows - above]  # modulo 256
    costs = [np.abs(c.view(np.int8).astype(np.int16)).sum(1, dtype=np.int64) for c in candidates]
    up = costs[1] < costs[0]
    out[:, 0] = np.where(up, 2, 1)
    out[:, 1:] = np.where(up[:, None], candidates[1], candidates[0])
    return out.tobytes()


_STRIP = 2**20  # bytes of pixels that a strip of a TIFF has at least


def _tiff(array: np.ndarray, about: Metadata) -> bytes:
    from PIL import Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    height, width, channels = array.shape
    floating = array.dtype.kind == "f"
    rows = max(1, min(height, _STRIP // max(1, array[0].nbytes)))
    strips = [_tiff_strip(array[top : top + rows]) for top in range(0, height, rows)]
    ends = np.cumsum([len(strip) for strip in strips])
    tags: dict[int, Any] = {
        256: width,
        257: height,
        258: (8 * array.itemsize,) * channels,
        259: 8,  # deflate
        262: 1 if channels < 3 else 2,  # black is zero, RGB
        273: tuple(int(n) for n in (0, *ends[:-1])),  # `tobytes` adds the start of the strips
        277: channels,
        278: rows,
        279: tuple(len(strip) for strip in strips),
        284: 1,  # channels interleaved
        317: 1 if floating else 2,  # differences along the rows
        339: (3 if floating else 1,) * channels,
    }
    if channels in (2, 4):
        tags[338] = 2  # alpha, not multiplied in
    if about.dpi:
        tags |= {282: about.dpi[0], 283: about.dpi[1], 296: 2}
    directory = ImageFileDirectory_v2(prefix=b"II")
    for tag, value in tags.items():
        directory[tag] = value
    for tag, value in ((700, about.xmp), (34675, about.icc)):
        if value:
            directory[tag] = value
            directory.tagtype[tag] = 7  # bytes
    if about.exif:
        exif = Image.Exif()
        exif.load(about.exif)
        for tag, value in exif.items():
            directory[tag] = dict(exif.get_ifd(tag)) if tag in (34665, 34853) else value
    header = b"II*\0" + struct.pack("<I", 8) + directory.tobytes(8)
    if len(header) + int(ends[-1]) >= 2**32:
        raise UserError("A TIFF holds at most 4 GB of compressed pixels.")
    return b"".join([header, *strips])


def _tiff_strip(rows: np.ndarray) -> bytes:
    if rows.dtype.kind != "f":
        rows = np.diff(rows, axis=1, prepend=np.zeros_like(rows[:, :1]))  # modulo the range
    return zlib.compress(rows.astype(rows.dtype.newbyteorder("<")).tobytes(), 6)


_JPEG = Format(_jpeg)
_TIFF = Format(_tiff, depths=(8, 16, 32), channels=(1, 2, 3, 4))

FORMATS: dict[str, Format] = {
    ".bmp": Format(_bmp),
    ".jpeg": _JPEG,
    ".jpg": _JPEG,
    ".npy": Format(_npy, depths=(8, 16, 32), channels=(1, 2, 3, 4)),
    ".pgm": Format(_ppm, channels=(1,)),
    ".png": Format(_png, depths=(8, 16), channels=(1, 2, 3, 4)),
    ".ppm": Format(_ppm, channels=(3,)),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": Format(_webp, channels=(3, 4)),
}
"""Ending -> format, of the files that are read and written."""
