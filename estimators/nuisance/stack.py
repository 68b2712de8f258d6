"""Stacking: a convex combination of learners (a super learner)."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators.linear_algebra import after
from jaxcore.estimators.nuisance.base import Learner, classifies, fit_predict, static
from jaxcore.typing import Key


class StackFit(NamedTuple):
    """Fits of all learners on all training rows, and their weights."""

    fits: tuple[Any, ...]
    weights: Float[Array, " l"]


def simplex_projection(v: Float[Array, " l"]) -> Float[Array, " l"]:
    """Nearest point with non-negative entries summing to one.

    >>> import jax.numpy as jnp
    >>> simplex_projection(jnp.array([2.0, 0.0])).tolist()
    [1.0, 0.0]
    """
    u = jnp.sort(v)[::-1]
    excess = jnp.cumsum(u) - 1
    count = jnp.arange(1, v.shape[0] + 1, dtype=v.dtype)
    last = jnp.sum(u - excess / count > 0) - 1
    return jnp.maximum(v - excess[last] / count[last], 0)


def convex_weights(
    P: Float[Array, "n l"], y: Float[Array, " n"], w: Float[Array, " n"], *, steps: int = 300
) -> Float[Array, " l"]:
    """Weights on the simplex that minimise the weighted squared error of ``P @ weights``.

    Accelerated projected gradient on the ``l x l`` moments.
    """
    w = w / jnp.sum(w)
    gram, cross = (P * w[:, None]).T @ P, P.T @ (w * y)
    rate = 1 / jnp.maximum(jnp.trace(gram), 1e-30)

    def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        a, previous = state
        ahead = a + (i / (i + 3)) * (a - previous)
        return simplex_projection(ahead - rate * (gram @ ahead - cross)), a

    start = jnp.full(P.shape[1], 1 / P.shape[1], P.dtype)
    return jax.lax.fori_loop(0, steps, step, (start, start))[0]


def inner_folds(
    key: Key, w: Float[Array, " n"], n_inner: int
) -> tuple[Float[Array, "k n"], Float[Array, "k n"]]:
    """Rows of every random inner fold as 0/1, and training weights outside of it."""
    inner = jax.random.permutation(key, w.shape[0]) % n_inner
    held = jax.nn.one_hot(inner, n_inner, dtype=w.dtype, axis=0)
    return held, (1 - held) * w[None]


def out_of_fold(
    learner: Learner,
    X: Float[Array, "n p"],
    y: Float[Array, " n"],
    held: Float[Array, "k n"],
    masks: Float[Array, "k n"],
    key: Key,
) -> Float[Array, " n"]:
    """Prediction of every row by the fit on the other inner folds; see `inner_folds`."""
    return jnp.sum(fit_predict(learner, X, y, masks, (X,), key=key)[:, 0] * held, axis=0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
    """Combine JAX learners with the convex weights of best inner cross-validated squared error.

    Probabilities of classifiers are combined to probabilities.

    References:
      van der Laan, Polley and Hubbard (2007), Super learner.

    >>> import jax, jax.numpy as jnp
    >>> from jaxcore.estimators.nuisance import Ridge
    >>> x = jnp.linspace(-1, 1, 30)[:, None]
    >>> both = Stack(learners=(Ridge(alpha=10.0), Ridge(alpha=0.0)))
    >>> fitted = both.fit(x, 2 * x[:, 0], jnp.ones(30), jax.random.key(0))
    >>> [round(float(weight), 2) for weight in fitted.weights]
    [0.0, 1.0]
    """

    per_arm: ClassVar[bool] = False
    learners: tuple[Any, ...]  # JAX learners; where a target is known, names will do
    n_inner: int = static(3)

    @property
    def binary(self) -> bool:
        """Whether it predicts probabilities."""
        return any(classifies(one) for one in self.learners)

    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> StackFit:
        """Inner folds for the weights, then every learner on all rows."""
        k_folds, k_inner, k_full = jax.random.split(key, 3)
        held, masks = inner_folds(k_folds, w, self.n_inner)
        out = []
        for one in self.learners:
            out.append(out_of_fold(one, X, y, held, masks, k_inner))
            masks = after(masks, out[-1])
        weights = convex_weights(jnp.stack(out, axis=1), y, w)
        fits, w = [], after(w, weights)
        for one in self.learners:
            fits.append(one.fit(X, y, w, k_full))
            w = after(w, one.predict(fits[-1], X[:1]))
        return StackFit(tuple(fits), weights)

    def predict(self, fitted: StackFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Weighted mean of the learners' predictions."""
        out = [one.predict(f, X) for one, f in zip(self.learners, fitted.fits, strict=True)]
        return jnp.stack(out, axis=1) @ fitted.weights

    def findings(self, fitted: StackFit) -> dict[str, Array]:
        """The weights of the learners."""
        return {"weights": fitted.weights}
