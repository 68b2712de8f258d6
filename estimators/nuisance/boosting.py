"""Gradient-boosted oblivious trees by histograms, in fixed shapes."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.estimators.nuisance.base import static
from jaxcore.typing import Key


class BoostingFit(NamedTuple):
    """Trees, one row each: the split of every level and the value of every leaf."""

    start: Float[Array, ""]
    feature: Int[Array, "t depth"]
    threshold: Float[Array, "t depth"]
    value: Float[Array, "t leaves"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Boosting:
    """Boosted trees that ask the same question at all nodes of a level (oblivious trees).

    Histograms are products of one-hot matrices, so that a fit is a scan of matrix products and
    `jax.vmap` over folds costs no more than its arithmetic.
    """

    per_arm: ClassVar[bool] = False
    learning_rate: float = 0.1
    l2: float = 1.0  # quadratic penalty on leaf values
    binary: bool = static(False)  # log-loss and probabilities instead of squared error
    n_trees: int = static(100)
    depth: int = static(4)
    n_bins: int = static(32)

    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> BoostingFit:
        """Newton boosting; bin edges are quantiles of all rows."""
        del key
        q = jnp.linspace(0, 1, self.n_bins + 1, dtype=X.dtype)[1:-1]
        edges = jnp.quantile(X, q, axis=0).T  # p, bins - 1
        codes = jax.vmap(jnp.searchsorted, in_axes=(0, 1), out_axes=1)(edges, X)
        codes = codes.astype(jnp.int32)
        bins = jax.nn.one_hot(codes, self.n_bins, dtype=X.dtype).reshape(X.shape[0], -1)
        w = w / jnp.mean(w)
        mean = w @ y / jnp.sum(w)
        start = mean
        if self.binary:
            mean = jnp.clip(mean, 1e-6, 1 - 1e-6)
            start = jnp.log(mean / (1 - mean))

        def step(f: Array, _: None) -> tuple[Array, tuple[Array, Array, Array]]:
            if self.binary:
                p = jax.nn.sigmoid(f)
                gradient, curvature = w * (p - y), w * p * (1 - p)
            else:
                gradient, curvature = w * (f - y), w
            tree, leaf = self._tree(codes, bins, edges, gradient, curvature)
            return f + tree[2][leaf], tree

        _, trees = jax.lax.scan(step, jnp.full_like(y, 1.0) * start, None, length=self.n_trees)
        return BoostingFit(start, *trees)

    def _tree(
        self, codes: Array, bins: Array, edges: Array, gradient: Array, curvature: Array
    ) -> tuple[tuple[Array, Array, Array], Int[Array, " n"]]:
        n, p = codes.shape
        leaf = jnp.zeros(n, jnp.int32)
        features, thresholds = [], []
        both = jnp.stack([gradient, curvature], axis=1)

        def sums(leaf: Array, count: int) -> Array:
            member = jax.nn.one_hot(leaf, count, dtype=bins.dtype)
            return (member[:, :, None] * both[:, None, :]).reshape(n, -1)

        for level in range(self.depth):
            stats = sums(leaf, 2**level).T @ bins
            stats = stats.reshape(2**level, 2, p, self.n_bins)
            left = jnp.cumsum(stats, axis=-1)[..., :-1]
            right = jnp.sum(stats, axis=-1, keepdims=True) - left
            gain = jnp.sum(self._gain(left) + self._gain(right), axis=0)  # p, bins - 1
            best = jnp.argmax(gain).astype(jnp.int32)
            feature, cut = best // (self.n_bins - 1), best % (self.n_bins - 1)
            features.append(feature)
            thresholds.append(edges[feature, cut])
            leaf = 2 * leaf + (codes[:, feature] > cut).astype(jnp.int32)
        total = jnp.sum(sums(leaf, 2**self.depth), axis=0).reshape(-1, 2)
        value = -self.learning_rate * total[:, 0] / (total[:, 1] + self.l2)
        return (jnp.stack(features), jnp.stack(thresholds), value), leaf

    def _gain(self, stats: Array) -> Array:
        return stats[:, 0] ** 2 / (stats[:, 1] + self.l2)

    def predict(self, fitted: BoostingFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Predicted mean (a probability if binary)."""

        def add(f: Array, tree: tuple[Array, Array, Array]) -> tuple[Array, None]:
            feature, threshold, value = tree
            above = (X[:, feature] > threshold[None]).astype(jnp.int32)
            place = 2 ** jnp.arange(self.depth - 1, -1, -1, dtype=jnp.int32)
            return f + value[above @ place], None

        first = jnp.full_like(X[:, 0], 1.0) * fitted.start
        f, _ = jax.lax.scan(add, first, (fitted.feature, fitted.threshold, fitted.value))
        return jax.nn.sigmoid(f) if self.binary else f
