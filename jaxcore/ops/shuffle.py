"""Pixel shuffle and unshuffle in PyTorch's channel order."""

from einops import rearrange
from jaxtyping import Array, Float


def pixel_unshuffle(x: Float[Array, "b h w c"], factor: int) -> Float[Array, "b h2 w2 c2"]:
    """Space to depth: output channel = ``c * factor**2 + factor * row + column``.

    Args:
      x: images, NHWC, height and width multiples of ``factor``.
      factor: block side in pixels.

    >>> import jax.numpy as jnp
    >>> pixel_unshuffle(jnp.arange(4.0).reshape(1, 2, 2, 1), 2).ravel()
    Array([0., 1., 2., 3.], dtype=float32)
    """
    return rearrange(x, "b (h i) (w j) c -> b h w (c i j)", i=factor, j=factor)


def pixel_shuffle(x: Float[Array, "b h w c2"], factor: int) -> Float[Array, "b h2 w2 c"]:
    """Depth to space: the exact inverse of :func:`pixel_unshuffle`.

    >>> import jax.numpy as jnp
    >>> pixel_shuffle(jnp.arange(4.0).reshape(1, 1, 1, 4), 2).ravel()
    Array([0., 1., 2., 3.], dtype=float32)
    """
    return rearrange(x, "b h w (c i j) -> b (h i) (w j) c", i=factor, j=factor)
