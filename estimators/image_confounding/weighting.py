"""Weighting estimators of the effect of a binary treatment, given its propensities.

Each is a smooth function of the means of a few columns: `columns_of` makes them, `effect_of_means`
is the function. The influence values are its derivative times the centred columns, and a bootstrap
is one product of weights and columns (`jaxcore.estimators.image_confounding.resampling`).
Propensities and outcome models count as known.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators import influence
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.units import INDEPENDENT, Units

WEIGHTED = ("difference", "hajek", "ato", "att")
AUGMENTED = ("aipw", "aipw_hajek")
ESTIMATORS = ("difference", "ipw", *WEIGHTED[1:], *AUGMENTED)
"""Names of the estimators; those in `AUGMENTED` need an outcome model."""

_TARGETS = {"ato": "ATO", "att": "ATT"}


def arm_weights(name: str, e: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Weights of a unit if it is treated, and if it is not.

    Args:
      name: "difference" (ones), "hajek" (1/e and 1/(1-e)), "ato" (1-e and e, the population in
        which arms overlap) or "att" (1 and e/(1-e), the treated).
      e: propensities in (0, 1).

    References:
      Li, Morgan and Zaslavsky (2018), Balancing covariates via propensity score weighting.

    >>> import jax.numpy as jnp
    >>> [w.tolist() for w in arm_weights("ato", jnp.array([0.25]))]
    [[0.75], [0.25]]
    """
    one = jnp.ones_like(e)
    if name == "difference":
        return one, one
    if name in ("hajek", "aipw_hajek"):
        return 1 / e, 1 / (1 - e)
    if name == "ato":
        return 1 - e, e
    if name == "att":
        return one, e / (1 - e)
    raise UserError(f"Expected weights of {', '.join(WEIGHTED)}, found {name!r}.")


def columns_of(
    name: str,
    y: Float[Array, " n"],
    a: Float[Array, " n"],
    e: Float[Array, " n"],
    m0: Float[Array, " n"] | None = None,
    m1: Float[Array, " n"] | None = None,
) -> Float[Array, "n q"]:
    """The columns whose means `effect_of_means` makes an effect of: one, four or five.

    One holds the effect itself (ipw, aipw). Four hold weighted outcomes and weights of the treated,
    then of the others; a fifth is added to the difference of their ratios.

    Args:
      name: one of `ESTIMATORS`.
      y: outcome.
      a: treatment, 0 or 1.
      e: propensities in (0, 1).
      m0: expected outcome without treatment, for `AUGMENTED` ones.
      m1: and with it.

    Raises:
      UserError: another name, or no outcome model where one is needed.
    """
    if name not in ESTIMATORS:
        raise UserError(f"Expected an estimator of {', '.join(ESTIMATORS)}, found {name!r}.")
    if name == "ipw":
        return influence.ipw(y, a, e).psi_b[:, None]
    if name in WEIGHTED:
        w1, w0 = arm_weights(name, e)
        w1, w0 = w1 * a, w0 * (1 - a)
        return jnp.stack([w1 * y, w1, w0 * y, w0], axis=1)
    if m0 is None or m1 is None:
        raise UserError(f"Expected expected outcomes of both arms for {name!r}, found none.")
    if name == "aipw":
        return influence.aipw(y, a, e, m0, m1).psi_b[:, None]
    w1, w0 = arm_weights(name, e)
    w1, w0 = w1 * a, w0 * (1 - a)
    return jnp.stack([w1 * (y - m1), w1, w0 * (y - m0), w0, m1 - m0], axis=1)


def effect_of_means(means: Float[Array, "*b q"]) -> Float[Array, "*b"]:
    """The effect from means (or sums, but for one or five columns) of `columns_of`.

    >>> import jax.numpy as jnp
    >>> float(effect_of_means(jnp.array([6.0, 2.0, 4.0, 4.0])))
    2.0
    """
    if means.shape[-1] == 1:
        return means[..., 0]
    ratios = means[..., 0] / means[..., 1] - means[..., 2] / means[..., 3]
    return ratios if means.shape[-1] == 4 else ratios + means[..., 4]


@in_double
def effect(
    name: str,
    y: Float[Array, " n"],
    a: Float[Array, " n"],
    e: Float[Array, " n"],
    m0: Float[Array, " n"] | None = None,
    m1: Float[Array, " n"] | None = None,
    units: Units = INDEPENDENT,
    **fields: Any,
) -> Estimate:
    """Effect of a treatment, its influence values and its standard error.

    Called on values it computes in float64 and returns NumPy; under ``jit`` and ``vmap`` in the
    precision of what it is given. It checks no values: `propensity.check` does.

    | name | estimate |
    |---|---|
    | difference | of the arms' means, without propensities |
    | ipw | Horvitz and Thompson's |
    | hajek | weights of each arm divided by their sum |
    | ato, att | the same with overlap weights, and for the treated |
    | aipw | doubly robust, efficient (Robins, Rotnitzky and Zhao 1994) |
    | aipw_hajek | doubly robust with weights divided by their sum |

    Standard errors without clusters: Welch's for the difference; with n - 1 for ipw and aipw; with
    n for the others. With clusters, those of sums of influence values within clusters, times
    ``sqrt(g / (g - 1))``. A unit of weight zero is left out of all of them.

    Args:
      name: one of `ESTIMATORS`.
      y: outcome.
      a: treatment, 0 or 1.
      e: propensities in (0, 1).
      m0: expected outcome without treatment, for ``aipw`` and ``aipw_hajek``.
      m1: and with it.
      units: weights (of trimming, of a target population), clusters (usually the images).
      **fields: further fields of the estimate.

    >>> import jax.numpy as jnp
    >>> y, a = jnp.array([3.0, 1.0, 5.0]), jnp.array([1.0, 0.0, 1.0])
    >>> round(float(effect("hajek", y, a, jnp.array([0.5, 0.5, 0.25])).theta), 4)
    3.3333
    """
    columns = columns_of(name, y, a, e, m0, m1)
    w = units.weights_like(columns[:, 0])
    means = jnp.mean(w[:, None] * columns, axis=0)
    theta, slope = jax.value_and_grad(effect_of_means)(means)
    psi = w * ((columns - means[None]) @ slope)
    named = {"names": (_TARGETS.get(name, "ATE"),), "estimator": name} | fields
    estimate = Estimate.from_psi(theta, psi, units, **named)
    if units.clusters is not None:
        return estimate
    return dataclasses.replace(estimate, se=_independent_error(name, psi, a, w))


def _independent_error(
    name: str, psi: Float[Array, " n"], a: Float[Array, " n"], w: Float[Array, " n"]
) -> Float[Array, ""]:
    """Standard error of independent units with the divisor that is usual for each estimator."""
    square, used = psi**2, (w > 0).astype(psi.dtype)

    def larger(count: Float[Array, ""]) -> Float[Array, ""]:
        return count / (count - 1)

    if name == "difference":
        in_arm = [jnp.sum(part * square) * larger(jnp.sum(part * used)) for part in (a, 1 - a)]
        total = in_arm[0] + in_arm[1]
    else:
        total = jnp.sum(square) * (larger(jnp.sum(used)) if name in ("ipw", "aipw") else 1.0)
    return jnp.sqrt(total) / psi.shape[0]
