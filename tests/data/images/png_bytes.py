"""Makes PNG files byte by byte, for what Pillow does not write."""

import struct
import zlib


def png(array, bits, colour, *chunks, interlace=0):
    """A PNG made by hand; Adam7 or not, no filter."""
    height, width = array.shape[:2]
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]
    raw = b""
    for top, left, down, right in passes:
        for row in array[top::down, left::right]:
            raw += b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes()
    head = struct.pack(">2I5B", width, height, bits, colour, 0, 0, interlace)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]:
        parts += [
            struct.pack(">I", len(data)),
            name,
            data,
            struct.pack(">I", zlib.crc32(name + data)),
        ]
    return b"".join(parts)
