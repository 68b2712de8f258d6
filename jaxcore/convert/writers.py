"""Weight files out: safetensors, and PyTorch archives written without PyTorch."""

import json
import math
import os
import struct
import sys
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.atomic import whole_file
from jaxcore.convert.rebuild import DTYPES, SAFETENSORS
from jaxcore.errors import UserError
from jaxcore.typing import StateDict, TensorLike

_ALIGNMENT = 64  # bytes; lets torch.load(mmap=True) use the storages where they lie
_ZIP64_LIMIT = 2**30  # entries above this carry their sizes in 64 bits


def _dtype(name: str, tensor: TensorLike, known: Collection[str]) -> np.dtype:
    """Native dtype of a tensor, if the format knows it."""
    dtype = np.dtype(tensor.dtype).newbyteorder("=")
    if dtype.name not in known:
        names = ", ".join(known)
        raise UserError(f"The tensor {name!r} is {dtype.name}: expected one of {names}.")
    return dtype


def _content(tensor: TensorLike, dtype: np.dtype) -> memoryview:
    """Bytes of a tensor in C order, read now."""
    value = np.asarray(np.asarray(tensor), dtype, order="C")
    return value.reshape(-1).view(np.uint8).data


def _size(tensor: TensorLike, dtype: np.dtype) -> int:
    return math.prod(tensor.shape) * dtype.itemsize


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: StateDict,
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a safetensors file, one tensor after the other.

    Args:
      path: the file; its folder must exist.
      tensors: name -> array or `LazyTensor`.
      metadata: text for the header.
      overwrite: replace a file that exists.

    Raises:
      UserError: the file exists, cannot be written, or a dtype is not supported. Nothing is left
        behind then.
    """
    names = {dtype.name: name for name, dtype in SAFETENSORS.items()}
    dtypes = {name: _dtype(name, tensor, names) for name, tensor in tensors.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    order = sorted(tensors, key=lambda name: (-dtypes[name].itemsize, name))  # all are aligned
    for name in order:
        start, end = end, end + _size(tensors[name], dtypes[name])
        header[name] = {
            "dtype": names[dtypes[name].name],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(Path(path), overwrite=overwrite) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(_content(tensors[name], dtypes[name]))


def write_torch(
    path: str | os.PathLike[str],
    tensors: StateDict,
    *,
    prefix: str = "",
    wrap: str | None = None,
    extra: Mapping[str, str | int | float | bool | None] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a PyTorch file that ``torch.load(path, weights_only=True)`` reads.

    Args:
      path: the file; its folder must exist.
      tensors: name -> array or `LazyTensor`, each read when its turn comes.
      prefix: put before every name (``"net."`` for Lightning modules).
      wrap: None for a bare state dict, or the entry that shall hold it (``"state_dict"``).
      extra: plain entries beside the wrapped weights (``{"epoch": 3}``).
      overwrite: replace a file that exists.

    Raises:
      UserError: the file exists, cannot be written, or a dtype is not supported. Nothing is left
        behind then.
    """
    path = Path(path)
    if extra and not wrap:
        raise UserError("Extra entries need a name for the weights beside them: expected 'wrap'.")
    dtypes = {name: _dtype(name, tensor, DTYPES) for name, tensor in tensors.items()}
    records = [
        _text(prefix + name) + _tensor(index, tensor.shape, dtypes[name])
        for index, (name, tensor) in enumerate(tensors.items())
    ]
    content = _pickle(records, wrap, extra or {})
    with (
        whole_file(path, overwrite=overwrite) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
    ):
        _write_entry(archive, "archive/data.pkl", content)
        _write_entry(archive, "archive/byteorder", sys.byteorder.encode())
        for index, (name, tensor) in enumerate(tensors.items()):
            _write_entry(archive, f"archive/data/{index}", _content(tensor, dtypes[name]))
        _write_entry(archive, "archive/version", b"3\n")


def _write_entry(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    """Add an uncompressed entry whose bytes begin at a multiple of the alignment."""
    info = zipfile.ZipInfo(name)  # dated 1980: equal tensors give equal files
    info.file_size = len(content)
    large = info.file_size > _ZIP64_LIMIT
    assert archive.fp is not None
    # Local header: 30 bytes, name, 64-bit sizes (20 bytes, if large), and the padding field.
    start = archive.fp.tell() + 30 + len(name.encode()) + 20 * large + 4
    padding = -start % _ALIGNMENT
    info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
    with archive.open(info, "w", force_zip64=large) as entry:
        entry.write(content)


# The few opcodes of pickle protocol 2 that a state dict needs.
def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _scalar(value: str | int | float | bool | None) -> bytes:
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return _integer(value)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return _text(value)
    raise UserError(f"An extra entry is a {type(value).__name__}: expected text or a number.")


_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _tensor(key: int, shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Call ``torch._utils._rebuild_tensor_v2`` (v3 for dtypes without a storage class)."""
    storage, _ = DTYPES[dtype.name]
    strides = [math.prod(shape[axis:]) for axis in range(1, len(shape) + 1)]
    kind = f"ctorch\n{storage}\n" if storage else "ctorch.storage\nUntypedStorage\n"
    count = math.prod(shape) * (1 if storage else dtype.itemsize)
    function = f"ctorch._utils\n_rebuild_tensor_{'v2' if storage else 'v3'}\n"
    reference = [_text("storage"), kind.encode(), _text(str(key)), _text("cpu"), _integer(count)]
    view = [
        _integer(0),
        b"(" + b"".join(map(_integer, shape)) + b"t",
        b"(" + b"".join(map(_integer, strides)) + b"t",
        b"\x89",
        _ORDERED_DICT,
        b"" if storage else f"ctorch\n{dtype.name}\n".encode(),
    ]
    return b"".join([function.encode(), b"((", *reference, b"tQ", *view, b"tR"])


def _pickle(
    records: Sequence[bytes],
    wrap: str | None,
    extra: Mapping[str, str | int | float | bool | None],
) -> bytes:
    parts = [_ORDERED_DICT, b"(", *records, b"u"]
    if wrap:
        parts = [b"}(", _text(wrap), *parts]
        for name, value in extra.items():
            parts += [_text(name), _scalar(value)]
        parts.append(b"u")
    return b"".join([b"\x80\x02", *parts, b"."])
