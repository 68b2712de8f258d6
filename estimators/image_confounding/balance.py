"""Balance of covariates, features of images and places, before weighting and after."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators.image_confounding.weighting import arm_weights
from jaxcore.estimators.precision import in_double


class Balance(NamedTuple):
    """A difference of the arms for each column, without weights and with them."""

    before: Float[Array, " p"]
    after: Float[Array, " p"]


@in_double
def mean_differences(
    name: str, a: Float[Array, " n"], e: Float[Array, " n"], X: Float[Array, "n p"]
) -> Balance:
    """Mean of the treated less that of the others; of longitude and latitude, for example.

    Args:
      name: of the weights, see `arm_weights`.
      a: treatment, 0 or 1.
      e: propensities in (0, 1).
      X: columns.

    >>> X = jnp.array([[1.0], [3.0]])
    >>> mean_differences("hajek", jnp.array([1.0, 0.0]), jnp.full(2, 0.5), X).after.tolist()
    [-2.0]
    """
    return Balance(*(_difference(a, w1, w0, X) for w1, w0 in (_ones(e), arm_weights(name, e))))


@in_double
def standardised_differences(
    name: str, a: Float[Array, " n"], e: Float[Array, " n"], X: Float[Array, "n p"]
) -> Balance:
    """`mean_differences` over ``sqrt((s1^2 + s0^2) / 2)``, the arms' unweighted variances (n - 1).

    Beyond 0.1 a column is commonly called unbalanced.

    >>> X = jnp.array([[1.0], [3.0], [2.0], [4.0]])
    >>> a = jnp.array([1.0, 1.0, 0.0, 0.0])
    >>> standardised_differences("hajek", a, jnp.full(4, 0.5), X).before.round(3).tolist()
    [-0.707]
    """
    spread = jnp.sqrt((_variance(a, X) + _variance(1 - a, X)) / 2)
    pairs = _ones(e), arm_weights(name, e)
    return Balance(*(_difference(a, w1, w0, X) / spread for w1, w0 in pairs))


def _ones(e: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    return arm_weights("difference", e)


def _difference(
    a: Float[Array, " n"], w1: Float[Array, " n"], w0: Float[Array, " n"], X: Float[Array, "n p"]
) -> Float[Array, " p"]:
    w1, w0 = a * w1, (1 - a) * w0
    return w1 @ X / jnp.sum(w1) - w0 @ X / jnp.sum(w0)


def _variance(arm: Float[Array, " n"], X: Float[Array, "n p"]) -> Float[Array, " p"]:
    count = jnp.sum(arm)
    off = X - (arm @ X / count)[None]
    return arm @ off**2 / (count - 1)
