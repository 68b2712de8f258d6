"""Conditional effects: the moment projected on covariates or averaged within groups."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from jaxcore.errors import UserError
from jaxcore.estimators.checks import independent_columns
from jaxcore.estimators.columns import label_numbers, label_text
from jaxcore.estimators.compiling import QUICKLY
from jaxcore.estimators.estimate import Estimate, scope_of
from jaxcore.estimators.precision import check_finite
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.estimators.variance import variance


def best_linear(
    u: ArrayLike,
    W: ArrayLike,
    names: Sequence[str] | None = None,
    units: Units = INDEPENDENT,
) -> Estimate:
    """Best linear projection of the conditional effect on the columns of ``W``.

    ``u`` is an orthogonal signal of the effect, so least squares of it on ``W`` with robust errors
    is valid.

    Args:
      u: moment of every unit.
      W: regressors (n, q), with a constant if one is wanted.
      names: names of the columns.
      units: observation weights and clusters.

    References:
      Semenova and Chernozhukov (2021).

    >>> import numpy as np
    >>> best_linear(np.array([1.0, 3.0]), np.array([[1.0, 0.0], [1.0, 1.0]])).theta.tolist()
    [1.0, 2.0]
    """
    W = np.asarray(W)
    if W.ndim == 1:
        W = W[:, None]
    if W.ndim != 2 or W.shape[1] == 0:
        raise UserError(f"Expected regressors (n, q), found an array of shape {W.shape}.")
    if W.dtype.kind not in "biuf" or not np.isfinite(W).all():
        raise UserError("Expected finite numbers as regressors, found others.")
    W = W.astype(np.float64)
    u, w = np.asarray(u, np.float64), units.weights_like(np.ones(len(W)))
    check_finite({"the signal": u})
    if not independent_columns(W, w).all():
        raise UserError("Expected linearly independent regressors, found dependent ones.")
    if names is None:
        names = tuple(f"w{j + 1}" for j in range(W.shape[1]))
    if len(names) != W.shape[1]:
        raise UserError(f"Expected {W.shape[1]} names, found {len(names)}.")
    gram = (W * w[:, None]).T @ W / len(W)
    theta = np.linalg.solve(gram, W.T @ (w * u) / len(W))
    psi = np.linalg.solve(gram, (W * (w * (u - W @ theta))[:, None]).T).T
    return _estimate(theta, psi, names, units, "best linear projection of the effect")


def partialled_out(
    y: ArrayLike,
    d: ArrayLike,
    l: ArrayLike,
    m: ArrayLike,
    W: ArrayLike,
    names: Sequence[str] | None = None,
    units: Units = INDEPENDENT,
) -> Estimate:
    """Effect of a partially linear model as a linear function of ``W``: ``theta(X) = W b``.

    Least squares of ``y - l`` on ``(d - m) W`` with robust errors. With 0/1 columns of groups in
    ``W`` these are effects of groups (weighted by the variance of the treatment within them).

    Args:
      y: outcome.
      d: treatment.
      l: E[Y|X].
      m: E[D|X].
      W: columns the effect depends on (n, q), with a constant if one is wanted.
      names: names of the columns.
      units: observation weights and clusters.

    References:
      Nie and Wager (2021); Semenova and Chernozhukov (2021).

    >>> import numpy as np
    >>> d, group = np.array([1.0, -1.0, 2.0, 1.0]), np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    >>> e = partialled_out(d * [2, 2, 3, 3], d, np.zeros(4), np.zeros(4), group)
    >>> e.theta.round(6).tolist()
    [2.0, 3.0]
    """
    W = np.asarray(W)
    W = W[:, None] if W.ndim == 1 else W
    if W.dtype.kind not in "biuf":
        raise UserError("Expected finite numbers as regressors, found others.")
    residual = np.asarray(d, np.float64) - np.asarray(m, np.float64)
    signal = np.asarray(y, np.float64) - np.asarray(l, np.float64)
    if names is None and W.ndim == 2:
        names = tuple(f"w{j + 1}" for j in range(W.shape[1]))
    return best_linear(signal, residual[:, None] * W, names, units)


def group_effects(u: ArrayLike, groups: ArrayLike, units: Units = INDEPENDENT) -> Estimate:
    """Average effect within each group, jointly (for joint intervals).

    Args:
      u: moment of every unit.
      groups: label of each unit.
      units: observation weights and clusters.

    >>> import numpy as np
    >>> group_effects(np.array([1.0, 2.0, 3.0, 5.0]), np.array(list("aabb"))).theta.tolist()
    [1.5, 4.0]
    """
    u = np.asarray(u, np.float64)
    check_finite({"the signal": u})
    found, member = members(groups)
    member = member * units.weights_like(np.ones(len(member)))[:, None]
    share = member.mean(axis=0)
    if np.any(share == 0):
        raise UserError("Expected positive weights in every group, found a group without.")
    theta = member.T @ u / len(u) / share
    psi = member * (u[:, None] - theta) / share
    return _estimate(theta, psi, [label_text(g) for g in found], units, "average effects of groups")


def members(groups: ArrayLike) -> tuple[np.ndarray, Float[np.ndarray, "n g"]]:
    """The labels of groups, and a column of 0 and 1 for each.

    Raises:
      UserError: missing labels, or a group of one unit, whose effect would have no error.

    >>> members(np.array(["b", "a", "b", "a"]))[1].tolist()
    [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    """
    labels = np.asarray(groups)
    if labels.ndim != 1:
        raise UserError(f"Expected one label per unit, found an array of shape {labels.shape}.")
    found, number = label_numbers(labels, "group")
    alone = found[np.bincount(number) < 2]
    if len(alone):
        raise UserError(f"Expected at least 2 units in every group, found one in {alone[0]!s}.")
    return found, np.eye(len(found))[number]


def _estimate(
    theta: np.ndarray, psi: np.ndarray, names: Sequence[str], units: Units, title: str
) -> Estimate:
    effects: Any = theta
    rows: Any = psi
    with scope_of(rows):
        se: Any = np.sqrt(_variance(rows, units))
    return Estimate(
        theta=effects,
        se=se,
        psi=rows,
        clusters=units.clusters,
        names=tuple(names),
        estimator=title,
    )


_variance = jax.jit(variance, compiler_options=QUICKLY)
