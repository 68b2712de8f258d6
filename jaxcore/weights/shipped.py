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
    default: bool  # taken where none are named

    @property
    def path(self) -> Path:
        """Their file."""
        return Path(__file__).with_name(f"{self.name}.safetensors")


NOISE = Shipped("noise", "adair", "noise of any strength, and photographs without", default=True)
HAZE = Shipped("haze", "dea_net", "haze", default=False)
SHIPPED = {one.name: one for one in (NOISE, HAZE) if one.path.exists()}
"""Those there are, by name."""


def shipped(name: str | None = None) -> Shipped:
    """Weights in this folder.

    Args:
      name: one of `SHIPPED`; without it the first that is a default.

    Raises:
      UserError: there are none, or none of that name.
    """
    found = [one for one in SHIPPED.values() if one.name == name or (name is None and one.default)]
    if found:
        return found[0]
    if name is None:
        raise UserError(
            "Expected --weights with a run or a file, found none, and this installation of jaxcore "
            "lacks its own (jaxcore/weights/README.md)."
        )
    raise UserError(
        f"Expected weights {name!r}, found with jaxcore {', '.join(SHIPPED) or 'none'}: a run, a "
        "file, or those that jaxcore/weights/README.md says how to make."
    )
