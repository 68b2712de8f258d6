"""Units of images, as BUNIT says them."""

import importlib
import warnings
from typing import Any

from jaxcore.errors import UserError, readable


def _units() -> Any:
    return importlib.import_module("astropy.units")


def check_units(first: str, second: str, names: tuple[str, str], power: int = 1) -> float:
    """By what the second of two images is multiplied to be in the unit of the first.

    Args:
      first: BUNIT of an image; "" where nothing is said, which agrees with anything.
      second: of the other.
      names: of both, for messages.
      power: 2 for a variance, which has the square of the unit of its image.

    Raises:
      UserError: they do not measure the same.

    >>> check_units("Jy", "mJy", ("a", "b")), round(check_units("Jy", "mJy2", ("a", "b"), 2), 9)
    (0.001, 1e-06)
    >>> check_units("Jy", "s", ("the image", "the mask"))
    Traceback (most recent call last):
    jaxcore.errors.UserError: Expected the unit of the image (Jy) for the mask, found s.
    """
    units = _units()

    if not first or not second or (first == second and power == 1):
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wanted = units.Unit(first, parse_strict="silent") ** power
            given = units.Unit(second, parse_strict="silent")
            return float(given.to(wanted))
        except (ValueError, TypeError):
            if power != 1 and units.Unit(first, parse_strict="silent").physical_type == "unknown":
                return 1.0  # squares of words that are no units cannot be compared
    square = {1: "unit", -2: "inverse square of the unit"}.get(power, "square of the unit")
    raise UserError(
        f"Expected the {square} of {names[0]} ({readable(first)}) for {names[1]}, found "
        f"{readable(second)}."
    )


def per_area(unit: str) -> bool:
    """Whether a unit is one per solid angle, such as MJy/sr: brightness, which finer pixels keep.

    >>> per_area("MJy/sr"), per_area("nJy"), per_area("")
    (True, False, False)

    Raises:
      UserError: magnitudes or another logarithm, of which there are no sums.
    """
    units = _units()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = units.Unit(unit, parse_strict="silent") if unit else units.Unit("")
        except (ValueError, TypeError):
            return False
        if isinstance(found, units.UnrecognizedUnit):
            return False
        if isinstance(found, units.function.FunctionUnitBase) or "mag" in unit.lower():
            raise UserError(f"Expected pixels that add up, found the unit {readable(unit)}.")
        angles = (units.sr, units.rad, units.deg, units.arcmin, units.arcsec, units.mas)
        bases = dict(zip(found.bases, found.powers, strict=True))
        angle = sum(p * {"sr": 2}.get(str(b), 1) for b, p in bases.items() if b in angles)
        return angle == -2
