"""Estimators that the selective estimator is compared with: OLS, 2SLS, IIVM/LATE and AIPW."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.estimators import double_ml, linear_algebra
from jaxcore.estimators.base import Estimate, compiled
from jaxcore.estimators.nuisance.linear import Ridge
from jaxcore.estimators.nuisance.logistic import Logistic


@compiled("n_clusters")
def tsls(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    W: Float[Array, "n q"],
    *,
    weights: Float[Array, " n"] | None = None,
    clusters: Int[Array, " n"] | None = None,
    n_clusters: int | None = None,
) -> Estimate:
    """Two-stage least squares of ``Y`` on ``A`` and ``W`` with instrument ``Z`` (HC0 errors).

    Args:
      Y: outcome.
      A: treatment.
      Z: instrument, assumed valid.
      W: exogenous regressors, constant included.
      weights: observation weights.
      clusters: cluster number of each unit.
      n_clusters: number of clusters; needed only under ``jit``.

    >>> import jax.numpy as jnp
    >>> z = jnp.array([0.0, 1.0, 0.0, 1.0])
    >>> round(float(tsls(1 + 4 * z, 2 * z, z, jnp.ones((4, 1))).theta), 4)
    2.0
    """
    return _just_identified(Y, A, Z, W, "2SLS", weights, clusters, n_clusters)


@compiled("n_clusters")
def ols(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    W: Float[Array, "n q"],
    *,
    weights: Float[Array, " n"] | None = None,
    clusters: Int[Array, " n"] | None = None,
    n_clusters: int | None = None,
) -> Estimate:
    """Coefficient of ``A`` in the regression of ``Y`` on ``A`` and ``W`` (HC0 errors).

    Put the instrument among the columns of ``W`` to adjust for it.
    """
    return _just_identified(Y, A, A, W, "OLS", weights, clusters, n_clusters)


def _just_identified(Y, A, Z, W, name, weights, clusters, n_clusters):
    w = jnp.ones_like(Y) if weights is None else weights * (Y.shape[0] / jnp.sum(weights))
    regressors = jnp.concatenate([A[:, None], W], axis=1)
    instruments = jnp.concatenate([Z[:, None], W], axis=1)
    scale = jnp.sqrt(jnp.mean(regressors**2, axis=0))  # columns of like size: a stable solve
    scale = jnp.where(scale > 0, scale, 1.0)
    regressors, instruments = regressors / scale[None], instruments / scale[None]
    n = Y.shape[0]
    cross = (instruments * w[:, None]).T @ regressors / n
    beta = linear_algebra.solve(cross, instruments.T @ (w * Y) / n)
    residual = w * (Y - regressors @ beta)
    first = linear_algebra.solve(cross.T, jnp.zeros_like(scale).at[0].set(1))  # row of the inverse
    psi = residual * (instruments @ first) / scale[0]
    return Estimate.from_psi(
        beta[0] / scale[0],
        psi,
        clusters=clusters,
        n_clusters=n_clusters,
        names=("effect",),
        estimator=name,
        diagnostics={"coefficients": beta / scale},
    )


_LINEAR = Ridge(alpha=0.0)
_LOGIT = Logistic(alpha=0.0, max_steps=50)


def _or_one(fold_ids, Y):
    """The given folds, or one for all rows."""
    return jnp.zeros(Y.shape[0], jnp.int32) if fold_ids is None else fold_ids


def iivm_late(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_g: Any = _LINEAR,
    ml_m: Any = _LOGIT,
    ml_r: Any = _LOGIT,
    fold_ids: Int[Array, " n"] | None = None,
    n_folds: int = 1,
    clip: tuple[float, float] = (0.0, 1.0),
    **options: Any,
) -> Estimate:
    """LATE by the ratio of two AIPW scores; see `double_ml.iivm` for the options.

    The default learners are linear and logistic regressions fitted on all rows.
    """
    return double_ml.iivm(
        Y, A, Z, X, ml_g=ml_g, ml_m=ml_m, ml_r=ml_r,
        fold_ids=_or_one(fold_ids, Y), n_folds=n_folds, clip=clip, **options,
    )  # fmt: skip


def aipw_ate(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_g: Any = _LINEAR,
    ml_m: Any = _LOGIT,
    fold_ids: Int[Array, " n"] | None = None,
    n_folds: int = 1,
    clip: tuple[float, float] = (0.0, 1.0),
    **options: Any,
) -> Estimate:
    """AIPW that takes the treatment as unconfounded given ``X``; see `double_ml.irm`.

    The default learners are linear and logistic regressions fitted on all rows.
    """
    return double_ml.irm(
        Y, A, X, ml_g=ml_g, ml_m=ml_m,
        fold_ids=_or_one(fold_ids, Y), n_folds=n_folds, clip=clip, **options,
    )  # fmt: skip
