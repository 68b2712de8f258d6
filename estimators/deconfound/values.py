"""Values of an attribute of texts and of a policy that did not write them; both doubly robust."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators import influence
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.train.losses import off_policy


@in_double
def attribute_effect(
    Y: Float[Array, " n"],
    has: Float[Array, " n"],
    propensity: Float[Array, " n"],
    without: Float[Array, " n"],
    with_it: Float[Array, " n"],
    *,
    clip: tuple[float, float] | None = (0.01, 0.99),
    units: Units = INDEPENDENT,
) -> Estimate:
    """Average effect of an attribute that a text has or has not, given the confounders (AIPW).

    Args:
      Y: outcome.
      has: 0 or 1.
      propensity: its probability given the confounders.
      without: predicted outcome without it.
      with_it: predicted outcome with it.
      clip: bounds of the propensity; None for none.
      units: observation weights and clusters.

    References:
      Robins, Rotnitzky and Zhao (1994).

    >>> import numpy as np
    >>> y, half = np.array([3.0, 1.0]), np.full(2, 0.5)
    >>> found = attribute_effect(y, np.array([1.0, 0.0]), half, np.ones(2), np.full(2, 3.0))
    >>> float(found.theta)
    2.0
    """
    if clip is not None:
        propensity = jnp.clip(propensity, *clip)
    score = influence.aipw(Y, has, propensity, without, with_it)
    told = {"u": score.psi_b}
    return influence.solve(
        score, units, names=("effect",), estimator="attribute effect", diagnostics=told
    )


class PolicyValues(NamedTuple):
    """Mean outcome that a policy would have, by three estimators."""

    ipw: Float[Array, ""]  # weighted by the ratio of probabilities
    snipw: Float[Array, ""]  # the same with weights that add up to one
    doubly_robust: Float[Array, ""]
    effective: Float[Array, ""]  # sample size that the weights leave


@in_double
def policy_values(
    Y: Float[Array, " n"],
    log_ratio: Float[Array, " n"],
    predicted: Float[Array, " n"],
    sampled: Float[Array, " s"],
    *,
    largest: float | None = 5.0,
) -> PolicyValues:
    """Value of a policy from outcomes of texts that another one wrote.

    Args:
      Y: outcome, or a deconfounded reward.
      log_ratio: log-probability of each text by the policy less that by the one which wrote it.
      predicted: outcome of each text by a reward model.
      sampled: outcomes that it predicts for texts of the policy.
      largest: log-ratios are clipped at plus and minus this; None for not at all.

    References:
      Lin, Ben-Michael and Morency (2024), Optimizing language models for human preferences is a
      causal inference problem.

    >>> import numpy as np
    >>> same = np.zeros(4)
    >>> [float(v) for v in policy_values(np.arange(4.0), same, same, np.zeros(2))]
    [1.5, 1.5, 1.5, 4.0]
    """
    if not Y.shape == log_ratio.shape == predicted.shape:
        raise UserError(
            "Expected one outcome, log-ratio and prediction per text, found "
            f"{Y.shape[0]}, {log_ratio.shape[0]} and {predicted.shape[0]}."
        )
    w = off_policy.weights(log_ratio, largest=largest)
    return PolicyValues(
        jnp.mean(w * Y),
        jnp.sum(w * Y) / jnp.sum(w),
        jnp.mean(w * (Y - predicted)) + jnp.mean(sampled),
        off_policy.effective_size(w),
    )
