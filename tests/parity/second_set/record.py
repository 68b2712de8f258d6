"""Run a check of a golden file so that it writes down what it would compare."""

import contextlib
import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tests.parity import golden
from tests.parity.second_set.change import Arrays, Config


def record(
    check: Callable[[Path], None],
    arrays: Arrays,
    config: Config,
    path: Path,
    *,
    stale: set[str],
) -> None:
    """Replace results in ``arrays`` by what ``check`` computes, and write the file.

    Args:
      check: of one golden file.
      arrays: of the new file.
      config: of the new file.
      path: of the new file.
      stale: names of the results that are still those of another file, of any size and value.

    Raises:
      ValueError: the check does not look at some of the results.
    """
    fresh: Arrays = {}
    module = inspect.getmodule(check)
    real = {"load": golden.load, "close": golden.close, "equal": golden.equal}

    def write(compare: Callable[..., None], ours: Any, stored: np.ndarray, **how: Any) -> None:
        for key in stale:
            if arrays[key] is stored or np.shares_memory(arrays[key], stored):
                layouts = [(a.shape, a.strides) for a in (stored, arrays[key])]
                moved = layouts[0] != layouts[1]
                value = np.moveaxis(np.asarray(ours), -1, -3) if moved else np.asarray(ours)
                # Of the precisions a file is checked in, the first is the one it is stored in.
                fresh.setdefault(key, value.astype(arrays[key].dtype))
                return
        compare(ours, stored, **how)  # with another part of the check, or what is given

    replaced = {name: functools.partial(write, real[name]) for name in ("close", "equal")}
    replaced["load"] = lambda p: (arrays, config) if p == path else real["load"](p)
    with contextlib.ExitStack() as stack:
        for name, function in replaced.items():
            for owner in (golden, module):
                if hasattr(owner, name):
                    stack.enter_context(mock.patch.object(owner, name, function))
        check(path)
    if missing := stale - fresh.keys():
        raise ValueError(f"{check.__name__} does not look at {sorted(missing)[:5]}")
    np.savez(path, config=json.dumps(config), **{**arrays, **fresh})
