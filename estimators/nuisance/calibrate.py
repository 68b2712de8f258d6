"""Calibration of predicted probabilities: Platt scaling and isotonic regression."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators.nuisance import penalised
from jaxcore.estimators.nuisance.base import Learner, fit_predict, static
from jaxcore.typing import Key


class CalibratedFit(NamedTuple):
    """The underlying fit and the calibration map (two coefficients, or a step function)."""

    fit: Any
    place: Float[Array, " n"]
    value: Float[Array, " n"]


_Blocks = tuple[Array, Array, Array, Array]  # index of the last; means, weights, sizes


def isotonic(y: Float[Array, " n"], w: Float[Array, " n"]) -> Float[Array, " n"]:
    """Weighted least-squares fit of ``y`` that never decreases (pool adjacent violators).

    >>> import jax.numpy as jnp
    >>> isotonic(jnp.array([1.0, 3.0, 2.0]), jnp.ones(3)).tolist()
    [1.0, 2.5, 2.5]
    """
    n = y.shape[0]
    w = jnp.maximum(w, 1e-12)  # a row without weight joins its neighbours

    def push(i: Array, state: _Blocks) -> _Blocks:
        def violated(s: _Blocks) -> Array:
            top, mean, _, _ = s
            return (top > 0) & (mean[jnp.maximum(top - 1, 0)] > mean[top])

        def merge(s: _Blocks) -> _Blocks:
            top, mean, weight, size = s
            total = weight[top - 1] + weight[top]
            pooled = (mean[top - 1] * weight[top - 1] + mean[top] * weight[top]) / total
            return (
                top - 1,
                mean.at[top - 1].set(pooled),
                weight.at[top - 1].set(total),
                size.at[top - 1].add(size[top]),
            )

        top, mean, weight, size = state
        top = top + 1
        state = top, mean.at[top].set(y[i]), weight.at[top].set(w[i]), size.at[top].set(1)
        return jax.lax.while_loop(violated, merge, state)

    start = (jnp.int32(-1), jnp.zeros_like(y), jnp.zeros_like(y), jnp.zeros(n, jnp.int32))
    top, mean, _, size = jax.lax.fori_loop(0, n, push, start)
    at = jnp.arange(n, dtype=jnp.int32)
    ends = jnp.cumsum(jnp.where(at <= top, size, 0), dtype=jnp.int32)
    return mean[jnp.clip(jnp.searchsorted(ends, at, side="right").astype(jnp.int32), 0, top)]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A classifier whose probabilities are recalibrated on inner two-fold predictions."""

    per_arm: ClassVar[bool] = False
    binary: ClassVar[bool] = True  # predicts probabilities
    learner: Learner
    method: str = static("platt")  # or "isotonic"

    def __post_init__(self) -> None:
        if self.method not in ("platt", "isotonic"):
            raise UserError(f"Expected method='platt' or 'isotonic', found {self.method!r}.")

    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> CalibratedFit:
        """Fit the classifier on all rows, the calibration map on out-of-fold predictions."""
        k_folds, k_inner, k_full = jax.random.split(key, 3)
        half = jax.random.permutation(k_folds, X.shape[0]) % 2
        held = jax.nn.one_hot(half, 2, dtype=X.dtype, axis=0)
        p = fit_predict(self.learner, X, y, (1 - held) * w[None], (X,), key=k_inner)[:, 0]
        p = jnp.sum(p * held, axis=0)
        full = self.learner.fit(X, y, w, k_full)
        if self.method == "platt":
            B = jnp.stack([jnp.ones_like(p), _log_odds(p)], axis=1)
            small = jnp.full(2, 1e-6, X.dtype)
            coef = penalised.newton_logistic(B, y, w, penalty=small).coef
            return CalibratedFit(full, jnp.zeros(2, X.dtype), coef)
        order = jnp.argsort(p)
        return CalibratedFit(full, p[order], isotonic(y[order], w[order]))

    def predict(self, fitted: CalibratedFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Calibrated probability."""
        p = self.learner.predict(fitted.fit, X)
        if self.method == "platt":
            return jax.nn.sigmoid(fitted.value[0] + fitted.value[1] * _log_odds(p))
        at = jnp.searchsorted(fitted.place, p, side="right") - 1
        return fitted.value[jnp.clip(at, 0, fitted.value.shape[0] - 1)]


def _log_odds(p: Float[Array, " n"]) -> Float[Array, " n"]:
    p = jnp.clip(p, 1e-6, 1 - 1e-6)
    return jnp.log(p) - jnp.log1p(-p)
