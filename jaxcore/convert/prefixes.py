"""Prefixes of official keys: those of wrappers around a network, and those of its parts."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

_Value = TypeVar("_Value")

#: What data-parallel wrappers, ``torch.compile`` and Lightning modules put before every key.
WRAPPERS = ("module.", "_orig_mod.", "net.", "model.")

#: Counters that profilers (thop) leave in the modules they have looked at.
LEFTOVERS = re.compile(r"(.+\.)?total_(ops|params)")


def strip_prefix(
    state_dict: Mapping[str, _Value], keys: Collection[str], prefixes: Sequence[str] = WRAPPERS
) -> dict[str, _Value]:
    """Remove the prefixes of wrappers that EVERY key carries, nested ones too.

    They go only if keys of the network come out; else all keys stay as they are. So ``model.``
    is a wrapper for some networks and the beginning of a name for others.

    Args:
      state_dict: official key -> tensor.
      keys: official keys of the network, some or all of them.
      prefixes: what wrappers put before keys.

    >>> strip_prefix({"module.net.a": 0, "module.net.b": 1}, ["a"])
    {'a': 0, 'b': 1}
    >>> strip_prefix({"module.model.a": 0}, ["model.a"])
    {'model.a': 0}
    >>> strip_prefix({"net.a": 0, "b": 1}, ["a"])
    {'net.a': 0, 'b': 1}
    """
    out = dict(state_dict)
    while out and not any(key in out for key in keys):
        for prefix in prefixes:
            if prefix and all(key.startswith(prefix) and key != prefix for key in out):
                out = select_prefix(out, prefix)
                break
        else:
            return dict(state_dict)
    return out


def select_prefix(state_dict: Mapping[str, _Value], prefix: str) -> dict[str, _Value]:
    """Keep the keys that begin with ``prefix``, without it.

    >>> select_prefix({"ema_model.a": 0, "step": 1}, "ema_model.")
    {'a': 0}
    """
    size = len(prefix)
    return {key[size:]: value for key, value in state_dict.items() if key.startswith(prefix)}
