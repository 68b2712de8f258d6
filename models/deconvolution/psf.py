"""Point spread functions: making, checking, centring and placing them, on the host or compiled."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError

FWHM_PER_SIGMA = 2.3548200450309493
"""Full width at half maximum of a Gaussian over its standard deviation."""


def _squared_radius(shape: tuple[int, int]) -> np.ndarray:
    rows, cols = (np.arange(n) - n // 2 for n in shape)
    return (rows[:, None] ** 2 + cols[None, :] ** 2).astype(float)


def gaussian_psf(shape: tuple[int, int], fwhm: float) -> Float[np.ndarray, "h w"]:
    """Gaussian in the middle, with sum one.

    Args:
      shape: height and width.
      fwhm: full width at half maximum in pixels.

    >>> psf = gaussian_psf((16, 17), 2.0)
    >>> [int(i) for i in np.unravel_index(psf.argmax(), psf.shape)], round(float(psf.sum()), 12)
    ([8, 8], 1.0)
    """
    psf = np.exp(-0.5 * _squared_radius(shape) / (fwhm / FWHM_PER_SIGMA) ** 2)
    return psf / psf.sum()


def moffat_psf(shape: tuple[int, int], fwhm: float, beta: float = 3.0) -> Float[np.ndarray, "h w"]:
    """Moffat profile in the middle, with sum one: the usual model of seeing.

    Args:
      shape: height and width.
      fwhm: full width at half maximum in pixels.
      beta: exponent; 2.5 to 4.8 for the atmosphere, infinity is a Gaussian.

    >>> round(float(moffat_psf((64, 64), 6.0).sum()), 12)
    1.0
    """
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    psf = (1 + _squared_radius(shape) / alpha**2) ** -beta
    return psf / psf.sum()


def check_psf(psf: Float[np.ndarray, "*b h w"]) -> list[str]:
    """What a PSF file may have wrong, as sentences for the user; refuses what cannot be a PSF.

    Args:
      psf: on the host.

    Returns:
      Warnings: a sum other than one, strong negative wings, a peak away from the middle.

    Raises:
      UserError: not an image, not finite, or without a positive sum.

    >>> check_psf(gaussian_psf((16, 16), 3.0))
    []
    >>> check_psf(2 * gaussian_psf((16, 16), 3.0))
    ['The PSF sums to 2, not to 1: fluxes change by that factor unless it is normalised.']
    """
    psf = np.asarray(psf)
    if psf.ndim < 2 or 0 in psf.shape or psf.dtype.kind not in "fiu":
        raise UserError(f"Expected a PSF of numbers in two axes, found {psf.dtype} {psf.shape}.")
    if not np.isfinite(psf).all():
        count = int((~np.isfinite(psf)).sum())
        raise UserError(f"Expected a finite PSF, found {count} pixels without a value.")
    sums = psf.sum((-2, -1), dtype=float)
    if not (sums > 0).all():
        raise UserError(f"Expected a PSF with a positive sum, found {float(sums.min()):.6g}.")
    out = []
    worst = float(sums.flat[np.abs(sums - 1).argmax()])
    if abs(worst - 1) > 1e-3:
        out.append(
            f"The PSF sums to {worst:.6g}, not to 1: fluxes change by that factor unless it is "
            "normalised."
        )
    negative = -float((np.minimum(psf, 0).sum((-2, -1)) / sums).min())
    if negative > 0.05:
        out.append(f"Negative pixels of the PSF hold {negative:.0%} of its sum.")
    offsets = np.abs(np.reshape(peak_offset(psf), (-1, 2)))
    if offsets.max() > 1:
        out.append(
            f"The peak of the PSF is {int(offsets.max())} pixels away from the pixel (h // 2, "
            "w // 2): the restored image moves by as much unless it is centred."
        )
    return out


def peak_offset(psf: Float[np.ndarray, "*b h w"]) -> np.ndarray:
    """Rows and columns from the middle ``(h // 2, w // 2)`` to the largest pixel.

    >>> peak_offset(np.eye(1, 6, 4).reshape(1, 6)).tolist()
    [0, 1]
    """
    psf = np.asarray(psf)
    h, w = psf.shape[-2:]
    index = psf.reshape(*psf.shape[:-2], -1).argmax(-1)
    return np.stack([index // w - h // 2, index % w - w // 2], axis=-1)


def centre_psf(psf: Float[np.ndarray, "*b h w"]) -> Float[np.ndarray, "*b h w"]:
    """Roll the largest pixel into the middle; whole pixels only, so that nothing is interpolated.

    Whether that is wanted depends on how the observations are registered: official example files
    have the peak half a pixel before the middle on purpose.

    >>> peak_offset(centre_psf(np.roll(gaussian_psf((9, 8), 2.0), (2, -1), (0, 1)))).tolist()
    [0, 0]
    """
    psf = np.asarray(psf)
    flat = psf.reshape(-1, *psf.shape[-2:])
    rolled = [np.roll(one, -peak_offset(one), (0, 1)) for one in flat]
    return np.stack(rolled).reshape(psf.shape)


def place_psf(psf: Float[Array, "*b k l"], shape: tuple[int, int]) -> Float[Array, "*b h w"]:
    """Put a PSF of any size on a grid, its middle ``(k // 2, l // 2)`` on that of the grid.

    Args:
      psf: smaller or larger than the grid, with an odd or even number of pixels.
      shape: height and width of the grid. What lies beyond is cut off, zeros are added.

    >>> place_psf(jnp.ones((1, 1)), (4, 5))[2].tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    for axis, size in ((-2, shape[0]), (-1, shape[1])):
        length = psf.shape[axis]
        before = size // 2 - length // 2
        after = size - length - before
        pads = [(0, 0)] * psf.ndim
        pads[axis] = (max(before, 0), max(after, 0))
        start, stop = max(-before, 0), length - max(-after, 0)
        cut = jnp.take(psf, np.arange(start, stop), axis=axis, mode="clip")
        psf = jnp.pad(cut, pads)
    return psf


def normalise_psf(psf: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
    """Divide by the sum.

    >>> float(normalise_psf(jnp.full((2, 2), 3.0)).sum())
    1.0
    """
    return psf / jnp.sum(psf, axis=(-2, -1), keepdims=True)
