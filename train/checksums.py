"""Checksums of arrays, part by part as they lie on the devices.

TensorStore notices a torn file, but not a flipped byte inside an array. A record holds for every
leaf the CRC-32 of its bytes; for one that is split over devices, of every part by its place, such
as ``{"0:128,0:64": 1696784233, ...}``.
"""

import zlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxcore.train.optim import parameter_path

Checksums: TypeAlias = dict[str, int | dict[str, int]]
_Place: TypeAlias = tuple[tuple[int, int], ...]  # begin and end along every axis


def checksums(tree: Any) -> Checksums:
    """CRC-32 of the parts of every leaf; all processes must call it.

    Each process reads its own parts, one at a time, from the copy in host memory that JAX keeps of
    an array once it was asked for, and which the writer then takes too.

    >>> import numpy as np
    >>> checksums({"w": np.zeros(2, np.float32)})
    {'w': 1696784233}
    """
    names, places, values = [], [], []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        for place, part in _parts(_plain(leaf)):
            names.append(parameter_path(path))
            places.append(place)
            values.append(0 if part is None else _crc(part))
    found = np.array(values, np.uint32)
    if jax.process_count() > 1 and len(found):  # the parts of others are 0 here
        found = np.asarray(multihost_utils.process_allgather(found)).sum(0, dtype=np.uint32)
    out: Checksums = {}
    for name, place, value in zip(names, places, found.tolist(), strict=True):
        if place is None:
            out[name] = value
        else:
            parts = out.setdefault(name, {})
            assert isinstance(parts, dict)
            parts[_text(place)] = value
    return out


def verify(tree: Any, stored: Mapping[str, Any]) -> None:
    """Compare with the checksums of the time of saving.

    Leaves that have none pass, and parts of which no device of this process holds all.

    Raises:
      ValueError: names the first leaf whose bytes have changed.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name, leaf = parameter_path(path), _plain(leaf)
        known = stored.get(name, {})
        whole = tuple((0, size) for size in np.shape(leaf))
        parts = known if isinstance(known, dict) else {_text(whole): known}
        for text, value in parts.items():
            part = _find(leaf, _place(text))
            if part is not None and _crc(part) != value:
                raise ValueError(f"the bytes of {name} have changed since they were written")


def first_nonfinite(tree: Any) -> str | None:
    """Path of the first leaf with a NaN or an infinity; all processes must call it.

    >>> import numpy as np
    >>> first_nonfinite({"a": np.ones(2), "b": np.array([1.0, np.inf])})
    'b'
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    bad = np.array([not _finite(leaf) for _, leaf in leaves], np.uint8)
    if jax.process_count() > 1 and len(leaves):
        bad = np.asarray(multihost_utils.process_allgather(bad)).max(0)
    return parameter_path(leaves[int(bad.argmax())][0]) if bad.any() else None


def _finite(leaf: Any) -> bool:
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return True
    return all(part is None or bool(np.isfinite(part).all()) for _, part in _parts(leaf))


def _plain(leaf: Any) -> Any:
    """Typed keys as the numbers they are."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf


def _crc(part: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)


def _text(place: _Place) -> str:
    return ",".join(f"{begin}:{end}" for begin, end in place)


def _place(text: str) -> _Place:
    pairs = (part.split(":") for part in text.split(",") if part)
    return tuple((int(begin), int(end)) for begin, end in pairs)


def _bounds(index: tuple[slice, ...], shape: tuple[int, ...]) -> _Place:
    return tuple(s.indices(size)[:2] for s, size in zip(index, shape, strict=True))


def _parts(leaf: Any) -> list[tuple[_Place | None, Any]]:
    """Place and content of every part; no place for the whole, no content for those of others."""
    if not isinstance(leaf, jax.Array):
        return [(None, leaf)]
    if leaf.is_fully_replicated:
        mine = jax.process_index() == min(d.process_index for d in leaf.sharding.device_set)
        return [(None, leaf.addressable_shards[0].data if mine else None)]
    held = {
        _bounds(shard.index, leaf.shape): shard.data
        for shard in leaf.addressable_shards
        if shard.replica_id == 0
    }
    indices = leaf.sharding.devices_indices_map(leaf.shape).values()
    places = sorted({_bounds(index, leaf.shape) for index in indices})
    return [(place, held.get(place)) for place in places]


def _find(leaf: Any, place: _Place) -> np.ndarray | None:
    """The content of a place, if this process has it."""
    shards = leaf.addressable_shards if isinstance(leaf, jax.Array) else ()
    for shard in shards:
        bounds = _bounds(shard.index, leaf.shape)
        if all(low <= a and b <= high for (a, b), (low, high) in zip(place, bounds, strict=True)):
            inner = (
                slice(a - low, b - low) for (a, b), (low, _) in zip(place, bounds, strict=True)
            )
            return np.asarray(shard.data)[tuple(inner)]
    if shards and not leaf.is_fully_addressable:
        return None
    return np.asarray(leaf)[tuple(slice(*bounds) for bounds in place)]
