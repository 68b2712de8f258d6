"""Richardson-Lucy deconvolution: positive, for Poisson noise, stopped early."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.ops.grids import factor_between, rebin, replicate
from jaxcore.ops.spectra import (
    aligned,
    convolve,
    correlate,
    per_image,
    psf_to_tf,
)


@functools.partial(jax.jit, static_argnames="n_iter")
def richardson_lucy(
    y: Float[Array, "*b h w"],
    psf: Float[Array, "*b h2 w2"],
    *,
    sigma: float | Float[Array, "*b"] | None = None,
    n_iter: int = 30,
    weights: Float[Array, "*b h w"] | None = None,
    target_psf: Float[Array, "*b h2 w2"] | None = None,
) -> Float[Array, "*b h2 w2"]:
    """The image of largest likelihood under Poisson noise, by ``n_iter`` multiplicative updates.

    Each update keeps the image positive. Later ones fit the noise: their number is the
    regularisation. A constant of three standard deviations of the noise is added to the
    observation and to what it is compared with, so that negative pixels count and the flux stays;
    without a noise level they count as zero, which adds flux.

    Args:
      y: observations, without background.
      psf: non-negative, on the grid of the restored image; see `restore_tikhonov`.
      sigma: standard deviation of the noise in a pixel of ``y``, one number or one per image.
      n_iter: number of updates.
      weights: of the pixels of ``y``, 0 for those that are missing (which may be NaN); None for 1.
      target_psf: the PSF that the restored image shall have; None for none.

    References:
      Richardson 1972, Journal of the Optical Society of America 62; Lucy 1974, Astronomical
      Journal 79.

    >>> from jaxcore.models.deconvolution import gaussian_psf
    >>> psf = jnp.asarray(gaussian_psf((32, 32), 4.0), "float32")
    >>> y = convolve(jnp.zeros((32, 32)).at[16, 16].set(100.0), psf_to_tf(psf))
    >>> bool(richardson_lucy(y, psf)[16, 16] > 3 * y[16, 16])
    True
    """
    factor, tf = factor_between(y.shape, psf.shape), psf_to_tf(psf)
    if weights is None:
        weights = jnp.ones_like(y)
    weights = jnp.broadcast_to(aligned(weights, y.ndim), y.shape)
    floor = per_image(0 if sigma is None else 3 * jnp.asarray(sigma, y.dtype), y)
    y = jnp.where(weights > 0, y, 0)
    data = jnp.maximum(y + floor, 0)
    tiny = jnp.finfo(y.dtype).tiny

    def back(r: Array) -> Array:
        return correlate(replicate(r, factor), tf)

    reach = jnp.maximum(back(weights), 1e-6)

    def update(_: int, x: Array) -> Array:
        seen = jnp.maximum(rebin(convolve(x, tf), factor) + floor, tiny)
        ratio = weights * data / jnp.maximum(seen, 1e-9 * level)
        return x * jnp.maximum(back(ratio), 0) / reach

    level = jnp.sum(weights * y, axis=(-2, -1), keepdims=True)
    level = level / jnp.maximum(jnp.sum(weights, axis=(-2, -1), keepdims=True), tiny)
    level = jnp.maximum(level, tiny)
    x = jax.lax.fori_loop(0, n_iter, update, replicate(jnp.ones_like(y) * level, factor))
    return x if target_psf is None else convolve(x, psf_to_tf(target_psf))
