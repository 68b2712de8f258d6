"""What picture files say besides their pixels: profile, EXIF, resolution, comments."""

import dataclasses
import re
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a file says about a picture besides its pixels."""

    icc: bytes | None = None  # colour profile
    exif: bytes | None = None  # of a picture that stands upright: no orientation, no thumbnail
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None  # across, down
    text: tuple[tuple[str, str], ...] = ()  # PNG comments: (key, value)


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""EXIF orientation -> how the stored samples are turned upright."""

_ORIENTATION = 274
# Tags of the main directory that describe the picture and not the layout of the file.
_EXIF = (269, 270, 271, 272, 305, 306, 315, 316, 18246, 33432, 40091, 40092, 40093, 40094, 40095)
_EXIF_IFD, _GPS_IFD = 34665, 34853
_EXIF_WIDTH, _EXIF_HEIGHT = 40962, 40963


def orientation_of(image: Any) -> int:
    """EXIF orientation of an opened Pillow image, 1 to 8."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not make the pixels worse
        return 1
    return value if value in UPRIGHT else 1


def describe(image: Any, orientation: int) -> Metadata:
    """Metadata of a loaded Pillow image, as they are once its samples are turned upright."""
    info = image.info
    try:
        exif = _upright_exif(image, orientation >= 5)
    except Exception:
        exif = None
    dpi = None
    invented = image.format == "TIFF" and 282 not in image.tag_v2  # Pillow says 1 dpi then
    if "dpi" in info and not invented:
        across, down = (float(d) for d in info["dpi"][:: -1 if orientation >= 5 else 1])
        dpi = (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None
    xmp = info.get("xmp")
    if isinstance(xmp, bytes):
        xmp = re.sub(rb"(tiff:Orientation(?:=[\"']|>))\d", rb"\g<1>1", xmp)
    text = {k: v for k, v in getattr(image, "text", {}).items() if isinstance(v, str)}
    text = {
        k: str(v) for k, v in text.items() if not k.startswith(("Raw profile", "XML:com.adobe"))
    }
    return Metadata(
        icc=info.get("icc_profile") or None,
        exif=exif,
        xmp=xmp if isinstance(xmp, bytes) else None,
        dpi=dpi,
        text=tuple(text.items()),
    )


def _upright_exif(image: Any, turned: bool) -> bytes | None:
    """The descriptive part of the EXIF block; the thumbnail would show the old picture."""
    from PIL import Image

    old, new = image.getexif(), Image.Exif()
    for tag in _EXIF:
        if tag in old:
            new[tag] = old[tag]
    for tag in (_EXIF_IFD, _GPS_IFD):
        if ifd := old.get_ifd(tag):
            new.get_ifd(tag).update(ifd)
    details = new.get_ifd(_EXIF_IFD)
    if turned and _EXIF_WIDTH in details and _EXIF_HEIGHT in details:
        sides = details[_EXIF_WIDTH], details[_EXIF_HEIGHT]
        details[_EXIF_HEIGHT], details[_EXIF_WIDTH] = sides
    if not (len(new) or details or new.get_ifd(_GPS_IFD)):
        return None
    return new.tobytes()
