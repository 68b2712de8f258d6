"""Astronomical images: FITS files, their coordinates and their units."""

from jaxcore.data.astro.fits import FitsImage, read_fits, write_fits
from jaxcore.data.astro.units import check_units, per_area
from jaxcore.data.astro.wcs import pixel_scale, regrid, sky

__all__ = [
    "FitsImage",
    "check_units",
    "per_area",
    "pixel_scale",
    "read_fits",
    "regrid",
    "sky",
    "write_fits",
]
