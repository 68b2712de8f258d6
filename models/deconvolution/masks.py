"""Pixels that are missing or less certain than others.

Weights belong to the pixels of an observation: the noise level ``sigma**2`` over the variance of
the pixel, from 0 for a missing one to 1. A missing pixel may hold anything, NaN too.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Shaped

from jaxcore.models.deconvolution.sparse import fista
from jaxcore.ops.grids import replicate
from jaxcore.ops.spectra import aligned, convolve, image, spectrum, times
from jaxcore.ops.starlet import MAD_OF_A_GAUSSIAN, Starlet

ROUNDS = 30
"""How often pixels are replaced by what the restored image predicts for them."""
_LEVELS = 8  # widths of the Gaussians, up to 128 pixels
_ENOUGH = 0.02  # share of known pixels under a Gaussian


@jax.jit
def fill_missing(
    y: Float[Array, "*b h w"], weights: Shaped[Array, "*b h w"]
) -> Float[Array, "*b h w"]:
    """Missing pixels by the mean of known ones around, as near as there are some.

    Means are taken with Gaussians of 1, 2, 4, ... pixels, the first under which enough is known.

    Args:
      y: images.
      weights: 0, or false, for missing pixels.

    >>> y = jnp.ones((9, 9)).at[4, 4].set(jnp.nan)
    >>> fill_missing(y, jnp.isfinite(y))[4, 4].round(5)
    Array(1., dtype=float32)
    """
    known = jnp.broadcast_to(aligned(weights, y.ndim) > jnp.zeros((), weights.dtype), y.shape)
    held, share = jnp.where(known, y, 0), known.astype(y.dtype)
    total = jnp.sum(share, (-2, -1), keepdims=True)
    mean = jnp.sum(held, (-2, -1), keepdims=True) / jnp.maximum(total, 1)
    spectra = spectrum(held - jnp.where(known, mean, 0)), spectrum(share)
    rows, cols = np.fft.fftfreq(y.shape[-2])[:, None], np.fft.rfftfreq(y.shape[-1])
    squares = jnp.asarray(-2 * np.pi**2 * (rows**2 + cols**2), y.dtype)

    def widen(out: tuple[Array, Array], width: Array) -> tuple[tuple[Array, Array], None]:
        filled, missing = out
        above, below = (image(times(z, jnp.exp(squares * width**2)), y.shape) for z in spectra)
        ready = missing & (below > _ENOUGH)
        filled = jnp.where(ready, mean + above / jnp.where(ready, below, 1), filled)
        return (filled, missing & ~ready), None

    widths = jnp.asarray(2.0 ** np.arange(_LEVELS), y.dtype)
    (filled, missing), _ = jax.lax.scan(widen, (held, ~known), widths)
    return jnp.where(missing, mean, filled)


def restore_weighted(
    restore: Callable[[Array], Array],
    fine: Float[Array, "*b h w"],
    weights: Float[Array, "*b h2 w2"],
    tf: Complex[Array, "*b h w3"],
    n_iter: int = ROUNDS,
) -> Float[Array, "*b h w"]:
    """Weights for a method in closed form: expectation and maximisation in turn.

    A pixel of weight ``w`` is ``w`` times observed and otherwise what the restored image predicts.
    For a quadratic method and a PSF of sum one this ends at the solution of the weighted problem.

    Args:
      restore: the method, of images without missing pixels.
      fine: observations on the grid of the result, missing pixels filled.
      weights: of the pixels of the observations, whose grid may be coarser.
      tf: transfer function of the PSF.
      n_iter: number of turns.
    """
    factor = fine.shape[-2] // weights.shape[-2]
    lacking = 1 - replicate(jnp.clip(aligned(weights, fine.ndim), 0, 1), factor).astype(fine.dtype)

    def turn(z: Array) -> Array:
        return fine + lacking * (convolve(restore(z), tf) - fine)

    return restore(fista(turn, fine, n_iter))


@functools.partial(jax.jit, static_argnames="n_scales")
def noise_by_scale(
    y: Float[Array, "*b h w"], weights: Shaped[Array, "*b h w"], n_scales: int = 2
) -> Float[Array, "*b j"]:
    """Noise of a pixel as every scale of the starlet shows it: all the same if it is white.

    Larger values at coarser scales mean noise that neighbouring pixels share, or an image full of
    structure: there only the fainter half of the pixels counts.

    Args:
      y: images.
      weights: 0, or false, for missing pixels, which do not count.
      n_scales: number of scales.

    >>> y = jax.random.normal(jax.random.key(0), (64, 64)).at[:8].set(jnp.nan)
    >>> bool(jnp.abs(noise_by_scale(y, jnp.isfinite(y)) - 1).max() < 0.2)
    True
    """
    starlet = Starlet(n_scales)
    known = jnp.broadcast_to(aligned(weights, y.ndim) > jnp.zeros((), weights.dtype), y.shape)
    planes = starlet.planes(fill_missing(y, weights))
    last = planes[..., -1:, :, :]
    faint = last <= jnp.median(last, axis=(-2, -1), keepdims=True)
    faint = faint | (jnp.arange(n_scales) == 0).reshape((1,) * (y.ndim - 2) + (-1, 1, 1))
    planes = jnp.where(known[..., None, :, :] & faint, planes[..., :-1, :, :], jnp.nan)
    middle = jnp.nanmedian(planes, axis=(-2, -1), keepdims=True)
    spread = jnp.nanmedian(jnp.abs(planes - middle), axis=(-2, -1))
    norms = jnp.asarray(MAD_OF_A_GAUSSIAN * starlet.norms(), spread.dtype)
    return spread / aligned(norms, spread.ndim)


def noise_level(y: Float[Array, "*b h w"], weights: Shaped[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Noise of images with missing pixels; see `jaxcore.ops.starlet.mad_sigma`.

    Args:
      y: images.
      weights: 0, or false, for missing pixels, which do not count.

    >>> y = jnp.zeros((8, 8)).at[0, 0].set(jnp.nan)
    >>> noise_level(y, jnp.isfinite(y))
    Array(0., dtype=float32)
    """
    return noise_by_scale(y, weights, 1)[..., 0]
