"""Quantiles of potential outcomes among compliers, and the effects on them, cross-fitted.

The score is that of DoubleML's ``DoubleMLLPQ`` (`quantile_effects.local_quantile`). Checked,
and computed in float64, unless traced. The instrument must be valid and never keep anybody from the
treatment.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.estimators import influence
from jaxcore.estimators import quantile_effects as quantiles
from jaxcore.estimators.arguments import on_values
from jaxcore.estimators.crossfit import own_fold, training_masks
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.linear_algebra import after
from jaxcore.estimators.nuisance import HostLearner, Learner, fit_predict
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.typing import Key


@on_values(
    numbers=["y"],
    binary=["d", "z"],
    arms=["z"],
    targets={"ml_g": "chance", "ml_m": "chance", "ml_r": "chance"},
)
def local_quantiles(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    z: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    quantiles_at: Sequence[float],
    ml_g: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    ml_r: Learner | HostLearner,
    fold_ids: Int[Array, " n"],
    n_folds: int,
    clip: tuple[float, float] = (0.01, 0.99),
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Quantiles of both potential outcomes of those whom the instrument moves.

    Halves and first guesses as in `quantile_effects.potential_quantiles`, whose differences
    `quantile_effects.quantile_effects` takes of this estimate too.

    Args:
      y: outcome.
      d: treatment, 0 or 1.
      z: instrument, 0 or 1.
      X: covariates.
      quantiles_at: numbers in (0, 1).
      ml_g: learner of P(D=d and Y <= guess | Z=z, X).
      ml_m: learner of P(Z=1|X), held within ``clip``.
      ml_r: learner of P(D=1|Z=z, X).
      fold_ids: fold of each unit.
      n_folds: number of folds.
      clip: bounds of the probability of the instrument.
      units: observation weights and clusters.
      key: PRNG key of the halves, and for learners that draw.

    References:
      Froelich and Melly (2013); Kallus, Mao and Uehara (2024), section 4.
    """
    taus = quantiles.checked_quantiles(quantiles_at)
    key = jax.random.key(0) if key is None else key
    k_half, k_m, k_r, k_g = jax.random.split(key, 4)
    w = jnp.ones_like(y) if units.weights is None else units.weights
    train = training_masks(fold_ids, n_folds, weights=w, dtype=y.dtype)
    half = jax.random.bernoulli(k_half, 0.5, y.shape).astype(y.dtype)
    learn, judge = train * (1 - half)[None], train * half[None]

    def fitted(learner: Learner | HostLearner, target: Array, masks: Array, key: Key) -> Array:
        out = fit_predict(learner, X, target, masks, (X,), key=key)[:, 0]
        return out.reshape(-1, n_folds, y.shape[0])

    raw = fitted(ml_m, z, jnp.concatenate([learn, train]), k_m)
    m = jnp.clip(raw, *clip)
    arms = (1 - z, z)
    masks = jnp.concatenate([part * arm[None] for part in (learn, train) for arm in arms])
    r = fitted(ml_r, d, after(masks, raw), k_r)

    def share(weights: Array, m: Array, r0: Array, r1: Array) -> Array:
        moved = influence.aipw(d, z, m, r0, r1).psi_b
        return jnp.sum(weights * moved) / jnp.sum(weights)

    at = jnp.stack([1 - d, d])
    cells = [(arm, float(tau)) for arm in (0, 1) for tau in taus]

    def guess(arm: int, tau: float, fold: int) -> Array:
        chance, rows = m[0, fold], judge[fold]
        weight = (2 * arm - 1) * influence.signed_weight(chance, z) * at[arm]
        weight = weight / share(rows, chance, r[0, fold], r[1, fold])
        weight = rows * weight / jnp.mean(rows)
        return quantiles.weighted_quantile(y, weight, jnp.asarray(tau, y.dtype))

    guesses = jnp.stack(
        [jnp.stack([guess(arm, tau, f) for f in range(n_folds)]) for arm, tau in cells]
    )
    below = (y[None, None] <= guesses[:, :, None]).astype(y.dtype)  # cell, fold, unit
    chosen = jnp.asarray([arm for arm, _ in cells])
    targets = below * at[chosen][:, None]
    targets = jnp.broadcast_to(targets[:, None], (len(cells), 2, n_folds, y.shape[0]))
    rows = jnp.stack([learn * arm[None] for arm in arms])
    rows = jnp.broadcast_to(rows[None], targets.shape)
    flat = (len(cells) * 2 * n_folds, y.shape[0])
    g = fitted(ml_g, targets.reshape(flat), rows.reshape(flat), k_g)
    g = jax.vmap(lambda one: own_fold(one, fold_ids))(g).reshape(len(cells), 2, -1)

    m_own, r0, r1 = (own_fold(part, fold_ids) for part in (m[1], r[2], r[3]))
    clipped = jnp.sum(m_own != own_fold(raw[1], fold_ids))
    compliers = share(w, m_own, r0, r1)
    parts = [
        quantiles.local_quantile(
            y, at[arm], z, m_own, g[cell, 0], g[cell, 1], compliers, tau, 2.0 * arm - 1, units
        )
        for cell, (arm, tau) in enumerate(cells)
    ]
    theta, psi = (jnp.stack(part, axis=-1) for part in zip(*parts, strict=True))
    return Estimate.from_psi(
        theta,
        psi,
        units,
        names=tuple(f"Y({arm}), {tau:g}" for arm, tau in cells),
        estimator="potential outcomes of compliers, quantiles",
        diagnostics={"ml_m": m_own, "n_clipped": clipped, "compliers": compliers},
    )
