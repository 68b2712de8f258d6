"""Pooling to a size that is asked for."""

import functools
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Pooled: TypeAlias = Literal["max", "mean"]
Bins: TypeAlias = Literal["apart", "even"]
"""Equinox's bins, of which the first ones are larger, or PyTorch's, which are spread evenly."""


def adaptive_pool(
    x: Float[Array, "*b h w c"], size: tuple[int, int], kind: Pooled, bins: Bins = "apart"
) -> Float[Array, "*b h2 w2 c"]:
    """Largest or mean value in each of ``size`` bins, along the rows, then along the columns.

    Args:
      x: maps.
      size: height and width of the result, not larger than those of ``x``.
      kind: of value.
      bins: "apart": they do not overlap; of n places the first (n mod t) of t bins take one more
        than the others (Equinox). "even": bin i goes from floor(i n / t) to ceil((i + 1) n / t)
        (PyTorch).

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(4.0).reshape(1, 1, 4, 1)
    >>> adaptive_pool(x, (1, 3), "max").ravel().tolist()
    [1.0, 2.0, 3.0]
    >>> adaptive_pool(x, (1, 3), "max", "even").ravel().tolist()
    [1.0, 2.0, 3.0]
    """
    for axis, count in zip((-3, -2), size, strict=True):
        if x.shape[axis] != count:
            x = (_apart if bins == "apart" else _even)(x, axis, count, kind)
    return x


def _apart(x: Array, axis: int, count: int, kind: Pooled) -> Array:
    axis += x.ndim
    least, larger = divmod(x.shape[axis], count)
    first, rest = jnp.split(x, [larger * (least + 1)], axis=axis)
    parts = []
    for part, places in ((first, least + 1), (rest, least)):
        shape = (*x.shape[:axis], part.shape[axis] // places, places, *x.shape[axis + 1 :])
        parts.append(_reduced(part.reshape(shape), axis + 1, kind))
    return jnp.concatenate(parts, axis=axis)


def _even(x: Array, axis: int, count: int, kind: Pooled) -> Array:
    axis, n = axis + x.ndim, x.shape[axis]
    ends = np.arange(count + 1) * n
    first, last = ends[:-1] // count, -(-ends[1:] // count)
    if kind == "mean":
        place = np.arange(n)
        inside = (place >= first[:, None]) & (place < last[:, None])
        weights = jnp.asarray(inside / (last - first)[:, None], x.dtype)
        return jnp.moveaxis(jnp.tensordot(weights, x, ((1,), (axis,))), 0, axis)
    # Bins shorter than the longest one see their last place twice.
    index = np.minimum(first[:, None] + np.arange((last - first).max()), last[:, None] - 1)
    return _reduced(jnp.take(x, index, axis=axis), axis + 1, kind)


def global_max(x: Float[Array, "*b h w c"]) -> Float[Array, "*b c"]:
    """Largest value of every channel over all pixels.

    >>> import jax.numpy as jnp
    >>> global_max(jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
    [[3.0]]
    """
    return largest(x.reshape(*x.shape[:-3], x.shape[-3] * x.shape[-2], x.shape[-1]), x.ndim - 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def largest(x: Float[Array, "*s"], axis: int) -> Float[Array, "*r"]:
    """``max`` along an axis whose gradient goes to the first place of the largest value.

    JAX's own divides by the number of places that equal the result, and is NaN where a compiler
    has rounded the two differently. Forward mode straight through it is refused.

    Args:
      x: any values.
      axis: counted from the front.

    >>> import jax.numpy as jnp
    >>> jax.grad(lambda x: largest(x, 0))(jnp.array([1.0, 2.0, 2.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    return jnp.max(x, axis=axis)


def _forward(x: Array, axis: int) -> tuple[Array, tuple[Array, int]]:
    return jnp.max(x, axis=axis), (jnp.argmax(x, axis=axis), x.shape[axis])


def _backward(axis: int, kept: tuple[Array, int], g: Array) -> tuple[Array]:
    place, length = (jnp.expand_dims(kept[0], axis), kept[1])
    shape = [1] * (g.ndim + 1)
    shape[axis] = length
    places = jnp.arange(length, dtype=place.dtype).reshape(shape)
    return (jnp.where(places == place, jnp.expand_dims(g, axis), 0),)


largest.defvjp(_forward, _backward)


def _reduced(x: Array, axis: int, kind: Pooled) -> Array:
    return largest(x, axis) if kind == "max" else jnp.mean(x, axis=axis)
