"""Key tables: which official tensor, or which stretch of one, is which part of our leaf."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxcore.convert.transforms import IDENTITY, Transform
from jaxcore.errors import UserError

_LAYER = re.compile(r"\{(\d*)i([+-]\d+)?\}")


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""One line of a key table.

    Several keys make one leaf that joins official tensors (queries, keys and values in one
    matrix); ``part`` makes one leaf of a stretch of an official tensor, and other rules take the
    other stretches.

    Attributes:
      path: regular expression that must match the whole ``/``-joined path of our leaf.
      key: official key, or the keys whose tensors lie in a row in our leaf; ``\1`` or
        ``\g<name>`` stand for the groups of ``path``.
      transform: layout change between the two.
      stacked: the leading axis of our leaf counts layers; ``key`` then holds ``{i}`` (or
        ``{2i}``, ``{2i+1}`` for every other layer) and stands for one official tensor per layer.
      axis: axis of our leaf (of one layer of it) along which the tensors or stretches lie.
      parts: their shares of that axis, such as the numbers of heads ``(32, 8, 8)``; the keys
        share alike by default.
      part: the stretch of the official tensor that our leaf is, counted along ``parts``.
      tied: other keys under which files keep the same tensor. They are read where ``key`` is
        absent, must hold the same numbers where both are there, and are not written. If such a
        key belongs to another leaf, then ``key`` is only written where the two leaves differ.

    >>> Rule(r"levels/(\d)/conv", r"levels.\1.{i}.weight", stacked=True).stacked
    True
    >>> Rule("qkv", ("q.weight", "k.weight", "v.weight"), parts=(4, 2, 2)).keys
    ('q.weight', 'k.weight', 'v.weight')
    >>> Rule("embed", "embed_tokens.weight", tied=("lm_head.weight",)).tied
    ('lm_head.weight',)
    """

    path: str
    key: str | tuple[str, ...]
    transform: Transform = IDENTITY
    stacked: bool = False
    axis: int = -1
    parts: tuple[int, ...] = ()
    part: int | None = None
    tied: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        re.compile(self.path)
        if any(self.stacked != bool(_LAYER.search(key)) for key in (*self.keys, *self.tied)):
            raise ValueError(f"Rule {self.path!r}: 'stacked' and '{{i}}' in the key go together.")
        several = len(self.keys) > 1
        if self.part is not None and (several or not 0 <= self.part < len(self.parts)):
            raise ValueError(f"Rule {self.path!r}: 'part' counts along 'parts' of one key.")
        if self.part is None and self.parts and len(self.parts) != len(self.keys):
            raise ValueError(f"Rule {self.path!r}: expected one of 'parts' per key.")
        if self.tied and (several or self.part is not None):
            raise ValueError(f"Rule {self.path!r}: only whole tensors can be tied.")

    @property
    def keys(self) -> tuple[str, ...]:
        """Templates of all its keys."""
        return (self.key,) if isinstance(self.key, str) else self.key


@dataclasses.dataclass(frozen=True)
class Link:
    """One official tensor, or a stretch of it, as one of our leaves or a part of it.

    Attributes:
      key: official key.
      tied: other keys of the same tensor.
      transform: layout change.
      layer: of our leaf; None for leaves that are not stacked.
      axis: from the end, of the stretches.
      ours: stretch of our leaf along ``axis``.
      theirs: stretch of the official tensor along ``axis``, in our layout.
      whole: shape of the official tensor in our layout.
      shape: its official shape.
    """

    key: str
    tied: tuple[str, ...]
    transform: Transform
    layer: int | None
    axis: int
    ours: tuple[int, int]
    theirs: tuple[int, int]
    whole: tuple[int, ...]
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Slot:
    """One of our leaves and where its parts live outside, in layer order."""

    path: str
    leaf: Any
    links: tuple[Link, ...]


def _layer_key(template: str, layer: int | None) -> str:
    if layer is None:
        return template
    return _LAYER.sub(lambda m: str(int(m[1] or 1) * layer + int(m[2] or 0)), template)


def _spans(rule: Rule, size: int, where: str) -> list[tuple[tuple[int, int], tuple[int, int], int]]:
    """Per key: stretch of our leaf, stretch of the official tensor, and length of the latter."""
    parts = rule.parts or (1,) * len(rule.keys)
    share = sum(parts) if rule.part is None else parts[rule.part]
    if size % share:
        raise UserError(f"{where} cannot be divided into parts of {parts} along axis {rule.axis}.")
    ends = [0, *(end * (size // share) for end in itertools.accumulate(parts))]
    stretches = list(itertools.pairwise(ends))
    if rule.part is not None:
        return [((0, size), stretches[rule.part], ends[-1])]
    return [((start, stop), (0, stop - start), stop - start) for start, stop in stretches]


def _links(path: str, leaf: Any, rule: Rule, match: re.Match[str]) -> list[Link]:
    shape, where = tuple(leaf.shape), f"Leaf {path!r} of shape {tuple(leaf.shape)}"
    if rule.stacked and not shape:
        raise UserError(f"Leaf {path!r} must have a leading axis of layers, but it is a scalar.")
    layers: Sequence[int | None] = range(shape[0]) if rule.stacked else (None,)
    inner = shape[1:] if rule.stacked else shape
    axis = rule.axis if rule.axis < 0 else rule.axis - len(inner)
    divided = len(rule.keys) > 1 or rule.part is not None
    if divided and not -len(inner) <= axis < 0:
        raise UserError(f"{where} has no axis {rule.axis} along which its parts could lie.")
    size = inner[axis] if inner else 1
    spans = _spans(rule, size, where) if divided else [((0, size), (0, size), size)]
    templates = [match.expand(key) for key in rule.keys]
    tied = [match.expand(key) for key in rule.tied]
    links = []
    for template, (ours, theirs, length) in zip(templates, spans, strict=True):
        whole = list(inner)
        if inner:
            whole[axis] = length
        try:  # a view without memory: only its shape matters
            blank = np.broadcast_to(np.zeros((), np.bool_), whole)
            official = rule.transform.to_torch(blank).shape
        except (ValueError, IndexError):
            raise UserError(f"{where} cannot be a {rule.transform.name} weight.") from None
        links += [
            Link(
                _layer_key(template, layer),
                tuple(_layer_key(key, layer) for key in tied),
                rule.transform,
                layer,
                axis,
                ours,
                theirs,
                tuple(whole),
                tuple(official),
            )
            for layer in layers
        ]
    return links


def slots(tree: Any, rules: Sequence[Rule]) -> list[Slot]:
    """What every leaf of a tree is made from.

    Raises:
      UserError: a leaf's shape does not suit its rule.
      ValueError: the table itself is wrong: a leaf without a rule, two leaves for one tensor.
    """
    out = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for rule in rules:
            if match := re.fullmatch(rule.path, name):
                out.append(Slot(name, leaf, tuple(_links(name, leaf, rule, match))))
                break
        else:
            raise ValueError(f"No rule of the key table matches the leaf {name!r}.")
    _check_owners(out)
    return out


def by_key(table: Sequence[Slot]) -> dict[str, list[tuple[Slot, Link]]]:
    """Official key -> the leaves it is part of, with the links."""
    out: dict[str, list[tuple[Slot, Link]]] = {}
    for slot in table:
        for link in slot.links:
            out.setdefault(link.key, []).append((slot, link))
    return out


def _check_owners(table: Sequence[Slot]) -> None:
    """See that every number of every official tensor has one place in our tree."""
    for key, users in by_key(table).items():
        first, link = users[0]
        spans = sorted(each.theirs for _, each in users)
        ends = [0, *(stop for _, stop in spans)]
        joined = all(start == end for (start, _), end in zip(spans, ends, strict=False))
        same = len({each.shape for _, each in users}) == 1
        if len(users) > 1 and not (joined and same):
            raise ValueError(f"Leaves {first.path!r} and {users[1][0].path!r} both map to {key!r}.")
        if link.whole and ends[-1] != link.whole[link.axis]:
            raise ValueError(f"A part of {key!r} belongs to no leaf.")


def nested(rules: Sequence[Rule], path: str, key: str = "") -> tuple[Rule, ...]:
    """The key table of a network that is part of a larger one.

    Args:
      rules: of the part.
      path: of the part in our tree.
      key: what stands before its official keys.

    >>> nested([Rule("fc", "fc.weight", tied=("head.weight",))], "tower", "vision.")[0].key
    'vision.fc.weight'
    """
    return tuple(
        dataclasses.replace(
            rule,
            path=f"{path}/(?:{rule.path})",
            key=key + rule.key if isinstance(rule.key, str) else tuple(key + k for k in rule.key),
            tied=tuple(key + k for k in rule.tied),
        )
        for rule in rules
    )


def official_shapes(target: Any, rules: Sequence[Rule]) -> dict[str, tuple[int, ...]]:
    """Every official key with its shape, for a tree of arrays or of ``ShapeDtypeStruct``.

    >>> from jaxcore.convert.transforms import LINEAR
    >>> target = {"fc": jax.ShapeDtypeStruct((3, 5), "float32")}
    >>> official_shapes(target, [Rule("fc", "fc.weight", LINEAR)])
    {'fc.weight': (5, 3)}
    """
    return {link.key: link.shape for slot in slots(target, rules) for link in slot.links}
