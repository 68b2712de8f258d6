"""What estimates and errors must know of the units: their weights and their clusters."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Units:
    """Weights and clusters; with neither all units count the same and are independent.

    Units of a cluster may depend on each other: folds keep them together, and standard errors are
    those of sums over clusters. Clusters of several kinds (firm and year) are columns of an array:
    units that share any of them may then depend on each other. Not checked: that the weights are
    not negative, and that the numbers of the clusters are 0, 1, ...

    >>> Units(clusters=np.array([0, 1, 1])).n_clusters
    2
    >>> Units(clusters=np.array([[0, 0], [0, 1], [1, 2]])).n_clusters
    (2, 3)
    """

    weights: Float[Array, " n"] | None = None  # of the observations: >= 0, not all zero
    clusters: Int[Array, " n"] | Int[Array, "n ways"] | None = None  # numbers 0, 1, ...
    # Counted where it is not given, but for clusters that are traced; of each kind if several, and
    # then it must be given where they are traced.
    n_clusters: int | tuple[int, ...] | None = dataclasses.field(
        default=None, metadata={"static": True}
    )

    def __post_init__(self) -> None:
        given = isinstance(self.clusters, np.ndarray | jax.Array)
        if given and self.n_clusters is None and not isinstance(self.clusters, Tracer):
            largest = np.max(np.asarray(self.clusters), axis=0) + 1
            count = tuple(map(int, largest)) if np.ndim(largest) else int(largest)
            object.__setattr__(self, "n_clusters", count)

    @property
    def multiway(self) -> bool:
        """Whether there are clusters of several kinds."""
        return isinstance(self.n_clusters, tuple)

    @property
    def df(self) -> int | None:
        """Degrees of freedom of t-statistics: clusters (of the fewest kind) less one, or None."""
        if self.n_clusters is None:
            return None
        return int(np.min(self.n_clusters)) - 1

    def weights_like(self, values: Float[Array | np.ndarray, " n"]) -> Float[Any, " n"]:
        """The weights scaled to mean one; ones if there are none (NumPy stays NumPy).

        >>> Units(weights=np.array([1.0, 3.0])).weights_like(np.zeros(2)).tolist()
        [0.5, 1.5]
        """
        if self.weights is None:
            return values.__array_namespace__().ones_like(values)
        return self.weights * (values.shape[0] / self.weights.sum())

    def sums(self, psi: Float[Array, "n *q"]) -> Float[Array, "g *q"]:
        """Sum of ``psi`` within each cluster (of one kind); ``psi`` itself if there are none."""
        if self.clusters is None:
            return psi
        if isinstance(self.n_clusters, tuple):
            raise ValueError("sums() of clusters of several kinds: take those of one of `ways`")
        return jax.ops.segment_sum(psi, self.clusters, num_segments=self.n_clusters)

    def count(self) -> Float[Array, ""]:
        """Number of clusters (of one kind) that have units."""
        members = self.sums(jnp.ones(self._columns.shape[0]))
        return jnp.sum((members > 0).astype(members.dtype))

    def closed_up(self) -> "Units":
        """The same, with clusters counted among the units of positive weight alone (on the host).

        Units of weight zero whose cluster has no other ones are put into the first cluster, where
        they change nothing.

        >>> Units(np.array([0.0, 1.0, 1.0]), np.array([0, 1, 2])).closed_up().n_clusters
        2
        """
        if self.clusters is None or self.weights is None:
            return self
        rows, used = np.asarray(self.clusters), np.asarray(self.weights) > 0
        columns = []
        for column in rows.reshape(len(rows), -1).T:
            found = np.unique(column[used])
            place = np.minimum(np.searchsorted(found, column), len(found) - 1)
            columns.append(np.where(found[place] == column, place, 0))
        closed: Any = np.stack(columns, axis=1).reshape(rows.shape).astype(np.int32)
        return Units(self.weights, closed)

    def ways(self) -> "list[Units]":
        """The clusters of each kind alone."""
        columns, counts = self._columns, self.n_clusters
        if not isinstance(counts, tuple):
            return [self]
        return [Units(self.weights, columns[:, j], count) for j, count in enumerate(counts)]

    def crossings(self) -> "list[tuple[int, Units]]":
        """Clusters by every set of kinds at once, with the sign they have in the variance.

        +1 for one kind, -1 for the pairs that share two, +1 for three, and so on.
        """
        ways = self.ways()
        out = [(1, way) for way in ways]
        for size in range(2, len(ways) + 1):
            for kinds in itertools.combinations(range(len(ways)), size):
                both = _crossed(self._columns[:, jnp.asarray(kinds)])
                out.append((-((-1) ** size), Units(self.weights, both, both.shape[0])))
        return out

    @property
    def _columns(self) -> Array:
        if self.clusters is None:
            raise ValueError("these units have no clusters")
        return jnp.asarray(self.clusters)


def _crossed(clusters: Int[Array, "n ways"]) -> Int[Array, " n"]:
    """One number for each combination that occurs."""
    order = jnp.lexsort(clusters.T)
    sorted_rows = clusters[order]
    new = jnp.any(sorted_rows[1:] != sorted_rows[:-1], axis=1)
    number = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(new, dtype=jnp.int32)])
    return jnp.zeros_like(number).at[order].set(number)


INDEPENDENT = Units()
"""Units that all count the same and are independent of each other."""
