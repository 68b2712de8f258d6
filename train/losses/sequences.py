"""Completions: tokens that count, sums and means over them, clamped exponentials."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from jaxcore.train.step import at_least_float32

LARGEST_LOG_RATIO = 20.0
"""Log-ratios of tokens are clamped at plus and minus this before they are exponentiated."""

LARGEST_EXPONENT = 80.0
"""Exponents of whole sequences are clamped here: the exponential stays finite in float32."""


def kept(mask: Shaped[Array, "*n"]) -> Bool[Array, "*n"]:
    """A mask of numbers or truth values as truth values."""
    return jnp.asarray(mask).astype(bool)


def masked(x: Float[Array, "*n"], mask: Bool[Array, "*n"]) -> Float[Array, "*n"]:
    """``x`` in float32 or wider, zero where the mask is false.

    Put before a non-linear function and again behind it, it keeps infinite and missing values out
    of gradients as well, which zero times infinity would not.
    """
    return jnp.where(mask, at_least_float32(x), 0)


def counts(mask: Bool[Array, "b t"], dtype: Any = jnp.float32) -> Float[Array, " b"]:
    """Tokens of each completion, at least one, so that an empty one divides by one.

    >>> counts(jnp.array([[True, True], [False, False]])).tolist()
    [2.0, 1.0]
    """
    return jnp.maximum(jnp.sum(mask, axis=1, dtype=dtype), 1)


def sequence_sum(x: Float[Array, "b t"], mask: Bool[Array, "b t"]) -> Float[Array, " b"]:
    """Sum over the tokens of each completion; of log-probabilities, that of the completion.

    >>> sequence_sum(jnp.array([[-1.0, -jnp.inf]]), jnp.array([[True, False]])).tolist()
    [-1.0]
    """
    return jnp.sum(masked(x, mask), axis=1)


def sequence_mean(x: Float[Array, "b t"], mask: Bool[Array, "b t"]) -> Float[Array, " b"]:
    """Mean over the tokens of each completion; zero for an empty one."""
    total = sequence_sum(x, mask)
    return total / counts(mask, total.dtype)


def clamped_exp(x: Float[Array, "*n"], largest: float = LARGEST_LOG_RATIO) -> Float[Array, "*n"]:
    """Exponential of what is clamped at plus and minus ``largest``; flat beyond.

    >>> bool(jnp.isfinite(clamped_exp(jnp.float32(1e5))))
    True
    """
    return jnp.exp(jnp.clip(x, -largest, largest))


def token_log_ratio(
    new: Float[Array, "b t"], old: Float[Array, "b t"], mask: Bool[Array, "b t"]
) -> Float[Array, "b t"]:
    """``log new - log old`` of every token, zero where masked."""
    return masked(new, mask) - masked(old, mask)


def masked_std(
    x: Float[Array, "*n"], mask: Bool[Array, "*n"], axis: int | None = None
) -> tuple[Float[Array, "*m"], Float[Array, "*m"]]:
    """Mean and standard deviation (ddof 1) of what the mask keeps, with the axis kept.

    The deviation of fewer than two values is zero.
    """
    x = masked(x, mask)
    n = jnp.sum(mask, axis=axis, keepdims=True, dtype=x.dtype)
    mean = jnp.sum(x, axis=axis, keepdims=True) / jnp.maximum(n, 1)
    square = jnp.sum(masked(x - mean, mask) ** 2, axis=axis, keepdims=True)
    variance = square / jnp.maximum(n - 1, 1)
    positive = variance > 0
    return mean, jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
