"""Normalisation over the channels of each pixel, and over groups of channels."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.ops.precision import accumulation_dtype


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def channel_norm(
    x: Float[Array, "*b c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"] | None = None,
    epsilon: float = 1e-5,
) -> Float[Array, "*b c"]:
    """Layer norm over the last axis, population variance, ``epsilon`` inside the root.

    With a bias ``(x - mean) / sqrt(var + epsilon) * scale + bias``; without one Restormer's
    bias-free form ``x / sqrt(var + epsilon) * scale``, in which the variance is still taken about
    the mean but the mean stays in ``x``. Computed in at least float32. The backward pass keeps
    the arguments only; it can be differentiated again in either mode, forward mode straight
    through the norm is refused by JAX.

    >>> import jax.numpy as jnp
    >>> channel_norm(jnp.array([[1.0, 3.0]]), jnp.ones(2), jnp.zeros(2), 0.0)
    Array([[-1.,  1.]], dtype=float32)
    """
    return _normalise(x, scale, bias, epsilon)


def _normalise(x: Array, scale: Array, bias: Array | None, epsilon: float) -> Array:
    wide = accumulation_dtype(x.dtype)
    centred, inverse = _statistics(x.astype(wide), epsilon)
    if bias is None:
        y = x.astype(wide) * inverse * _row(scale, x)
    else:
        y = centred * inverse * _row(scale, x) + _row(bias, x)
    return y.astype(x.dtype)


def _statistics(x: Array, epsilon: float) -> tuple[Array, Array]:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return centred, jax.lax.rsqrt(variance + epsilon)


def _row(a: Array, x: Array) -> Array:
    wide = accumulation_dtype(x.dtype)
    return a.astype(wide).reshape((1,) * (x.ndim - 1) + a.shape)


_Inputs = tuple[Array, Array, Array | None]


def _forward(x: Array, scale: Array, bias: Array | None, epsilon: float) -> tuple[Array, _Inputs]:
    return _normalise(x, scale, bias, epsilon), (x, scale, bias)


def _backward(epsilon: float, inputs: _Inputs, g: Array) -> _Inputs:
    x, scale, bias = inputs
    gradients = functools.partial(_gradients, epsilon=epsilon, centre=bias is not None)

    def flat(x: Array, scale: Array, g: Array) -> tuple[Array, Array, Array]:
        rows = (-1, x.shape[-1])
        dx, dscale, dbias = gradients(x.reshape(rows), scale, g.reshape(rows))
        return dx.reshape(x.shape), dscale, dbias

    # XLA's reductions on the CPU are twice as fast over a matrix as over images.
    dx, dscale, dbias = jax.lax.platform_dependent(x, scale, g, cpu=flat, default=gradients)
    return dx, dscale.astype(scale.dtype), None if bias is None else dbias.astype(bias.dtype)


def _gradients(
    x: Array, scale: Array, g: Array, *, epsilon: float, centre: bool
) -> tuple[Array, Array, Array]:
    dtype, wide = x.dtype, accumulation_dtype(x.dtype)
    x, g = x.astype(wide), g.astype(wide)
    centred, inverse = _statistics(x, epsilon)
    unit = centred * inverse
    seen = unit if centre else x * inverse
    product = g * seen
    scaled = g * _row(scale, x)
    through_variance = jnp.mean(product * _row(scale, x), axis=-1, keepdims=True)
    dx = scaled - unit * through_variance
    if centre:
        dx = dx - jnp.mean(scaled, axis=-1, keepdims=True)
    pixels = tuple(range(x.ndim - 1))
    return (dx * inverse).astype(dtype), jnp.sum(product, pixels), jnp.sum(g, pixels)


channel_norm.defvjp(_forward, _backward)


def rms_norm(
    x: Float[Array, "*b d"], scale: Float[Array, " d"], epsilon: float = 1e-6
) -> Float[Array, "*b d"]:
    """``x / sqrt(epsilon + mean of x^2) * scale`` over the last axis, in at least float32.

    >>> import jax.numpy as jnp
    >>> rms_norm(jnp.array([0.5, 0.5]), jnp.ones(2), 0.0).tolist()
    [1.0, 1.0]
    """
    wide = x.astype(accumulation_dtype(x.dtype))
    mean = jnp.mean(wide * wide, axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(mean + epsilon) * _row(scale, x)).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def group_norm(
    x: Float[Array, "b h w c"],
    scale: Float[Array, "_ c"],
    bias: Float[Array, "_ c"],
    groups: int,
    epsilon: float = 1e-5,
) -> Float[Array, "b h w c"]:
    """Mean 0 and (population) variance 1 over all pixels of each group of channels.

    Computed in at least float32. As in `channel_norm` the backward pass keeps the arguments only
    and can be differentiated again.

    Args:
      x: maps.
      scale: factor of every channel, for all images (1, c) or for each (b, c).
      bias: summand of every channel, likewise.
      groups: divides the number of channels.
      epsilon: added to the variance.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1)
    >>> group_norm(x, jnp.ones((1, 1)), jnp.zeros((1, 1)), 1, 0.0).ravel()
    Array([-1.,  1.], dtype=float32)
    """
    unit, _ = _group_unit(x, groups, epsilon)
    y = unit * _per_image(scale, unit) + _per_image(bias, unit)
    return y.reshape(x.shape).astype(x.dtype)


def _group_unit(x: Array, groups: int, epsilon: float) -> tuple[Array, Array]:
    """``(b, pixels, c)`` with mean 0 and variance 1, and the factor ``(b, 1, c)``."""
    rows = x.astype(accumulation_dtype(x.dtype)).reshape(x.shape[0], -1, x.shape[-1])
    centred = rows - _over_groups(jnp.mean(rows, axis=1), groups)
    variance = _over_groups(jnp.mean(centred * centred, axis=1), groups)
    inverse = jax.lax.rsqrt(variance + epsilon)
    return centred * inverse, inverse


def _over_groups(means: Array, groups: int) -> Array:
    """Means over the channels of each group, for each channel: ``(b, c) -> (b, 1, c)``."""
    batch, channels = means.shape
    parts = means.reshape(batch, groups, channels // groups)
    parts = jnp.broadcast_to(jnp.mean(parts, axis=-1, keepdims=True), parts.shape)
    return parts.reshape(batch, 1, channels)


def _per_image(a: Array, rows: Array) -> Array:
    return a.astype(rows.dtype)[:, None]


_GroupInputs = tuple[Array, Array, Array]


def _group_forward(
    x: Array, scale: Array, bias: Array, groups: int, epsilon: float
) -> tuple[Array, _GroupInputs]:
    return group_norm(x, scale, bias, groups, epsilon), (x, scale, bias)


def _group_backward(
    groups: int, epsilon: float, inputs: _GroupInputs, g: Array
) -> tuple[Array, Array, Array]:
    x, scale, bias = inputs
    unit, inverse = _group_unit(x, groups, epsilon)
    g = g.astype(unit.dtype).reshape(unit.shape)
    pixels = unit.shape[1]
    dbias, dscale = jnp.sum(g, axis=1), jnp.sum(g * unit, axis=1)
    wide = scale.astype(unit.dtype)
    mean = _over_groups(dbias * wide / pixels, groups)
    along = _over_groups(dscale * wide / pixels, groups)
    dx = inverse * (g * _per_image(scale, unit) - mean - unit * along)
    if scale.shape[0] != x.shape[0]:
        dscale = jnp.sum(dscale, axis=0, keepdims=True)
    if bias.shape[0] != x.shape[0]:
        dbias = jnp.sum(dbias, axis=0, keepdims=True)
    return (
        dx.reshape(x.shape).astype(x.dtype),
        dscale.astype(scale.dtype),
        dbias.astype(bias.dtype),
    )


group_norm.defvjp(_group_forward, _group_backward)
