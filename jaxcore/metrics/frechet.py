"""Frechet distance of two clouds of features, as FID is; mergeable, in float64."""

import dataclasses
from typing import Self

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True, eq=False)
class Cloud:
    """Count, sum and sum of products of features; parts of a set add up.

    >>> a, b = np.arange(6.0).reshape(3, 2), np.ones((2, 2))
    >>> whole = Cloud.of(np.concatenate([a, b]))
    >>> bool(np.allclose((Cloud.of(a) + Cloud.of(b)).covariance, whole.covariance))
    True
    """

    count: int
    total: Float[np.ndarray, "c"]
    products: Float[np.ndarray, "c c"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n c"]) -> Self:
        """The cloud of some features."""
        x = np.asarray(features, np.float64)
        return cls(len(x), x.sum(0), x.T @ x)

    def __add__(self, other: Self) -> Self:
        return dataclasses.replace(
            self,
            count=self.count + other.count,
            total=self.total + other.total,
            products=self.products + other.products,
        )

    @property
    def mean(self) -> Float[np.ndarray, "c"]:
        """Mean of the features."""
        return self.total / self.count

    @property
    def covariance(self) -> Float[np.ndarray, "c c"]:
        """Sample covariance, of at least two."""
        centred = self.products - self.count * np.outer(self.mean, self.mean)
        return centred / (self.count - 1)


def frechet_distance(a: Cloud, b: Cloud) -> float:
    """Squared Frechet distance of the Gaussians with the moments of two clouds.

    The trace of the root of the product of covariances is that of the root of a symmetric matrix
    with the same eigenvalues, which needs no matrix to be regular: fewer pictures than features are
    no special case, though the distance is then larger than that of many.

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(frechet_distance(Cloud.of(x), Cloud.of(x)), 6) + 0.0
    0.0
    >>> round(frechet_distance(Cloud.of(x), Cloud.of(x + 2)), 6)
    12.0
    """
    first, second = a.covariance, b.covariance
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(_clean(values))) @ vectors.T
    shared = np.sqrt(_clean(np.linalg.eigvalsh(root @ second @ root))).sum()
    gap = a.mean - b.mean
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2 * shared)


def _clean(values: np.ndarray) -> np.ndarray:
    """Eigenvalues without those that are rounding, whose roots would count."""
    return np.where(values > values.max() * len(values) * np.finfo(np.float64).eps, values, 0)
