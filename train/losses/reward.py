"""Losses of reward models: pairs (Bradley and Terry), scores, and two heads against a nuisance."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.train.step import Mean
from jaxcore.train.step import at_least_float32 as wide

log_sigmoid = jax.nn.log_sigmoid


def reward_bt(
    chosen: Float[Array, " b"],
    rejected: Float[Array, " b"],
    *,
    margin: Float[Array, " b"] | None = None,
    centering: float = 0.0,
    weights: Float[Array, " b"] | None = None,
) -> Mean:
    """Bradley-Terry loss of rewards of pairs.

    Args:
      chosen: rewards of the preferred completions.
      rejected: rewards of the others.
      margin: by how much the chosen reward should exceed the other.
      centering: weight of the squared sum of the two rewards, which keeps them around zero.
      weights: of the pairs; 0 leaves one out.

    References:
      Bradley and Terry (1952); margin: Touvron et al. (2023), Llama 2, equation 2; centering:
      Eisenstein et al. (2023), Helping or herding.

    >>> import jax.numpy as jnp
    >>> round(float(reward_bt(jnp.zeros(2), jnp.zeros(2)).value()), 4)
    0.6931
    """
    chosen, rejected = wide(chosen), wide(rejected)
    ahead = chosen - rejected
    if margin is not None:
        ahead = ahead - wide(margin)
    loss = -log_sigmoid(ahead)
    if centering:
        loss = loss + centering * (chosen + rejected) ** 2
    return Mean.of(loss, weights)


def reward_soft(
    first: Float[Array, " b"],
    second: Float[Array, " b"],
    probability: Float[Array, " b"],
    *,
    weights: Float[Array, " b"] | None = None,
) -> Mean:
    """Bradley-Terry loss with the probability that the first completion is the better one.

    `soft_label` makes it of two outcomes.
    """
    ahead = wide(first) - wide(second)
    p = wide(probability)
    return Mean.of(-p * log_sigmoid(ahead) - (1 - p) * log_sigmoid(-ahead), weights)


def soft_label(
    first: Float[Array, " b"], second: Float[Array, " b"], temperature: float = 1.0
) -> Float[Array, " b"]:
    """Probability that the first of two outcomes is the better one, in (0, 1).

    >>> import jax.numpy as jnp
    >>> soft_label(jnp.ones(1), jnp.ones(1)).tolist()
    [0.5]
    """
    return jax.nn.sigmoid((wide(first) - wide(second)) / temperature)


def _huber(error: Array, delta: float) -> Array:
    size = jnp.abs(error)
    return jnp.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta))


_OF_ERRORS: dict[str, Callable[[Array, float], Array]] = {
    "mse": lambda error, delta: error**2,
    "huber": _huber,
}


def reward_regression(
    reward: Float[Array, " b"],
    target: Float[Array, " b"],
    *,
    weights: Float[Array, " b"] | None = None,
    loss: Literal["mse", "huber"] = "mse",
    delta: float = 1.0,
) -> Mean:
    """Squared or Huber loss of rewards against scores, a mean by weight.

    Args:
      reward: of the model.
      target: scores, standardised by preference.
      weights: of the rows; 0 leaves one out, its score missing or not.
      loss: "mse" (the square) or "huber" (half the square up to ``delta``, then linear).
      delta: where the Huber loss becomes linear.

    >>> import jax.numpy as jnp
    >>> float(reward_regression(jnp.array([1.0, 5.0]), jnp.array([0.0, jnp.nan]),
    ...                         weights=jnp.array([2.0, 0.0])).value())
    1.0
    """
    target = wide(target)
    if weights is not None:
        target = jnp.where(weights == 0, 0, target)
    return Mean.of(_OF_ERRORS[loss](wide(reward) - target, delta), weights)


# --- two heads ----------------------------------------------------------------------------------


def correlation(x: Float[Array, " n"], y: Float[Array, " n"]) -> Float[Array, ""]:
    """Pearson correlation over all rows given; zero where one of the two does not vary.

    Give the rows of the whole batch: correlations of its parts do not add up.
    """
    x, y = wide(x), wide(y)
    x, y = x - jnp.mean(x), y - jnp.mean(y)
    size = jnp.sum(x**2) * jnp.sum(y**2)
    varies = size > 0
    return jnp.where(varies, jnp.sum(x * y) / jnp.sqrt(jnp.where(varies, size, 1)), 0)


def odin(
    features: Float[Array, "n h"],
    heads: Float[Array, "2 h"],
    confounder: Float[Array, " n"],
    *,
    scores: Float[Array, " n"] | None = None,
    ortho: float = 1.0,
    corr: float = 1.0,
    form: Literal["release", "plain"] = "release",
) -> Float[Array, ""]:
    """Loss of two heads, one of which is to take up what a confounder explains.

    Head 0 is the quality, and alone the reward later; head 1 the confounder; their sum is fitted.
    The correlations are those over all rows, so this is no mean over rows: give the whole batch.

    Args:
      features: of the last token; rows 0..n/2-1 chosen, the others rejected. With ``scores`` in
        any order.
      heads: weights of the two heads.
      confounder: of each row.
      scores: fit these by least squares instead of the pairs.
      ortho: weight of the cosine between the heads.
      corr: weight of the correlations.
      form: "release" trains as the released code does (rows of the heads are centred and scaled,
        the correlation of the sum counts, too); "plain" is the method as its paper tells it.

    References:
      Chen et al. (2024), ODIN: Disentangled reward mitigates hacking in RLHF.
    """
    x, w = wide(features), wide(heads)
    if form == "release":
        w = w - jnp.mean(w, axis=1, keepdims=True)
        w = w / jnp.maximum(_norm(w), 1e-8)
    quality, nuisance = x @ w[0], x @ w[1]
    both = quality + nuisance
    if scores is None:
        fitted = reward_bt(*jnp.split(both, 2)).value()
    else:
        fitted = reward_regression(both, scores).value()
    cosine = jnp.abs(jnp.sum(w[0] * w[1])) / jnp.maximum(jnp.prod(_norm(w)), 1e-16)
    apart = jnp.abs(correlation(quality, confounder)) - correlation(nuisance, confounder)
    if form == "release":
        apart = apart + 1 + jnp.abs(correlation(both, confounder))
    return fitted + ortho * cosine + corr * apart


def _norm(w: Float[Array, "2 h"]) -> Float[Array, "2 1"]:
    """Length of each row; that of a row of zeros has the gradient zero."""
    square = jnp.sum(w**2, axis=1, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
