"""Gated activations."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.ops.precision import accumulation_dtype


@jax.custom_vjp
def gelu_gate(a: Float[Array, "*s"], b: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """``gelu(a) * b`` with the exact GELU, ``a`` times the normal distribution function of ``a``.

    Computed in at least float32. The backward pass keeps ``a`` and ``b`` only; it can be
    differentiated again in either mode, forward mode straight through the gate cannot.

    >>> import jax.numpy as jnp
    >>> gelu_gate(jnp.array([0.0, 10.0]), jnp.array([1.0, 2.0]))
    Array([ 0., 20.], dtype=float32)
    """
    return _gate(a, b)


def _gate(a: Array, b: Array) -> Array:
    wide = accumulation_dtype(a.dtype)
    return (a.astype(wide) * _normal_cdf(a.astype(wide)) * b.astype(wide)).astype(a.dtype)


def _normal_cdf(a: Array) -> Array:
    # erf is a polynomial quotient; erfc, which jax.nn.gelu takes, costs exponentials as well.
    return 0.5 * (1.0 + jax.lax.erf(a * np.asarray(2**-0.5, a.dtype)))


def _forward(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return _gate(a, b), (a, b)


def _backward(inputs: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    dtype = inputs[0].dtype
    wide = accumulation_dtype(dtype)
    a, b, g = (t.astype(wide) for t in (*inputs, g))
    cdf = _normal_cdf(a)
    density = np.asarray((2 * np.pi) ** -0.5, wide) * jnp.exp(-0.5 * a * a)
    return (g * b * (cdf + a * density)).astype(dtype), (g * a * cdf).astype(dtype)


gelu_gate.defvjp(_forward, _backward)


@jax.custom_vjp
def silu_gate(both: Float[Array, "*b 2 d"]) -> Float[Array, "*b d"]:
    """``silu(a) * b`` of the two rows ``a`` and ``b`` of each matrix.

    Computed in at least float32. The backward pass keeps ``both`` only; it can be differentiated
    as that of `gelu_gate` can.

    >>> import jax.numpy as jnp
    >>> silu_gate(jnp.array([[0.0, 20.0], [1.0, 2.0]])).round(3).tolist()
    [0.0, 40.0]
    """
    return _gated(both)


def _gated(both: Array) -> Array:
    a, b = _rows(both)
    return (jax.nn.silu(a) * b).astype(both.dtype)


def _rows(both: Array) -> tuple[Array, Array]:
    wide = accumulation_dtype(both.dtype)
    return both[..., 0, :].astype(wide), both[..., 1, :].astype(wide)


def _silu_forward(both: Array) -> tuple[Array, Array]:
    return _gated(both), both


def _silu_backward(both: Array, g: Array) -> tuple[Array]:
    a, b = _rows(both)
    g, open_ = g.astype(a.dtype), jax.nn.sigmoid(a)
    silu = a * open_
    slopes = g * b * (open_ + silu * (1 - open_)), g * silu
    return (jnp.stack(slopes, axis=-2).astype(both.dtype),)


silu_gate.defvjp(_silu_forward, _silu_backward)
