"""Run a check of a golden file so that it writes down what it would compare."""

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

    def write(ours: Any, stored: np.ndarray, **_: Any) -> None:
        for key in stale:
            if arrays[key] is stored or np.shares_memory(arrays[key], stored):
                moved = stored.strides != arrays[key].strides
                value = np.moveaxis(np.asarray(ours), -1, -3) if moved else np.asarray(ours)
                # Of the precisions a file is checked in, the first is the one it is stored in.
                fresh.setdefault(key, value.astype(arrays[key].dtype))
                return
        raise ValueError(f"{check.__name__} compares with something that is not in the file")

    np.savez(path, config=json.dumps(config), **arrays)
    module = inspect.getmodule(check)
    patches = [mock.patch.object(golden, "load", lambda _: (arrays, config))]
    patches += [
        mock.patch.object(module, name, write)
        for name in ("close", "equal")
        if hasattr(module, name)
    ]
    for patch in patches:
        patch.start()
    try:
        check(path)
    finally:
        for patch in reversed(patches):
            patch.stop()
    if missing := stale - fresh.keys():
        raise ValueError(f"{check.__name__} does not look at {sorted(missing)[:5]}")
    np.savez(path, config=json.dumps(config), **{**arrays, **fresh})
