"""Means over many images that can be gathered in parts."""

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeanState:
    """A mean of per-image values, in parts that can be merged in any order.

    The total is kept in two float32 numbers, so that the mean does not depend on how the images
    were split among batches and processes.

    Infinite values (the PSNR of equal images) are counted in ``infinite`` and left out of the
    mean, which they would make useless; a mean of nothing else is infinite. NaN is not left out.

    >>> state = MeanState.empty().update(jnp.array([20.0, 30.0]))
    >>> state = state.merge(MeanState.empty().update(jnp.array([40.0, jnp.inf])))
    >>> float(state.compute()), int(state.count), int(state.infinite)
    (30.0, 3, 1)
    """

    total: Float[Array, ""]
    error: Float[Array, ""]  # what `total` lost by rounding
    count: Int[Array, ""]
    infinite: Int[Array, ""]

    @classmethod
    def empty(cls) -> Self:
        """State before the first image."""
        zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        return cls(zero, zero, none, none)

    def update(self, values: Float[Array, "*b"], mask: Bool[Array, "*b"] | None = None) -> Self:
        """Take in the values of a batch.

        Args:
          values: one per image.
          mask: False for rows that only fill up the batch.
        """
        values = jnp.asarray(values, jnp.float32).reshape(-1)
        taken = jnp.ones(values.shape, bool) if mask is None else jnp.asarray(mask).reshape(-1)
        infinite = taken & jnp.isinf(values)
        finite = taken & ~infinite

        def add(carry: tuple[Array, Array], value: Array) -> tuple[tuple[Array, Array], None]:
            total, error = _two_sum(carry[0], value)
            return (total, carry[1] + error), None

        (total, error), _ = jax.lax.scan(
            add, (self.total, self.error), jnp.where(finite, values, 0.0)
        )
        return type(self)(
            total, error, self.count + _number(finite), self.infinite + _number(infinite)
        )

    def merge(self, other: Self) -> Self:
        """The state of both sets of images."""
        total, error = _two_sum(self.total, other.total)
        return type(self)(
            total,
            error + (self.error + other.error),
            self.count + other.count,
            self.infinite + other.infinite,
        )

    def compute(self) -> Float[Array, ""]:
        """The mean of the finite values; infinite if there are only infinite ones, NaN of none."""
        mean = (self.total + self.error) / self.count.astype(jnp.float32)
        return jnp.where((self.count == 0) & (self.infinite > 0), jnp.inf, mean)


def _number(mask: Array) -> Array:
    return jnp.sum(mask, dtype=jnp.int32)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """A sum, and exactly what its rounding lost (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
