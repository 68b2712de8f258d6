"""Double precision, and no NaN in silence, for functions called outside of compiled programs."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcore.errors import UserError
from jaxcore.estimators.estimate import Estimate

P = ParamSpec("P")
R = TypeVar("R")


def in_double(function: Callable[P, R]) -> Callable[P, R]:
    """Compute in float64 and return NumPy where no argument is traced.

    Whole numbers then do not overflow, nor do outcomes of 1e20; arrays with missing or infinite
    values are refused, and so is an estimate that is not finite. Under ``jit``, ``vmap`` and
    ``grad`` the function computes in the precision of what it is given and checks nothing.

    Raises:
      UserError: from the function, as said.

    >>> in_double(jnp.square)(np.array([1e20]))
    array([1.e+40])
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return function(*args, **kwargs)
        with jax.enable_x64(True):
            doubled: Any = jax.tree.map(_double, (args, kwargs))
            check_finite(signature.bind(*doubled[0], **doubled[1]).arguments)
            computed: Any = function
            found: Any = jax.device_get(computed(*doubled[0], **doubled[1]))
        if isinstance(found, Estimate):
            check_estimate(found)
        return cast(R, found)

    return called


def _double(leaf: Any) -> Any:
    """Arrays of numbers as float64, but for whole numbers, which stay what they are."""
    if not isinstance(leaf, np.ndarray | jax.Array) or jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    ):
        return leaf
    a = np.asarray(leaf)
    return a.astype(np.float64) if a.dtype.kind == "f" else a


def check_finite(arguments: Mapping[str, Any]) -> None:
    """Refuse arrays of numbers that are missing or infinite.

    Raises:
      UserError: names the argument.

    >>> check_finite({"y": np.array([1.0, 2.0])})
    """
    for name, value in arguments.items():
        for leaf in jax.tree.leaves(value):
            a = leaf if isinstance(leaf, np.ndarray) else None
            if a is not None and a.dtype.kind == "f" and not np.isfinite(a).all():
                raise UserError(
                    f"Expected finite numbers in {name}, found {int(np.sum(~np.isfinite(a)))} that "
                    "are missing or infinite."
                )


def check_estimate(found: Estimate) -> None:
    """Refuse an estimate, or an error of one, that is not finite.

    Raises:
      UserError: says which.
    """
    good = np.isfinite(found.theta) & np.isfinite(found.se)
    if np.all(good):
        return
    theta, se = np.ravel(found.theta), np.ravel(found.se)
    first = int(np.argmin(np.ravel(good)))
    name = found.names[first] if first < len(found.names) else "the estimate"
    raise UserError(
        f"Expected a finite estimate and error of {name}, found {theta[first]:g} "
        f"({se[first]:g}): the data do not identify it, or they are too large."
    )
