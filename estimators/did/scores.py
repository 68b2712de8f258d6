"""Doubly robust scores of the average effect on the treated, from changes over time.

Weights are normalised to mean one in the sample ("Hajek"), so observation weights must be those
that `influence.solve` is later given. Units of weight zero take no part. On values the scores are
computed in float64, and what is missing or infinite is refused.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators.influence import LinearScore
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.units import INDEPENDENT, Units


@in_double
def panel(
    change: Float[Array, " n"],
    group: Float[Array, " n"],
    m: Float[Array, " n"],
    g0: Float[Array, " n"],
    g1: Float[Array, " n"] | None = None,
    units: Units = INDEPENDENT,
    *,
    experimental: bool = False,
) -> LinearScore:
    """Units that are seen in both periods.

    Args:
      change: outcome after less outcome before.
      group: whether the unit is treated after, 0 or 1.
      m: P(group=1|X), below 1; not used if experimental.
      g0: E[change|group=0,X].
      g1: E[change|group=1,X]; used if experimental.
      units: observation weights.
      experimental: treatment is randomised, unconditionally.

    References:
      Sant'Anna and Zhao (2020), equation 3.1; Zimmert (2018); the scores of DoubleML's
      ``DoubleMLDID``.

    >>> import jax.numpy as jnp
    >>> group, half, zero = jnp.array([1.0, 0.0]), jnp.full(2, 0.5), jnp.zeros(2)
    >>> score = panel(jnp.array([3.0, 1.0]), group, half, zero)
    >>> float(-jnp.mean(score.psi_b) / jnp.mean(score.psi_a))
    2.0
    """
    w = units.weights_like(change)
    treated = _normalised(group, w)
    if experimental:
        if g1 is None:
            raise UserError("Expected g1 for the experimental score, found none.")
        weight = treated - _normalised(1 - group, w)
        shift = (treated - 1) * g0 + (1 - treated) * g1
        return LinearScore(jnp.full_like(change, -1), shift + weight * (change - g0))
    weight = treated - _normalised((1 - group) * m / (1 - m), w)
    return LinearScore(-treated, weight * (change - g0))


@in_double
def cross_sections(
    y: Float[Array, " n"],
    group: Float[Array, " n"],
    after: Float[Array, " n"],
    m: Float[Array, " n"],
    g: Float[Array, "2 2 n"],
    units: Units = INDEPENDENT,
    *,
    experimental: bool = False,
) -> LinearScore:
    """Other units in each period.

    Args:
      y: outcome.
      group: whether the unit belongs to those who are treated after, 0 or 1.
      after: whether it is seen after, 0 or 1.
      m: P(group=1|X), below 1; not used if experimental.
      g: E[Y|group,after,X], first axis the group, second the period.
      units: observation weights.
      experimental: treatment is randomised, unconditionally.

    References:
      Sant'Anna and Zhao (2020), section 2.2; Zimmert (2018); the scores of DoubleML's
      ``DoubleMLDIDCS``.
    """
    w = units.weights_like(y)
    one = jnp.ones_like(y)
    treated = one if experimental else _normalised(group, w)
    odds = one if experimental else m / (1 - m)
    total = treated * (g[1, 1] - g[1, 0] - g[0, 1] + g[0, 0])
    for d, is_d in enumerate((1 - group, group)):
        for t, is_t in enumerate((1 - after, after)):
            cell = _normalised(is_d * is_t * (one if d else odds), w)
            sign = 1 if d == t else -1
            total = total + sign * cell * (y - g[d, t])
    return LinearScore(-treated, total)


def _normalised(weight: Float[Array, " n"], w: Float[Array, " n"]) -> Float[Array, " n"]:
    return weight / jnp.mean(w * weight)
