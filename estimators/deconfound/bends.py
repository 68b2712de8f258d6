"""Columns that let the effect of a confounder bend: powers of it, or natural cubic splines.

The effect is linear in these columns, so every route estimates it with errors: no straight line is
assumed, only that confounders and text add up.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

QUANTILES = (0.05, 0.275, 0.5, 0.725, 0.95)
"""Of a confounder, where its spline has knots (Harrell 2015, section 2.4.6)."""


class Bend(Protocol):
    """Columns of a fit from its confounders."""

    @property
    def count(self) -> int:
        """Confounders."""
        ...

    def columns(self, values: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n q"]:
        """The confounders first, then what lets them bend."""
        ...

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names of the columns."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """What `saved` makes the same columns of."""
        ...


@dataclasses.dataclass(frozen=True)
class Powers:
    """Confounders and powers of them, standardised so that these are of like size.

    >>> Powers.of(np.array([[1.0], [3.0]]), 2).columns(np.array([[3.0], [5.0]])).tolist()
    [[3.0, 1.0], [5.0, 9.0]]
    """

    mean: np.ndarray  # of each confounder
    scale: np.ndarray
    degree: int

    @classmethod
    def of(cls, values: np.ndarray, degree: int) -> "Powers":
        """Up to a degree; 1 leaves columns as they are."""
        return cls(values.mean(axis=0), values.std(axis=0), degree)

    @property
    def count(self) -> int:
        """Confounders."""
        return len(self.mean)

    def columns(self, values: np.ndarray) -> np.ndarray:
        """The columns, then their squares, and so on."""
        z = (values - self.mean[None]) / np.where(self.scale > 0, self.scale, 1)[None]
        return np.concatenate([values, *(z**k for k in range(2, self.degree + 1))], axis=1)

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names of the columns."""
        more = [f"{name}^{k}" for k in range(2, self.degree + 1) for name in names]
        return (*names, *more)

    def arrays(self) -> dict[str, np.ndarray]:
        """Means and scales."""
        return {"mean": self.mean, "scale": self.scale}


@dataclasses.dataclass(frozen=True)
class Splines:
    """Confounders and, of each, natural cubic splines: smooth, and straight beyond the outer knots.

    References:
      Harrell (2015), Regression modeling strategies, section 2.4.5.

    >>> s = Splines((np.array([0.0, 1.0, 2.0]),))
    >>> s.columns(np.array([[-1.0], [0.0], [2.0], [3.0], [4.0]])).tolist()
    [[-1.0, 0.0], [0.0, 0.0], [2.0, 1.5], [3.0, 3.0], [4.0, 4.5]]
    """

    knots: tuple[np.ndarray, ...]  # of each confounder, ascending; fewer than three: it stays as is

    @classmethod
    def of(cls, values: np.ndarray) -> "Splines":
        """Knots at quantiles; a confounder of one or two values has none."""
        found = np.quantile(values, QUANTILES, axis=0, method="nearest")
        return cls(tuple(np.unique(column) for column in found.T))

    @property
    def count(self) -> int:
        """Confounders."""
        return len(self.knots)

    def columns(self, values: np.ndarray) -> np.ndarray:
        """The columns, then the splines of the first, of the second, and so on."""
        more = [_natural(x, t) for x, t in zip(values.T, self.knots, strict=True)]
        return np.concatenate([values, *more], axis=1)

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names of the columns."""
        pairs = zip(names, self.knots, strict=True)
        return (*names, *(f"{name}~{j}" for name, t in pairs for j in range(1, len(t) - 1)))

    def arrays(self) -> dict[str, np.ndarray]:
        """The knots of every confounder."""
        return {f"knots{j}": t for j, t in enumerate(self.knots)}


def _natural(x: np.ndarray, t: np.ndarray) -> Float[np.ndarray, "n k"]:
    """Truncated cubes that are joined to straight lines, in units of the confounder."""

    def cube(knot: float) -> np.ndarray:
        return np.maximum(x - knot, 0) ** 3 / (t[-1] - t[0]) ** 2

    if len(t) < 3:
        return np.zeros((len(x), 0))
    width = t[-1] - t[-2]
    last, end = cube(t[-2]), cube(t[-1])
    columns = [
        cube(knot) - last * ((t[-1] - knot) / width) + end * ((t[-2] - knot) / width)
        for knot in t[:-2]
    ]
    return np.stack(columns, axis=1)


def bend(values: np.ndarray, degree: int, splines: bool) -> Bend:
    """How columns bend."""
    return Splines.of(values) if splines else Powers.of(values, degree)


def saved(arrays: Mapping[str, Any], degree: int, splines: bool) -> Bend:
    """What `Bend.arrays` gave, as columns again."""
    if splines:
        return Splines(tuple(np.asarray(arrays[f"knots{j}"]) for j in range(len(arrays))))
    none = np.zeros(0)
    return Powers(
        np.asarray(arrays.get("mean", none)), np.asarray(arrays.get("scale", none)), degree
    )
