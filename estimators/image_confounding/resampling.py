"""Bootstrap of units, of clusters (images) or spatial blocks, as products with count weights."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators.estimate import Estimate
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


def bootstrap_draws(
    key: Key, n_boot: int, name: str, *columns: Any, units: Units = INDEPENDENT, rows: int = 100
) -> Float[np.ndarray, " b"]:
    """`bootstrap` with fresh weights, ``rows`` replicates at a time, which bounds the memory.

    Clusters that have no units of positive weight, all of which were trimmed, are not drawn.

    Args:
      key: PRNG key.
      n_boot: replicates.
      name: one of `weighting.ESTIMATORS`.
      *columns: outcome, treatment, propensities and outcome models of `bootstrap`.
      units: weights; and clusters, one kind, that are drawn whole.
      rows: replicates at once.

    >>> y, a = np.array([3.0, 1.0]), np.array([1.0, 0.0])
    >>> bootstrap_draws(jax.random.key(0), 3, "ipw", y, a, np.full(2, 0.5)).shape
    (3,)
    """
    if units.multiway:
        raise UserError("Expected clusters of one kind for a bootstrap, found several.")
    given: list[Any] = [None if c is None else np.asarray(c, np.float64) for c in columns]
    if units.weights is not None:
        used = np.asarray(units.weights) > 0
        given = [None if column is None else column[used] for column in given]
        closed: Any = units.closed_up()
        clusters = None if closed.clusters is None else closed.clusters[used]
        units = Units(closed.weights[used], clusters)
    drawn: Any = units.n_clusters if units.clusters is not None else len(given[0])
    parts = []
    for first in range(0, n_boot, rows):
        count, own = min(rows, n_boot - first), jax.random.fold_in(key, first)
        weights: Any = np.asarray(bootstrap_weights(own, count, drawn))
        parts.append(np.asarray(bootstrap(weights, name, *given, units=units)))
    return np.concatenate(parts)


def with_drawn_error(estimate: Estimate, drawn: Float[np.ndarray, " b"]) -> Estimate:
    """The estimate with the standard deviation of its replicates as standard error.

    Replicates in which an arm was not drawn are left out, which a notice counts.

    >>> one = Estimate.from_psi(np.zeros(()), np.ones(2))
    >>> float(with_drawn_error(one, np.array([1.0, 3.0, np.nan])).se.round(3))
    1.414
    """
    whole = drawn[np.isfinite(drawn)]
    gone = len(drawn) - len(whole)
    if len(whole) < 2:
        raise UserError("Expected bootstrap replicates with units of both arms, found none.")
    spread: Any = np.std(whole, ddof=1)
    words = (f"left out {gone} of {len(drawn)} bootstrap replicates without one of the arms",)
    return dataclasses.replace(
        estimate,
        se=spread,
        notices=estimate.notices + (words if gone else ()),
        diagnostics={**estimate.diagnostics, "bootstrap": drawn},
    )
