"""PyTorch's two file formats (the zip archive and the older run of pickles), read without it.

Format of the archive: ``NAME/data.pkl`` (the object, with storages by reference), ``NAME/data/KEY``
(one stored, uncompressed entry per storage), ``NAME/byteorder``. The older format is a run of
pickles (magic number, version, system, object, list of storage keys) and then the storages.
"""

import dataclasses
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from jaxcore.convert import pickled
from jaxcore.convert.rebuild import Refused, Storage, Tensor, storage

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    UnicodeError,
    ValueError,
    struct.error,
)


@dataclasses.dataclass(frozen=True)
class _Blob:
    """Where the bytes of a storage are; the checksum is None if the file has none."""

    start: int
    size: int
    crc: int | None = None


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """An open PyTorch file.

    Attributes:
      tree: the saved object: plain containers with `Tensor` records in place of tensors.
      legacy: whether it is the older format.
    """

    tree: Any
    legacy: bool
    _buffer: mmap.mmap
    _blobs: Mapping[str, _Blob]
    _big_endian: bool = False
    _intact: set[str] = dataclasses.field(default_factory=set)  # storages whose checksum is right

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """See that the numbers of tensors are in the file.

        Raises:
          Refused: a storage is absent or cut off, or the tensors (which may repeat the same
            numbers through zero strides) would take far more memory than the file.
        """
        total, allowed = sum(t.nbytes for t in tensors.values()), 8 * len(self._buffer) + 2**26
        if total > allowed:
            raise Refused(
                f"its tensors would take more than {allowed:,} bytes, far more than the file has"
            )
        for tensor in tensors.values():
            store = tensor.storage
            blob = self._blobs.get(store.key)
            if blob is None:
                raise Refused(f"the storage {store.key!r} is absent")
            size = store.numel * (1 if store.dtype is None else store.dtype.itemsize)
            if blob.size != size:
                raise Refused(f"the storage {store.key!r} has {blob.size} bytes instead of {size}")
            check_shape(tensor.shape, tensor.dtype)

    def view(self, tensor: Tensor) -> np.ndarray:
        """Numbers of a tensor that :meth:`check` has seen, in native byte order.

        Raises:
          Refused: the checksum of its storage is wrong.
        """
        blob = self._blobs[tensor.storage.key]
        if blob.crc is not None and tensor.storage.key not in self._intact:
            if _checksum(self._buffer, blob) != blob.crc:
                raise Refused(
                    f"the storage {tensor.storage.key!r} is damaged: its checksum is wrong"
                )
            self._intact.add(tensor.storage.key)
        start = blob.start + tensor.offset * tensor.dtype.itemsize
        strides, swap = tensor.strides, self._big_endian
        return stretch(self._buffer, start, tensor.shape, tensor.dtype, strides, swap)


def check_shape(shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse a shape that no array can have: an axis of astronomic size beside an empty one.

    Raises:
      Refused: names the shape.
    """
    try:
        np.broadcast_to(np.zeros((), dtype), shape)
    except ValueError:
        raise Refused(f"a tensor has the impossible shape {shape}") from None


def _checksum(buffer: mmap.mmap, blob: _Blob) -> int:
    with memoryview(buffer) as whole, whole[blob.start : blob.start + blob.size] as content:
        return zlib.crc32(content)


def stretch(
    buffer: mmap.mmap,
    start: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    strides: tuple[int, ...] | None = None,
    swap: bool = False,
) -> np.ndarray:
    """Numbers in a file as an array: a read-only view, unless they must be decoded.

    Args:
      buffer: the file.
      start: of the first number, in bytes.
      shape: shape of the array.
      dtype: of the numbers; bytes of bools other than 0 count as True.
      strides: in numbers; None for C order.
      swap: the file is big-endian.
    """
    if 0 in shape:
        return np.zeros(shape, dtype)
    width = dtype.itemsize
    if strides is None:
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    count = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    values = np.frombuffer(buffer, np.uint8, count * width, start)
    strides = tuple(step * width for step in strides)
    if dtype == np.bool_:  # decoded after it is picked: a tensor may skip most of its storage
        return np.ndarray(shape, np.uint8, values, strides=strides) != 0
    if not swap:
        return np.ndarray(shape, dtype, values, strides=strides)
    if dtype.kind == "c":
        return np.ndarray(shape, dtype.newbyteorder(), values, strides=strides).astype(dtype)
    return np.ndarray(shape, f"u{width}", values, strides=strides).byteswap().view(dtype)


def read(file: BinaryIO, buffer: mmap.mmap) -> TorchFile:
    """Read the structure of a PyTorch file; its tensors are read on demand.

    Args:
      file: open file.
      buffer: the same file, mapped into memory.

    Raises:
      Refused: the file is damaged, hostile, or not a file of weights.
    """
    if buffer[:2] == b"PK":
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except _ZIP_ERRORS:
            raise Refused("the archive is damaged or cut off") from None
        return _read_archive(entries, buffer)
    return _read_legacy(buffer)


def _read_archive(entries: list[zipfile.ZipInfo], buffer: mmap.mmap) -> TorchFile:
    names = [entry.filename for entry in entries]
    tops = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")]
    tops = [top for top in tops if "/" not in top]
    if not tops:
        raise Refused("it is a zip archive, but not one of PyTorch")
    if len(tops) > 1 or len(set(names)) < len(names):
        raise Refused("the archive holds an entry twice")
    top = tops[0] + "/"
    if top + "constants.pkl" in names or any(name.startswith(top + "code/") for name in names):
        raise Refused("it is a TorchScript program, not weights; save its state_dict() instead")
    # PyTorch can leave the checksums out (all are zero then).
    checksums = any(entry.CRC for entry in entries)
    wanted = {entry.filename.removeprefix(top): entry for entry in entries}
    blobs = {
        name: _blob(entry, buffer, checksums)
        for name, entry in wanted.items()
        if name in ("data.pkl", "byteorder") or name.startswith("data/")
    }

    def whole(name: str) -> bytes:
        blob = blobs[name]
        content = buffer[blob.start : blob.start + blob.size]
        if blob.crc is not None and zlib.crc32(content) != blob.crc:
            raise Refused(f"its entry {name!r} is damaged: its checksum is wrong")
        return content

    order = whole("byteorder") if "byteorder" in blobs else b"little"
    if order not in (b"little", b"big"):
        raise Refused("its byte order is unknown")
    tree = pickled.load(whole("data.pkl"), storage)
    data = {name.removeprefix("data/"): blob for name, blob in blobs.items() if "/" in name}
    return TorchFile(tree, False, buffer, data, order == b"big")


def _blob(entry: zipfile.ZipInfo, buffer: mmap.mmap, checksums: bool) -> _Blob:
    """Find an entry's bytes; compression is refused, as PyTorch uses none and bombs need it."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise Refused("the archive is compressed, which PyTorch never does")
    if entry.flag_bits & 1:
        raise Refused("the archive is encrypted")
    header = buffer[entry.header_offset : entry.header_offset + 30]
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise Refused("the archive is damaged or cut off")
    start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
    if start + entry.file_size > len(buffer):
        raise Refused("the archive is damaged or cut off")
    return _Blob(start, entry.file_size, entry.CRC if checksums else None)


def _read_legacy(buffer: mmap.mmap) -> TorchFile:
    storages: dict[str, Storage] = {}

    def persistent(identifier: Any) -> Storage:
        found = storage(identifier)
        known = storages.setdefault(found.key, found)
        if (known.dtype, known.numel) != (found.dtype, found.numel):
            raise Refused(f"the storage {found.key!r} is described in two ways")
        return known

    buffer.seek(0)
    if pickled.load(buffer, persistent) != _LEGACY_MAGIC:
        raise Refused("it is a pickle, but not one of PyTorch")
    if pickled.load(buffer, persistent) != _LEGACY_VERSION:
        raise Refused("it comes from a version of PyTorch's format that is unknown here")
    pickled.load(buffer, persistent)  # description of the system; the data are little-endian
    tree = pickled.load(buffer, persistent)
    keys = pickled.load(buffer, persistent)
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or sorted(keys) != sorted(storages):
        raise Refused("its list of storages is damaged")
    blobs = {}
    for key in keys:
        store, header = storages[key], buffer.read(8)
        size = store.numel * (1 if store.dtype is None else store.dtype.itemsize)
        start = buffer.tell()
        if len(header) < 8 or start + size > len(buffer):
            raise Refused("the file is cut off")
        if struct.unpack("<q", header) != (store.numel,):
            raise Refused(f"the storage {key!r} is damaged")
        blobs[key] = _Blob(start, size)
        buffer.seek(start + size)
    return TorchFile(tree, True, buffer, blobs)
