"""Logistic regression with ridge or lasso penalty, on any basis.

Objective: weighted mean negative log-likelihood plus ``alpha/2 |b|^2`` or ``alpha |b|_1``, the
intercept unpenalised.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators.nuisance import descent, penalised
from jaxcore.estimators.nuisance.base import static
from jaxcore.estimators.nuisance.basis import Basis, Polynomial
from jaxcore.estimators.nuisance.linear import LinearFit
from jaxcore.typing import Key

_CV_TOL = 1e-4
"""Relative accuracy of coefficients that are compared by their held-out loss only."""


class _Design(NamedTuple):
    """Columns scaled over all rows, the constant first, and a fold's own standardisation.

    The columns are the same for all folds; ``size`` is how large a coefficient counts in the
    penalty: its column's standard deviation in the fold, or in original units.
    """

    state: Any
    columns: Float[Array, "n q"]
    weights: Float[Array, " n"]  # sum to one
    mean: Float[Array, " q"]
    factor: Float[Array, " q"]
    size: Float[Array, " q"]
    used: Float[Array, " q"]  # 0/1 with the constant first


def _design(
    learner: "Logistic | LogisticLasso", X: Float[Array, "n p"], w: Float[Array, " n"]
) -> _Design:
    state = learner.basis.prepare(X)
    C, mean, sd_all = penalised.scaled(learner.basis.expand(state, X)[:, 1:])
    w = w / jnp.sum(w)
    _, sd = penalised.spread(C, w)
    one = jnp.ones(1, C.dtype)
    columns = jnp.concatenate([jnp.ones((C.shape[0], 1), C.dtype), C], axis=1)
    size = sd if learner.standardize else 1 / sd_all
    used = jnp.concatenate([one, (sd > 0).astype(C.dtype)])
    return _Design(state, columns, w, mean, 1 / sd_all, size, used)


def _unscale(
    b: Float[Array, " q1"], mean: Float[Array, " q"], factor: Float[Array, " q"]
) -> tuple[Float[Array, ""], Float[Array, " q"]]:
    coef = b[1:] * factor
    return b[0] - mean @ coef, coef


def _constant_only(d: _Design, y: Float[Array, " n"], w: Float[Array, " n"]) -> Float[Array, " q1"]:
    """Coefficients of the model with nothing but a constant."""
    p = jnp.clip(w @ y, 1e-6, 1 - 1e-6)
    return jnp.zeros(d.columns.shape[1], d.columns.dtype).at[0].set(jnp.log(p / (1 - p)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Logistic:
    """Logistic regression with penalty ``alpha/2 |b|^2`` by Newton's method.

    >>> import jax, jax.numpy as jnp
    >>> x, y = jnp.array([[0.0], [0.0], [1.0], [1.0]]), jnp.array([0.0, 1.0, 1.0, 1.0])
    >>> fit = Logistic(alpha=1e-3).fit(x, y, jnp.ones(4), jax.random.key(0))
    >>> 0.5 < float(Logistic().predict(fit, x[2:3])[0]) < 1
    True
    """

    per_arm: ClassVar[bool] = True
    binary: ClassVar[bool] = True  # predicts probabilities
    alpha: float = 1e-3
    basis: Basis = static(Polynomial(degree=1))
    standardize: bool = static(True)
    max_steps: int = static(25)

    @jax.jit
    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> LinearFit:
        """Newton's method from zero."""
        del key
        d = _design(self, X, w)
        penalty = jnp.concatenate([jnp.zeros(1, d.columns.dtype), self.alpha * d.size**2])
        b = penalised.newton_logistic(
            d.columns, y, d.weights, penalty=penalty, columns=d.used, max_steps=self.max_steps
        ).coef
        return LinearFit(d.state, *_unscale(b, d.mean, d.factor), jnp.asarray(self.alpha))

    def predict(self, fitted: LinearFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Predicted probability."""
        return jax.nn.sigmoid(fitted.predictor(self, X))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LogisticLasso:
    """Logistic regression with penalty ``alpha |b|_1``; ``alpha=None`` cross-validates.

    Proximal Newton: weighted least-squares outside, coordinate descent inside.
    """

    per_arm: ClassVar[bool] = True
    binary: ClassVar[bool] = True  # predicts probabilities
    alpha: float | None = None
    basis: Basis = static(Polynomial(degree=1))
    standardize: bool = static(True)
    n_alphas: int = static(50)
    eps: float | None = static(None)  # as in `ElasticNet`
    n_inner: int = static(5)
    max_steps: int = static(50)

    @property
    def joint(self) -> bool:
        """At a given penalty: sweeps over coordinates are many small steps. Paths end apart."""
        return self.alpha is not None

    @jax.jit
    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> LinearFit:
        """Fit at the given penalty, or along a path down to the cross-validated one."""
        d = _design(self, X, w)
        pairs = penalised.pair_products(d.columns)
        if self.alpha is None:
            alpha, start = self._choose(d, pairs, y, key, self._path(d, y))
        else:
            alpha = jnp.asarray(self.alpha, d.columns.dtype)
            start = _constant_only(d, y, d.weights)
        b = self._coef(d, pairs, y, d.weights, alpha, start)
        return LinearFit(d.state, *_unscale(b, d.mean, d.factor), alpha)

    def predict(self, fitted: LinearFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Predicted probability."""
        return jax.nn.sigmoid(fitted.predictor(self, X))

    def findings(self, fitted: LinearFit) -> dict[str, Array]:
        """The penalty, if it was chosen."""
        return {"alpha": fitted.alpha} if self.alpha is None else {}

    def _path(self, d: _Design, y: Float[Array, " n"]) -> Float[Array, " a"]:
        w = d.weights
        slope = jnp.abs(d.columns[:, 1:].T @ (w * (y - w @ y)))
        safe = jnp.where(d.size > 0, d.size, 1.0)
        largest = jnp.max(jnp.where(d.size > 0, slope / safe, 0.0))
        end = math.log10(penalised.path_end(self.eps, *d.columns.shape))
        return largest * jnp.logspace(0, end, self.n_alphas, dtype=slope.dtype)

    def _coef(
        self,
        d: _Design,
        pairs: Float[Array, "n pairs"] | None,
        y: Float[Array, " n"],
        w: Float[Array, " n"],
        alpha: Float[Array, ""],
        start: Float[Array, " q1"],
        tol: float | None = None,
    ) -> Float[Array, " q1"]:
        """Coefficients at a penalty; see `_proximal_newton`."""
        B = d.columns
        size = jnp.concatenate([jnp.zeros(1, B.dtype), d.size])
        if tol is None:
            tol = 1e-9 if B.dtype == jnp.float64 else 1e-5
        solve = _newton_of(self.max_steps, tol, B.shape[1] > descent.SOLVED_UP_TO)
        return solve(B, pairs, d.used, alpha * size, y, w, start)

    def _choose(
        self,
        d: _Design,
        pairs: Float[Array, "n pairs"] | None,
        y: Float[Array, " n"],
        key: Key,
        alphas: Float[Array, " a"],
    ) -> tuple[Float[Array, ""], Float[Array, " q1"]]:
        """Penalty with the smallest cross-validated log-loss, and coefficients near its own.

        The latter are the mean over the inner folds, from where the last fit starts.
        """
        inner = jax.random.permutation(key, y.shape[0]) % self.n_inner

        def training(f: Array) -> Array:
            keep = jnp.where(inner != f, d.weights, 0)
            return keep / jnp.sum(keep)

        folds = jnp.arange(self.n_inner)
        trained = jax.vmap(training)(folds)

        def step(b: Array, alpha: Array) -> tuple[Array, Array]:
            def one(b: Array, keep: Array, f: Array) -> tuple[Array, Array]:
                b = self._coef(d, pairs, y, keep, alpha, b, tol=_CV_TOL)
                eta = d.columns @ b
                return b, jnp.where(inner == f, d.weights, 0) @ (jax.nn.softplus(eta) - y * eta)

            b, loss = jax.vmap(one)(b, trained, folds)
            return b, jnp.sum(loss)

        start = jax.vmap(lambda keep: _constant_only(d, y, keep))(trained)
        alpha, b = penalised.best_on_path(step, start, alphas)
        return alpha, jnp.mean(b, axis=0)


@functools.cache
def _newton_of(max_steps: int, tol: float, wide: bool) -> Callable[..., Array]:
    """`_proximal_newton`; of many columns one fit after the other under `jax.vmap`."""
    if not wide:
        return functools.partial(_proximal_newton, max_steps=max_steps, tol=tol)
    solve = functools.partial(_by_blocks, max_steps=max_steps, tol=tol)
    return jax.custom_batching.sequential_vmap(solve)


def _slope(
    B: Float[Array, "n q1"], y: Float[Array, " n"], w: Float[Array, " n"], b: Float[Array, " q1"]
) -> tuple[Float[Array, " q1"], Float[Array, " n"]]:
    """Slope of the log-likelihood, and the curvature of every row's part.

    A floor under the curvature keeps separated rows from stalling the quadratic model.
    """
    p = jax.nn.sigmoid(B @ b)
    return B.T @ (w * (y - p)), w * jnp.maximum(p * (1 - p), 1e-5)


def _proximal_newton(
    B: Float[Array, "n q1"],
    pairs: Float[Array, "n pairs"] | None,
    used: Float[Array, " q1"],
    l1: Float[Array, " q1"],
    y: Float[Array, " n"],
    w: Float[Array, " n"],
    start: Float[Array, " q1"],
    *,
    max_steps: int,
    tol: float,
) -> Float[Array, " q1"]:
    """Proximal Newton steps until what the last one leaves is foretold to be below ``tol``.

    The errors are squared from step to step, by a factor that the last two show.
    """
    masked = used[:, None] * used[None]

    def newton(state: _Steps) -> _Steps:
        b, last, _, i = state
        slope, curvature = _slope(B, y, w, b)
        gram = masked * penalised.second_moments(B, pairs, curvature)
        cross = gram @ b + used * slope
        new = descent.coordinate_descent(
            gram, cross, l1, jnp.zeros_like(b), b, tol=tol / 10, max_sweeps=200
        )
        moved, left = _foretold(b, new, last, i)
        return new, moved, left, i + 1

    return _stepped(newton, start, tol, max_steps)


_FEW = 128  # columns


def _by_blocks(
    B: Float[Array, "n q1"],
    pairs: None,
    used: Float[Array, " q1"],
    l1: Float[Array, " q1"],
    y: Float[Array, " n"],
    w: Float[Array, " n"],
    start: Float[Array, " q1"],
    *,
    max_steps: int,
    tol: float,
) -> Float[Array, " q1"]:
    """`_proximal_newton` for those of many columns that are in use or would move.

    If they are few, so are the moments that must be formed, which takes the time.
    """
    del pairs
    zero = jnp.zeros_like(start)

    def among(C: Array, inside: Array, slope: Array, curvature: Array, l1: Array) -> Array:
        gram = penalised.second_moments(C, None, curvature)
        cross = gram @ inside + slope
        none = jnp.zeros_like(inside)
        return descent.coordinate_descent(
            gram, cross, l1, none, inside, tol=tol / 10, max_sweeps=200
        )

    def newton(state: _Steps) -> _Steps:
        b, last, _, i = state
        slope, curvature = _slope(B, y, w, b)
        slope = used * slope
        moves = descent.alone(b, slope, used * jnp.sum(curvature), l1, zero)  # columns are scaled
        kept = (b != 0) | ((l1 == 0) & (used > 0))
        at, whole = descent.block(moves, kept, min(_FEW, B.shape[1]))

        def few() -> Array:
            C = B[:, at] * used[at][None]
            return b.at[at].set(among(C, b[at], slope[at], curvature, l1[at]))

        def all_of_them() -> Array:
            return among(B * used[None], b, slope, curvature, l1)

        new = jax.lax.cond(whole, few, all_of_them)
        moved, left = _foretold(b, new, last, i)
        return new, moved, left, i + 1

    return _stepped(newton, start, tol, max_steps)


_Steps: TypeAlias = tuple[Array, Array, Array, Array]
"""Coefficients, size of the last step, what it is foretold to leave, steps so far."""


def _foretold(
    b: Float[Array, " q1"], new: Float[Array, " q1"], last: Array, i: Array
) -> tuple[Array, Array]:
    """Size of a step relative to the largest coefficient, and what it leaves."""
    moved = jnp.max(jnp.abs(new - b)) / jnp.maximum(jnp.max(jnp.abs(new)), 1e-30)
    shrunk = jnp.where(i > 0, jnp.minimum(moved / jnp.maximum(last, 1e-30), 1), 1)
    return moved, moved * shrunk**2


def _stepped(
    step: Callable[[_Steps], _Steps], start: Float[Array, " q1"], tol: float, max_steps: int
) -> Float[Array, " q1"]:
    def go_on(state: _Steps) -> Array:
        return (state[2] > tol) & (state[3] < max_steps)

    one = jnp.ones((), start.dtype)
    return jax.lax.while_loop(go_on, step, (start, one, one, jnp.int32(0)))[0]
