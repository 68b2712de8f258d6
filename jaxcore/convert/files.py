"""Weight files in: recognised by their content, never by their extension.

Only their structure is read here; a tensor's values follow when it is used.
"""

import dataclasses
import functools
import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxcore.convert import gguf, gguf_keys, torchfile
from jaxcore.convert.find import PREFERRED, Selection, all_state_dicts, find_state_dict
from jaxcore.convert.lazy import LazyTensor
from jaxcore.convert.prefixes import select_prefix
from jaxcore.convert.rebuild import SAFETENSORS, Refused, Tensor
from jaxcore.errors import UserError, readable
from jaxcore.json_files import parse_json, read_at_most

_KINDS = "a safetensors, PyTorch or GGUF file"
_EXPECTED = f"expected {_KINDS}"
_MAX_INDEX = 2**26  # bytes; that of a network of 10,000 tensors has about one million

# What people pass by mistake. (The first bytes decide; text is compared in lower case.)
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with 'git lfs pull'"),
    (b"<!doctype", "a web page; download the file itself"),
    (b"<html", "a web page; download the file itself"),
    (b"<?xml", "XML, perhaps a download error"),
    (b"{", "JSON, perhaps an index or a download error"),
    (b"\x89hdf", "an HDF5 file"),
    (b"\x93numpy", "a NumPy array"),
    (b"\x1f\x8b", "a gzip file; unpack it first"),
    (b"\x89png", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)

# Weights in a folder, best first.
_IN_FOLDER = ("*.safetensors.index.json", "*.bin.index.json", "*.safetensors", "*.bin", "*.gguf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateFile:
    """Weights from a file.

    Attributes:
      tensors: official key -> tensor in PyTorch's layout, read when it is used; the file must
        stay as it is until then (one that is replaced by another of the same name may).
      format: which kind of file it was.
      where: the place of the weights inside the file, ``/``-joined; empty for the top.
      metadata: text of a safetensors header, the plain values (``epoch``, ...) that a PyTorch
        file keeps at its top level, or the settings of a GGUF file, its tokenizer among them.
      skipped: names among the weights that do not hold a tensor.
      unused: names at the top level of a PyTorch file that were left alone: optimiser states,
        other copies of the weights.
    """

    tensors: dict[str, LazyTensor]
    format: Literal["safetensors", "torch", "torch-legacy", "gguf"]
    where: str = ""
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def _plain(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {}
    return {
        key: value
        for key, value in tree.items()
        if isinstance(key, str) and isinstance(value, str | int | float)
    }


def _unused(tree: Any, where: str) -> tuple[str, ...]:
    """Names of the containers at the top level other than the one the weights are in."""
    if not where or not isinstance(tree, dict):
        return ()
    taken = where.split("/")[0]
    return tuple(
        readable(key)
        for key, value in tree.items()
        if isinstance(key, str) and key != taken and isinstance(value, dict | list) and value
    )


def read_state_dict(
    path: str | os.PathLike[str],
    *,
    at: str | None = None,
    prefix: str = "",
    prefer: Sequence[str] = PREFERRED,
) -> StateFile:
    """Open weights of a safetensors, PyTorch or GGUF file without PyTorch, and run no code.

    Tensors of a GGUF file have the names of Hugging Face's files where its architecture is known
    (`gguf_keys.ARCHITECTURES`), and are float32 where they are quantised.

    Args:
      path: the file; its content decides how it is read. Or the index of several
        (``model.safetensors.index.json``), or a folder with an index or one file of weights.
      at: place of the weights inside a PyTorch checkpoint (``"ema"``, ``"state/model"``); by
        default :func:`find_state_dict` looks for them.
      prefix: keep only keys that begin with it, without it (``"ema_model."``).
      prefer: names of entries that hold weights, best first.

    Raises:
      UserError: the file is missing, empty, truncated, of another kind, unsafe or ambiguous. The
        checksum of a PyTorch file is looked at, with the same error, when values are read.
    """
    path = Path(path)
    path = _in_folder(path) if path.is_dir() else path
    if path.exists() and not path.is_file():  # to open a pipe would wait for ever
        raise UserError(f"{path} is not a file: {_EXPECTED}.")
    shards = _index(path)
    if shards:
        state = _joined(path, shards, at, prefer)
    else:
        state = _one(path, at, prefer)
    if not prefix:
        return state
    tensors = select_prefix(state.tensors, prefix)
    if not tensors:
        raise UserError(f"{path} has no key that begins with {prefix!r}.")
    return dataclasses.replace(state, tensors=tensors)


def read_sets(path: str | os.PathLike[str]) -> list[StateFile]:
    """Open every set of weights of a file, in its order; see `read_state_dict`.

    Several files with an index, and a safetensors file, hold one. Where a file holds none, the
    refusal of `read_state_dict`.
    """
    path = Path(path)
    whole = path.is_dir() or (path.is_file() and bool(_index(path)))
    found = [] if whole else _read_file(path, all_state_dicts)
    return found or [read_state_dict(path)]


def _in_folder(folder: Path) -> Path:
    """The index or the only file of weights of a folder."""
    for pattern in _IN_FOLDER:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found[:3])
            raise UserError(f"{folder} holds {len(found)} files of weights without index: {names}.")
    raise UserError(f"{folder} is a folder without weights: expected {', '.join(_IN_FOLDER)}.")


def _index(path: Path) -> dict[str, str]:
    """Official key -> name of the shard that holds it; empty for files that are no index."""
    try:
        with path.open("rb") as file:
            if file.read(1) != b"{":
                return {}
            text = b"{" + read_at_most(file, _MAX_INDEX)
    except OSError:
        return {}  # the reader of files reports it
    content = parse_json(text, source=f"an index of weights in {path}", max_bytes=_MAX_INDEX)
    shards = content.get("weight_map")
    if not isinstance(shards, dict):
        return {}
    names = set(shards.values()) if all(isinstance(n, str) for n in shards.values()) else {""}
    if any(name != Path(name).name or name == path.name for name in names):
        raise UserError(f"{path} names shards outside its folder.")
    if not names:
        raise UserError(f"{path} is JSON, the index of weights, but names no shard.")
    return {key: str(name) for key, name in shards.items()}


def _joined(path: Path, shards: dict[str, str], at: str | None, prefer: Sequence[str]) -> StateFile:
    """Several files as one."""
    names = sorted(set(shards.values()))
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise UserError(
            f"{path} names {len(names)} shards, {len(missing)} of them missing: "
            f"{readable(', '.join(missing[:3]))}{' ...' if len(missing) > 3 else ''}."
        )
    files = {name: _one(path.parent / name, at, prefer) for name in names}
    lost = [key for key, name in shards.items() if key not in files[name].tensors]
    if lost:
        raise UserError(
            f"{path} names {len(shards)} tensors, {len(lost)} of them not in its shard: "
            f"{readable('; '.join(lost[:3]))}{' ...' if len(lost) > 3 else ''}."
        )
    tensors = {key: files[name].tensors[key] for key, name in shards.items()}
    unlisted = {key: value for file in files.values() for key, value in file.tensors.items()}
    return dataclasses.replace(files[names[0]], tensors={**unlisted, **tensors})


_WITHOUT_PLACES = {"gguf": "GGUF", "safetensors": "safetensors"}


def _one(path: Path, at: str | None, prefer: Sequence[str]) -> StateFile:
    """The set of weights of a file that is meant."""
    (state,) = _read_file(path, lambda tree: [find_state_dict(tree, prefer, at=at)])
    if at and state.format in _WITHOUT_PLACES:
        kind = _WITHOUT_PLACES[state.format]
        raise UserError(f"{path} is a {kind} file, which has no place {at!r} inside.")
    return state


def _read_file(path: Path, select: Callable[[Any], list[Selection]]) -> list[StateFile]:
    """The sets of weights of a file that are selected in what a PyTorch file holds."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise UserError(f"{path} is empty: {_EXPECTED}.")
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            gguf_file = buffer[: len(gguf.MAGIC)] == gguf.MAGIC
            states = None if gguf_file else _read_torch(path, file, buffer, select)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {_EXPECTED}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    if states is None:
        states = [(_read_gguf if gguf_file else _read_safetensors)(path, buffer)]
    return states


def _read_torch(
    path: Path, file: Any, buffer: mmap.mmap, select: Callable[[Any], list[Selection]]
) -> list[StateFile] | None:
    """Open a PyTorch file; None for safetensors, an error for everything else but GGUF."""
    head = buffer[:64]
    if head[5:9] == b"\0\0\0{":  # length of the header in eight bytes, then the header, JSON
        return None
    if not head.startswith((b"PK", b"\x80")):
        text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        kind = next((what for start, what in _FOREIGN if text.startswith(start)), None)
        found = f"it is {kind}" if kind else f"it begins with {head[:8]!r}, or was cut off"
        raise UserError(f"{path} is not {_KINDS}: {found}.")
    try:
        content = torchfile.read(file, buffer)
        selections = select(content.tree)
        for selection in selections:
            content.check(selection.tensors)
    except Refused as reason:
        raise _refusal(path, reason) from None
    except UserError as error:
        raise UserError(f"{path}: {readable(str(error), 1000)}") from None
    return [
        StateFile(
            tensors={
                key: LazyTensor(
                    value.shape, value.dtype, functools.partial(_view, path, content, value)
                )
                for key, value in selection.tensors.items()
            },
            format="torch-legacy" if content.legacy else "torch",
            where=selection.where,
            metadata=_plain(content.tree),
            skipped=selection.skipped,
            unused=_unused(content.tree, selection.where),
        )
        for selection in selections
    ]


def _refusal(path: Path, reason: Refused) -> UserError:
    return UserError(f"{path} was refused: {readable(str(reason))}.")


def _view(path: Path, content: torchfile.TorchFile, tensor: Tensor) -> np.ndarray:
    try:
        return content.view(tensor)
    except Refused as reason:
        raise _refusal(path, reason) from None


def _read_gguf(path: Path, buffer: mmap.mmap) -> StateFile:
    try:
        content = gguf.read(buffer)
        tensors = gguf_keys.official(content.tensors, content.metadata)
    except Refused as reason:
        raise _refusal(path, reason) from None
    return StateFile(tensors=tensors, format="gguf", metadata=content.metadata)


def _read_safetensors(path: Path, buffer: mmap.mmap) -> StateFile:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy"):  # checks all of the header
            pass
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is a damaged safetensors file: {error}.") from None
    start = 8 + int.from_bytes(buffer[:8], "little")
    header = parse_json(
        buffer[8:start], source=f"a safetensors header in {path}", max_bytes=_MAX_INDEX
    )
    metadata = header.pop("__metadata__", None) or {}
    tensors = {}
    for key, entry in header.items():
        if entry["dtype"] not in SAFETENSORS:
            raise UserError(
                f"{path} has a tensor of an unsupported dtype: {readable(key)} is {entry['dtype']}."
            )
        shape, dtype = tuple(entry["shape"]), SAFETENSORS[entry["dtype"]]
        try:
            torchfile.check_shape(shape, dtype)
        except Refused as reason:
            raise _refusal(path, reason) from None
        offset = start + entry["data_offsets"][0]
        view = functools.partial(torchfile.stretch, buffer, offset, shape, dtype)
        tensors[key] = LazyTensor(shape, dtype, view)
    return StateFile(tensors=tensors, format="safetensors", metadata=metadata)
