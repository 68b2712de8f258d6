"""One state-dict engine: a table of rules maps our parameter tree to official PyTorch keys.

A rule goes from OUR leaf to the official key, so that reading and writing use the same table and
the inverse is exact by construction. Tensors are read one leaf at a time, and of a sharded leaf
one shard at a time.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.convert.lazy import LazyTensor
from jaxcore.convert.prefixes import LEFTOVERS, strip_prefix
from jaxcore.convert.rules import Link, Rule, Slot, by_key, slots
from jaxcore.errors import UserError, readable
from jaxcore.typing import Params, StateDict

_SHOWN = 5  # names listed per kind of mismatch; the counts are always exact
_COMPARED = 2**24  # bytes of two equal tensors that are looked at together

Tensor = np.ndarray | LazyTensor
Shapes = Mapping[str, tuple[int, ...]]


def _listing(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return "; ".join(map(readable, names[:_SHOWN])) + (f"; and {more} more" if more > 0 else "")


def _kind(dtype: np.dtype) -> str:
    for kind in (np.bool_, np.integer, np.floating, np.complexfloating):
        if jnp.issubdtype(dtype, kind):  # knows bfloat16 and float8; NumPy's own does not
            return kind.__name__
    return "other"


class _Table:
    """The rules for one tree, and what of a state dict they use."""

    def __init__(
        self, state_dict: StateDict, rules: Sequence[Rule], target: Any, ignore: Sequence[str]
    ) -> None:
        self.slots = slots(target, rules)
        self.links = [link for slot in self.slots for link in slot.links]
        self.expected = {link.key: link.shape for link in self.links}
        dead = re.compile("|".join(f"(?:{p})" for p in ignore)) if ignore else None
        self.found: dict[str, Tensor] = {
            key: value if isinstance(value, LazyTensor) else np.asarray(value)
            for key, value in strip_prefix(state_dict, self.expected).items()
            if key in self.expected
            or not (LEFTOVERS.fullmatch(key) or (dead and dead.fullmatch(key)))
        }
        # Where a tied tensor is read; other copies of it, which must be equal.
        self.source: dict[str, str] = {}
        self.copies: dict[str, str] = {}
        for link in self.links:
            there = [key for key in (link.key, *link.tied) if key in self.found]
            self.source[link.key] = there[0] if there else link.key
            self.copies |= {key: there[0] for key in there[1:] if key not in self.expected}

    def get(self, key: str) -> Tensor | None:
        """The tensor of an official key, under its own or a tied name."""
        return self.found.get(self.source[key])

    def fitting(self) -> int:
        """Number of official keys that are there in the right shape."""
        tensors = ((self.get(key), shape) for key, shape in self.expected.items())
        return sum(tensor is not None and tensor.shape == shape for tensor, shape in tensors)

    def problems(self) -> list[str]:
        """What does not fit by name, shape or kind of number, and how often."""
        missing = [key for key in self.expected if self.get(key) is None]
        used = {*self.source.values(), *self.copies}
        unexpected = [key for key in self.found if key not in self.expected and key not in used]
        misshaped = [
            f"{key} expected {shape}, found {tensor.shape}"
            for key, shape in self.expected.items()
            if (tensor := self.get(key)) is not None and tensor.shape != shape
        ]
        kinds = [
            _dtype_problem(link.key, tensor.dtype, slot.leaf.dtype)
            for slot in self.slots
            for link in slot.links
            if (tensor := self.get(link.key)) is not None
            and _kind(tensor.dtype) != _kind(slot.leaf.dtype)
        ]
        return [
            f"{len(names)} {kind}: {_listing(names)}"
            for kind, names in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("of another shape", misshaped),
                ("with numbers of another kind or range", kinds),
            )
            if names
        ]

    def hint(self) -> str:
        """What a mismatch most likely means, or nothing."""
        found, expected = self.found, self.expected
        for key in list(found)[:_SHOWN]:
            for prefix in {key.removesuffix(other) for other in expected} - {"", key}:
                hits = sum(k.startswith(prefix) and k[len(prefix) :] in expected for k in found)
                if 2 * hits > len(found):
                    return f" ({hits} keys fit once the prefix {prefix!r} is removed)"
        if not any(key in expected for key in found):
            return " (no name fits: another network, or a wrapper around this one)"
        if set(found) == set(expected) and any(found[k].shape != expected[k] for k in expected):
            return " (all names fit: the same network in another size)"
        return ""

    def refuse(self, problems: Sequence[str]) -> None:
        """Tell all problems in one sentence, if there are any."""
        if problems:
            raise UserError(
                f"The weights do not fit this network: {self.fitting()} of {len(self.expected)} "
                f"keys match, {', '.join(problems)}{self.hint()}."
            )


def _dtype_problem(key: str, found: np.dtype, expected: Any) -> str:
    return f"{key} expected {np.dtype(expected).name}, found {found.name}"


def choose_layout(
    state_dict: StateDict,
    layouts: Mapping[str, Sequence[Rule]],
    target: Any,
    *,
    ignore: Sequence[str] = (),
) -> str:
    """Name of the first key table that official weights fit, or of the one they fit best.

    Networks are published under several namings. Nothing is read or refused here: that is what
    :func:`from_state_dict` does with the table that was chosen.

    Args:
      state_dict: official key -> tensor.
      layouts: name -> key table.
      target: as for :func:`from_state_dict`.
      ignore: as for :func:`from_state_dict`.

    >>> layouts = {"old": [Rule("w", "fc.weight")], "new": [Rule("w", "head.fc.weight")]}
    >>> choose_layout({"head.fc.weight": np.zeros(2)}, layouts, {"w": np.zeros(2)})
    'new'
    """
    best, most = "", -1.0
    for name, rules in layouts.items():
        table = _Table(state_dict, rules, target, ignore)
        if not table.problems():
            return name
        share = table.fitting() / max(1, len(table.expected))
        best, most = (name, share) if share > most else (best, most)
    return best


def from_state_dict(
    state_dict: StateDict, rules: Sequence[Rule], target: Any, *, ignore: Sequence[str] = ()
) -> Params:
    r"""Arrange official weights as our parameter tree; strict.

    Args:
      state_dict: official key -> array in PyTorch's layout, or a `LazyTensor`, of which only what
        is needed is read, one leaf or shard after the other. Prefixes of wrappers (`WRAPPERS`)
        are removed when every key has them and the keys fit afterwards.
      rules: key table; the first rule whose ``path`` matches a leaf holds.
      target: tree of ``ShapeDtypeStruct`` (``jax.eval_shape`` of the network's ``init``) or of
        arrays. Its dtypes are the result's: numbers are converted within their kind (float to
        float, integer to integer), which leaves them bit for bit when the dtypes agree. The
        ``sharding`` of a ``ShapeDtypeStruct`` is where its leaf is placed.
      ignore: regular expressions of official keys without use, each matched on the whole key.

    Returns:
      Tree of ``target``'s structure with ``jax.Array`` leaves.

    Raises:
      UserError: missing, unexpected or mis-shaped keys, or numbers of another kind; all in one
        sentence with exact counts. Or numbers beyond the range of the target's dtype, or two
        copies of one weight that differ.
      ValueError: the table itself is wrong (a leaf without a rule, two leaves for one key).

    >>> from jaxcore.convert import LINEAR
    >>> rules = [Rule(r"(\w+)/kernel", r"\1.weight", LINEAR), Rule(r"(\w+)/bias", r"\1.bias")]
    >>> target = {"fc": {"kernel": np.zeros((3, 2), "f4"), "bias": np.zeros(2, "f4")}}
    >>> weights = {"fc.weight": np.ones((2, 3), "f4"), "fc.bias": np.ones(2, "f4")}
    >>> from_state_dict(weights, rules, target)["fc"]["kernel"].shape
    (3, 2)
    """
    table = _Table(state_dict, rules, target, ignore)
    table.refuse(table.problems())
    for copy, key in table.copies.items():
        if not _equal(table.found[copy], table.found[key]):
            raise UserError(
                f"The weights do not fit this network: {readable(copy)} differs from "
                f"{readable(key)}, which are one weight here."
            )
    beyond: dict[str, str] = {}
    leaves = [_place(slot, table, beyond) for slot in table.slots]
    if beyond:
        names = list(beyond.values())
        table.refuse([f"{len(names)} with numbers of another kind or range: {_listing(names)}"])
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(target), leaves)


def _place(slot: Slot, table: _Table, beyond: dict[str, str]) -> jax.Array:
    """One leaf on its devices; every process reads the shards of its own devices only."""
    leaf, shape = slot.leaf, tuple(slot.leaf.shape)
    sharding = leaf.sharding if isinstance(leaf, jax.ShapeDtypeStruct) else None
    if sharding is None:
        return jax.device_put(_assemble(slot, table, [(0, n) for n in shape], beyond))
    spans = {
        device: tuple(part.indices(n)[:2] for part, n in zip(index or (), shape, strict=True))
        for device, index in sharding.addressable_devices_indices_map(shape).items()
    }
    shards: dict[Any, jax.Array] = {}
    for span in dict.fromkeys(spans.values()):
        value = _assemble(slot, table, span, beyond)
        for device in (device for device, its in spans.items() if its == span):
            place = jax.sharding.SingleDeviceSharding(device, memory_kind=sharding.memory_kind)
            shards[device] = jax.device_put(value, place)
        jax.block_until_ready(list(shards.values()))
        del value  # before the next one takes memory
    ordered = [shards[device] for device in spans]
    return jax.make_array_from_single_device_arrays(shape, sharding, ordered)


def _assemble(
    slot: Slot, table: _Table, spans: Sequence[tuple[int, int]], beyond: dict[str, str]
) -> np.ndarray:
    """Read a box of one leaf; ``beyond`` receives the keys whose numbers its dtype lacks."""
    dtype = np.dtype(slot.leaf.dtype)
    out = np.empty([stop - start for start, stop in spans], dtype)
    for link in slot.links:
        into, part = _overlap(link, spans)
        if part is None:
            continue
        tensor = table.get(link.key)
        assert tensor is not None  # seen by `problems`
        values = link.transform.to_ours(np.asarray(tensor))[part]
        with np.errstate(over="ignore", invalid="ignore"):
            out[into] = values
        if not np.can_cast(values.dtype, dtype) and not _holds(out[into], values):
            beyond[link.key] = _dtype_problem(link.key, values.dtype, dtype)
    return out


def _overlap(
    link: Link, spans: Sequence[tuple[int, int]]
) -> tuple[tuple[int | slice, ...], tuple[slice, ...] | None]:
    """Where a link fills a box of its leaf, and with what of the official tensor (or None)."""
    into: list[int | slice] = []
    if link.layer is not None:
        (first, last), *spans = spans
        if not first <= link.layer < last:
            return (), None
        into.append(link.layer - first)
    part = [slice(start, stop) for start, stop in spans]
    into += [slice(0, stop - start) for start, stop in spans]
    if spans:
        (low, high), offset = spans[link.axis], link.theirs[0] - link.ours[0]
        start, stop = max(low, link.ours[0]), min(high, link.ours[1])
        if start >= stop and low < high:
            return (), None
        part[link.axis] = slice(start + offset, stop + offset)
        into[link.axis] = slice(start - low, stop - low)
    return tuple(into), tuple(part)


def _holds(cast: np.ndarray, value: np.ndarray) -> bool:
    """Whether numbers survived a change of dtype: integers exactly, floats their finiteness."""
    if _kind(value.dtype) == "integer":
        return np.array_equal(cast, value)
    return not np.any(np.isfinite(value) & ~np.isfinite(cast))


def _equal(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors agree bit for bit, compared in stretches."""
    a, b = np.asarray(one), np.asarray(two)
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    if not a.ndim or not a.size:
        return a.tobytes() == b.tobytes()
    rows = max(1, _COMPARED * len(a) // a.nbytes)
    return all(
        a[i : i + rows].tobytes() == b[i : i + rows].tobytes() for i in range(0, len(a), rows)
    )


def lazy_state_dict(
    params: Params, rules: Sequence[Rule], target: Any = None
) -> dict[str, LazyTensor]:
    """As :func:`to_state_dict`, but a tensor is arranged only when it is read.

    So a writer needs memory for one tensor besides the parameters, which must stay as they are
    until then.
    """
    if target is not None and jax.tree.map(np.shape, params) != jax.tree.map(np.shape, target):
        raise UserError("The parameters have another structure or size than the configuration.")
    out, tied = {}, {}
    for key, users in by_key(slots(params, rules)).items():
        slot, link = users[0]
        view = functools.partial(_official, users)
        out[key] = LazyTensor(link.shape, np.dtype(slot.leaf.dtype), view)
        tied[key] = link.tied
    copies = [
        key
        for key, others in tied.items()
        if any(other in out and _equal(out[key], out[other]) for other in others)
    ]
    return {key: tensor for key, tensor in out.items() if key not in copies}


def _official(users: Sequence[tuple[Slot, Link]]) -> np.ndarray:
    """An official tensor, put together from the leaves it is in."""
    slot, first = users[0]
    if len(users) == 1:
        return first.transform.to_torch(_stretch(slot, first))
    whole = np.empty(first.whole, slot.leaf.dtype)
    for slot, link in users:
        _along(whole, link.axis, link.theirs)[...] = _stretch(slot, link)
    return first.transform.to_torch(whole)


def _stretch(slot: Slot, link: Link) -> np.ndarray:
    value = np.asarray(slot.leaf)
    value = value if link.layer is None else value[link.layer, ...]
    return _along(value, link.axis, link.ours) if link.whole else value


def _along(value: np.ndarray, axis: int, span: tuple[int, int]) -> np.ndarray:
    index = [slice(None)] * value.ndim
    index[axis] = slice(*span)
    return value[tuple(index)]


def to_state_dict(
    params: Params, rules: Sequence[Rule], target: Any = None
) -> dict[str, np.ndarray]:
    r"""Arrange our parameters as official weights: the exact inverse of :func:`from_state_dict`.

    Args:
      params: nested dict of arrays.
      rules: key table.
      target: tree of the structure and shapes that ``params`` must have; None takes any.

    Returns:
      Official key -> new contiguous array; every bit and dtype (bfloat16 too) as in ``params``.

    Raises:
      UserError: not the structure or shapes of ``target``, or a leaf has the wrong number of
        axes for its rule.
      ValueError: the table itself is wrong.

    >>> from jaxcore.convert import LINEAR
    >>> to_state_dict({"fc": np.ones((3, 2), "f4")}, [Rule(r"(\w+)", r"\1.weight", LINEAR)])
    {'fc.weight': array([[1., 1., 1.],
           [1., 1., 1.]], dtype=float32)}
    """
    return {key: tensor.read() for key, tensor in lazy_state_dict(params, rules, target).items()}
