"""Double precision for functions that are called on values, outside of compiled programs."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

P = ParamSpec("P")
R = TypeVar("R")


def in_double(function: Callable[P, R]) -> Callable[P, R]:
    """Compute in float64 and return NumPy where no argument is traced.

    Whole numbers then do not overflow, nor do outcomes of 1e20. Under ``jit``, ``vmap`` and
    ``grad`` the function computes in the precision of what it is given.

    >>> in_double(jnp.square)(np.array([1e20]))
    array([1.e+40])
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return function(*args, **kwargs)
        with jax.enable_x64(True):
            doubled: Any = jax.tree.map(_double, (args, kwargs))
            computed: Any = function
            return jax.device_get(computed(*doubled[0], **doubled[1]))

    return called


def _double(leaf: Any) -> Any:
    """Arrays of numbers as float64, but for whole numbers, which stay what they are."""
    if not isinstance(leaf, np.ndarray | jax.Array) or jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    ):
        return leaf
    a = np.asarray(leaf)
    return a.astype(np.float64) if a.dtype.kind == "f" else a
