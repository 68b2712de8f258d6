"""Where the weights are inside the object that a checkpoint holds."""

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxcore.convert.rebuild import Opaque, Tensor
from jaxcore.errors import UserError, readable

#: Names of the weights in training checkpoints, best first.
PREFERRED = ("params_ema", "ema", "state_dict", "params", "model", "net")

_DEEPEST = 8  # levels of entries that are searched for weights


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


def _all_states(tree: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every mapping of tensors below named entries (optimisers number theirs: not entered).

    Places are not joined: of names that a file repeats by reference, the text may be far longer.
    """
    queue: deque[tuple[tuple[str, ...], Any]] = deque([((), tree)])
    seen = {id(tree)}  # a checkpoint can hold itself
    while queue:
        names, node = queue.popleft()
        if _is_state(node):
            yield names, node
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


def all_state_dicts(tree: Any) -> list[Selection]:
    """Every mapping of names to tensors below named entries, in their order.

    >>> tree = {"epoch": 3, "net": {"w": np.zeros(2)}, "net_ema": {"w": np.zeros(2)}}
    >>> [found.where for found in all_state_dicts(tree)]
    ['net', 'net_ema']
    """
    return [_selection("/".join(names), state) for names, state in _all_states(tree)]


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
        return _selection("/".join([where, *below] if where else below), state)
    if states:
        listing = "; ".join(
            f"{readable('/'.join(names))} ({len(state)} entries)" for names, state in states[:8]
        )
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
    if isinstance(node, dict) and {"state", "param_groups"} <= node.keys():
        return "it is the state of an optimiser, which stands beside the weights in another file"
    if _is_tensor(node):
        return "it is a single tensor without a name"
    return f"it is a {type(node).__name__} without tensors below names"
