"""Linear regression with ridge, lasso or elastic-net penalty, on any basis.

Objective, with weights summing to one: ``sum(w (y - b0 - x'b)^2)/2 + alpha * penalty(b)``, the
intercept unpenalised. With ``standardize=True`` the penalty applies to standardised columns.
"""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators.nuisance import descent, penalised
from jaxcore.estimators.nuisance.base import static
from jaxcore.estimators.nuisance.basis import Basis, Polynomial
from jaxcore.typing import Key


class OnBasis(Protocol):
    """A learner whose covariates go through a basis."""

    @property
    def basis(self) -> Basis:
        """Its columns."""
        ...


class LinearFit(NamedTuple):
    """A fitted linear predictor on a basis."""

    basis: Any
    intercept: Float[Array, ""]
    coef: Float[Array, " q"]
    alpha: Float[Array, ""]

    def predictor(self, learner: OnBasis, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Linear predictor at ``X``."""
        return self.intercept + learner.basis.expand(self.basis, X)[:, 1:] @ self.coef


class _Moments(NamedTuple):
    """Second moments of ``[1, C, y]`` and how to go on to a fold's own standardisation.

    ``C`` are the columns scaled over all rows, so that `jax.vmap` over folds shares them.
    """

    scaled: penalised.Scaled
    pairs: Any
    centre: Float[Array, ""]  # of the target, over the training rows

    @classmethod
    def of(cls, B: Float[Array, "n q"], y: Float[Array, " n"], w: Float[Array, " n"]) -> "_Moments":
        scaled = penalised.scaled(B)
        return cls(scaled, penalised.pair_products(scaled.columns), w @ y)

    def matrix(self, y: Float[Array, " n"], w: Float[Array, " n"]) -> Float[Array, "q2 q2"]:
        """``[1, C, y - centre]' diag(w) [1, C, y - centre]``."""
        C, y = self.scaled.columns, y - self.centre
        wy, mean = w * y, w @ C
        row = jnp.concatenate([jnp.sum(w)[None], mean, jnp.sum(wy)[None]])
        cross = C.T @ wy
        inner = penalised.second_moments(C, self.pairs, w)
        middle = jnp.concatenate([mean[:, None], inner, cross[:, None]], axis=1)
        last = jnp.concatenate([jnp.sum(wy)[None], cross, (wy @ y)[None]])
        return jnp.concatenate([row[None], middle, last[None]])


_Standard: TypeAlias = tuple[Array, Array, Array, Array, Array, Array]
"""Gram matrix, cross-products, column means, factors, mean of the target, units."""


def _standard(
    moments: _Moments, total: Float[Array, "q2 q2"], w: Float[Array, " n"], scale: bool
) -> _Standard:
    """Gram matrix and cross-products of a fold's standardised columns; how to undo it."""
    C, mean_all, sd_all = moments.scaled
    total = total / total[0, 0]
    m, mean_y = total[0, 1:-1], total[0, -1]
    _, sd = penalised.spread(C, w)
    safe = jnp.where(sd > 0, sd, 1.0)
    unit = jnp.where(sd > 0, 1 / safe if scale else sd_all, 0.0)  # of one scaled column
    gram = (total[1:-1, 1:-1] - m[:, None] * m[None]) * unit[:, None] * unit[None]
    cross = (total[1:-1, -1] - m * mean_y) * unit
    factor = unit / sd_all
    return gram, cross, mean_all + sd_all * m, factor, mean_y + moments.centre, unit


def _prepared(
    learner: "Ridge | ElasticNet",
    X: Float[Array, "n p"],
    y: Float[Array, " n"],
    w: Float[Array, " n"],
) -> tuple[Any, Float[Array, " n"], _Moments, _Standard]:
    """State of the basis, weights summing to one, moments, and what `_standard` makes of them."""
    state = learner.basis.prepare(X)
    w = w / jnp.sum(w)
    moments = _Moments.of(learner.basis.expand(state, X)[:, 1:], y, w)
    return state, w, moments, _standard(moments, moments.matrix(y, w), w, learner.standardize)


def _unscale(
    b: Float[Array, " q"],
    mean: Float[Array, " q"],
    factor: Float[Array, " q"],
    mean_y: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, " q"]]:
    coef = b * factor
    return mean_y - mean @ coef, coef


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ridge:
    """Least squares with penalty ``alpha/2 |b|^2``.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.array([[0.0], [1.0], [2.0]])
    >>> fit = Ridge(alpha=0.0).fit(x, 1 + 2 * x[:, 0], jnp.ones(3), jax.random.key(0))
    >>> round(float(fit.coef[0]), 4)
    2.0
    """

    per_arm: ClassVar[bool] = True
    alpha: float = 1e-3
    basis: Basis = static(Polynomial(degree=1))
    standardize: bool = static(True)

    @jax.jit
    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> LinearFit:
        """Solve the normal equations."""
        del key
        state, w, _, (gram, cross, mean, factor, mean_y, _) = _prepared(self, X, y, w)
        removed = (factor == 0).astype(gram.dtype)  # keeps the system solvable
        b = penalised.solve_positive(gram + jnp.diag(removed + self.alpha), cross)
        return LinearFit(state, *_unscale(b, mean, factor, mean_y), jnp.asarray(self.alpha))

    def predict(self, fitted: LinearFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Predicted mean."""
        return fitted.predictor(self, X)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ElasticNet:
    """Least squares with penalty ``alpha (l1_ratio |b|_1 + (1 - l1_ratio)/2 |b|^2)``.

    With ``alpha=None`` the penalty is chosen by inner cross-validation over a path.
    """

    per_arm: ClassVar[bool] = True
    alpha: float | None = None
    l1_ratio: float = 0.5
    basis: Basis = static(Polynomial(degree=1))
    standardize: bool = static(True)
    n_alphas: int = static(50)  # length of the path
    # Smallest penalty of the path relative to the largest; None: 1e-3, or 1e-2 of few rows.
    eps: float | None = static(None)
    n_inner: int = static(5)  # inner folds

    @jax.jit
    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> LinearFit:
        """Coordinate descent on the moments; the inner folds need no further pass over rows."""
        state, w, moments, standard = _prepared(self, X, y, w)
        gram, cross, mean, factor, mean_y, unit = standard
        if self.alpha is None:
            alpha, start = self._choose(moments, y, w, key, unit, self._path(cross, y.shape[0]))
        else:
            alpha, start = jnp.asarray(self.alpha, gram.dtype), jnp.zeros_like(cross)
        b = self._coef(gram, cross, alpha, start)
        return LinearFit(state, *_unscale(b, mean, factor, mean_y), alpha)

    def predict(self, fitted: LinearFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Predicted mean."""
        return fitted.predictor(self, X)

    def findings(self, fitted: LinearFit) -> dict[str, Array]:
        """The penalty, if it was chosen."""
        return {"alpha": fitted.alpha} if self.alpha is None else {}

    def _path(self, cross: Float[Array, " q"], rows: int) -> Float[Array, " a"]:
        ratio = jnp.maximum(jnp.asarray(self.l1_ratio, cross.dtype), 1e-3)
        largest = jnp.max(jnp.abs(cross)) / ratio
        end = math.log10(penalised.path_end(self.eps, rows, cross.shape[0]))
        return largest * jnp.logspace(0, end, self.n_alphas, dtype=cross.dtype)

    def _coef(
        self,
        gram: Float[Array, "q q"],
        cross: Float[Array, " q"],
        alpha: Float[Array, ""],
        start: Float[Array, " q"],
        tol: float | None = None,
    ) -> Float[Array, " q"]:
        ratio = jnp.asarray(self.l1_ratio, cross.dtype)
        l1 = jnp.full_like(cross, 1) * alpha
        return descent.coordinate_descent(gram, cross, ratio * l1, (1 - ratio) * l1, start, tol=tol)

    def _choose(
        self,
        moments: _Moments,
        y: Float[Array, " n"],
        w: Float[Array, " n"],
        key: Key,
        unit: Float[Array, " q"],
        alphas: Float[Array, " a"],
    ) -> tuple[Float[Array, ""], Float[Array, " q"]]:
        """Penalty with the smallest cross-validated squared error, and coefficients near its own.

        The latter are the mean over the inner folds, from where the last fit starts. Moments add
        over rows, so those of every inner training set and hold-out come from one pass over the
        data.
        """
        inner = jax.random.permutation(key, y.shape[0]) % self.n_inner
        one = jnp.ones(1, unit.dtype)
        units = jnp.concatenate([one, unit, one])

        def held_out(f: Array) -> Array:
            total = moments.matrix(y, jnp.where(inner == f, w, 0))
            return total * units[:, None] * units[None]

        held = jax.vmap(held_out)(jnp.arange(self.n_inner))

        def training(out: Array) -> tuple[Array, Array, Array, Array]:
            kept = jnp.sum(held, axis=0) - out
            kept = kept / kept[0, 0]
            m = kept[0, 1:-1]
            gram = kept[1:-1, 1:-1] - m[:, None] * m[None]
            return gram, kept[1:-1, -1] - m * kept[0, -1], m, kept[0, -1]

        trained = jax.vmap(training)(held)

        def step(b: Array, alpha: Array) -> tuple[Array, Array]:
            def one(b: Array, moments: tuple[Array, ...], out: Array) -> tuple[Array, Array]:
                gram, cross, m, mean = moments
                b = self._coef(gram, cross, alpha, b, tol=1e-4)  # compared by held-out error only
                v = jnp.concatenate([(mean - b @ m)[None], b, -jnp.ones(1, b.dtype)])
                return b, v @ out @ v

            b, loss = jax.vmap(one)(b, trained, held)
            return b, jnp.sum(loss)

        alpha, b = penalised.best_on_path(step, jnp.zeros_like(trained[1]), alphas)
        return alpha, jnp.mean(b, axis=0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lasso(ElasticNet):
    """Least squares with penalty ``alpha |b|_1``; ``alpha=None`` cross-validates."""

    l1_ratio: float = 1.0
