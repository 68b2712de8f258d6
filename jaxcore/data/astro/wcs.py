"""World coordinates of an image whose pixels change: finer ones, or a part of it."""

import itertools
import math
import re
import warnings
from typing import Any

import numpy as np

from jaxcore.errors import UserError

_SUFFIXES = ("", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""Of the cards of the main and of other world coordinates of one image."""
_TABLES = re.compile(r"(CPDIS|D2IMDIS|CQDIS)\d")
_SCALES = ("PIXSCALE", "SECPIX", "SECPIX1", "SECPIX2", "PIXSCAL1", "PIXSCAL2")
_SECTIONS = ("DATASEC", "TRIMSEC", "BIASSEC", "CCDSEC", "DETSEC", "AMPSEC")
CLOSE = 1e-3
"""How far a place may move, in pixels, before a header counts as not carried over."""


def sky(header: Any) -> Any | None:
    """Celestial coordinates of a header (``astropy.wcs.WCS``), None where it has none.

    Args:
      header: of the image; it may have further axes.
    """
    from astropy.wcs import WCS

    if not {"CTYPE1", "CTYPE2"} <= set(header):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # A copy, as astropy mends some headers in place.
            found = WCS(header.copy()).celestial
        except Exception:  # the library's errors are of a dozen kinds
            return None
    return found if found.naxis == 2 else None


def pixel_scale(header: Any) -> float | None:
    """Side of a pixel in seconds of arc, None without celestial coordinates.

    >>> from astropy.io.fits import Header
    >>> cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-3, "CDELT2": 1e-3}
    >>> round(pixel_scale(Header(cards)), 6), pixel_scale(Header())
    (3.6, None)
    """
    from astropy.wcs.utils import proj_plane_pixel_scales

    found = sky(header)
    if found is None:
        return None
    scale = float(np.sqrt(np.prod(proj_plane_pixel_scales(found)))) * 3600
    return scale if math.isfinite(scale) and scale > 0 else None


def regrid(header: Any, *, factor: int = 1, start: tuple[int, int] = (0, 0)) -> Any:
    """Cards of an image that begins at another pixel, then has finer pixels.

    Changed are CRPIX, CD or CDELT, the polynomials of SIP, IRAF's LTV and LTM, and pixel scales;
    of the main coordinates and of the others (A to Z). Places on the sky stay where they are,
    which is checked.

    Args:
      header: cards of the image; not changed.
      factor: fine pixels along the side of a pixel.
      start: row and column, from 0, of the pixel that becomes the first.

    Returns:
      New cards.

    Raises:
      UserError: the pixels change, and distortions stand in tables outside of the header, or the
        coordinates cannot be carried over.

    >>> from astropy.io.fits import Header
    >>> new = regrid(Header({"CTYPE1": "RA---TAN", "CRPIX1": 1.0, "CDELT1": -0.4}), factor=4)
    >>> new["CRPIX1"], new["CDELT1"]
    (2.5, -0.1)
    """
    new = header.copy()
    if factor == 1 and start == (0, 0):
        return new
    table = next((name for name in new if _TABLES.match(name)), None)
    if table is not None:
        raise UserError(
            "Expected coordinates that a header holds alone, found tables of distortions "
            f"({table}) for pixels that change: use a rectified image, or remove these cards."
        )
    offsets = {1: start[1], 2: start[0]}  # axis of FITS -> pixels left out before the image
    for suffix, axis in itertools.product(_SUFFIXES, (1, 2)):
        place, step = f"CRPIX{axis}{suffix}", f"CDELT{axis}{suffix}"
        matrix = [name for i in (1, 2, 3, 4) if (name := f"CD{i}_{axis}{suffix}") in new]
        if f"CTYPE{axis}{suffix}" in new:  # what a header leaves out has a value too
            new.setdefault(place, 0.0)
            if not matrix:
                new.setdefault(step, 1.0)
        _change(new, place, lambda x, o=offsets[axis]: _place(x - o, factor))
        for name in matrix or [step]:
            _change(new, name, lambda x: x / factor)
    _change_sip(new, factor)
    for axis in (1, 2):
        _change(new, f"LTV{axis}", lambda x, o=offsets[axis]: _place(x - o, factor))
        for other in (1, 2):
            _change(new, f"LTM{axis}_{other}", lambda x: x * factor)
    for name in _SCALES:
        _change(new, name, lambda x: x / factor)
    for name in _SECTIONS:
        new.remove(name, ignore_missing=True, remove_all=True)
    _check(header, new, factor, start)
    return new


def _place(x: Any, factor: int) -> Any:
    """Where a place of coarse pixels, whose first has its middle at 1, lies in fine ones."""
    return (x - 0.5) * factor + 0.5


def _change(header: Any, name: str, how: Any) -> None:
    value = header.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        header[name] = how(float(value))


def _change_sip(header: Any, factor: int) -> None:
    """Coefficients of SIP stand for powers of pixels, and give pixels."""
    for name in list(header):
        if found := re.fullmatch(r"[AB]P?_(\d)_(\d)", name):
            power = int(found[1]) + int(found[2])
            _change(header, name, lambda x, p=power: x * float(factor) ** (1 - p))
        elif name in ("A_DMAX", "B_DMAX"):
            _change(header, name, lambda x: x * factor)


def _check(old: Any, new: Any, factor: int, start: tuple[int, int]) -> None:
    """That the corners and the middle lie where they did."""
    before, after = sky(old), sky(new)
    if before is None and after is None:
        return
    sides = [float(old.get(f"NAXIS{axis}", 100) or 100) for axis in (1, 2)]
    shares = np.array([(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.4)])
    places = 1 + shares * (np.array(sides) - 1)
    moved = _place(places - np.array(start[::-1], float), factor)
    far = math.inf
    try:
        assert before is not None and after is not None
        there = np.stack(before.all_pix2world(*places.T, 1), -1)
        here = np.stack(after.all_pix2world(*moved.T, 1), -1)
        from astropy.wcs.utils import proj_plane_pixel_scales

        side = float(min(proj_plane_pixel_scales(before)))
        turns = (there - here + 180) % 360 - 180
        if np.isfinite(turns).any():
            far = np.nanmax(np.abs(turns * [np.cos(np.radians(there[:, 1])).min(), 1])) / side
    except Exception:  # the library's errors are of a dozen kinds
        pass
    if not far < CLOSE:
        raise UserError(
            "Expected coordinates on the sky that can be carried over to other pixels, found that "
            f"places would move by {far:.2g} pixels."
        )
