"""Kernel ridge regression with a Gaussian kernel."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators.nuisance import penalised
from jaxcore.estimators.nuisance.base import static
from jaxcore.typing import Key


class KernelFit(NamedTuple):
    """Dual coefficients and the rows they belong to."""

    dual: Float[Array, " n"]
    X: Float[Array, "n p"]
    mean: Float[Array, " p"]
    factor: Float[Array, " p"]
    offset: Float[Array, ""]


def gaussian_kernel(
    X: Float[Array, "n p"], X2: Float[Array, "m p"], gamma: float | Float[Array, ""]
) -> Float[Array, "n m"]:
    """``exp(-gamma |x - x'|^2)``.

    >>> import jax.numpy as jnp
    >>> gaussian_kernel(jnp.zeros((1, 2)), jnp.zeros((1, 2)), 1.0).tolist()
    [[1.0]]
    """
    squares = jnp.sum(X**2, 1)[:, None] + jnp.sum(X2**2, 1)[None] - 2 * X @ X2.T
    return jnp.exp(-gamma * jnp.maximum(squares, 0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelRidge:
    """Minimise ``sum(w (y - f)^2) + alpha |f|^2``; up to about 10,000 rows (a dense Cholesky).

    With weights one this is ``(K + alpha I) c = y``.
    """

    per_arm: ClassVar[bool] = True
    large: ClassVar[bool] = True  # takes n^2 numbers: candidates are fitted one after the other
    alpha: float = 1.0
    gamma: float = 0.2
    standardize: bool = static(True)  # standardise the features and centre the target

    @jax.jit
    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> KernelFit:
        """Solve the dual system; rows with weight zero get coefficient zero."""
        del key
        if self.standardize:
            share = w / jnp.sum(w)
            mean, factor = penalised.standardisation(X, share, scale=True)
            offset = share @ y
        else:
            mean, factor = jnp.zeros_like(X[0]), jnp.ones_like(X[0])
            offset = jnp.zeros((), X.dtype)
        S = (X - mean[None]) * factor[None]
        root = jnp.sqrt(w)
        K = gaussian_kernel(S, S, self.gamma) * root[:, None] * root[None]
        K = K + jnp.diag(jnp.full_like(y, 1.0) * self.alpha)
        dual = root * jax.scipy.linalg.cho_solve(
            jax.scipy.linalg.cho_factor(K), root * (y - offset)
        )
        return KernelFit(dual, S, mean, factor, offset)

    def predict(self, fitted: KernelFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Predicted mean."""
        S = (X - fitted.mean[None]) * fitted.factor[None]
        return fitted.offset + gaussian_kernel(S, fitted.X, self.gamma) @ fitted.dual
