"""What the configurations of all networks share."""

import dataclasses
from typing import ClassVar, Literal, TypeAlias

from jaxcore.serial import Serial

DType: TypeAlias = Literal["float32", "bfloat16", "float16", "float64"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(Serial):
    """Base of a network's configuration: frozen, hashable, checked, to and from JSON."""

    title: ClassVar[str]  # the network's name in messages
