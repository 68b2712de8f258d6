"""Difference in differences of two groups and two periods, cross-fitted.

Called on values these functions check them: groups and periods of two levels, finite columns, and
units of each group (and period) for training outside of every fold. Under ``jit`` and ``vmap`` they
check nothing. Parallel trends given X, and that the treatment is not anticipated, are assumptions
that no data can show.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.estimators import influence, linear_algebra
from jaxcore.estimators.arguments import on_values
from jaxcore.estimators.crossfit import crossfit
from jaxcore.estimators.did import scores
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance import HostLearner, Learner
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.typing import Key


@on_values(numbers=["change"], binary=["group"], targets={"ml_g": "change", "ml_m": "chance"})
def did_panel(
    change: Float[Array, " n"],
    group: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_g: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    fold_ids: Int[Array, " n"],
    n_folds: int,
    clip: tuple[float, float] = (0.01, 0.99),
    experimental: bool = False,
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Average effect on the treated, from units seen before and after.

    Args:
      change: outcome after less outcome before.
      group: whether the unit is treated after, 0 or 1.
      X: covariates before the treatment.
      ml_g: learner of the change without treatment given X.
      ml_m: learner of P(group=1|X), held within ``clip``.
      fold_ids: fold of each unit.
      n_folds: number of folds.
      clip: bounds of the probability.
      experimental: treatment is randomised; ``ml_m`` is then not used.
      units: observation weights and clusters.
      key: PRNG key for learners that draw.

    Raises:
      UserError: outside of ``jit``: what is wrong with the data.
    """
    key = jax.random.key(0) if key is None else key
    w = jnp.ones_like(change) if units.weights is None else units.weights

    def fit(
        learner: Learner | HostLearner, target: Array, weights: Array, i: int
    ) -> Float[Array, " n"]:
        k = jax.random.fold_in(key, i)
        return crossfit(learner, X, target, fold_ids, n_folds, weights=weights, key=k)

    g0 = fit(ml_g, change, w * (1 - group), 1)
    found = {"ml_g0": g0}
    if experimental:
        m = jnp.full_like(change, 0.5)
        found["ml_g1"] = fit(ml_g, change, linear_algebra.after(w * group, g0), 2)
    else:
        raw = fit(ml_m, group, linear_algebra.after(w, g0), 0)
        m = found["ml_m"] = jnp.clip(raw, *clip)
        found["n_clipped"] = jnp.sum(m != raw)
    score = scores.panel(change, group, m, g0, found.get("ml_g1"), units, experimental=experimental)
    return influence.solve(
        score, units, names=("ATT",), estimator="difference in differences", diagnostics=found
    )


@on_values(numbers=["y"], binary=["group", "after"], targets={"ml_g": "y", "ml_m": "chance"})
def did_cross_sections(
    y: Float[Array, " n"],
    group: Float[Array, " n"],
    after: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_g: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    fold_ids: Int[Array, " n"],
    n_folds: int,
    clip: tuple[float, float] = (0.01, 0.99),
    experimental: bool = False,
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Average effect on the treated, from other units in each period; arguments as in `did_panel`.

    ``group`` says who belongs to those treated after, ``after`` who is seen then, ``ml_g`` learns
    the outcome in each of the four cells. The composition of the groups must not change over time.
    """
    key = jax.random.key(0) if key is None else key
    w = jnp.ones_like(y) if units.weights is None else units.weights
    cells = jnp.stack([is_d * is_t for is_d in (1 - group, group) for is_t in (1 - after, after)])

    def outcome(cell: Array) -> Array:
        k = jax.random.fold_in(key, 1)
        return crossfit(ml_g, X, y, fold_ids, n_folds, weights=w * cell, key=k)

    if isinstance(ml_g, HostLearner):
        g = jnp.stack([outcome(cell) for cell in cells])
    else:
        g = jax.vmap(outcome)(cells)
    g = g.reshape(2, 2, -1)
    found = {"ml_g": g}
    m = jnp.full_like(y, 0.5)
    if not experimental:
        k = jax.random.fold_in(key, 0)
        later = linear_algebra.after(w, g)
        raw = crossfit(ml_m, X, group, fold_ids, n_folds, weights=later, key=k)
        m = found["ml_m"] = jnp.clip(raw, *clip)
        found["n_clipped"] = jnp.sum(m != raw)
    score = scores.cross_sections(y, group, after, m, g, units, experimental=experimental)
    return influence.solve(
        score,
        units,
        names=("ATT",),
        estimator="difference in differences, repeated cross-sections",
        diagnostics=found,
    )
