"""How well propensities fit, and how few units their weights rest on.

Called on values the functions compute in float64 and return NumPy. An area under the curve near
0.5 on units that were not trained on says that the images do not show who is treated, or that the
network has not found it: weights then look perfect and adjust for nothing.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators.image_confounding.weighting import arm_weights
from jaxcore.estimators.precision import in_double


class Arms(NamedTuple):
    """A figure of the treated, and of the others."""

    treated: Float[Array, ""]
    control: Float[Array, ""]


class Reliability(NamedTuple):
    """Calibration by equal bins of the propensity; NaN where a bin is empty."""

    predicted: Float[Array, " bins"]  # mean propensity
    observed: Float[Array, " bins"]  # share of the treated
    units: Float[Array, " bins"]


class Histogram(NamedTuple):
    """Units of each arm by bins of the propensity."""

    edges: Float[Array, " edges"]
    treated: Float[Array, " bins"]
    control: Float[Array, " bins"]


@in_double
def auc(a: Float[Array, " n"], e: Float[Array, " n"]) -> Float[Array, ""]:
    """Area under the ROC curve; equal propensities count one half. NaN with one arm only.

    >>> float(auc(jnp.array([0.0, 1.0, 1.0]), jnp.array([0.2, 0.2, 0.9])))
    0.75
    """
    ordered = jnp.sort(e)
    below, up_to = (jnp.searchsorted(ordered, e, side=side) for side in ("left", "right"))
    rank = (below + up_to + 1).astype(e.dtype) / 2
    n1, n0 = jnp.sum(a), jnp.sum(1 - a)
    return (jnp.sum(a * rank) - n1 * (n1 + 1) / 2) / (n1 * n0)


@in_double
def auprc(a: Float[Array, " n"], e: Float[Array, " n"]) -> Float[Array, ""]:
    """Area under the precision-recall curve, with the right curve between its points.

    Between two thresholds true and false positives rise together; the area below the precision
    that this makes is integrated exactly.

    References:
      Davis and Goadrich (2006), The relationship between precision-recall and ROC curves.
      Keilwagen, Grosse and Grau (2014), Area under precision-recall curves for weighted and
      unweighted data.

    >>> float(auprc(jnp.array([0.0, 1.0]), jnp.array([0.2, 0.9])))
    1.0
    """
    order = jnp.argsort(-e, stable=True)
    falling, hit = -e[order], a[order]
    total = jnp.concatenate([jnp.zeros(1, e.dtype), jnp.cumsum(hit)])
    first, end = (jnp.searchsorted(falling, falling, side=side) for side in ("left", "right"))
    before, all_before = total[first], first.astype(e.dtype)  # positives and units so far
    more = total[end] - before
    per_hit = (end - first).astype(e.dtype) / jnp.where(more > 0, more, 1)  # units per positive
    grown = jnp.log1p(per_hit * more / jnp.where(all_before > 0, all_before, 1))
    bend = (before - all_before / per_hit) / per_hit * jnp.where(all_before > 0, grown, 0)
    area = jnp.where(more > 0, more / per_hit + bend, 0)
    once = jnp.arange(e.shape[0], dtype=first.dtype) == first  # each threshold counts once
    return jnp.sum(jnp.where(once, area, 0)) / total[-1]


@in_double
def cross_entropy(a: Float[Array, " n"], e: Float[Array, " n"]) -> Float[Array, ""]:
    """Mean negative log-likelihood of the treatment; `e` may be one constant.

    >>> round(float(cross_entropy(jnp.array([1.0]), jnp.array([0.5]))), 4)
    0.6931
    """
    return -jnp.mean(a * jnp.log(e) + (1 - a) * jnp.log1p(-e))


@in_double
def class_error(a: Float[Array, " n"], e: Float[Array, " n"]) -> Float[Array, ""]:
    """Share of units on the wrong side of one half.

    >>> float(class_error(jnp.array([1.0, 0.0]), jnp.array([0.7, 0.6])))
    0.5
    """
    return jnp.mean(((e > 0.5) != (a > 0.5)).astype(a.dtype))


@in_double
def f2(a: Float[Array, " n"], e: Float[Array, " n"]) -> Float[Array, " thresholds"]:
    """F2 scores at the thresholds 0.1, 0.2, ..., 0.9; the largest is what is reported.

    >>> f2(jnp.array([1.0, 0.0]), jnp.array([0.95, 0.05])).min().item()
    1.0
    """
    threshold = (jnp.arange(1, 10) / 10).astype(e.dtype)
    found = (e[None] > threshold[:, None]).astype(e.dtype)
    right, wrong = found @ a, found @ (1 - a)
    missed = jnp.sum(a) - right
    return 5 * right / (5 * right + 4 * missed + wrong)


@in_double
def brier(a: Float[Array, " n"], e: Float[Array, " n"]) -> Float[Array, ""]:
    """Mean squared distance of propensity and treatment.

    >>> float(brier(jnp.array([1.0]), jnp.array([0.5])))
    0.25
    """
    return jnp.mean((a - e) ** 2)


@in_double
def reliability(a: Float[Array, " n"], e: Float[Array, " n"], *, bins: int = 10) -> Reliability:
    """Share of the treated against the mean propensity, in bins of equal width on [0, 1].

    >>> reliability(jnp.array([1.0, 0.0]), jnp.array([0.7, 0.9]), bins=2).observed.tolist()
    [nan, 0.5]
    """
    place = jnp.clip((e * bins).astype(jnp.int32), 0, bins - 1)
    sums = jnp.zeros((bins, 3), e.dtype).at[place].add(jnp.stack([e, a, jnp.ones_like(e)], axis=1))
    return Reliability(sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2], sums[:, 2])


@in_double
def overlap_histogram(a: Float[Array, " n"], e: Float[Array, " n"], *, bins: int = 20) -> Histogram:
    """Units of each arm in bins of equal width on [0, 1].

    >>> overlap_histogram(jnp.array([1.0, 0.0]), jnp.array([0.7, 0.9]), bins=2).treated.tolist()
    [0.0, 1.0]
    """
    place = jnp.clip((e * bins).astype(jnp.int32), 0, bins - 1)
    counted = [jnp.zeros(bins, e.dtype).at[place].add(arm) for arm in (a, 1 - a)]
    return Histogram(jnp.linspace(0, 1, bins + 1, dtype=e.dtype), *counted)


@in_double
def stabilised_weights(a: Float[Array, " n"], e: Float[Array, " n"]) -> Float[Array, " n"]:
    """Weights of mean about one: p/e of the treated and (1-p)/(1-e) of the others, p their share.

    >>> stabilised_weights(jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5])).tolist()
    [1.0, 1.0]
    """
    p = jnp.mean(a)
    return jnp.where(a > 0.5, p / e, (1 - p) / (1 - e))


@in_double
def effective_sizes(name: str, a: Float[Array, " n"], e: Float[Array, " n"]) -> Arms:
    """Units of equal weight that would be as precise, ``(sum w)^2 / sum w^2``, of each arm.

    Args:
      name: of the weights, see `arm_weights`.
      a: treatment, 0 or 1.
      e: propensities in (0, 1).

    >>> effective_sizes("hajek", jnp.array([1.0, 1.0, 0.0]), jnp.full(3, 0.5)).treated.item()
    2.0
    """
    return Arms(*(jnp.sum(w) ** 2 / jnp.sum(w**2) for w in _of_arms(name, a, e)))


@in_double
def largest_weights(name: str, a: Float[Array, " n"], e: Float[Array, " n"]) -> Arms:
    """Largest share of one unit in the weights of its arm.

    >>> largest_weights("hajek", jnp.array([1.0, 1.0, 0.0]), jnp.full(3, 0.5)).treated.item()
    0.5
    """
    return Arms(*(jnp.max(w) / jnp.sum(w) for w in _of_arms(name, a, e)))


def _of_arms(
    name: str, a: Float[Array, " n"], e: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    w1, w0 = arm_weights(name, e)
    return a * w1, (1 - a) * w0
