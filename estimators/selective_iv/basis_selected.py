"""The whole estimate with basis learners: fit, table of all combinations, choice, moments.

One pure function of fixed shapes, so that it runs under `jax.jit` and `jax.vmap` (over
replications). Memory is bounded: the rows go through in chunks.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.estimators import select
from jaxcore.estimators.chunks import map_chunks
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.selective_iv import bases
from jaxcore.estimators.selective_iv.moment import (
    BLOCKS,
    MODELS,
    Clip,
    clip_nuisances,
    moment_uncentred,
    overlap_mask,
)
from jaxcore.estimators.selective_iv.selected import hard_choice
from jaxcore.estimators.units import INDEPENDENT, Units


def estimate_bases(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    B: Float[Array, "n q"],
    masks: Mapping[str, Float[Array, "l q"]],
    fold_ids: Int[Array, " n"],
    n_folds: int,
    *,
    clip: Clip,
    ridge: float = 1e-3,
    criterion: str | None = "mixed_minimax",
    models: Mapping[str, tuple[str, ...]] = MODELS,
    beta: float = 5.0,
    lam: float = 10.0,
    units: Units = INDEPENDENT,
) -> Estimate:
    """Cross-fit all combinations of bases, select one, and estimate with it.

    Args:
      Y: outcome.
      A: treatment, 0 or 1.
      Z: instrument, 0 or 1.
      B: all basis columns, the constant first; see `nuisance.basis.library`.
      masks: for each block of `moment.BLOCKS` the columns its learners use.
      fold_ids: fold of each unit.
      n_folds: number of folds.
      clip: bounds of pi, mu and D. With ``overlap="discard"`` the learners are selected on
        truncated moments and units beyond the bounds leave the final mean only.
      ridge: penalty of the logistic regressions.
      criterion: "mixed_minimax", "minimax", "smooth", or None with one learner per block.
      models: see `select.pseudo_risk`.
      beta: sharpness of the soft maximum of "smooth".
      lam: sharpness of the soft weights of "smooth".
      units: observation weights and clusters.

    Returns:
      The estimate. Its standard error does not account for a hard selection. Diagnostics as in
      `selected.estimate_selected`, with the clipped ``nuisances`` of the selected combination,
      the unclipped ``raw`` ones, learners and moments of the least cross-validated losses
      (``selected_by_loss``, ``u_by_loss``), and convergence flags of the logistic regressions.
    """
    fits = bases.fit_bases(
        Y, A, Z, B, masks, fold_ids, n_folds, ridge=ridge, clip=clip, weights=units.weights
    )
    return estimate_fitted(
        fits,
        Y,
        A,
        Z,
        B,
        fold_ids,
        clip=clip,
        criterion=criterion,
        models=models,
        beta=beta,
        lam=lam,
        units=units,
    )


def estimate_fitted(
    fits: bases.BasisFits,
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    B: Float[Array, "n q"],
    fold_ids: Int[Array, " n"],
    *,
    clip: Clip,
    criterion: str | None,
    models: Mapping[str, tuple[str, ...]],
    beta: float,
    lam: float,
    units: Units,
) -> Estimate:
    """The second half of `estimate_bases`: from the fits to the estimate."""
    n = Y.shape[0]
    w = units.weights_like(Y)
    sums = bases.moment_sums(fits, Y, A, Z, B, fold_ids, w, clip=clip)
    T = sums.total / sums.weight.reshape(-1, 1, 1, 1, 1, 1)
    hard = hard_choice(T, criterion, models)
    theta_all = jnp.sum(sums.total, axis=0) / n
    spread = sums.w2u2 - 2 * theta_all * sums.w2u + theta_all**2 * sums.w2
    by_loss = bases.choose_by_loss(fits, sums, Y, A, Z, B, fold_ids, w, clip=clip)
    chosen = jnp.stack([hard.index, by_loss])
    both = bases.selected_nuisances(fits, Z, B, fold_ids, chosen, one_sided=clip.one_sided)
    raw = jax.tree.map(lambda v: v[0], both)
    u, u_by_loss = jax.vmap(lambda nu: moment_uncentred(Y, A, Z, nu, clip=clip))(both)
    kept = overlap_mask(raw, clip)
    final = w
    if clip.overlap == "discard":
        final = jnp.where(kept, w, 0)
        final = final * (n / jnp.sum(final))
    theta = final @ u / n
    diagnostics = {
        "T": T,
        "risks": hard.risks,
        "criterion": hard.criterion,
        "selected": hard.index,
        "theta_all": theta_all,
        "se_all": jnp.sqrt(jnp.maximum(spread, 0)) / n,
        "u": u,
        "selected_by_loss": by_loss,
        "u_by_loss": u_by_loss,
        "fold_ids": fold_ids,
        "raw": raw,
        "nuisances": clip_nuisances(raw, clip),
        "inside_overlap": kept,
        "converged": jnp.stack([jnp.all(fits.converged_pi), jnp.all(fits.converged_mu)]),
    }
    psi = final * (u - theta)
    if criterion == "smooth":
        theta, psi = _smooth(
            fits, (Y, A, Z, B, fold_ids, w), T, sums.weight, models, beta, lam, clip, diagnostics
        )
    return Estimate.from_psi(
        theta,
        psi,
        units=units,
        names=("ATE",),
        estimator="selective multiply debiased machine learning",
        diagnostics=diagnostics,
    )


def _smooth(
    fits: bases.BasisFits,
    rows: tuple[Array, ...],
    T: Float[Array, "k *learners"],
    fold_weight: Float[Array, " k"],
    models: Mapping[str, tuple[str, ...]],
    beta: float,
    lam: float,
    clip: Clip,
    diagnostics: dict[str, Any],
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """Smooth estimate and influence values; a second pass over the rows."""
    soft = select.smooth_weights(T, fold_weight, models, BLOCKS, beta=beta, lam=lam)
    n = rows[0].shape[0]

    def psi_of(Y: Array, A: Array, Z: Array, B: Array, fold: Array, w: Array) -> Array:
        U = bases.all_moments(fits, Y, A, Z, B, fold, clip=clip)
        return select.smooth_psi(U, fold, T, fold_weight, soft.gradient, weights=w, n=n)

    diagnostics["soft_weights"] = soft.weights
    diagnostics["soft_criterion"] = soft.criterion
    return soft.theta, map_chunks(psi_of, rows, bases.moment_rows(fits))
