"""Effects that differ between kinds of images: latent clusters, each with an effect of its own.

Jerzak, Johansson, Daoud, "Image-based treatment effect heterogeneity", CLeaR 2023, PMLR
213:531-552. A network gives for each unit the outcome without treatment and the log-odds of K - 1
clusters against the first; the effect of a cluster is normal, ``N(mean, softplus(raw)^2)``. All
outcomes are standardised.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.typing import Key


class Noise(NamedTuple):
    """Random numbers of a loss or a prediction, for ``m`` draws."""

    gumbel: Float[Array, "m n k"]  # of the clusters of every unit
    normal: Float[Array, "m k"]  # of the effects


class Effects(NamedTuple):
    """What the clusters say of units."""

    probabilities: Float[Array, "n k"]  # of the clusters, without noise
    expected: Float[Array, " n"]  # effect of each unit, in standard deviations of the outcome
    average: Float[Array, ""]  # of these


def draw_noise(key: Key, draws: int, units: int, clusters: int) -> Noise:
    """Noise for ``draws`` evaluations.

    >>> draw_noise(jax.random.key(0), 2, 5, 3).gumbel.shape
    (2, 5, 3)
    """
    first, second = jax.random.split(key)
    gumbel = jax.random.gumbel(first, (draws, units, clusters))
    return Noise(gumbel, jax.random.normal(second, (draws, clusters)))


def against_first(log_odds: Float[Array, "n j"]) -> Float[Array, "n k"]:
    """Logits of all clusters; that of the first is 0.

    >>> against_first(jnp.array([[2.0]])).tolist()
    [[0.0, 2.0]]
    """
    return jnp.concatenate([jnp.zeros_like(log_odds[:, :1]), log_odds], axis=-1)


def memberships(
    logits: Float[Array, "n k"], gumbel: Float[Array, "m n k"], temperature: float = 1.0
) -> Float[Array, "m n k"]:
    """Relaxed indicators of clusters: ``softmax((logits + gumbel) / temperature)``."""
    return jax.nn.softmax((logits[None] + gumbel) / temperature, axis=-1)


def cluster_effects(
    mean: Float[Array, " k"], raw: Float[Array, " k"], normal: Float[Array, "m k"]
) -> Float[Array, "m k"]:
    """Draws of the effects of clusters, ``mean + softplus(raw) normal``."""
    return mean[None] + jax.nn.softplus(raw)[None] * normal


def unit_effects(
    logits: Float[Array, "n k"],
    mean: Float[Array, " k"],
    raw: Float[Array, " k"],
    noise: Noise,
    temperature: float = 1.0,
) -> Float[Array, "m n"]:
    """Draws of the effect of every unit: its memberships times the effects of the clusters."""
    effects = cluster_effects(mean, raw, noise.normal)
    return jnp.einsum("mnk,mk->mn", memberships(logits, noise.gumbel, temperature), effects)


def losses(
    untreated: Float[Array, " n"],
    effects: Float[Array, "m n"],
    treatment: Float[Array, " n"],
    outcome: Float[Array, " n"],
    *,
    batch_sum: bool = False,
) -> Float[Array, "m n"]:
    """``log cosh(EY0 + W tau - Y)`` for every draw and unit.

    Args:
      untreated: outcome without treatment.
      effects: of `unit_effects`.
      treatment: 0 or 1.
      outcome: standardised.
      batch_sum: the published code gives every unit the sum of the effects of its whole batch; a
        mistake, for comparisons only.

    >>> losses(jnp.zeros(1), jnp.ones((1, 1)), jnp.ones(1), jnp.ones(1)).tolist()
    [[0.0]]
    """
    if batch_sum:
        effects = jnp.broadcast_to(jnp.sum(effects, axis=1, keepdims=True), effects.shape)
    error = untreated[None] + treatment[None] * effects - outcome[None]
    # log(cosh(x)) without overflow
    return jnp.logaddexp(error, -error) - jnp.log(jnp.asarray(2, error.dtype))


def gaussian_losses(
    untreated: Float[Array, " n"],
    memberships: Float[Array, "m n k"],
    effects: Float[Array, "m k"],
    treatment: Float[Array, " n"],
    outcome: Float[Array, " n"],
    deviations: tuple[Float[Array, " k"], Float[Array, " k"]],
) -> Float[Array, "m n"]:
    """The likelihood of the paper: minus the log density, averaged over clusters by membership.

    In cluster k the outcome is normal about ``EY0 + W tau_k``, with a standard deviation of its own
    without and with treatment.

    Args:
      untreated: outcome without treatment.
      memberships: of `memberships`.
      effects: of `cluster_effects`.
      treatment: 0 or 1.
      outcome: standardised.
      deviations: without and with treatment, above 0.

    >>> one = jnp.ones((1, 1, 1))
    >>> spread = (jnp.ones(1), jnp.ones(1))
    >>> loss = gaussian_losses(jnp.zeros(1), one, one[0], jnp.ones(1), jnp.ones(1), spread)
    >>> round(float(loss[0, 0]), 4)  # log(2 pi) / 2
    0.9189
    """
    treated = treatment[None, :, None]
    error = outcome[None, :, None] - untreated[None, :, None] - treated * effects[:, None]
    without, along = (d[None, None] for d in deviations)
    spread = (1 - treated) * without + treated * along
    each = jnp.square(error / spread) / 2 + jnp.log(spread)
    constant = jnp.log(jnp.asarray(2 * jnp.pi, error.dtype)) / 2
    return jnp.sum(memberships * each, axis=-1) + constant


def effect_divergence(
    mean: Float[Array, " k"],
    raw: Float[Array, " k"],
    prior_mean: float | Float[Array, ""] = 0.0,
    prior_deviation: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """Kullback-Leibler divergence of the effects of all clusters from a normal prior, summed.

    >>> raw = jnp.log(jnp.expm1(jnp.ones(2)))  # deviations of 1
    >>> round(float(effect_divergence(jnp.ones(2), raw)), 4)
    1.0
    """
    spread = jax.nn.softplus(raw) / prior_deviation
    shift = (mean - prior_mean) / prior_deviation
    return jnp.sum((spread**2 + shift**2 - 1) / 2 - jnp.log(spread))


def average_penalty(
    expected: Float[Array, " n"],
    average: float | Float[Array, ""],
    deviation: float | Float[Array, ""],
) -> Float[Array, ""]:
    """Squared distance of the implied average effect from that of the experiment, in its errors.

    Args:
      expected: effect of each unit, of `predict`.
      average: effect that the experiment shows, such as the difference in means.
      deviation: its standard error.
    """
    return jnp.square((jnp.mean(expected) - average) / deviation)


def predict(logits: Float[Array, "n k"], mean: Float[Array, " k"]) -> Effects:
    """Probabilities of clusters, and the effects they imply; also for units of other places.

    >>> predict(jnp.zeros((1, 2)), jnp.array([1.0, 3.0])).expected.tolist()
    [2.0]
    """
    probabilities = jax.nn.softmax(logits, axis=-1)
    expected = probabilities @ mean
    return Effects(probabilities, expected, jnp.mean(expected))


def total_deviations(
    raw: Float[Array, " k"],
    untreated: Float[Array, " k"],
    treated: Float[Array, " k"],
    outcome_deviation: float | Float[Array, ""] = 1.0,
) -> Float[Array, " k"]:
    """Standard deviation of the effect on a unit of each cluster, on the outcome's own scale.

    Args:
      raw: of the effect of the cluster.
      untreated: standard deviation of the outcome without treatment, in each cluster.
      treated: with treatment.
      outcome_deviation: that of the outcome.
    """
    variance = untreated**2 + treated**2 + jax.nn.softplus(raw) ** 2
    return jnp.sqrt(variance) * outcome_deviation


def first_cluster_score(
    logits: Float[Array, "n k"], gumbel: Float[Array, "m n k"], temperature: float = 1.0
) -> Float[Array, " n"]:
    """``log(0.99 p + 0.005)``, averaged over draws, of membership ``p`` of the first cluster.

    Its gradients with respect to pixels are the salience of the clusters.
    """
    shares = memberships(logits, gumbel, temperature)[..., 0]
    return jnp.mean(score_of(shares), axis=0)


def score_of(share: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """``log(0.99 p + 0.005)``: the log of a probability, finite at 0.

    >>> round(float(score_of(jnp.array(1.0))), 3)
    -0.005
    """
    return jnp.log(0.99 * share + 0.005)


def first_means(
    difference: Float[Array, ""] | float, clusters: int, spread: float = 0.01
) -> Float[Array, " k"]:
    """Effects of clusters before training: about the difference in means, evenly spread.

    ``spread`` is in standard deviations of the outcome: clusters also differ where the difference
    in means is 0.

    >>> first_means(2.0, 2, spread=0.5).tolist()
    [1.5, 2.5]
    """
    places = jnp.linspace(-1.0, 1.0, clusters) if clusters > 1 else jnp.zeros(1)
    return jnp.asarray(difference) + spread * places
