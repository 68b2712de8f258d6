"""What estimates and errors must know of the units: their weights and their clusters."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Units:
    """Weights and clusters; with neither all units count the same and are independent.

    Units of a cluster may depend on each other: folds keep them together, and standard errors are
    those of sums over clusters.

    >>> Units(clusters=np.array([0, 1, 1])).n_clusters
    2
    """

    weights: Float[Array, " n"] | None = None  # of the observations: >= 0, not all zero
    clusters: Int[Array, " n"] | None = None  # cluster number 0, 1, ... of each unit
    # Counted where it is not given, but for clusters that are traced.
    n_clusters: int | None = dataclasses.field(default=None, metadata={"static": True})

    def __post_init__(self) -> None:
        given = isinstance(self.clusters, np.ndarray | jax.Array)
        if given and self.n_clusters is None and not isinstance(self.clusters, Tracer):
            object.__setattr__(self, "n_clusters", int(np.max(np.asarray(self.clusters))) + 1)

    def weights_like(self, values: Float[Array | np.ndarray, " n"]) -> Float[Any, " n"]:
        """The weights scaled to mean one; ones if there are none (NumPy stays NumPy).

        >>> Units(weights=np.array([1.0, 3.0])).weights_like(np.zeros(2)).tolist()
        [0.5, 1.5]
        """
        if self.weights is None:
            return values.__array_namespace__().ones_like(values)
        return self.weights * (values.shape[0] / self.weights.sum())

    def sums(self, psi: Float[Array, "n *q"]) -> Float[Array, "g *q"]:
        """Sum of ``psi`` within each cluster; ``psi`` itself if there are none."""
        if self.clusters is None:
            return psi
        return jax.ops.segment_sum(psi, self.clusters, num_segments=self.n_clusters)


INDEPENDENT = Units()
"""Units that all count the same and are independent of each other."""
