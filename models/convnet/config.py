"""Sizes and options of the depthwise-separable network."""

import dataclasses
from typing import Annotated, Any, ClassVar, Self

from jaxcore.bounds import Above, AtMost, Count
from jaxcore.errors import UserError
from jaxcore.models.regression import SequenceConfig
from jaxcore.ops.pool import Bins


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNetConfig(SequenceConfig):
    """Everything that decides what the network computes.

    >>> cfg = ConvNetConfig(depth=2)
    >>> cfg.least, ConvNetConfig.from_dict(cfg.to_dict()) == cfg
    (19, True)
    """

    title: ClassVar[str] = "ConvNet"

    width: Count = 64  # channels of every block
    depth: Count = 3  # blocks
    kernel_size: Count = 5  # side of the depthwise filters; odd
    stride: Count = 2  # of the first block's filter
    shrink: Annotated[float, Above(0), AtMost(1)] = 0.75  # of the sides, in every block
    bins: Bins = "apart"  # of the pooling; "even" does not distort the map

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_size % 2 == 0:
            raise UserError(f"kernel_size must be odd, found {self.kernel_size}.")

    def sides(self, side: int) -> list[int]:
        """Height or width after each block; 0 from where nothing is left.

        >>> ConvNetConfig(depth=2).sides(35)
        [12, 6]
        """
        found = []
        for block in range(self.depth):
            left = max(0, side - self.kernel_size + 1)
            side = int(self.shrink * -(-left // (1 if block else self.stride)))
            found.append(side)
        return found

    @property
    def least(self) -> int:
        """Smallest height and width of an image."""
        side = self.kernel_size
        while not self.sides(side)[-1]:
            side += 1
        return side

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """As small as it can be, for tests; no published weights."""
        sizes: dict[str, Any] = {"width": 4, "depth": 2, "kernel_size": 3, "covariates": 2}
        return cls(**{**sizes, "shrink": 0.75, **changes})
