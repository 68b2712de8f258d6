"""Weights in this folder; README.md beside this says how they are made, and on what."""

import dataclasses
from pathlib import Path

from jaxcore.errors import UserError


@dataclasses.dataclass(frozen=True)
class Shipped:
    """Weights in this folder."""

    name: str
    network: str
    what: str  # they are for

    @property
    def path(self) -> Path:
        """Their file."""
        return Path(__file__).with_name(f"{self.name}.safetensors")


PHOTOS = Shipped(
    "photos", "adair", "noise of any strength (sigma up to 55) and haze, in photographs"
)
SHIPPED = {one.name: one for one in (PHOTOS,) if one.path.exists()}
"""Those there are, by name; the first is taken where none is asked for."""


def shipped(name: str | None = None) -> Shipped:
    """Weights in this folder.

    Args:
      name: one of `SHIPPED`; the first without it.

    Raises:
      UserError: there are none, or none of that name.
    """
    if name is None and SHIPPED:
        return next(iter(SHIPPED.values()))
    if name in SHIPPED:
        return SHIPPED[name]
    wanted = "--weights" if name is None else f"weights {name!r}"
    raise UserError(
        f"Expected {wanted}, found with jaxcore {', '.join(SHIPPED) or 'none'}: a run, a file, or "
        "those that jaxcore/weights/README.md says how to make."
    )
