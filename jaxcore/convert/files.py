"""Weight files in: recognised by their content, never by their extension."""

import dataclasses
import mmap
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxcore.convert import torchfile
from jaxcore.convert.rebuild import Opaque, Refused, Tensor
from jaxcore.convert.statedict import readable, select_prefix
from jaxcore.errors import UserError

#: Names of the weights in training checkpoints, best first.
PREFERRED = ("params_ema", "ema", "state_dict", "params", "model", "net")

_DEEPEST = 8  # levels of entries that are searched for weights

# What people hand in by mistake. (The first bytes decide; text is compared in lower case.)
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with 'git lfs pull'"),
    (b"<!doctype", "a web page; download the file itself"),
    (b"<html", "a web page; download the file itself"),
    (b"<?xml", "XML, perhaps a download error"),
    (b"{", "JSON, perhaps an index or a download error"),
    (b"gguf", "a GGUF file"),
    (b"\x89hdf", "an HDF5 file"),
    (b"\x93numpy", "a NumPy array"),
    (b"\x1f\x8b", "a gzip file; unpack it first"),
    (b"\x89png", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateFile:
    """Weights from a file.

    Attributes:
      tensors: official key -> array in PyTorch's layout; contiguous, in native byte order.
      format: which kind of file it was.
      where: the place of the weights inside the file, ``/``-joined; empty for the top.
      metadata: text of a safetensors header, or the plain values (``epoch``, ...) that a PyTorch
        file keeps at its top level.
      skipped: names among the weights that do not hold a tensor.
      unused: names at the top level of a PyTorch file that were left alone: optimiser states,
        other copies of the weights.
    """

    tensors: dict[str, np.ndarray]
    format: Literal["safetensors", "torch", "torch-legacy"]
    where: str = ""
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Selection:
    """A mapping of tensors inside a checkpoint: its place, the tensors, names without tensor."""

    where: str
    tensors: dict[str, Any]
    skipped: tuple[str, ...] = ()


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _is_named(value: dict[Any, Any]) -> bool:
    return all(isinstance(key, str) for key in value)


def _is_state(value: Any) -> bool:
    """A dict of names with tensors directly in it, and no containers."""
    return (
        isinstance(value, dict)
        and _is_named(value)
        and any(map(_is_tensor, value.values()))
        and not any(isinstance(item, dict | list | tuple) for item in value.values())
    )


def _all_states(tree: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping of tensors below named entries (optimisers number theirs: not entered)."""
    queue: deque[tuple[tuple[str, ...], Any]] = deque([((), tree)])
    seen = {id(tree)}  # a checkpoint can hold itself
    while queue:
        names, node = queue.popleft()
        if _is_state(node):
            yield "/".join(names), node
        elif isinstance(node, dict) and len(names) < _DEEPEST and _is_named(node):
            for key, child in node.items():
                if isinstance(child, dict) and id(child) not in seen:
                    seen.add(id(child))
                    queue.append(((*names, key), child))


def _refuse_special(state: dict[str, Any]) -> None:
    """Name the sparse, quantised ... tensors, which cannot be left out silently."""
    for key, value in state.items():
        if isinstance(value, Opaque) and value.symbol.module == "torch._utils":
            kind = value.symbol.name.removeprefix("_rebuild_").replace("_", " ")
            raise UserError(f"The entry {key!r} is a {kind}: expected dense tensors only.")


def _selection(where: str, state: dict[str, Any]) -> Selection:
    _refuse_special(state)
    tensors = {key: value for key, value in state.items() if _is_tensor(value)}
    return Selection(where, tensors, tuple(key for key in state if key not in tensors))


def _descend(tree: Any, at: str) -> Any:
    node = tree
    for part in at.split("/"):
        if not isinstance(node, dict) or part not in node:
            names = sorted(map(str, node)) if isinstance(node, dict) else []
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            listing = ", ".join(names[:8]) + more if names else "no names"
            raise UserError(f"There is no {at!r} in the file: at {part!r} it has {listing}.")
        node = node[part]
    return node


def find_state_dict(
    tree: Any, prefer: Sequence[str] = PREFERRED, *, at: str | None = None
) -> Selection:
    """Find the weights in the object that a checkpoint holds.

    The object itself is taken if it maps names to tensors. Otherwise the first of ``prefer``
    among its entries that leads to weights is, and else the only such mapping in the whole object.

    Args:
      tree: nested dicts; what `read_state_dict` finds in a file, or any like it.
      prefer: names of entries, best first.
      at: ``/``-joined place to look below, instead of the top.

    Returns:
      The tensors and where they were found.

    Raises:
      UserError: nothing was found, or several mappings equally good; they are listed.

    >>> find_state_dict({"epoch": 3, "net": {"w": np.zeros(2)}}).where
    'net'
    """
    where, node = at or "", _descend(tree, at) if at else tree
    for _ in range(_DEEPEST):
        if _is_state(node):
            break
        names = node if isinstance(node, dict) else ()
        for name in prefer:
            if name in names and next(_all_states(node[name]), None):
                where, node = f"{where}/{name}" if where else name, node[name]
                break
        else:
            break
    if _is_state(node):
        return _selection(where, node)
    states = list(_all_states(node))
    if len(states) == 1:
        below, state = states[0]
        return _selection(f"{where}/{below}" if where else below, state)
    if states:
        listing = "; ".join(f"{name} ({len(state)} entries)" for name, state in states[:8])
        more = f"; and {len(states) - 8} more" if len(states) > 8 else ""
        raise UserError(
            f"The file holds {len(states)} sets of weights, of which one must be named: "
            f"{listing}{more}."
        )
    if isinstance(node, dict):
        _refuse_special(node)
    raise UserError(f"The file holds no named tensors: {_describe(node)}.")


def _describe(node: Any) -> str:
    whole = [node, *node.values()] if isinstance(node, dict) else [node]
    for item in whole:
        if isinstance(item, Opaque) and isinstance(item.state, dict) and "_modules" in item.state:
            return (
                f"it has a whole module of the class {item.symbol}, whose state_dict() should "
                "have been saved"
            )
    if _is_tensor(node):
        return "it is a single tensor without a name"
    return f"it is a {type(node).__name__} without tensors below names"


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
    """Read weights from a safetensors or PyTorch file, without PyTorch and without running code.

    Args:
      path: the file; its content decides how it is read.
      at: place of the weights inside a PyTorch checkpoint (``"ema"``, ``"state/model"``); by
        default :func:`find_state_dict` looks for them.
      prefix: keep only keys that begin with it, without it (``"ema_model."``).
      prefer: names of entries that hold weights, best first.

    Raises:
      UserError: the file is missing, empty, truncated, of another kind, unsafe or ambiguous.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise UserError(f"{path} is empty: expected a safetensors or PyTorch file.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
                state = _read_torch(path, file, buffer, at, prefer)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: expected a safetensors or PyTorch file.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    if state is None:
        if at:
            raise UserError(f"{path} is a safetensors file, which has no place {at!r} inside.")
        state = _read_safetensors(path)
    if not prefix:
        return state
    tensors = select_prefix(state.tensors, prefix)
    if not tensors:
        raise UserError(f"{path} has no key that begins with {prefix!r}.")
    return dataclasses.replace(state, tensors=tensors)


def _read_torch(
    path: Path, file: Any, buffer: mmap.mmap, at: str | None, prefer: Sequence[str]
) -> StateFile | None:
    """Read a PyTorch file; None for safetensors, an error for everything else."""
    head = buffer[:64]
    if head[5:9] == b"\0\0\0{":  # length of the header in eight bytes, then the header, JSON
        return None
    if not head.startswith((b"PK", b"\x80")):
        text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        kind = next((what for start, what in _FOREIGN if text.startswith(start)), None)
        found = f"it is {kind}" if kind else f"it begins with {head[:8]!r}, or was cut off"
        raise UserError(f"{path} is not a safetensors or PyTorch file: {found}.")
    try:
        content = torchfile.read(file, buffer)
        selection = find_state_dict(content.tree, prefer, at=at)
        tensors = content.arrays(selection.tensors)
    except Refused as reason:
        raise UserError(f"{path} was refused: {readable(str(reason))}.") from None
    except UserError as error:
        raise UserError(f"{path}: {readable(str(error), 1000)}") from None
    return StateFile(
        tensors=tensors,
        format="torch-legacy" if content.legacy else "torch",
        where=selection.where,
        metadata=_plain(content.tree),
        skipped=selection.skipped,
        unused=_unused(content.tree, selection.where),
    )


def _read_safetensors(path: Path) -> StateFile:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            return StateFile(
                tensors=tensors, format="safetensors", metadata=dict(file.metadata() or {})
            )
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is a damaged safetensors file: {error}.") from None
    except (AttributeError, TypeError) as error:  # the package's way to say: no such NumPy dtype
        raise UserError(f"{path} has a tensor of an unsupported dtype: {error}.") from None
