"""Quantiles and tail means of potential outcomes, and the effects on them.

The scores are those of DoubleML's ``DoubleMLPQ``, ``DoubleMLLPQ``, ``DoubleMLQTE`` and
``DoubleMLCVAR`` (Kallus, Mao and Uehara 2024, Localized debiased machine learning). The
cross-fitted functions check values that they are called on, and nothing under ``jit`` and ``vmap``.
Quantiles need an outcome with a density where they lie, so an outcome with many equal values
(zeros) has errors there that mean nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators import combine, influence
from jaxcore.estimators.arguments import CHANCE, on_values
from jaxcore.estimators.crossfit import own_fold, training_masks
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance import HostLearner, Learner, fit_predict
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.typing import Key

# --- from nuisances -----------------------------------------------------------------------------


@in_double
def weighted_quantile(
    y: Float[Array, " n"], weight: Float[Array, " n"], share: Float[Array, ""]
) -> Float[Array, ""]:
    """Smallest ``y`` below or at which the sum of the weights over n is at least ``share``.

    >>> import jax.numpy as jnp
    >>> float(weighted_quantile(jnp.array([3.0, 1.0, 2.0]), jnp.ones(3), 0.5))
    2.0
    """
    order = jnp.argsort(y)
    reached = jnp.cumsum(weight[order]) / y.shape[0] >= share
    place = jnp.where(jnp.any(reached), jnp.argmax(reached), y.shape[0] - 1)
    return y[order][place]


@in_double
def density(
    y: Float[Array, " n"], weight: Float[Array, " n"], at: Float[Array, ""]
) -> Float[Array, ""]:
    """Weighted Gaussian kernel density at a point, with Silverman's width of the whole sample."""
    spread = jnp.std(y, ddof=1)
    quartiles = jnp.quantile(y, jnp.asarray([0.25, 0.75], y.dtype))
    middle = (quartiles[1] - quartiles[0]) / 1.349
    spread = jnp.where(middle > 0, jnp.minimum(spread, middle), spread)
    width = 0.9 * spread * y.shape[0] ** -0.2
    kernel = jax.scipy.stats.norm.pdf((y - at) / width) / width
    return jnp.sum(weight * kernel) / jnp.sum(weight)


@in_double
def potential_quantile(
    y: Float[Array, " n"],
    at: Float[Array, " n"],
    ps: Float[Array, " n"],
    g: Float[Array, " n"],
    quantile: float | Array,
    units: Units = INDEPENDENT,
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """Quantile of the outcome if everybody had one treatment level, and its influence values.

    Args:
      y: outcome.
      at: whether the unit has that level, 0 or 1.
      ps: probability of that level given X.
      g: P(Y <= a first guess | that level, X).
      quantile: in (0, 1).
      units: observation weights.
    """
    w = units.weights_like(y)
    weight = w * at / ps
    theta = weighted_quantile(y, weight, quantile - jnp.mean(w * g - weight * g))
    below = (y <= theta).astype(y.dtype)
    psi = w * (at / ps * (below - g) + g - quantile)
    return theta, -psi / density(y, weight, theta)


@in_double
def local_quantile(
    y: Float[Array, " n"],
    at: Float[Array, " n"],
    z: Float[Array, " n"],
    m: Float[Array, " n"],
    g0: Float[Array, " n"],
    g1: Float[Array, " n"],
    compliers: Float[Array, ""],
    quantile: float | Array,
    sign: float = 1.0,
    units: Units = INDEPENDENT,
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """Quantile of one potential outcome among compliers, and its influence values.

    Args:
      y: outcome.
      at: whether the unit has the treatment level, 0 or 1.
      z: instrument, 0 or 1.
      m: P(Z=1|X).
      g0: P(that level and Y <= a first guess | Z=0, X).
      g1: the same at Z=1.
      compliers: share of compliers.
      quantile: in (0, 1).
      sign: +1 for the treated level, -1 for the other.
      units: observation weights.

    References:
      Froelich and Melly (2013); Kallus, Mao and Uehara (2024), section 4.
    """
    w = units.weights_like(y)
    first, second = z / m, (1 - z) / (1 - m)
    weight = w * sign * (first - second) * at / compliers
    rest = w * sign * (g1 - g0 - first * g1 + second * g0) / compliers
    theta = weighted_quantile(y, weight, quantile - jnp.mean(rest))
    below = (y <= theta).astype(y.dtype)
    psi = weight * below + rest - w * quantile
    return theta, -psi / density(y, weight, theta)


def tail_target(
    y: Float[Array, " n"], guess: Float[Array, "*#n"], quantile: float | Array
) -> Float[Array, " n"]:
    """Whose mean is the conditional value at risk, where the guess is the quantile."""
    return jnp.maximum(guess, (y - quantile * guess) / (1 - quantile))


def tail_mean(
    y: Float[Array, " n"],
    at: Float[Array, " n"],
    ps: Float[Array, " n"],
    g: Float[Array, " n"],
    guess: Float[Array, ""],
    quantile: float | Array,
) -> influence.LinearScore:
    """Score of the mean of the outcome above its quantile (CVaR) under one treatment level.

    Args:
      y: outcome.
      at: whether the unit has that level, 0 or 1.
      ps: probability of that level given X.
      g: mean of `tail_target` given that level and X.
      guess: of the quantile.
      quantile: in (0, 1).
    """
    return influence.potential_mean(tail_target(y, guess, quantile), at, ps, g)


# --- cross-fitted -------------------------------------------------------------------------------

KINDS = ("quantile", "tail mean")


def _learned(given: Mapping[str, Any]) -> np.ndarray:
    """Values such as ``ml_g`` predicts."""
    return CHANCE if given["kind"] == "quantile" else given["y"]


@on_values(numbers=["y"], binary=["d"], targets={"ml_g": _learned, "ml_m": "chance"})
def potential_quantiles(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    quantiles: Sequence[float],
    ml_g: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    fold_ids: Int[Array, " n"],
    n_folds: int,
    kind: str = "quantile",
    clip: tuple[float, float] = (0.01, 0.99),
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Quantiles (or means above them) of both potential outcomes of a 0/1 treatment.

    The rows that train are halved at random: one half gives the first guess of the quantile, by
    weighting with probabilities from the other half, which then learns ``g`` about that guess. All
    folds, quantiles and both levels are fitted in one program.

    Args:
      y: outcome.
      d: treatment, 0 or 1.
      X: covariates.
      quantiles: numbers in (0, 1).
      ml_g: learner of P(Y <= guess | D=d, X); of the mean of `tail_target` for "tail mean".
      ml_m: learner of the propensity, held within ``clip``.
      fold_ids: fold of each unit.
      n_folds: number of folds.
      kind: "quantile" or "tail mean".
      clip: bounds of the propensity.
      units: observation weights and clusters.
      key: PRNG key of the halves, and for learners that draw.

    Returns:
      An estimate of ``2 len(quantiles)`` numbers: those without treatment, then those with. Their
      differences with errors are `quantile_effects`.
    """
    if kind not in KINDS:
        raise UserError(f"Expected kind='quantile' or 'tail mean', found {kind!r}.")
    taus = checked_quantiles(quantiles)
    key = jax.random.key(0) if key is None else key
    k_half, k_m, k_g = jax.random.split(key, 3)
    w = jnp.ones_like(y) if units.weights is None else units.weights
    train = training_masks(fold_ids, n_folds, weights=w, dtype=y.dtype)
    half = jax.random.bernoulli(k_half, 0.5, y.shape).astype(y.dtype)
    masks = jnp.concatenate([train * (1 - half)[None], train])
    raw = fit_predict(ml_m, X, d, masks, (X,), key=k_m)[:, 0]
    both = jnp.clip(raw, *clip)
    first, m = both[:n_folds], own_fold(both[n_folds:], fold_ids)
    clipped = jnp.sum(m != own_fold(raw[n_folds:], fold_ids))

    at, ps = jnp.stack([1 - d, d]), jnp.stack([1 - m, m])  # by level
    cells = [(arm, float(tau)) for arm in (0, 1) for tau in taus]

    def guess(arm: int, tau: float, fold: int) -> Array:
        chance = first[fold] if arm else 1 - first[fold]
        weight = train[fold] * half * at[arm] / chance
        return weighted_quantile(
            y, weight / jnp.mean(train[fold] * half), jnp.asarray(tau, y.dtype)
        )

    guesses = jnp.stack(
        [jnp.stack([guess(arm, tau, f) for f in range(n_folds)]) for arm, tau in cells]
    )

    def target(cell: int) -> Array:
        if kind == "quantile":
            return (y[None] <= guesses[cell][:, None]).astype(y.dtype)
        return tail_target(y[None], guesses[cell][:, None], cells[cell][1])

    targets = jnp.concatenate([target(c) for c in range(len(cells))])
    learn = jnp.concatenate([train * ((1 - half) * at[arm])[None] for arm, _ in cells])
    per_fold = fit_predict(ml_g, X, targets, learn, (X,), key=k_g)[:, 0]
    per_fold = per_fold.reshape(len(cells), n_folds, -1)

    parts = []
    for cell, (arm, tau) in enumerate(cells):
        g = own_fold(per_fold[cell], fold_ids)
        if kind == "quantile":
            parts.append(potential_quantile(y, at[arm], ps[arm], g, tau, units))
        else:
            score = tail_mean(y, at[arm], ps[arm], g, jnp.mean(guesses[cell]), tau)
            found = influence.solve(score, units)
            parts.append((found.theta, found.psi))
    theta, psi = (jnp.stack(part, axis=-1) for part in zip(*parts, strict=True))
    return Estimate.from_psi(
        theta,
        psi,
        units,
        names=tuple(f"Y({arm}), {tau:g}" for arm, tau in cells),
        estimator=f"potential outcomes, {kind}s",
        diagnostics={"ml_m": m, "n_clipped": clipped, "guesses": jnp.mean(guesses, axis=1)},
    )


def checked_quantiles(quantiles: Sequence[float]) -> Float[np.ndarray, " q"]:
    """The quantiles as an array.

    Raises:
      UserError: none, or one outside (0, 1).
    """
    taus = np.asarray(quantiles, np.float64)
    if taus.ndim != 1 or not len(taus) or not np.all((taus > 0) & (taus < 1)):
        raise UserError(f"Expected quantiles between 0 and 1, found {np.ravel(taus).tolist()}.")
    return taus


def quantile_effects(potential: Estimate) -> Estimate:
    """Differences with and without treatment of what `potential_quantiles` found.

    The influence values of all quantiles are there, so ``confint(joint=True)`` is a joint band.
    """
    q = len(potential.names) // 2
    matrix = np.concatenate([-np.eye(q), np.eye(q)], axis=1)
    names = tuple(name.partition(", ")[2] for name in potential.names[:q])
    given: dict[str, Any] = {"names": names, "estimator": "effects on " + potential.estimator}
    return combine.linear(potential, matrix, **given)
