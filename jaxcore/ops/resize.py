"""Resizing with the half-pixel convention of the restoration networks."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def resize_bilinear(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b h2 w2 c"]:
    """Bilinear resizing, half-pixel centres, no antialiasing.

    Equal to PyTorch's ``interpolate(mode="bilinear", align_corners=False)``. Where an axis
    shrinks by a whole factor, the samples are sliced out of the array, which is exact and cheap.

    Args:
      x: images, NHWC.
      size: height and width of the result in pixels.

    >>> import jax.numpy as jnp
    >>> resize_bilinear(jnp.arange(8.0).reshape(1, 1, 8, 1), (1, 2)).ravel()
    Array([1.5, 5.5], dtype=float32)
    """
    for axis, target in zip((1, 2), size, strict=True):
        length = x.shape[axis]
        if length == target:
            continue
        if length % target == 0:
            x = _shrink(x, axis, length // target)
        else:
            weights = jnp.asarray(bilinear_weights(length, target), x.dtype)
            spec = "th,bhwc->btwc" if axis == 1 else "tw,bhwc->bhtc"
            x = jnp.einsum(spec, weights, x, precision="highest")
    return x


def _shrink(x: Array, axis: int, factor: int) -> Array:
    """Sample at the centre of every run of ``factor`` samples."""

    def every(start: int) -> Array:
        return jax.lax.slice_in_dim(x, start, x.shape[axis], factor, axis)

    middle = every(factor // 2)
    if factor % 2:
        return middle
    return (every(factor // 2 - 1) + middle) * jnp.asarray(0.5, x.dtype)


def bilinear_weights(length: int, target: int) -> np.ndarray:
    """Row ``i``: the weights of the samples that make up sample ``i`` of a resized axis.

    Positions are formed in double precision; in single precision they would be off by 1e-6.
    """
    position = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1)
    distance = np.abs(position[:, None] - np.arange(length)[None, :])
    return np.maximum(1 - distance, 0)
