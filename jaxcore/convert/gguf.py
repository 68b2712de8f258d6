"""GGUF, the file format of llama.cpp: settings, a tokenizer and (quantised) tensors in one file.

Little-endian, versions 2 and 3: magic, version, numbers of tensors and of settings, the settings
(name, type, value), a line per tensor (name, axes with the fastest first, type, offset), and the
tensors' bytes, aligned. Only the structure is read here. A quantised tensor is computed in float32
when it is used, and forgotten again.
"""

import dataclasses
import functools
import math
import mmap
import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from jaxcore.convert.lazy import LazyTensor
from jaxcore.convert.rebuild import Refused
from jaxcore.convert.torchfile import check_shape, stretch

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_AXES = 4
_MAX_NAME = 2**16 - 1  # bytes of a setting's name
_MAX_TENSOR_NAME = 64 * 4  # bytes; the format says 64, some writers count characters
_BLOCK = 32  # numbers that share a scale


@dataclasses.dataclass(frozen=True)
class GGUFFile:
    """What a file holds.

    Attributes:
      metadata: name -> bool, int, float, str, list of str, or array of numbers.
      tensors: name in the file -> tensor in PyTorch's layout: float32 where it is quantised, else
        as it is stored.
    """

    metadata: dict[str, Any]
    tensors: dict[str, LazyTensor]


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    return _scale(blocks, 0) * blocks[:, 2:].view(np.int8)


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    return _scale(blocks, 0) * (_nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8))


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    return _scale(blocks, 0) * _nibbles(blocks[:, 4:]) + _scale(blocks, 2)


def _scale(blocks: np.ndarray, at: int) -> np.ndarray:
    """A float16 of every block, as float32 (a copy aligns it)."""
    return blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """Low halves of 16 bytes are numbers 0 to 15, high halves 16 to 31."""
    return np.concatenate((packed & 15, packed >> 4), axis=1)


_PLAIN = {
    0: np.dtype(np.float32),
    1: np.dtype(np.float16),
    30: np.dtype(ml_dtypes.bfloat16),
}
# Type -> bytes of a block, and what makes float32 of blocks of shape (n, bytes).
_QUANTISED: dict[int, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    2: (18, _q4_0),
    3: (20, _q4_1),
    8: (34, _q8_0),
}
_READ = "F32, F16, BF16, Q4_0, Q4_1, Q8_0"
# Of the others, for messages.
_OTHERS = {
    6: "Q5_0",
    7: "Q5_1",
    9: "Q8_1",
    **{10 + i: f"Q{2 + i}_K" for i in range(5)},
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}
# Types of settings: text and lists of them (8, 9) are read apart.
_NUMBERS = {
    0: np.dtype(np.uint8),
    1: np.dtype(np.int8),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype(np.bool_),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_TEXT, _LIST = 8, 9
_CUT = "it is cut off or damaged"


class _Cursor:
    """Reads on from a place in the file, never beyond its end."""

    def __init__(self, buffer: mmap.mmap, start: int) -> None:
        self.buffer, self.place = buffer, start

    def take(self, size: int) -> bytes:
        start, self.place = self.place, self.place + size
        if self.place > len(self.buffer):
            raise Refused(_CUT)
        return self.buffer[start : self.place]

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def count(self, least: int, what: str) -> int:
        """A number of things of at least so many bytes each, which must still be in the file."""
        number = self.unsigned(8)
        if number > (len(self.buffer) - self.place) // least:
            raise Refused(f"it names {number:,} {what}, more than it has bytes for")
        return number

    def text(self, limit: int | None = None) -> str:
        size = self.count(1, "characters of a text")
        if limit is not None and size > limit:
            raise Refused(f"a name in it has {size:,} bytes, more than {limit:,}")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise Refused("a text in it is not UTF-8") from None

    def value(self, name: str, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind != _LIST:
            dtype = self._number(name, kind)
            return np.frombuffer(self.take(dtype.itemsize), dtype)[0].item()
        kind = self.unsigned(4)
        if kind == _TEXT:
            return [self.text() for _ in range(self.count(8, f"texts in {name!r}"))]
        dtype = self._number(name, kind)
        number = self.count(dtype.itemsize, f"numbers in {name!r}")
        return np.frombuffer(self.take(number * dtype.itemsize), dtype)

    def _number(self, name: str, kind: int) -> np.dtype:
        if kind not in _NUMBERS:
            raise Refused(f"its setting {name!r} is of the type {kind}, which is unknown here")
        return _NUMBERS[kind]


def read(buffer: mmap.mmap) -> GGUFFile:
    """Read the structure of a file; its tensors are read on demand.

    Args:
      buffer: the file, mapped into memory.

    Raises:
      Refused: the file is damaged, hostile, of another version, or has tensors of another type.
    """
    version = int.from_bytes(buffer[4:8], "little")
    if version not in _VERSIONS:
        big = int.from_bytes(buffer[4:8], "big") in _VERSIONS
        kind = "of a big-endian machine" if big else f"of version {version}"
        raise Refused(f"expected a little-endian GGUF file of version 2 or 3, found one {kind}")
    cursor = _Cursor(buffer, 8)
    tensors, settings = cursor.count(24, "tensors"), cursor.count(13, "settings")
    metadata: dict[str, Any] = {}
    for _ in range(settings):
        name = cursor.text(_MAX_NAME)
        if name in metadata:
            raise Refused(f"it has the setting {name!r} twice")
        metadata[name] = cursor.value(name, cursor.unsigned(4))
    lines = [_line(cursor) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 2**16 or alignment % 8:
        raise Refused(f"its alignment is {alignment!r} instead of a multiple of 8")
    start = -(-cursor.place // alignment) * alignment
    found: dict[str, LazyTensor] = {}
    used = 0
    for name, shape, kind, offset in lines:
        if name in found:
            raise Refused(f"it has the tensor {name!r} twice")
        if offset % alignment:
            raise Refused(f"the tensor {name!r} does not begin at a multiple of {alignment} bytes")
        found[name], size = _tensor(buffer, name, shape, kind, start + offset)
        used += size
    if used > len(buffer):
        raise Refused("its tensors share their bytes")
    return GGUFFile(metadata, found)


def _line(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape in PyTorch's order, type, and offset of a tensor."""
    name, axes = cursor.text(_MAX_TENSOR_NAME), cursor.unsigned(4)
    if axes > _MAX_AXES:
        raise Refused(f"the tensor {name!r} has {axes} axes, more than {_MAX_AXES}")
    sizes = struct.unpack(f"<{axes}Q", cursor.take(8 * axes))
    return name, sizes[::-1], cursor.unsigned(4), cursor.unsigned(8)


def _tensor(
    buffer: mmap.mmap, name: str, shape: tuple[int, ...], kind: int, start: int
) -> tuple[LazyTensor, int]:
    """The tensor at a place of the file, and how many bytes it has there."""
    if kind in _PLAIN:
        dtype, count = _PLAIN[kind], math.prod(shape)
        size = count * dtype.itemsize
        view = functools.partial(stretch, buffer, start, shape, dtype)
    elif kind in _QUANTISED:
        dtype, (width, convert) = np.dtype(np.float32), _QUANTISED[kind]
        blocks, rest = divmod(shape[-1] if shape else 1, _BLOCK)
        if rest:
            raise Refused(
                f"the tensor {name!r} of shape {shape} cannot be cut into blocks of {_BLOCK}"
            )
        count = math.prod(shape[:-1]) * blocks
        size = count * width
        view = functools.partial(_dequantised, buffer, start, shape, count, width, convert)
    else:
        found = _OTHERS.get(kind, f"an unknown type ({kind})")
        raise Refused(f"the tensor {name!r} is {found}; those that are read are {_READ}")
    check_shape(shape, dtype)
    if start + size > len(buffer):
        raise Refused(f"the tensor {name!r} reaches beyond the end of the file")
    return LazyTensor(shape, dtype, view), size


def _dequantised(
    buffer: mmap.mmap,
    start: int,
    shape: tuple[int, ...],
    count: int,
    width: int,
    convert: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    blocks = np.frombuffer(buffer, np.uint8, count * width, start).reshape(count, width)
    with np.errstate(over="ignore", invalid="ignore"):  # of scales that are infinite or NaN
        return convert(blocks).reshape(shape)
