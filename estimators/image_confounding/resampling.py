"""Bootstrap of units, of clusters (images) or spatial blocks, as products with count weights."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators.image_confounding.weighting import columns_of, effect_of_means
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.typing import Key


def counts(drawn: Int[Array, "b n"], n: int) -> Float[Array, "b n"]:
    """How often each of ``n`` occurs in every row of draws: the weights of a bootstrap.

    >>> counts(jnp.array([[0, 0, 2]]), 3).tolist()
    [[2.0, 0.0, 1.0]]
    """
    count = jax.vmap(lambda row: jnp.zeros(n).at[row].add(1))
    return count(drawn)


def bootstrap_weights(key: Key, n_boot: int, n: int) -> Float[Array, "b n"]:
    """Multinomial weights of ``n`` draws out of ``n``, for every replicate.

    >>> float(bootstrap_weights(jax.random.key(0), 1, 5).sum())
    5.0
    """
    return counts(jax.random.randint(key, (n_boot, n), 0, n), n)


@in_double
def bootstrap(
    weights: Float[Array, "b g"],
    name: str,
    y: Float[Array, " n"],
    a: Float[Array, " n"],
    e: Float[Array, " n"],
    m0: Float[Array, " n"] | None = None,
    m1: Float[Array, " n"] | None = None,
    units: Units = INDEPENDENT,
) -> Float[Array, " b"]:
    """Effects of all replicates, with the propensities and outcome models as they are.

    Units that were drawn together are counted together: sums within clusters come first, so that
    a replicate costs as many products as there are clusters.

    Args:
      weights: of `bootstrap_weights`, a column for each unit, or for each cluster.
      name: one of `weighting.ESTIMATORS`.
      y: outcome.
      a: treatment, 0 or 1.
      e: propensities in (0, 1).
      m0: expected outcome without treatment, for ``aipw`` and ``aipw_hajek``.
      m1: and with it.
      units: weights; and clusters, one kind, that are drawn whole: images, or spatial blocks.

    Returns:
      One effect for each replicate; NaN where an arm was not drawn.

    >>> y, a = jnp.array([3.0, 1.0]), jnp.array([1.0, 0.0])
    >>> bootstrap(jnp.ones((1, 2)), "hajek", y, a, jnp.full(2, 0.5)).tolist()
    [2.0]
    """
    if units.multiway:
        raise UserError("Expected clusters of one kind for a bootstrap, found several.")
    columns = columns_of(name, y, a, e, m0, m1)
    w = units.weights_like(y)
    sums = units.sums(jnp.concatenate([columns, jnp.ones_like(y)[:, None]], axis=1) * w[:, None])
    if weights.shape[1] != sums.shape[0]:
        raise UserError(
            f"Expected bootstrap weights of {sums.shape[0]} units or clusters, found "
            f"{weights.shape[1]}."
        )
    drawn = weights @ sums
    return effect_of_means(drawn[:, :-1] / drawn[:, -1:])
