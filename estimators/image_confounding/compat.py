"""What the package causalimages computes otherwise, for comparison with its output only."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.image_confounding.weighting import effect
from jaxcore.estimators.precision import in_double


@in_double
def long_lat_after(
    a: Float[Array, " n"], e: Float[Array, " n"], X: Float[Array, "n p"]
) -> Float[Array, " p"]:
    """Weighted differences of places as the package prints them.

    It weights both arms by 1/e, also the units without treatment, for whom 1/(1-e) is right
    (`balance.mean_differences`).

    >>> X = jnp.array([[1.0], [3.0]])
    >>> long_lat_after(jnp.array([1.0, 0.0]), jnp.full(2, 0.5), X).tolist()
    [-2.0]
    """
    w1, w0 = a / e, (1 - a) / e
    return w1 @ X / jnp.sum(w1) - w0 @ X / jnp.sum(w0)


@in_double
def mean_over_folds(folds: Float[Array, " k"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The package's effect and error from effects of folds: mean, and sd (k - 1) over sqrt(k).

    With its two folds the error has one degree of freedom.

    >>> [float(x) for x in mean_over_folds(jnp.array([1.0, 3.0]))]
    [2.0, 1.0]
    """
    return jnp.mean(folds), jnp.std(folds, ddof=1) / folds.shape[0] ** 0.5


def over_folds(
    estimate: Estimate,
    y: Any,
    a: Any,
    e: Any,
    ids: Int[np.ndarray, " n"],
) -> Estimate:
    """The package's estimate with folds: `mean_over_folds` of Hajek's within each of them.

    Args:
      estimate: gives everything else.
      y: outcome.
      a: treatment, 0 or 1.
      e: propensities, by networks that have not seen the unit.
      ids: fold of each unit.

    Raises:
      UserError: a fold without one of the arms.
    """
    found = []
    for fold in np.unique(ids):
        rows = ids == fold
        if np.ptp(a[rows]) == 0:
            raise UserError(f"Expected units of both arms in every fold, found one in {fold}.")
        found.append(float(effect("hajek", y[rows], a[rows], e[rows]).theta))
    folds: Any = np.array(found)
    theta, se = mean_over_folds(folds)
    more = {**estimate.diagnostics, "of_folds": folds}
    return dataclasses.replace(estimate, theta=theta, se=se, clusters=None, diagnostics=more)


@in_double
def mean_over_replicates(estimate: Estimate, drawn: Float[Array, " b"]) -> Estimate:
    """The package's estimate without folds: mean and sd (b - 1) of its bootstrap replicates.

    >>> one = Estimate.from_psi(jnp.zeros(()), jnp.ones(2))
    >>> float(mean_over_replicates(one, jnp.array([1.0, 3.0])).theta)
    2.0
    """
    return Estimate(
        theta=jnp.mean(drawn),
        se=jnp.std(drawn, ddof=1),
        psi=estimate.psi,
        names=estimate.names,
        estimator=f"{estimate.estimator} (causalimages)",
    )
