"""What the configurations of all networks share: JSON in and out, and checks of their fields."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

from jaxcore.errors import UserError

DType = Literal["float32", "bfloat16", "float16", "float64"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Base of a network's configuration: frozen, hashable, with lists in JSON for tuples."""

    title: ClassVar[str]  # the network's name in messages

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON types."""
        fields = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`.

        Raises:
          UserError: a field is missing or unknown, or has a value that is not allowed.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        missing = [name for name in names if name not in fields]
        unknown = [name for name in fields if name not in names]
        if missing or unknown:
            parts = [
                f"{label} {', '.join(map(repr, found))}"
                for label, found in (("missing", missing), ("unknown", unknown))
                if found
            ]
            raise UserError(
                f"A configuration of {cls.title} has other fields than these: {'; '.join(parts)}."
            )
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()})


def is_count(value: Any, least: int = 1) -> bool:
    """Whether ``value`` is a whole number of at least ``least``; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_choices(cfg: Any, allowed: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse a field whose value is not among those allowed for it."""
    for name, values in allowed.items():
        if getattr(cfg, name) not in values:
            raise UserError(
                f"{name} must be one of {', '.join(map(str, values))}, found "
                f"{getattr(cfg, name)!r}."
            )


def check_flags(cfg: Any, names: Iterable[str]) -> None:
    """Refuse a field that is not True or False."""
    for name in names:
        if not isinstance(getattr(cfg, name), bool):
            raise UserError(f"{name} must be true or false, found {getattr(cfg, name)!r}.")


def check_counts(cfg: Any, least: Mapping[str, int]) -> None:
    """Refuse a field that is not a whole number of at least the one given for it."""
    for name, smallest in least.items():
        if not is_count(getattr(cfg, name), smallest):
            raise UserError(
                f"{name} must be a whole number of at least {smallest}, found "
                f"{getattr(cfg, name)!r}."
            )


def check_positive(cfg: Any, names: Iterable[str]) -> None:
    """Refuse a field that is not a number above zero."""
    for name in names:
        value = getattr(cfg, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise UserError(f"{name} must be a positive number, found {value!r}.")
