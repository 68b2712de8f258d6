"""Several treatments at once, and treatments with several levels.

Computed in float64, and checked, unless traced.
Intervals that hold for all effects at once are those of ``confint(joint=True)``.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators import combine, influence
from jaxcore.estimators.arguments import on_values
from jaxcore.estimators.crossfit import crossfit
from jaxcore.estimators.double_ml import plr
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.linear_algebra import after
from jaxcore.estimators.nuisance import HostLearner, Learner
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.typing import Key


@on_values(numbers=["y"], tables=["D", "X"], targets={"ml_l": "y", "ml_m": "D"})
def plr_several(
    y: Float[Array, " n"],
    D: Float[Array, "n q"],
    X: Float[Array, "n p"],
    *,
    ml_l: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    names: Sequence[str] | None = None,
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Effects of several treatments in the partially linear model, each given the others.

    For every treatment the others are covariates, as columns after those of ``X``. JAX learners are
    fitted for all treatments in one program.

    Args:
      y: outcome.
      D: treatments, one column each.
      X: covariates.
      ml_l: learner of E[Y|X, other treatments].
      ml_m: learner of E[D_j|X, other treatments].
      fold_ids: fold of each unit.
      n_folds: number of folds.
      names: of the treatments.
      units: observation weights and clusters.
      key: PRNG key for learners that draw.
    """
    q = D.shape[1]
    names = tuple(names or (f"d{j + 1}" for j in range(q)))
    if len(names) != q:
        raise UserError(f"Expected {q} names of treatments, found {len(names)}.")

    def one(d: Array, others: Array) -> Estimate:
        covariates = jnp.concatenate([X, others], axis=1)
        return plr(
            y,
            d,
            covariates,
            ml_l=ml_l,
            ml_m=ml_m,
            fold_ids=fold_ids,
            n_folds=n_folds,
            units=units,
            key=key,
        )

    others = jnp.stack([D[:, np.array([i for i in range(q) if i != j])] for j in range(q)])
    if isinstance(ml_l, HostLearner) or isinstance(ml_m, HostLearner):
        every = [one(D[:, j], others[j]) for j in range(q)]
        return combine.together(every, names=names, estimator="PLR, several treatments")

    def numbers(d: Array, rest: Array) -> tuple[Array, Array, Array]:
        found = one(d, rest)
        return found.theta, found.se, found.psi

    theta, se, psi = jax.vmap(numbers)(D.T, others)
    return Estimate(
        theta=theta,
        se=se,
        psi=psi.T,
        clusters=units.clusters,
        names=names,
        estimator="PLR, several treatments",
    )


@on_values(numbers=["y"], levels="level", targets={"ml_g": "y", "ml_m": "chance"})
def potential_means(
    y: Float[Array, " n"],
    level: Int[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_g: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    n_levels: int,
    names: Sequence[str] | None = None,
    clip: tuple[float, float] = (0.01, 0.99),
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Mean outcomes if everybody had each of several treatment levels (doubly robust).

    Their differences with errors are `combine.contrasts`. The probability of each level is learned
    against all others, so they need not sum to one. Both learners are fitted for all levels in one
    program.

    Args:
      y: outcome.
      level: treatment level of each unit, 0 .. n_levels - 1 (`checks.label_numbers` makes them).
      X: covariates.
      ml_g: learner of E[Y|level, X] among the units of each level.
      ml_m: learner of the probability of each level, held within ``clip``.
      fold_ids: fold of each unit; every level must occur outside of every fold.
      n_folds: number of folds.
      n_levels: number of levels.
      names: of the levels.
      clip: bounds of the probabilities.
      units: observation weights and clusters.
      key: PRNG key for learners that draw.

    References:
      Cattaneo (2010); the model of DoubleML's ``DoubleMLAPOS``.
    """
    names = tuple(names or (str(k) for k in range(n_levels)))
    if len(names) != n_levels:
        raise UserError(f"Expected {n_levels} names of levels, found {len(names)}.")
    key = jax.random.key(0) if key is None else key
    w = jnp.ones_like(y) if units.weights is None else units.weights
    at = jax.nn.one_hot(level, n_levels, dtype=y.dtype, axis=0)

    def nuisances(member: Array) -> tuple[Array, Array]:
        def fit(learner: Any, target: Array, weights: Array, i: int) -> Array:
            k = jax.random.fold_in(key, i)
            return crossfit(learner, X, target, fold_ids, n_folds, weights=weights, key=k)

        m = fit(ml_m, member, w, 0)
        return m, fit(ml_g, y, after(w * member, m), 1)

    if isinstance(ml_g, HostLearner) or isinstance(ml_m, HostLearner):
        each = [nuisances(member) for member in at]
        m_raw, g = (jnp.stack(part) for part in zip(*each, strict=True))
    else:
        m_raw, g = jax.vmap(nuisances)(at)
    m = jnp.clip(m_raw, *clip)
    scores = jax.vmap(influence.potential_mean, in_axes=(None, 0, 0, 0))(y, at, m, g)
    scale = units.weights_like(y)
    theta = jnp.mean(scale[None] * scores.psi_b, axis=1)
    psi = scale[:, None] * (scores.psi_b.T - theta[None])
    return Estimate.from_psi(
        theta,
        psi,
        units,
        names=names,
        estimator="potential-outcome means (AIPW)",
        diagnostics={"ml_g": g, "ml_m": m, "n_clipped": jnp.sum(m != m_raw)},
    )
