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
_SMOOTH = 30.0  # how many times more coefficients cost in the first round of fitting positions


class TwoChannels(NamedTuple):
    """Result of `deconvolve_two_channels`.

    Attributes:
      image: extended image and point sources together.
      extended: the extended image alone.
      fluxes: of the point sources.
      positions: of the point sources, as given or fitted.
    """

    image: Float[Array, "*b h w"]
    extended: Float[Array, "*b h w"]
    fluxes: Float[Array, "*b m"]
    positions: Float[Array, "*b m 2"]


def _turns(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Angle by which a pixel along each axis turns every wave."""
    rows, cols = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    return 2 * np.pi * rows, 2 * np.pi * cols


def _waves(positions: Float[Array, "*b m 2"], shape: tuple[int, int]) -> Complex[Array, "*b m h w"]:
    """Spectra of points of flux one at fractional pixels."""
    turns = [
        positions[..., axis, None, None]
        * aligned(jnp.asarray(turn, positions.dtype), positions.ndim + 1)
        for axis, turn in enumerate(_turns(shape))
    ]
    angle = turns[0] + turns[1]
    return jax.lax.complex(jnp.cos(angle), -jnp.sin(angle))


def _moves(
    left: Float[Array, "*b h w"],
    weights: Float[Array, "*b h w"] | None,
    positions: Float[Array, "*b m 2"],
    tf: Complex[Array, "*b h2 w3"],
    shape: tuple[int, int],
) -> Float[Array, "*b m 2"]:
    """How far points lie from their places: one step of Gauss and Newton, at most a pixel.

    What an image holds beside its extended part is fitted by every blurred point and its slopes
    along both axes; a slope over the flux is the way to go.
    """
    factor = factor_between(left.shape, shape)
    waves = _waves(positions, shape)
    slopes = [times(waves, jnp.asarray(-1j * turn, waves.dtype)) for turn in _turns(shape)]
    spectra = times(jnp.stack([waves, *slopes], axis=-3), tf[..., None, None, :, :])
    columns = rebin(image(spectra, shape), factor)
    columns = columns.reshape(*positions.shape[:-2], -1, left.shape[-2] * left.shape[-1])
    counted = columns
    if weights is not None:
        certain = jnp.broadcast_to(aligned(weights, left.ndim), left.shape).astype(left.dtype)
        counted = columns * certain.reshape(*left.shape[:-2], 1, -1)
    square = jnp.einsum("...in,...jn->...ij", counted, columns, precision="highest")
    flat = left.reshape(*left.shape[:-2], -1)
    right = jnp.einsum("...in,...n->...i", counted, flat, precision="highest")
    # Sources in one place have no solution of their own.
    size = jnp.trace(square, axis1=-2, axis2=-1)[..., None, None]
    ones = aligned(jnp.eye(square.shape[-1], dtype=left.dtype), square.ndim)
    square = square + (1e-6 * size + jnp.finfo(left.dtype).tiny) * ones
    found = jnp.linalg.solve(square, right[..., None]).reshape(*positions.shape[:-1], 3)
    flux = found[..., :1]
    return jnp.where(flux > 0, jnp.clip(found[..., 1:] / jnp.where(flux > 0, flux, 1), -1, 1), 0)


@functools.partial(jax.jit, static_argnames=("starlet", "n_iter", "background", "fit_rounds"))
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
    fit_rounds: int = 0,
    starlet: Starlet = Starlet(4, 2),
) -> TwoChannels:
    """Deconvolve to a Gaussian PSF, with point sources apart.

    Args:
      y: observations.
      psf: on the grid of the result; see `restore_tikhonov`.
      positions: row and column of every point source in pixels of the result, fractions allowed;
        the same number for each image. None for no point sources.
      sigma: standard deviation of the noise in a pixel of ``y``.
      weights: of the pixels of ``y``; see `sparse_starlet`.
      target_psf: the PSF that the result shall have; None for a Gaussian of two pixels.
      k: weight of the coefficients of the extended image; see `sparse_starlet`.
      k_first: the same for the finest plane.
      background: see `sparse_starlet`.
      n_iter: number of steps.
      fit_rounds: how often positions are mended, each time after a quarter of the steps; 6 bring
        places that are a pixel off to a few hundredths, if the source stands out. The extended
        image begins smooth, so that it does not take what a misplaced point leaves. 0 keeps
        positions as they are.
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
    difference = difference_to(y, weights)
    gain = jnp.max(power(tf))
    # Fluxes in units in which a blurred point is as long as the largest blurred wave.
    unit = jnp.sqrt(gain * (shape[0] * shape[1]) / jnp.max(total(power(tf), shape[1])))
    step = 1 / (gain * factor**2 * (starlet.n_scales + 1 + positions.shape[-2]))

    def points(scaled: Array, waves: Array, transfer: Array) -> Array:
        weights = (unit * scaled)[..., None, None]
        summed = jnp.sum(times(waves, weights), axis=-3)
        return image(times(summed, transfer), shape)

    def solve(positions: Array, k: Any, k_first: Any, n_iter: int) -> tuple[Array, Array]:
        waves = _waves(positions, shape)
        planes, limit = penalties(y, tf, sigma, k, k_first, starlet, weights)

        def seen(channels: tuple[Array, Array]) -> Array:
            spread = convolve(compose(channels[0], starlet), tf)
            return rebin(spread + points(channels[1], waves, tf), factor)

        start = (planes, jnp.zeros(positions.shape[:-1], y.dtype))
        back = jax.linear_transpose(seen, start)

        def descend(channels: tuple[Array, Array]) -> tuple[Array, Array]:
            (slope,) = back(difference(seen(channels)))
            moved = jax.tree.map(lambda a, b: a + step * b, channels, slope)
            return shrink(moved[0], step * limit, True, background), jnp.maximum(moved[1], 0)

        return fista(descend, start, n_iter)

    def mend(positions: Array, smooth: Array) -> tuple[Array, None]:
        planes, _ = solve(positions, smooth * k, smooth * k_first, max(1, n_iter // 4))
        left = y - rebin(convolve(compose(planes, starlet), tf), factor)
        if weights is not None:
            left = jnp.where(aligned(weights, y.ndim) > 0, left, 0)
        return positions + _moves(left, weights, positions, tf, shape), None

    if fit_rounds and positions.shape[-2]:
        smooth = jnp.asarray(np.geomspace(_SMOOTH, 1, fit_rounds), y.dtype)
        positions, _ = jax.lax.scan(mend, positions, smooth)
    planes, scaled = solve(positions, k, k_first, n_iter)
    if target_psf is None:
        target_psf = jnp.asarray(gaussian_psf(shape, FWHM), y.dtype)
    target = psf_to_tf(target_psf)
    extended = convolve(compose(planes, starlet), target)
    # Waves count from pixel (0, 0), as the middle of a transfer function does.
    both = extended + points(scaled, _waves(positions, shape), target)
    return TwoChannels(both, extended, unit * scaled, positions)


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
