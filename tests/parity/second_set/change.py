"""Changes that several files share."""

from typing import Any, TypeAlias

import numpy as np

Arrays: TypeAlias = dict[str, np.ndarray]
Config: TypeAlias = dict[str, Any]


def take(arrays: Arrays, total: int, rows: np.ndarray) -> None:
    """Keep some rows of every input with an axis of ``total`` of them."""
    for key, value in arrays.items():
        if key.startswith("in/") and total in value.shape:
            arrays[key] = np.take(value, rows, axis=value.shape.index(total))
