"""One state-dict engine: a table of rules maps our parameter tree to official PyTorch keys.

A rule goes from OUR leaf to the official key, so that reading and writing use the same table and
the inverse is exact by construction. Rules only move axes; they never compute with the values.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.errors import UserError
from jaxcore.typing import Params, StateDict

_SHOWN = 5  # names listed per kind of mismatch; the counts are always exact


@dataclasses.dataclass(frozen=True)
class Transform:
    """A change of layout and its inverse; both should return views of their argument."""

    name: str
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


def _conv_to_ours(w: np.ndarray) -> np.ndarray:
    return w.transpose(*range(2, w.ndim), 1, 0)


def _conv_to_torch(w: np.ndarray) -> np.ndarray:
    return w.transpose(w.ndim - 1, w.ndim - 2, *range(w.ndim - 2))


def _flip(w: np.ndarray) -> np.ndarray:
    return w[(slice(None, None, -1),) * (w.ndim - 2)]


def channel_vector(leading: int = 0, trailing: int = 2) -> Transform:
    """Vector stored with singleton axes around it: ``(1, ..., C, 1, ...) <-> (C,)``.

    Args:
      leading: number of singleton axes before the channel axis in the official shape.
      trailing: number of singleton axes after it.

    >>> channel_vector(leading=1).to_torch(np.zeros(3)).shape
    (1, 3, 1, 1)
    """
    outside = (None,) * leading + (slice(None),) + (None,) * trailing
    inside = (0,) * leading + (slice(None),) + (0,) * trailing
    return Transform(f"vector({leading}, {trailing})", lambda w: w[inside], lambda w: w[outside])


IDENTITY = Transform("identity", lambda w: w, lambda w: w)
#: ``(O, I, kh, kw) <-> (kh, kw, I, O)``; also 1-D and 3-D, and grouped (I per group).
CONV = Transform("conv", _conv_to_ours, _conv_to_torch)
#: ``(C, 1, kh, kw) <-> (kh, kw, 1, C)``: the same move as `CONV`, named for the reader.
DEPTHWISE = Transform("depthwise", _conv_to_ours, _conv_to_torch)
#: ``(O, I, 1, 1) <-> (I, O)``.
POINTWISE = Transform("pointwise", lambda w: w[:, :, 0, 0].T, lambda w: w.T[:, :, None, None])
#: ``(O, I) <-> (I, O)``.
LINEAR = Transform("linear", lambda w: w.T, lambda w: w.T)
#: ``(I, O, kh, kw) <-> (kh, kw, I, O)`` with taps flipped: the HWIO kernel for
#: ``lax.conv_general_dilated(..., (1, 1), k - 1 - padding, lhs_dilation=stride)``.
CONV_TRANSPOSE = Transform(
    "conv_transpose",
    lambda w: _flip(w.transpose(*range(2, w.ndim), 0, 1)),
    lambda w: _flip(w).transpose(w.ndim - 2, w.ndim - 1, *range(w.ndim - 2)),
)
#: ``(C, 1, 1) <-> (C,)``; other singleton axes: :func:`channel_vector`.
VECTOR = channel_vector()

_LAYER = re.compile(r"\{(\d*)i([+-]\d+)?\}")


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""One line of a key table.

    Attributes:
      path: regular expression that must match the whole ``/``-joined path of our leaf.
      key: official key; ``\1`` or ``\g<name>`` stand for the groups of ``path``.
      transform: layout change between the two.
      stacked: the leading axis of our leaf counts layers; ``key`` then holds ``{i}`` (or
        ``{2i}``, ``{2i+1}`` for every other layer) and stands for one official tensor per layer.

    >>> Rule(r"levels/(\d)/conv", r"levels.\1.{i}.weight", CONV, stacked=True).stacked
    True
    """

    path: str
    key: str
    transform: Transform = IDENTITY
    stacked: bool = False

    def __post_init__(self):
        re.compile(self.path)
        if self.stacked != bool(_LAYER.search(self.key)):
            raise ValueError(f"Rule {self.path!r}: 'stacked' and '{{i}}' in the key go together.")


@dataclasses.dataclass(frozen=True)
class _Slot:
    """Where one of our leaves lives outside: its official keys, in layer order."""

    path: str
    rule: Rule
    keys: tuple[str, ...]
    shape: tuple[int, ...]  # official shape of each tensor
    leaf: Any


def _layer_key(template: str, i: int) -> str:
    return _LAYER.sub(lambda m: str(int(m[1] or 1) * i + int(m[2] or 0)), template)


def _slot(path: str, leaf: Any, rules: Sequence[Rule]) -> _Slot:
    for rule in rules:
        match = re.fullmatch(rule.path, path)
        if match:
            break
    else:
        raise ValueError(f"No rule of the key table matches the leaf {path!r}.")
    template, shape = match.expand(rule.key), tuple(leaf.shape)
    if not rule.stacked:
        keys = (template,)
    elif shape:
        keys, shape = tuple(_layer_key(template, i) for i in range(shape[0])), shape[1:]
    else:
        raise UserError(f"Leaf {path!r} must have a leading axis of layers, but it is a scalar.")
    try:  # a view without memory: only its shape matters
        official = rule.transform.to_torch(np.broadcast_to(np.zeros((), np.bool_), shape)).shape
    except (ValueError, IndexError):
        raise UserError(
            f"Leaf {path!r} of shape {tuple(leaf.shape)} cannot be a {rule.transform.name} weight."
        ) from None
    return _Slot(path, rule, keys, tuple(official), leaf)


def _slots(tree: Any, rules: Sequence[Rule]) -> list[_Slot]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    slots = [_slot(path, leaf, rules) for path, (_, leaf) in zip(paths, leaves, strict=True)]
    owner: dict[str, str] = {}
    for slot in slots:
        for key in slot.keys:
            if owner.setdefault(key, slot.path) != slot.path or slot.keys.count(key) > 1:
                raise ValueError(f"Leaves {owner[key]!r} and {slot.path!r} both map to {key!r}.")
    return slots


def official_shapes(target: Any, rules: Sequence[Rule]) -> dict[str, tuple[int, ...]]:
    """Every official key with its shape, for a tree of arrays or of ``ShapeDtypeStruct``.

    >>> target = {"fc": jax.ShapeDtypeStruct((3, 5), "float32")}
    >>> official_shapes(target, [Rule("fc", "fc.weight", LINEAR)])
    {'fc.weight': (5, 3)}
    """
    return {key: slot.shape for slot in _slots(target, rules) for key in slot.keys}


def readable(text: str, limit: int = 200) -> str:
    """Prepare text that comes from a file for a message: no control characters, not too long."""
    text = text if len(text) <= limit else text[:limit] + "..."
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _listing(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return "; ".join(map(readable, names[:_SHOWN])) + (f"; and {more} more" if more > 0 else "")


def _kind(dtype: Any) -> str:
    for kind in (np.bool_, np.integer, np.floating, np.complexfloating):
        if jnp.issubdtype(dtype, kind):  # knows bfloat16 and float8, which NumPy's own does not
            return kind.__name__
    return "other"


def _holds(dtype: Any, value: np.ndarray) -> bool:
    """Whether ``dtype`` is the same kind of number and loses no value altogether."""
    if value.dtype == dtype:
        return True
    if _kind(value.dtype) != _kind(dtype):
        return False
    with np.errstate(over="ignore"):
        cast = value.astype(dtype)
    if _kind(dtype) == "integer":
        return np.array_equal(cast, value)
    return not np.any(np.isfinite(value) & ~np.isfinite(cast))


def _hint(found: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> str:
    """What a mismatch most likely means, or nothing."""
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


def from_state_dict(
    state_dict: StateDict, rules: Sequence[Rule], target: Any, *, ignore: Sequence[str] = ()
) -> Params:
    r"""Arrange official weights as our parameter tree; strict.

    Args:
      state_dict: official key -> array in PyTorch's layout.
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
        sentence with exact counts.
      ValueError: the table itself is wrong (a leaf without a rule, two leaves for one key).

    >>> rules = [Rule(r"(\w+)/kernel", r"\1.weight", LINEAR), Rule(r"(\w+)/bias", r"\1.bias")]
    >>> target = {"fc": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
    >>> weights = {"fc.weight": np.ones((2, 3), "f4"), "fc.bias": np.ones(2, "f4")}
    >>> from_state_dict(weights, rules, target)["fc"]["kernel"].shape
    (3, 2)
    """
    slots = _slots(target, rules)
    expected = {key: slot.shape for slot in slots for key in slot.keys}
    dead = re.compile("|".join(f"(?:{p})" for p in ignore)) if ignore else None
    found = {
        key: np.asarray(value)
        for key, value in state_dict.items()
        if key in expected or not (dead and dead.fullmatch(key))
    }
    problems = _shape_problems(found, expected) + _dtype_problems(slots, found)
    if problems:
        matching = sum(k in found and found[k].shape == expected[k] for k in expected)
        raise UserError(
            f"The weights do not fit this network: {matching} of {len(expected)} keys match, "
            f"{', '.join(problems)}{_hint(found, expected)}."
        )
    leaves = []
    for slot in slots:
        parts = [slot.rule.transform.to_ours(found[key]) for key in slot.keys]
        value = np.empty(slot.leaf.shape, slot.leaf.dtype)
        for i, part in enumerate(parts):
            value[i if slot.rule.stacked else ...] = part.astype(value.dtype)
        sharding = slot.leaf.sharding if isinstance(slot.leaf, jax.ShapeDtypeStruct) else None
        leaves.append(jax.device_put(value, sharding))
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(target), leaves)


def _shape_problems(
    found: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> list[str]:
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    misshaped = [
        f"{key} expected {shape}, found {found[key].shape}"
        for key, shape in expected.items()
        if key in found and found[key].shape != shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
    return [f"{len(names)} {kind}: {_listing(names)}" for kind, names in kinds if names]


def _dtype_problems(slots: Sequence[_Slot], found: Mapping[str, np.ndarray]) -> list[str]:
    names = [
        f"{key} expected {np.dtype(slot.leaf.dtype).name}, found {found[key].dtype.name}"
        for slot in slots
        for key in slot.keys
        if key in found and not _holds(slot.leaf.dtype, found[key])
    ]
    return [f"{len(names)} with numbers of another kind or range: {_listing(names)}"] * bool(names)


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

    >>> to_state_dict({"fc": jnp.ones((3, 2))}, [Rule(r"(\w+)", r"\1.weight", LINEAR)])
    {'fc.weight': array([[1., 1., 1.],
           [1., 1., 1.]], dtype=float32)}
    """
    if target is not None and jax.tree.map(np.shape, params) != jax.tree.map(np.shape, target):
        raise UserError("The parameters have another structure or size than the configuration.")
    out = {}
    for slot in _slots(params, rules):
        value = np.asarray(slot.leaf)
        layers = value if slot.rule.stacked else (value,)
        for key, layer in zip(slot.keys, layers, strict=True):
            out[key] = np.array(slot.rule.transform.to_torch(layer), order="C")
    return out


#: What data-parallel wrappers, ``torch.compile`` and Lightning modules put before every key.
WRAPPERS = ("module.", "_orig_mod.", "net.", "model.")


def strip_prefix(state_dict: StateDict, *prefixes: str) -> dict[str, np.ndarray]:
    """Remove prefixes that EVERY key carries, nested ones too; otherwise keys stay as they are.

    Args:
      state_dict: official key -> array.
      *prefixes: candidates; by default :data:`WRAPPERS`. A network whose own keys all begin with
        one of those (some language models: ``model.``) must name the others itself.

    >>> strip_prefix({"module.net.a": np.zeros(1), "module.net.b": np.zeros(1)}).keys()
    dict_keys(['a', 'b'])
    >>> strip_prefix({"net.a": np.zeros(1), "b": np.zeros(1)}).keys()
    dict_keys(['net.a', 'b'])
    """
    out = dict(state_dict)
    while out:
        for prefix in prefixes or WRAPPERS:
            if prefix and all(key.startswith(prefix) and key != prefix for key in out):
                out = select_prefix(out, prefix)
                break
        else:
            break
    return out


def select_prefix(state_dict: StateDict, prefix: str) -> dict[str, np.ndarray]:
    """Keep the keys that begin with ``prefix``, without it.

    >>> select_prefix({"ema_model.a": np.zeros(1), "step": np.zeros(1)}, "ema_model.").keys()
    dict_keys(['a'])
    """
    size = len(prefix)
    return {key[size:]: value for key, value in state_dict.items() if key.startswith(prefix)}
