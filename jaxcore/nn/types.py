"""The types that a module passes on to its layers."""

import dataclasses
from typing import Protocol, Self


class HasTypes(Protocol):
    """The configuration of a network, which names its types."""

    @property
    def dtype(self) -> str:
        """Type of activations."""
        ...

    @property
    def param_dtype(self) -> str:
        """Type of the stored parameters."""
        ...


@dataclasses.dataclass(frozen=True)
class Types:
    """The one field ``types`` of every layer and block.

    Attributes:
      dtype: type of activations; statistics are computed in at least float32.
      param_dtype: type of the stored parameters.

    >>> Types(dtype="bfloat16")
    Types(dtype='bfloat16', param_dtype='float32')
    """

    dtype: str = "float32"
    param_dtype: str = "float32"

    @classmethod
    def of(cls, cfg: HasTypes) -> Self:
        """The types that a configuration names."""
        return cls(cfg.dtype, cfg.param_dtype)
