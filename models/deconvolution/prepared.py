"""A point spread function as files bring it, made ready for deconvolution; on the host."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxcore.errors import UserError
from jaxcore.models.deconvolution.psf import check_psf, peak_offset

NEGATIVE = 0.05
"""Share of the sum that negative pixels may hold."""
NEAR = 0.02
"""Pixels by which a PSF may miss the middle before it is moved."""
SHARE = 0.99
"""Of the flux, that has to lie within reach."""


class PreparedPsf(NamedTuple):
    """Result of `prepare_psf`.

    Attributes:
      psf: sum one, float64.
      notes: sentences on what was changed.
    """

    psf: Float[np.ndarray, "*b h w"]
    notes: tuple[str, ...]


def prepare_psf(psf: Float[np.ndarray, "*b h w"], *, centre: bool = True) -> PreparedPsf:
    """Check, normalise and centre a PSF.

    Args:
      psf: of one band, or of several.
      centre: move the centroid into the middle of the pixel ``(h // 2, w // 2)``: by whole pixels
        where that is all, else by a fraction in Fourier space. A PSF of an even number of pixels
        that is symmetric about their common corner moves by half a pixel.

    Raises:
      UserError: not an image, not finite, no positive sum, or strongly negative.

    >>> from jaxcore.models.deconvolution import gaussian_psf
    >>> prepare_psf(3 * np.roll(gaussian_psf((32, 32), 4.0), 2, 0)).notes
    ('The PSF sums to 3: it was normalised to 1.', 'The PSF lay (+2.00, +0.00) pixels off the \
middle: it was centred.')
    """
    check_psf(psf)  # refuses what cannot be one
    psf = np.asarray(psf, np.float64)
    sums = psf.sum((-2, -1), keepdims=True)
    notes = []
    worst = float(sums.flat[np.abs(sums - 1).argmax()])
    if abs(worst - 1) > 1e-3:
        notes.append(f"The PSF sums to {worst:.6g}: it was normalised to 1.")
    psf = psf / sums
    negative = -float(np.minimum(psf, 0).sum((-2, -1)).min())
    if negative > NEGATIVE:
        raise UserError(
            f"Expected a PSF without negative pixels, found some that hold {negative:.0%} of its "
            "sum."
        )
    if negative > 1e-3:
        notes.append(f"Negative pixels of the PSF hold {negative:.1%} of its sum.")
    if centre:
        flat = psf.reshape(-1, *psf.shape[-2:])
        offsets = np.stack([centroid(one) for one in flat])
        far = float(np.abs(offsets).max())
        if far > NEAR:
            psf = np.stack(
                [shift_psf(one, -offset) for one, offset in zip(flat, offsets, strict=True)]
            ).reshape(psf.shape)
            row, col = offsets[np.abs(offsets).max(1).argmax()]
            notes.append(
                f"The PSF lay ({row:+.2f}, {col:+.2f}) pixels off the middle: it was centred."
            )
    return PreparedPsf(psf, tuple(notes))


def centroid(psf: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "2"]:
    """Rows and columns from the middle ``(h // 2, w // 2)`` to the centre of the core.

    The mean place of the pixels above a fifth of the largest, so that wings cut off at one side of
    a small stamp do not count.

    >>> centroid(np.eye(1, 6, 4).reshape(1, 6)).tolist()
    [0.0, 1.0]
    """
    h, w = psf.shape
    weight = np.maximum(psf - 0.2 * psf.max(), 0)
    total = weight.sum()
    if not total > 0:
        return peak_offset(psf).astype(float)
    rows = (weight.sum(1) * (np.arange(h) - h // 2)).sum() / total
    cols = (weight.sum(0) * (np.arange(w) - w // 2)).sum() / total
    return np.array([rows, cols])


def shift_psf(
    psf: Float[np.ndarray, "h w"], offset: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "h w"]:
    """Move a PSF; what leaves on one side is lost, and the sum becomes one again.

    Args:
      psf: with sum one.
      offset: rows and columns, fractions allowed. Whole pixels are exact; fractions of one keep a
        PSF whose full width at half maximum is at least two pixels as it is.

    >>> shift_psf(np.eye(1, 4, 1).reshape(1, 4), np.array([0.0, 1.0])).tolist()
    [[0.0, 0.0, 1.0, 0.0]]
    """
    whole = np.rint(offset).astype(int)
    part = np.where(np.abs(offset - whole) > NEAR, offset - whole, 0.0)
    h, w = psf.shape
    pad = (max(h, w) // 2 + int(np.abs(whole).max()) + 1) if (part != 0).any() or whole.any() else 0
    moved = np.roll(np.pad(psf, pad), whole, (0, 1))
    if (part != 0).any():
        lowest = min(float(psf.min()), 0.0)
        rows, cols = np.fft.fftfreq(moved.shape[0])[:, None], np.fft.rfftfreq(moved.shape[1])
        turn = np.exp(-2j * np.pi * (rows * part[0] + cols * part[1]))
        moved = np.fft.irfft2(np.fft.rfft2(moved) * turn, moved.shape)
        moved = np.maximum(moved, lowest)  # no new negative pixels
    moved = moved[pad : pad + h, pad : pad + w]
    return moved / moved.sum()


def reach_of(psf: Float[np.ndarray, "*b h w"], share: float = SHARE) -> int:
    """Pixels from the middle to the sides of the square that holds a share of the flux.

    >>> from jaxcore.models.deconvolution import gaussian_psf
    >>> reach_of(gaussian_psf((64, 64), 6.0))
    7
    """
    size = np.abs(np.asarray(psf)).reshape(-1, *psf.shape[-2:]).max(0)
    h, w = size.shape
    rows, cols = np.ogrid[-(h // 2) : h - h // 2, -(w // 2) : w - w // 2]
    far = np.maximum(np.abs(rows), np.abs(cols))
    rings = np.bincount(far.ravel(), size.ravel())
    return int(np.searchsorted(np.cumsum(rings), share * rings.sum()))
