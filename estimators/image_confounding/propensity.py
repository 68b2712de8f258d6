"""Propensities before they become weights: checked, clipped, trimmed, averaged over networks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxcore.data.columns import array_of
from jaxcore.errors import UserError
from jaxcore.estimators.precision import in_double


class Clipped(NamedTuple):
    """Propensities within bounds, and how many were moved there."""

    e: Float[Array, " n"]
    moved: Int[Array, ""]


def check(e: Any, n: int, *, bounded: bool = True) -> np.ndarray:
    """Propensities from anywhere as float64.

    Args:
      e: one for each unit.
      n: units.
      bounded: refuse 0 and 1, whose weights are infinite.

    Raises:
      UserError: another number of them, missing ones, or ones outside their range.

    >>> check([0.2, 0.5], 2).tolist()
    [0.2, 0.5]
    """
    a = array_of(e, "the propensities")
    if a.shape != (n,) or a.dtype.kind not in "biuf":
        raise UserError(
            f"Expected {n} propensities, found an array of shape {a.shape} and type {a.dtype}."
        )
    a = a.astype(np.float64)
    if not np.all(np.isfinite(a)):
        raise UserError(
            f"Expected finite propensities, found {int(np.sum(~np.isfinite(a)))} of {n} missing or "
            "infinite."
        )
    if np.any((a < 0) | (a > 1)):
        raise UserError(f"Expected propensities in [0, 1], found {a.min():g} to {a.max():g}.")
    if bounded and (sure := int(np.sum((a == 0) | (a == 1)))):
        raise UserError(
            f"Expected propensities between 0 and 1, found {sure} of {n} at 0 or 1: their weights "
            "are infinite; clip or trim them."
        )
    return a


@in_double
def clip(e: Float[Array, " n"], bound: float) -> Clipped:
    """Move propensities into ``[bound, 1 - bound]``; units stay.

    >>> clip(jnp.array([0.0, 0.5]), 0.01)
    Clipped(e=array([0.01, 0.5 ]), moved=array(1, dtype=int32))
    """
    return Clipped(
        jnp.clip(e, bound, 1 - bound), jnp.sum((e < bound) | (e > 1 - bound), dtype=jnp.int32)
    )


@in_double
def overlapping(e: Float[Array, " n"], bound: float) -> Bool[Array, " n"]:
    """True for the units that trimming keeps: those with propensities in ``(bound, 1 - bound)``.

    References:
      Crump, Hotz, Imbens and Mitnik (2009), Dealing with limited overlap; 0.1 is their rule.

    >>> overlapping(np.array([0.1, 0.5]), 0.1).tolist()
    [False, True]
    """
    return (e > bound) & (e < 1 - bound)


@in_double
def ensemble(e: Float[Array, "s n"]) -> Float[Array, " n"]:
    """Propensities of several networks as one: log-odds are averaged.

    >>> ensemble(np.array([[0.25], [0.75]])).tolist()
    [0.5]
    """
    return jax.nn.sigmoid(jnp.mean(jnp.log(e) - jnp.log1p(-e), axis=0))
