"""Names for the types that cross room borders."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import numpy as np

Params: TypeAlias = dict[str, Any]
"""Nested dict of ``jax.Array``."""

Batch: TypeAlias = Mapping[str, Any]
"""One batch: name -> array with a leading batch axis."""

Key: TypeAlias = jax.Array
"""A typed PRNG key from ``jax.random.key``."""

StateDict: TypeAlias = Mapping[str, np.ndarray]
"""PyTorch parameter name -> array in PyTorch's layout."""
