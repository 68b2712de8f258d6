"""Tensors whose shape and dtype are known before a value is read."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor of a file, or one yet to be arranged; ``np.asarray`` and slices read it.

    ``np.asarray(tensor)`` is a read-only view of the file where its bytes can be used as they
    lie, so that only the parts that are used come into memory; ``tensor[...]`` and
    :meth:`read` give arrays of their own.

    Attributes:
      shape: its shape.
      dtype: its dtype, in native byte order.
      view: makes the array; called at every access, and keeps the file open.

    >>> tensor = LazyTensor((2, 3), np.dtype("f4"), lambda: np.ones((2, 3), "f4"))
    >>> tensor[0].tolist(), float(np.asarray(tensor).sum())
    ([1.0, 1.0, 1.0], 6.0)
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    view: Callable[[], np.ndarray] = dataclasses.field(repr=False)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all its values take."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """All values as a new contiguous array."""
        return np.array(self.view(), order="C")

    def __getitem__(self, index: Any) -> np.ndarray:
        """A part of the values, as a new array."""
        return np.array(self.view()[index], order="C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self.view()
        return np.array(value, dtype) if copy else np.asarray(value, dtype)
