"""TIFF of several floating-point channels, which Pillow does not read: those that are plain.

Read are float32 and float64 in strips, as they are or deflated, channels interleaved or in planes.
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcore.errors import UserError

_PLAIN = {
    256: "width",
    257: "height",
    258: "bits",
    259: "compression",
    273: "strips",
    277: "channels",
    278: "rows",
    279: "sizes",
    284: "planes",
    317: "predictor",
    339: "kinds",
}
_DEFLATE = (8, 32946)
_MAX_STRIPS = 1_000_000


def read_float_tiff(
    file: Any, check: Callable[[int, int, int], None], where: object
) -> np.ndarray | None:
    """Samples (height, width, channels) as float32; None for what is no floating-point TIFF.

    Args:
      file: opened in binary mode.
      check: given width, height and bytes of a pixel before memory is taken; may refuse.
      where: the file, for messages.

    Raises:
      UserError: floating point in an arrangement that is not read, too large, or cut off.
    """
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file.seek(0)
    head = file.read(8)
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return None
    tags = ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    found: dict[str, Any] = {name: tags.get(tag) for tag, name in _PLAIN.items()}
    if set(found["kinds"] or ()) != {3}:
        return None
    bits = set(found["bits"] or ())
    compression, predictor = found["compression"] or 1, found["predictor"] or 1
    planes, channels = found["planes"] or 1, found["channels"] or 1
    known = compression in (1, *_DEFLATE) and predictor == 1 and planes in (1, 2)
    if bits not in ({32}, {64}) or not known or not found["strips"] or channels > 4:
        raise UserError(
            "Expected a floating-point TIFF of up to four channels of 32 or 64 bits in strips, "
            "uncompressed or deflated without a predictor, found another arrangement in "
            f"{where}."
        )
    height, width = found["height"], found["width"]
    check(width, height, 4 * max(3, channels))
    dtype = np.dtype(f"{'<' if head[:2] == b'II' else '>'}f{bits.pop() // 8}")
    rows = min(found["rows"] or height, height)
    across = width * (1 if planes == 2 else channels)
    parts = list(zip(found["strips"], found["sizes"] or (), strict=False))
    tops = [*range(0, height, rows)] * (channels if planes == 2 else 1)
    if len(parts) != len(tops) or len(parts) > _MAX_STRIPS:
        raise UserError(f"Expected a whole picture, found {where}: strips are missing.")
    strips = []
    for top, (start, size) in zip(tops, parts, strict=True):
        count = min(rows, height - top) * across
        file.seek(start)
        raw = file.read(min(size, count * dtype.itemsize * 2 + 1024))
        if compression != 1:
            raw = zlib.decompressobj().decompress(raw, count * dtype.itemsize)
        if len(raw) < count * dtype.itemsize:
            raise UserError(f"Expected a whole picture, found {where}: it was cut off.")
        strips.append(np.frombuffer(raw, dtype, count))
    samples = np.concatenate(strips).astype(np.float32)
    if planes == 2:
        return np.moveaxis(samples.reshape(channels, height, width), 0, -1)
    return samples.reshape(height, width, channels)
