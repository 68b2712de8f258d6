"""Cross-fitted estimators of the standard models: PLR, PLIV, IRM (AIPW) and IIVM (LATE).

Names of models and learners are those of DoubleML. ``n_folds=1`` switches cross-fitting off, which
is right for parametric learners only. Here nothing is checked of the data: binary treatments and
instruments are 0/1, columns finite, folds hold every arm; labels of classes, integers and single
precision are the caller's affair. The classes with frames and formulas check.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators import influence
from jaxcore.estimators.crossfit import crossfit
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance import HostLearner, Learner
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.typing import Key


def _fit(
    learner: Learner | HostLearner,
    X: Float[Array, "n p"],
    y: Float[Array, " n"],
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    weights: Float[Array, " n"] | None,
    key: Key | None,
    i: int,
) -> Float[Array, " n"]:
    key = jax.random.fold_in(jax.random.key(0) if key is None else key, i)
    return crossfit(learner, X, y, fold_ids, n_folds, weights=weights, key=key)


def _within(arm: Float[Array, " n"], weights: Float[Array, " n"] | None) -> Float[Array, " n"]:
    """Training weights restricted to one arm."""
    return arm if weights is None else arm * weights


def plr(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_l: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Partially linear regression, partialling-out score.

    Args:
      y: outcome.
      d: treatment.
      X: covariates.
      ml_l: learner of E[Y|X].
      ml_m: learner of E[D|X].
      fold_ids: fold of each unit.
      n_folds: number of folds.
      units: observation weights and clusters; make the folds with the same clusters.
      key: PRNG key for learners that draw.
    """
    l = _fit(ml_l, X, y, fold_ids, n_folds, units.weights, key, 0)
    m = _fit(ml_m, X, d, fold_ids, n_folds, units.weights, key, 1)
    return influence.solve(
        influence.partially_linear(y, d, l, m),
        units,
        names=("theta",),
        estimator="PLR",
        diagnostics={"ml_l": l, "ml_m": m},
    )


def pliv(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    z: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_l: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    ml_r: Learner | HostLearner,
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Partially linear IV regression, partialling-out score; arguments as in `plr`.

    ``ml_l`` learns E[Y|X], ``ml_m`` E[Z|X], ``ml_r`` E[D|X].
    """
    l = _fit(ml_l, X, y, fold_ids, n_folds, units.weights, key, 0)
    m = _fit(ml_m, X, z, fold_ids, n_folds, units.weights, key, 1)
    r = _fit(ml_r, X, d, fold_ids, n_folds, units.weights, key, 2)
    return influence.solve(
        influence.partially_linear_iv(y, d, z, l, m, r),
        units,
        names=("theta",),
        estimator="PLIV",
        diagnostics={"ml_l": l, "ml_m": m, "ml_r": r},
    )


def irm(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_g: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    clip: tuple[float, float] = (0.01, 0.99),
    target: str = "ATE",
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Average treatment effect under no unmeasured confounding (AIPW); arguments as in `plr`.

    ``ml_g`` learns E[Y|D=d,X] in each arm, ``ml_m`` the propensity, held within ``clip``. With
    ``target="ATT"`` the effect is that on the treated.
    """
    if target not in ("ATE", "ATT"):
        raise UserError(f"Expected target='ATE' or 'ATT', found {target!r}.")
    m_raw = _fit(ml_m, X, d, fold_ids, n_folds, units.weights, key, 0)
    g0 = _fit(ml_g, X, y, fold_ids, n_folds, _within(1 - d, units.weights), key, 1)
    g1 = _fit(ml_g, X, y, fold_ids, n_folds, _within(d, units.weights), key, 2)
    m = jnp.clip(m_raw, *clip)
    ate = target == "ATE"
    return influence.solve(
        influence.aipw(y, d, m, g0, g1) if ate else influence.treated(y, d, m, g0),
        units,
        names=(target,),
        estimator="IRM (AIPW)" if ate else "IRM (AIPW, treated)",
        diagnostics={"ml_g0": g0, "ml_g1": g1, "ml_m": m, "n_clipped": jnp.sum(m != m_raw)},
    )


def iivm(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    z: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_g: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    ml_r: Learner | HostLearner,
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    clip: tuple[float, float] = (0.01, 0.99),
    always_takers: bool = True,
    never_takers: bool = True,
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Local average treatment effect of a valid binary instrument; arguments as in `plr`.

    ``ml_g`` learns E[Y|Z=z,X] in each arm, ``ml_m`` P(Z=1|X) (held within ``clip``), ``ml_r``
    E[D|Z=z,X] in each arm. Without always-takers the latter is zero at Z=0, without never-takers
    one at Z=1.
    """
    m_raw = _fit(ml_m, X, z, fold_ids, n_folds, units.weights, key, 0)
    without, with_ = _within(1 - z, units.weights), _within(z, units.weights)
    g0 = _fit(ml_g, X, y, fold_ids, n_folds, without, key, 1)
    g1 = _fit(ml_g, X, y, fold_ids, n_folds, with_, key, 2)
    r0, r1 = jnp.zeros_like(y), jnp.ones_like(y)
    if always_takers:
        r0 = _fit(ml_r, X, d, fold_ids, n_folds, without, key, 3)
    if never_takers:
        r1 = _fit(ml_r, X, d, fold_ids, n_folds, with_, key, 4)
    m = jnp.clip(m_raw, *clip)
    predictions = {"ml_g0": g0, "ml_g1": g1, "ml_m": m, "ml_r0": r0, "ml_r1": r1}
    return influence.solve(
        influence.late(y, d, z, m, g0, g1, r0, r1),
        units,
        names=("LATE",),
        estimator="IIVM (LATE)",
        diagnostics={**predictions, "n_clipped": jnp.sum(m != m_raw)},
    )
