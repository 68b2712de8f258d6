"""Changes that several files share."""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Arrays: TypeAlias = dict[str, np.ndarray]
Config: TypeAlias = dict[str, Any]
# Changes both in place; what it returns names results that a check takes as they are.
Change: TypeAlias = Callable[[Arrays, Config], set[str] | None]


def take(arrays: Arrays, total: int, rows: np.ndarray) -> None:
    """Keep some rows of every input with an axis of ``total`` of them."""
    for key, value in arrays.items():
        if key.startswith("in/") and total in value.shape:
            arrays[key] = np.take(value, rows, axis=value.shape.index(total))


def rename(arrays: Arrays, pattern: str, by: str) -> None:
    """Replace a regular expression in the names of inputs and results."""
    for key in list(arrays):
        if not key.startswith("param/"):
            arrays[re.sub(pattern, by, key)] = arrays.pop(key)


def drop(arrays: Arrays, pattern: str) -> None:
    """Leave out the inputs and results whose name holds a regular expression."""
    for key in [key for key in arrays if re.search(pattern, key)]:
        del arrays[key]


def resize(arrays: Arrays, seed: int, *, batch: int = 3, **sides: tuple[int, int]) -> None:
    """Draw the inputs anew, with as many images and these heights and widths.

    Args:
      arrays: of the new file.
      seed: of the numbers.
      batch: images of inputs that hold several.
      **sides: height and width by the name of an input.
    """
    rng = np.random.default_rng(seed)
    for name, side in sides.items():
        old = arrays[f"in/{name}"]
        shape = (*old.shape[:-2], *side)
        if old.ndim == 4:
            shape = (batch, *shape[1:])
        if old.dtype == np.uint8:
            new = rng.integers(0, 256, shape)
        elif old.min() >= 0:
            new = rng.uniform(0, 1, shape)
        else:
            new = rng.normal(old.mean(), old.std(), shape)
        arrays[f"in/{name}"] = new.astype(old.dtype)


def reweigh(arrays: Arrays, seed: int) -> None:
    """Disturb all weights."""
    rng = np.random.default_rng(seed)
    for key, value in arrays.items():
        if key.startswith("param/") and value.dtype.kind == "f":
            noise = rng.normal(0, 0.1 * float(value.std()) + 0.01, value.shape)
            arrays[key] = (value + noise).astype(value.dtype)


def put_weights(arrays: Arrays, weights: Arrays, prefix: str = "param/") -> None:
    """Take other weights, of other sizes, in place of those below ``prefix``."""
    drop(arrays, f"^{re.escape(prefix)}")
    arrays.update({prefix + key: np.asarray(value) for key, value in weights.items()})
