"""Ridge regression on features of a text, out of fold: all folds and all targets at once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.estimators.crossfit import combined, own_fold, training_masks
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.units import INDEPENDENT, Units


@in_double
def ridge_residuals(
    features: Float[Array, "n d"],
    targets: Float[Array, "n k"],
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    penalty: float | Array = 1.0,
    units: Units = INDEPENDENT,
) -> Float[Array, "n k"]:
    """What ridge regressions on the other folds leave of the targets.

    Features are standardised by mean and standard deviation (ddof 0) of the training rows; the
    intercept is not penalised, and the penalty is not multiplied by the number of rows. One
    factorisation serves all targets of a fold.

    Args:
      features: of the texts.
      targets: columns to predict.
      fold_ids: fold of each row; with one fold every row both trains and is predicted.
      n_folds: number of folds.
      penalty: of the squared coefficients.
      units: observation weights.

    >>> import numpy as np
    >>> x, ids = np.arange(6.0)[:, None], np.array([0, 1, 0, 1, 0, 1])
    >>> bool(np.abs(ridge_residuals(x, 2 * x, ids, 2, 0.0)).max() < 1e-12)
    True
    """
    return _residuals(features, targets, fold_ids, n_folds, jnp.asarray(penalty, float), units)


def _residuals(
    features: Array, targets: Array, fold_ids: Array, n_folds: int, penalty: Array, units: Units
) -> Array:
    weights = units.weights_like(targets[:, 0])
    masks = training_masks(fold_ids, n_folds, weights=weights, dtype=targets.dtype)
    mean = jnp.mean(features, axis=0)
    x = features - mean[None]
    scale = jnp.sqrt(jnp.mean(x**2, axis=0))  # of like size: moments lose no digits
    x = x / jnp.where(scale > 0, scale, 1)[None]
    penalty = penalty.astype(targets.dtype)
    if masks.shape[0] == 1:
        per_fold = _predicted(x, targets, masks[0], penalty)[None]
    else:  # one fold after the other: memory is that of one
        per_fold = jax.lax.map(lambda w: _predicted(x, targets, w, penalty), masks)
    own = own_fold(jnp.swapaxes(per_fold, 1, 2), combined(fold_ids, n_folds))
    return targets - own.T


def _predicted(x: Array, targets: Array, w: Array, penalty: Array) -> Float[Array, "n k"]:
    """Predictions for all rows by the regression on those with weight."""
    total = jnp.sum(w)
    mean, level = w @ x / total, w @ targets / total
    weighted = x * w[:, None]
    gram = weighted.T @ x - total * mean[:, None] * mean[None]
    cross = weighted.T @ targets - total * mean[:, None] * level[None]
    square = jnp.diagonal(gram) / total
    varies = square > 1e-12  # of columns whose mean square over all rows is one
    unit = jnp.where(varies, 1 / jnp.sqrt(jnp.where(varies, square, 1)), 0)
    gram = gram * unit[:, None] * unit[None]
    gram = gram + jnp.diag(penalty + (~varies).astype(gram.dtype))
    lower = jax.lax.linalg.cholesky(gram)
    half = jax.lax.linalg.triangular_solve(lower, cross * unit[:, None], left_side=True, lower=True)
    b = jax.lax.linalg.triangular_solve(lower, half, left_side=True, lower=True, transpose_a=True)
    b = b * unit[:, None]
    return x @ b + (level - mean @ b)[None]
