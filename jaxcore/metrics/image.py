"""PSNR and SSIM as the restoration papers measure them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def psnr(
    image: Float[Array, "*b h w c"], target: Float[Array, "*b h w c"], *, data_range: float = 1.0
) -> Float[Array, "*b"]:
    """Peak signal-to-noise ratio of each image, in dB; infinite for equal images.

    Args:
      image: restored, in [0, data_range].
      target: clean, of the same shape.
      data_range: largest possible value.

    Raises:
      ValueError: the shapes differ.

    >>> float(psnr(jnp.zeros((2, 2, 3)), jnp.full((2, 2, 3), 0.1)).round(3))
    20.0
    """
    _same_shape(image, target)
    error = jnp.mean(jnp.square(image - target), axis=(-3, -2, -1))
    return 10 * jnp.log10(data_range**2 / error)


def ssim(
    image: Float[Array, "*b h w c"], target: Float[Array, "*b h w c"], *, data_range: float = 1.0
) -> Float[Array, "*b"]:
    """Structural similarity: 7x7 uniform window, sample covariance, valid region only.

    The mean runs over pixels and channels. K1 = 0.01 and K2 = 0.03 (Wang et al., 2004).

    Args:
      image: restored, in [0, data_range], at least 7x7 pixels.
      target: clean, of the same shape.
      data_range: largest possible value.

    Raises:
      ValueError: the shapes differ.

    >>> float(ssim(jnp.ones((8, 8, 3)), jnp.ones((8, 8, 3))))
    1.0
    """
    _same_shape(image, target)
    sample = 49 / 48

    def window(a: jax.Array) -> jax.Array:
        sides = (1,) * (a.ndim - 3) + (7, 7, 1)
        return jax.lax.reduce_window(a, 0.0, jax.lax.add, sides, (1,) * a.ndim, "VALID") / 49

    mx, my = window(image), window(target)
    vx = sample * (window(image * image) - mx * mx)
    vy = sample * (window(target * target) - my * my)
    vxy = sample * (window(image * target) - mx * my)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    index = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return jnp.mean(index, axis=(-3, -2, -1))


def _same_shape(image: jax.Array, target: jax.Array) -> None:
    if image.shape != target.shape:
        raise ValueError(f"Expected images of one shape, found {image.shape} and {target.shape}.")
