"""Sizes and options of the network of the paper of 2023."""

import dataclasses
from typing import Any, ClassVar, Self

from jaxcore.bounds import Count
from jaxcore.models.regression import RegressionConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class CNN2023Config(RegressionConfig):
    """Everything that decides what the network computes; the defaults are the published ones.

    >>> CNN2023Config().least
    22
    """

    title: ClassVar[str] = "CNN2023"

    filters: Count = 32  # of every convolution
    low: Count = 3  # channels between the blocks
    depth: Count = 3  # blocks
    kernel_size: Count = 3
    hidden: Count = 32  # width of the dense layer

    @property
    def least(self) -> int:
        """Smallest height and width of an image."""
        side = 1
        for _ in range(self.depth):
            side = 2 * side + self.kernel_size - 1
        return side

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """As small as it can be, for tests; no published weights."""
        sizes: dict[str, Any] = {"filters": 4, "depth": 2, "hidden": 3, "covariates": 2}
        return cls(**{**sizes, **changes})
