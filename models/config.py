"""What the configurations of all networks share."""

import dataclasses
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from jaxcore.serial import Serial

DType: TypeAlias = Literal["float32", "bfloat16", "float16", "float64"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(Serial):
    """Base of a network's configuration: frozen, hashable, checked, to and from JSON."""

    title: ClassVar[str]  # the network's name in messages


C = TypeVar("C")
_COMPUTED = ("dtype", "param_dtype", "remat", "scan_blocks")


def computed_like(found: C, wanted: C) -> C:
    """The network of one configuration, in the numbers and loops of another.

    >>> from jaxcore.models.adair import AdaIRConfig
    >>> found = AdaIRConfig(dim=16, dtype="bfloat16")
    >>> computed_like(found, AdaIRConfig()) == AdaIRConfig(dim=16)
    True
    """
    fields: Any = found
    names = [f.name for f in dataclasses.fields(fields) if f.name in _COMPUTED]
    return dataclasses.replace(fields, **{name: getattr(wanted, name) for name in names})
