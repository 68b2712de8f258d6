"""Point sources and an extended image, deconvolved together to a finite resolution.

In the manner of Magain, Courbin, Sohy 1998 and of Firedec (Cantale et al. 2016): the result has a
Gaussian PSF of two pixels, which its sampling can hold, and point sources are shifted copies of it.
Here the extended image is a sum of few splines, and both are found in one convex problem.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jaxcore.errors import UserError
from jaxcore.models.deconvolution.psf import gaussian_psf
from jaxcore.models.deconvolution.sparse import (
    compose,
    difference_to,
    fista,
    penalties,
    shrink,
)
from jaxcore.ops.grids import factor_between, rebin
from jaxcore.ops.spectra import (
    aligned,
    convolve,
    image,
    power,
    psf_to_tf,
    times,
    total,
)
from jaxcore.ops.starlet import Starlet

FWHM = 2.0
"""Full width at half maximum of the PSF of the result, in pixels."""


class TwoChannels(NamedTuple):
    """Result of `deconvolve_two_channels`.

    Attributes:
      image: extended image and point sources together.
      extended: the extended image alone.
      fluxes: of the point sources.
    """

    image: Float[Array, "*b h w"]
    extended: Float[Array, "*b h w"]
    fluxes: Float[Array, "*b m"]


def _waves(positions: Float[Array, "*b m 2"], shape: tuple[int, int]) -> Complex[Array, "*b m h w"]:
    """Spectra of points of flux one at fractional pixels."""
    rows, cols = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    turns = [
        positions[..., axis, None, None]
        * aligned(jnp.asarray(2 * np.pi * frequency, positions.dtype), positions.ndim + 1)
        for axis, frequency in enumerate((rows, cols))
    ]
    angle = turns[0] + turns[1]
    return jax.lax.complex(jnp.cos(angle), -jnp.sin(angle))


@functools.partial(jax.jit, static_argnames=("starlet", "n_iter", "background"))
def deconvolve_two_channels(
    y: Float[Array, "*b h w"],
    psf: Float[Array, "*b h2 w2"],
    positions: Float[Array, "*b m 2"] | None = None,
    *,
    sigma: float | Float[Array, "*b"] | None = None,
    weights: Float[Array, "*b h w"] | None = None,
    target_psf: Float[Array, "*b h2 w2"] | None = None,
    k: float = 1.0,
    k_first: float = 1.0,
    background: bool = False,
    n_iter: int = 200,
    starlet: Starlet = Starlet(4, 2),
) -> TwoChannels:
    """Deconvolve to a Gaussian PSF, with point sources apart.

    Args:
      y: observations.
      psf: on the grid of the result; see `restore_tikhonov`.
      positions: row and column of every point source in pixels of the result, fractions allowed;
        the same number for each image. They are not changed. None for no point sources.
      sigma: standard deviation of the noise in a pixel of ``y``.
      weights: of the pixels of ``y``; see `sparse_starlet`.
      target_psf: the PSF that the result shall have; None for a Gaussian of two pixels.
      k: weight of the coefficients of the extended image; see `sparse_starlet`.
      k_first: the same for the finest plane.
      background: see `sparse_starlet`.
      n_iter: number of steps.
      starlet: the planes; generation 2 is always used.

    Returns:
      Images of the grid of the PSF, and fluxes that are not negative.

    Raises:
      UserError: there is no noise level, or positions have another shape.

    >>> psf = jnp.asarray(gaussian_psf((32, 32), 5.0), "float32")
    >>> y = 100 * jnp.roll(psf, 4, axis=1)
    >>> out = deconvolve_two_channels(y, psf, jnp.array([[16.0, 20.0]]), sigma=0.01)
    >>> bool(abs(out.fluxes[0] - 100) < 2)
    True
    """
    if sigma is None:
        raise UserError("Expected sigma, the noise level, for the two channels, found none.")
    factor, tf, batch = factor_between(y.shape, psf.shape), psf_to_tf(psf), y.shape[:-2]
    if positions is None:
        positions = jnp.zeros((*batch, 0, 2), y.dtype)
    if positions.ndim < 2 or positions.shape[-1] != 2:
        raise UserError(f"Expected positions (sources, 2), found {tuple(positions.shape)}.")
    shape = (psf.shape[-2], psf.shape[-1])
    positions = jnp.broadcast_to(
        aligned(positions.astype(y.dtype), len(batch) + 2), (*batch, *positions.shape[-2:])
    )
    waves = _waves(positions, shape)
    planes, limit = penalties(y, tf, sigma, k, k_first, starlet, weights)
    difference = difference_to(y, weights)
    gain = jnp.max(power(tf))
    # Fluxes in units in which a blurred point is as long as the largest blurred wave.
    unit = jnp.sqrt(gain * (shape[0] * shape[1]) / jnp.max(total(power(tf), shape[1])))
    step = 1 / (gain * factor**2 * (starlet.n_scales + 1 + positions.shape[-2]))

    def points(scaled: Array, transfer: Array) -> Array:
        weights = (unit * scaled)[..., None, None]
        summed = jnp.sum(times(waves, weights), axis=-3)
        return image(times(summed, transfer), shape)

    def seen(channels: tuple[Array, Array]) -> Array:
        spread = convolve(compose(channels[0], starlet), tf)
        return rebin(spread + points(channels[1], tf), factor)

    start = (planes, jnp.zeros(positions.shape[:-1], y.dtype))
    back = jax.linear_transpose(seen, start)

    def descend(channels: tuple[Array, Array]) -> tuple[Array, Array]:
        (slope,) = back(difference(seen(channels)))
        moved = jax.tree.map(lambda a, b: a + step * b, channels, slope)
        return shrink(moved[0], step * limit, True, background), jnp.maximum(moved[1], 0)

    planes, scaled = fista(descend, start, n_iter)
    if target_psf is None:
        target_psf = jnp.asarray(gaussian_psf(shape, FWHM), y.dtype)
    target = psf_to_tf(target_psf)
    extended = convolve(compose(planes, starlet), target)
    # Waves count from pixel (0, 0), as the middle of a transfer function does.
    return TwoChannels(extended + points(scaled, target), extended, unit * scaled)


def two_channel(
    y: Float[Array, "*b h w"],
    psf: Float[Array, "*b h2 w2"],
    *,
    sigma: float | Float[Array, "*b"] | None = None,
    positions: Float[Array, "*b m 2"] | None = None,
    target_psf: Float[Array, "*b h2 w2"] | None = None,
    **options: Any,
) -> Float[Array, "*b h2 w2"]:
    """The image of :func:`deconvolve_two_channels`, in the interface that all methods share.

    Args:
      y: observations.
      psf: on the grid of the result.
      sigma: standard deviation of the noise in a pixel of ``y``.
      positions: of point sources.
      target_psf: the PSF that the result shall have; None for a Gaussian of two pixels.
      **options: of :func:`deconvolve_two_channels`.
    """
    out = deconvolve_two_channels(y, psf, positions, sigma=sigma, target_psf=target_psf, **options)
    return out.image
