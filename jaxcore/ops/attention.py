"""Attention across channels: the token is a channel, its vector is the whole map."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.ops.precision import accumulation_dtype
from jaxcore.ops.products import product_over_pixels
from jaxcore.ops.windows import extract_windows, merge_windows


def channel_attention(
    q: Float[Array, "*b h w c"],
    k: Float[Array, "*b h w c"],
    v: Float[Array, "*b h w c"],
    temperature: Float[Array, " heads"],
    *,
    window: int | None = None,
) -> Float[Array, "*b h w c"]:
    """Multi-head attention across channels, with queries and keys of unit length over the map.

    Head ``i`` holds the channels ``i * c / heads ... (i + 1) * c / heads - 1``; its matrix is
    ``softmax(q^T k * temperature[i])`` of shape ``(c / heads, c / heads)``, without any
    ``1 / sqrt`` factor. The cost is linear in pixels.

    Args:
      q: queries.
      k: keys.
      v: values.
      temperature: one factor per head; its length is the number of heads.
      window: side in pixels of the windows inside which the matrices are computed, None for the
        whole map. A map that is not larger than the window along both axes is treated whole.

    Returns:
      Array of the shape and dtype of ``v``. Norms, products over pixels and the softmax are
      computed in at least float32. A query that is zero everywhere gives a uniform softmax and
      a finite gradient.

    References:
      Zamir et al. 2022, "Restormer", section 3.1; Chu et al. 2022, "Improving image restoration
      by revisiting global information aggregation", for the windows.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((1, 4, 4, 6))
    >>> channel_attention(x, x, x, jnp.ones(2)).shape
    (1, 4, 4, 6)
    """
    height, width = v.shape[-3:-1]
    if window is None or (height <= window and width <= window):
        return _attend(q, k, v, temperature)
    q, k, v = (extract_windows(a, window) for a in (q, k, v))
    return merge_windows(_attend(q, k, v, temperature), height, width)


def _attend(q: Array, k: Array, v: Array, temperature: Array) -> Array:
    """Products over all channels at once, of which only the blocks of the heads are kept.

    They cost as much as a 1x1 convolution, and spare the maps being transposed to put the heads
    first; a head is narrower than a vector or matrix unit anyway.
    """
    heads, width = temperature.shape[0], v.shape[-1]
    wide = accumulation_dtype(v.dtype)
    gram = product_over_pixels(q, k, batch=q.ndim - 3, dtype=wide)
    # Scaling the product instead of q and k saves two passes over the map and is the same number.
    scale = _inverse_norm(q, wide)[..., :, None] * _inverse_norm(k, wide)[..., None, :]
    heat = jnp.repeat(temperature.astype(wide), width // heads)
    logits = gram * scale * heat.reshape((1,) * (gram.ndim - 2) + (width, 1))
    head = np.arange(width) // (width // heads)
    same = (head[:, None] == head).reshape((1,) * (gram.ndim - 2) + (width, width))
    weights = jax.nn.softmax(logits, axis=-1, where=same)
    return jnp.einsum("...cd,...hwd->...hwc", weights.astype(v.dtype), v)


def _inverse_norm(x: Array, wide: np.dtype) -> Array:
    """1 / max(norm over pixels, 1e-12), written so that its gradient at zero is finite."""
    squares = jnp.sum(jnp.square(x.astype(wide)), axis=(-3, -2))
    return jax.lax.rsqrt(jnp.maximum(squares, 1e-24))
