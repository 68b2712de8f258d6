"""Limits of settings, as annotations that `jaxcore.serial` checks."""

import dataclasses
import operator
from collections.abc import Callable, Collection
from typing import Annotated, ClassVar, TypeAlias


@dataclasses.dataclass(frozen=True)
class Bound:
    """A limit of a number, as an annotation: ``Annotated[int, AtLeast(1)]``."""

    limit: float
    phrase: ClassVar[str]
    compare: ClassVar[Callable[[float, float], bool]]

    def holds(self, value: float) -> bool:
        """Whether a number keeps to the limit; NaN never does.

        >>> Above(0).holds(0), AtMost(1).holds(0.5)
        (False, True)
        """
        return type(self).compare(value, self.limit)


class AtLeast(Bound):
    """Not below the limit."""

    phrase, compare = "of at least", operator.ge


class AtMost(Bound):
    """Not above the limit."""

    phrase, compare = "of at most", operator.le


class Above(Bound):
    """Above the limit."""

    phrase, compare = "above", operator.gt


class Below(Bound):
    """Below the limit."""

    phrase, compare = "below", operator.lt


class OneOf:
    """A name of a table, as an annotation: ``Annotated[str, OneOf(TABLE)]``; it may grow later."""

    def __init__(self, table: Collection[str]) -> None:
        """Take the table as it will be when a value is checked."""
        self.table = table

    def holds(self, value: str) -> bool:
        """Whether the table has the name."""
        return value in self.table


Count: TypeAlias = Annotated[int, AtLeast(1)]
"""A whole number of at least 1."""
Index: TypeAlias = Annotated[int, AtLeast(0)]
"""A whole number of at least 0."""
Positive: TypeAlias = Annotated[float, Above(0)]
"""A number above 0."""
