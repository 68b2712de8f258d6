"""What recorded confounders do to an outcome: one function for each way to know it.

Outcome = effect of the text + delta' C + noise. All return an `Estimate` of ``delta`` with one
influence value per row, and can be mapped over replications. Outside of ``jit`` they compute in
float64.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators import linear_algebra, two_stage
from jaxcore.estimators.deconfound.ridge import ridge_residuals
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.two_stage import Stages, least_squares, stages
from jaxcore.estimators.units import INDEPENDENT, Units

Kind = Literal["dml2", "dml1"]
KClass = Literal["2sls", "liml"]


def _check_columns(**given: Array | None) -> None:
    for name, values in given.items():
        if values is not None and values.ndim != 2:
            raise UserError(f"Expected {name} as columns (n, p), found shape {values.shape}.")


def _with_constant(like: Float[Array, " n"], W: Float[Array, "n w"] | None) -> Float[Array, "n w1"]:
    one = jnp.ones((like.shape[0], 1), like.dtype)
    return one if W is None else jnp.concatenate([one, W], axis=1)


@in_double
def ols_c(
    Y: Float[Array, " n"],
    C: Float[Array, "n p"],
    W: Float[Array, "n w"] | None = None,
    units: Units = INDEPENDENT,
) -> Estimate:
    """Regress the outcome on the confounders alone (and on ``W``, as the features of the text).

    Without the text this is biased as soon as confounders go with what the text does: a baseline.

    >>> import numpy as np
    >>> c = np.array([[0.0], [1.0], [2.0]])
    >>> round(float(ols_c(1 + 2 * c[:, 0], c).theta[0]), 6)
    2.0
    """
    _check_columns(C=C, W=W)
    parts = stages(Y, C, C, _with_constant(Y, W), units)
    return least_squares(parts, units, estimator="deconfound, outcome on confounders")


@in_double
def given(
    Y: Float[Array, " n"], W: Float[Array, "n w"], units: Units = INDEPENDENT
) -> Float[Array, " n"]:
    """What a regression on ``W`` and a constant leaves of a column.

    Regressing that on texts is no adjustment for ``W``: the texts must be made free of it, too
    (Frisch and Waugh 1933; Lovell 1963), as the coefficients of `ols_c` are.

    >>> import numpy as np
    >>> left = given(np.array([1.0, 3.0, 5.0]), np.arange(3.0)[:, None])
    >>> bool(np.abs(left).max() < 1e-12)
    True
    """
    fit = ols_c(Y, W, None, units)
    return Y - _with_constant(Y, W) @ jnp.concatenate([fit.diagnostics["exogenous"], fit.theta])


@in_double
def iv(
    Y: Float[Array, " n"],
    C: Float[Array, "n p"],
    Z: Float[Array, "n m"],
    W: Float[Array, "n w"] | None = None,
    units: Units = INDEPENDENT,
    *,
    kclass: KClass = "2sls",
) -> Estimate:
    """Two-stage least squares of the outcome on the confounders; the text stays in the error.

    Right for ``delta`` if the instruments move the confounders, and neither the text nor the
    outcome by another way.

    Args:
      Y: outcome.
      C: confounders.
      Z: instruments, at least as many.
      W: further regressors that are not instrumented, without a constant.
      units: observation weights and clusters.
      kclass: "2sls", or "liml", which is less biased by weak instruments.

    Returns:
      Diagnostics hold ``first_stage_F`` of every confounder and ``cragg_donald``, the smallest
      over their combinations.
    """
    _check_columns(C=C, Z=Z, W=W)
    if Z.shape[1] < C.shape[1]:
        raise UserError(
            f"Expected at least as many instruments as confounders ({C.shape[1]}), found "
            f"{Z.shape[1]}."
        )
    return from_stages(stages(Y, C, Z, _with_constant(Y, W), units), units, kclass=kclass)


def from_stages(parts: Stages, units: Units, *, kclass: KClass = "2sls") -> Estimate:
    """The estimate of `iv`, with its diagnostics, from what `two_stage.stages` found."""
    theta = two_stage.liml(parts) if kclass == "liml" else None
    name = f"deconfound, instruments ({kclass.upper()})"
    found = least_squares(parts, units, theta=theta, estimator=name)
    parts = parts._replace(cc=linear_algebra.after(parts.cc, found.theta))
    told = {
        "first_stage_F": two_stage.first_stage_f(parts),
        "cragg_donald": two_stage.cragg_donald(parts),
    }
    return dataclasses.replace(found, diagnostics=found.diagnostics | told)


@in_double
def plm(
    Y: Float[Array, " n"],
    C: Float[Array, "n p"],
    features: Float[Array, "n d"],
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    *,
    penalty: float | Array = 1.0,
    kind: Kind = "dml2",
    Z: Float[Array, "n m"] | None = None,
    units: Units = INDEPENDENT,
) -> Estimate:
    """Partially linear model: regress what the text does not explain on what it does not explain.

    Args:
      Y: outcome.
      C: confounders.
      features: of the text.
      fold_ids: fold of each row; folds keep clusters together.
      n_folds: number of folds.
      penalty: of the ridge regressions on the features, see `ridge_residuals`.
      kind: "dml2" solves once over all folds, "dml1" in each and averages.
      Z: instruments, for confounders that are moved by something which moves the outcome, too.
      units: observation weights and clusters.

    Returns:
      Diagnostics hold the residuals as ``y_residual`` and ``c_residual``, and as ``left`` the share
      of each confounder's variance that the text leaves.

    References:
      Robinson (1988); Chernozhukov et al. (2018), definitions 3.1 and 3.2, sections 4.1 and 4.2.
    """
    _check_columns(C=C, features=features, Z=Z)
    p = C.shape[1]
    columns = [Y[:, None], C] + ([] if Z is None else [Z])
    targets = jnp.concatenate(columns, axis=1)
    left = ridge_residuals(features, targets, fold_ids, n_folds, penalty, units)
    y, c = left[:, 0], left[:, 1 : p + 1]
    z = c if Z is None else left[:, p + 1 :]
    none = jnp.zeros((Y.shape[0], 0), Y.dtype)
    parts = stages(y, c, z, none, units)
    w = units.weights_like(Y)[:, None]
    centred = C - jnp.mean(w * C, axis=0)[None]
    told = {
        "y_residual": y,
        "c_residual": c,
        "fold_ids": fold_ids,
        "left": jnp.sum(w * c**2, axis=0) / jnp.sum(w * centred**2, axis=0),
    }
    theta = None
    if kind == "dml1":
        last = linear_algebra.after(z, parts.cy)
        theta = _per_fold(y, c, last, fold_ids, n_folds, units)
    elif kind != "dml2":
        raise UserError(f"Expected kind='dml2' or 'dml1', found {kind!r}.")
    name = f"deconfound, partially linear{'' if Z is None else ' with instruments'}"
    found = least_squares(parts, units, theta=theta, estimator=name, diagnostics=told)
    if Z is None:
        return found
    parts = parts._replace(cc=linear_algebra.after(parts.cc, found.theta))
    more = from_stages(parts, units).diagnostics
    return dataclasses.replace(found, diagnostics=more | found.diagnostics)


def _per_fold(
    y: Array, c: Array, z: Array, fold_ids: Array, n_folds: int, units: Units
) -> Float[Array, " p"]:
    """Mean of the solutions within folds."""
    if fold_ids.ndim > 1 or z.shape[1] != c.shape[1]:
        raise UserError(
            "Expected clusters of one kind and as many instruments as confounders with 'dml1', "
            "found others."
        )
    w = units.weights_like(y)

    def one(f: Array) -> Array:
        inside = z * jnp.where(fold_ids == f, w, 0)[:, None]
        return linear_algebra.solve(inside.T @ c, inside.T @ y)

    return jnp.mean(jax.lax.map(one, jnp.arange(n_folds)), axis=0)


def adjusted(
    Y: Float[Array, " n"],
    C: Float[Array, "n p"],
    delta: Float[Array, " p"],
    centre: Float[Array, " p"] | None = None,
) -> Float[Array, " n"]:
    """The outcome less what the confounders do: the reward of a text.

    Args:
      Y: outcome.
      C: confounders.
      delta: what a unit of each does.
      centre: their means, so that the reward keeps the mean of the outcome; None takes nothing.

    >>> import numpy as np
    >>> adjusted(np.array([5.0]), np.array([[2.0]]), np.array([2.0])).tolist()
    [1.0]
    """
    return Y - (C if centre is None else C - centre[None]) @ delta
