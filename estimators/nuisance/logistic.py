"""Logistic regression with ridge or lasso penalty, on any basis.

Objective: weighted mean negative log-likelihood plus ``alpha/2 |b|^2`` or ``alpha |b|_1``, the
intercept unpenalised.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators.nuisance import penalised
from jaxcore.estimators.nuisance.basis import Polynomial
from jaxcore.estimators.nuisance.linear import LinearFit, _static
from jaxcore.typing import Key


def _design(learner, X, w):
    """Basis state, standardised columns with the constant first, and how to undo the scaling."""
    state = learner.basis.prepare(X)
    B = learner.basis.expand(state, X)[:, 1:]
    w = w / jnp.sum(w)
    mean, factor = penalised.standardisation(B, w, scale=learner.standardize)
    C = (B - mean[None]) * factor[None]
    return state, jnp.concatenate([jnp.ones((B.shape[0], 1), B.dtype), C], 1), w, mean, factor


def _unscale(b, mean, factor):
    coef = b[1:] * factor
    return b[0] - mean @ coef, coef


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

    alpha: float = 1e-3
    basis: Any = _static(Polynomial(degree=1))
    standardize: bool = _static(True)
    max_steps: int = _static(25)

    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> LinearFit:
        """Newton's method from zero."""
        del key
        state, B, w, mean, factor = _design(self, X, w)
        penalty = jnp.concatenate([jnp.zeros(1, B.dtype), jnp.full_like(mean, 1.0) * self.alpha])
        used = jnp.concatenate([jnp.ones(1, B.dtype), (factor != 0).astype(B.dtype)])
        b = penalised.newton_logistic(
            B, y, w, penalty=penalty, columns=used, max_steps=self.max_steps
        ).coef
        return LinearFit(state, *_unscale(b, mean, factor), jnp.asarray(self.alpha))

    def predict(self, fitted: LinearFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Predicted probability."""
        return jax.nn.sigmoid(fitted.predictor(self, X))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LogisticLasso:
    """Logistic regression with penalty ``alpha |b|_1``; ``alpha=None`` cross-validates.

    Proximal Newton: weighted least-squares outside, coordinate descent inside.
    """

    alpha: float | None = None
    basis: Any = _static(Polynomial(degree=1))
    standardize: bool = _static(True)
    n_alphas: int = _static(50)
    eps: float = _static(1e-3)
    n_inner: int = _static(5)
    max_steps: int = _static(50)

    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> LinearFit:
        """Fit at the given penalty, or along a path down to the cross-validated one."""
        state, B, w, mean, factor = _design(self, X, w)
        if self.alpha is None:
            alphas = self._path(B, y, w)
            alpha = self._choose(B, y, w, key, alphas)
        else:
            alphas = jnp.reshape(jnp.asarray(self.alpha, B.dtype), (1,))
            alpha = alphas[0]
        path = self._coefs(B, y, w, alphas)
        b = path[jnp.argmin(jnp.abs(alphas - alpha))]
        return LinearFit(state, *_unscale(b, mean, factor), alpha)

    def predict(self, fitted: LinearFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Predicted probability."""
        return jax.nn.sigmoid(fitted.predictor(self, X))

    def _path(self, B, y, w):
        largest = jnp.max(jnp.abs(B[:, 1:].T @ (w * (y - w @ y))))
        return largest * jnp.logspace(0, jnp.log10(self.eps), self.n_alphas, dtype=B.dtype)

    def _coefs(self, B, y, w, alphas):
        free = jnp.concatenate([jnp.zeros(1, B.dtype), jnp.ones(B.shape[1] - 1, B.dtype)])
        tol = 1e-10 if B.dtype == jnp.float64 else 1e-5

        def newton(state, alpha):
            b, _, i = state
            p = jax.nn.sigmoid(B @ b)
            # a floor under the curvature keeps separated rows from stalling the quadratic model
            curvature = w * jnp.maximum(p * (1 - p), 1e-5)
            gram = (B * curvature[:, None]).T @ B
            cross = gram @ b + B.T @ (w * (y - p))
            new = penalised.coordinate_descent(
                gram, cross, alpha * free, jnp.zeros_like(b), b, max_sweeps=200
            )
            return new, jnp.max(jnp.abs(new - b)) > tol * jnp.max(jnp.abs(new)), i + 1

        def step(b, alpha):
            def go_on(state):
                return state[1] & (state[2] < self.max_steps)

            start = (b, jnp.bool_(True), jnp.int32(0))
            b = jax.lax.while_loop(go_on, lambda s: newton(s, alpha), start)[0]
            return b, b

        p0 = jnp.clip(w @ y / jnp.sum(w), 1e-6, 1 - 1e-6)
        first = jnp.zeros(B.shape[1], B.dtype).at[0].set(jnp.log(p0 / (1 - p0)))
        return jax.lax.scan(step, first, alphas)[1]

    def _choose(self, B, y, w, key, alphas):
        """Penalty with the smallest cross-validated log-loss."""
        inner = jax.random.permutation(key, B.shape[0]) % self.n_inner

        def errors(f):
            keep = jnp.where(inner != f, w, 0)
            b = self._coefs(B, y, keep / jnp.sum(keep), alphas)
            eta = B @ b.T
            loss = jax.nn.softplus(eta) - y[:, None] * eta
            return jnp.where(inner == f, w, 0) @ loss

        total = jnp.sum(jax.vmap(errors)(jnp.arange(self.n_inner)), axis=0)
        return alphas[jnp.argmin(total)]
