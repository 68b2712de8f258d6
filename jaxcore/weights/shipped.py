"""Weights that come with the library; what they were trained on is in README.md beside this."""

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


SHIPPED = {
    one.name: one
    for one in (
        Shipped(
            "photos", "adair", "noise of any strength (sigma up to 55) and haze, in photographs"
        ),
    )
}
"""Those there are, by name; the first is taken where none is asked for."""


def shipped(name: str | None = None) -> Shipped:
    """Shipped weights.

    Args:
      name: one of `SHIPPED`; the first without it.

    Raises:
      UserError: there are none of that name.

    >>> shipped().network
    'adair'
    """
    if name is None:
        return next(iter(SHIPPED.values()))
    if name not in SHIPPED:
        raise UserError(f"Expected shipped weights {', '.join(SHIPPED)}, found {name!r}.")
    return SHIPPED[name]
