"""TFRecord files of the package causalimages, read and written without TensorFlow.

One record for each image: its size, its key and its pixels. Files are mapped into memory: keys and
sizes are read once, pixels when they are asked for. Every checksum is compared.
"""

import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from jaxcore.atomic import whole_file
from jaxcore.data.geo import wire
from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.errors import UserError, readable

_EXACT_IN_HALF = 2048  # largest whole number below which float16 has all of them
_LARGEST_HALF = 65504.0

Progress = Callable[[int, int], None]


def checksum(data: memoryview | bytes) -> int:
    """CRC-32C, rotated and moved as TFRecord has it."""
    try:
        import google_crc32c
    except ImportError:
        raise UserError("Expected google-crc32c, found none: install jaxcore[geo].") from None
    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data: memoryview, name: str) -> Iterator[tuple[int, memoryview]]:
    """Place and content of each record of a file's bytes.

    Raises:
      UserError: a record is cut off, claims more bytes than there are, or has another checksum.
    """
    at, number = 0, 0
    while at < len(data):
        try:
            content = _content(data[at:])
        except ValueError as error:
            raise UserError(
                f"Expected whole records in {name}, found {error} at record {number} (byte {at})."
            ) from None
        yield at + 12, content
        at, number = at + 16 + len(content), number + 1


def _content(data: memoryview) -> memoryview:
    """What the first record holds."""
    if len(data) < 16:
        raise ValueError(f"{len(data)} bytes that are no record")
    size, check = struct.unpack_from("<QI", data)
    if check != checksum(data[:8]):
        raise ValueError("another checksum of its length")
    if size > len(data) - 16:
        raise ValueError(f"{len(data) - 16} of its {size} bytes")
    content = data[12 : 12 + size]
    if struct.unpack_from("<I", data, 12 + size)[0] != checksum(content):
        raise ValueError("another checksum of its content")
    return content


def open_tfrecord(
    path: str | Path, *, progress: Progress | None = None, **fields: Any
) -> KeyedImages:
    """Images, or sequences of images, of a TFRecord file, by their keys.

    Args:
      path: the file.
      progress: called with (bytes read, bytes in all) while keys are collected.
      **fields: of `KeyedImages`.

    Raises:
      UserError: no such file, no record, a damaged one, one of other features, or images that
        differ in size, bands or type.
    """
    path = Path(path)
    if not path.is_file() or path.stat().st_size == 0:
        raise UserError(
            f"Expected a TFRecord file of images, found none or an empty one at {path}."
        )
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    keys, places, first = [], [], None
    for place, content in records(data, path.name):
        try:
            key, pixels = _image(content)
        except ValueError as error:
            raise UserError(
                f"Expected images of causalimages in {path.name}, found {readable(str(error))} in "
                f"record {len(keys)}."
            ) from None
        if first is None:
            first = pixels
        if (pixels.shape, pixels.dtype) != (first.shape, first.dtype):
            raise UserError(
                f"Expected images of equal shape and type in {path.name}, found {first.shape} "
                f"{first.dtype} and {pixels.shape} {pixels.dtype} (record {len(keys)})."
            )
        keys.append(key)
        places.append((place, len(content)))
        if progress is not None:
            progress(place + len(content) + 4, len(data))
    assert first is not None  # a file with a byte has a record, or was refused
    shape = (len(keys), *first.shape)
    source = TFRecordRows(data, np.array(places, np.int64), shape, first.dtype)
    return KeyedImages(source, keys, **fields)


class TFRecordRows:
    """Pixels of the records of a mapped file."""

    def __init__(
        self, data: memoryview, places: np.ndarray, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self._data, self._places, self.shape, self.dtype = data, places, shape, dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = self._places[rows]
        images = [_image(self._data[a : a + size])[1] for a, size in wanted.reshape(-1, 2)]
        out = np.stack(images) if images else np.zeros((0, *self.shape[1:]), self.dtype)
        return out if wanted.ndim == 2 else out[0]


def _image(content: memoryview) -> tuple[str, np.ndarray]:
    """Key and pixels of a record; their declared and real sizes agree."""
    features = wire.read_example(content)
    absent = [name for name in ("raw_image", "key") if name not in features]
    if absent:
        raise ValueError(f"no feature {' and '.join(absent)}")
    pixels = wire.read_tensor(wire.part(features["raw_image"]))
    key = wire.read_tensor(wire.part(features["key"]))
    if isinstance(pixels, str) or not isinstance(key, str):
        raise ValueError("text as pixels, or numbers as a key")
    if pixels.ndim not in (4, 5) or pixels.shape[0] != 1:
        raise ValueError(f"pixels of shape {pixels.shape}")
    names = ("time", "height", "width", "channels")[-(pixels.ndim - 1) :]
    declared = tuple(features.get(name) for name in names)
    if declared != pixels.shape[1:]:
        raise ValueError(f"pixels of shape {pixels.shape[1:]} where {declared} are declared")
    return key, pixels[0]


def write_tfrecord(
    path: str | Path,
    images: KeyedImages,
    *,
    dtype: DTypeLike = np.float16,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write images as the package does, byte for byte where types agree; the file appears whole.

    Args:
      path: the new file.
      images: in the order of their keys here.
      dtype: of the stored numbers; the package takes float16, which has whole numbers only up to
        2048: use float32 or uint16 for raw images of 16 bits.
      overwrite: replace a file that is there.
      progress: called with (images written, images in all).

    Raises:
      UserError: the file exists, or numbers that ``dtype`` cannot hold.
    """
    kind = np.dtype(dtype)
    if kind.newbyteorder("<") not in wire.DTYPES.values():
        raise UserError(f"Expected float32, float16, uint8 or uint16 as type, found {kind}.")
    names = ("time", "height", "width", "channels")[-(len(images.images.shape) - 1) :]
    with whole_file(Path(path), overwrite=overwrite) as temporary, temporary.open("wb") as file:
        for i, key in enumerate(images.keys):
            pixels = _held(np.asarray(images.images[np.array([i])])[0], kind, str(key))
            features: dict[str, bytes | int] = dict(zip(names, pixels.shape, strict=True))
            features["raw_image"] = wire.tensor(pixels[None])
            features |= {"index": i + 1, "key": wire.text_tensor(str(key))}
            content = wire.example(features)
            size = struct.pack("<Q", len(content))
            file.write(size + struct.pack("<I", checksum(size)))
            file.write(content + struct.pack("<I", checksum(content)))
            if progress is not None:
                progress(i + 1, len(images))


def _held(pixels: np.ndarray, dtype: np.dtype, key: str) -> np.ndarray:
    """Pixels in another type that holds them.

    Raises:
      UserError: it does not.
    """
    top = float(np.max(np.abs(pixels.astype(np.float64)))) if pixels.size else 0.0
    whole = pixels.dtype.kind in "iu"
    lost = dtype == np.float16 and (top > _LARGEST_HALF or (whole and top > _EXACT_IN_HALF))
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        lost = bool(np.any(pixels < low) or np.any(pixels > high)) or (
            not whole and not np.array_equal(pixels, np.round(pixels))
        )
    if lost:
        raise UserError(
            f"Expected pixels that {dtype} can hold, found values up to {top:g} in image {key!r}: "
            "write float32, or uint16 for raw images."
        )
    return pixels.astype(dtype)
