"""Names for the types that cross room borders."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np

Params: TypeAlias = dict[str, Any]
"""Nested dict of ``jax.Array``."""

Batch: TypeAlias = Mapping[str, Any]
"""One batch: name -> array with a leading batch axis."""

Key: TypeAlias = jax.Array
"""A typed PRNG key from ``jax.random.key``."""


class TensorLike(Protocol):
    """An array, or a tensor that is read when ``np.asarray`` or a slice asks for its values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Known without reading."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Known without reading."""
        ...

    def __array__(self) -> np.ndarray: ...

    def __getitem__(self, index: Any, /) -> Any: ...


StateDict: TypeAlias = Mapping[str, TensorLike]
"""PyTorch parameter name -> tensor in PyTorch's layout."""
