"""Normalisation over the channels of each pixel."""

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
