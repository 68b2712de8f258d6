"""From out-of-fold moments of all learner combinations to one estimate."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators import select
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.selective_iv import cv_loss
from jaxcore.estimators.selective_iv.moment import (
    BLOCKS,
    MODELS,
    Clip,
    Nuisances,
    combination_moments,
)
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.estimators.variance import variance

CRITERIA = ("mixed_minimax", "minimax", "smooth", None)


def hard_choice(
    T: Float[Array, "k *learners"],
    criterion: str | None,
    models: Mapping[str, tuple[str, ...]] = MODELS,
    blocks: tuple[str, ...] = BLOCKS,
) -> select.Selection:
    """The combination a criterion takes; for "smooth" that of mixed minimax, for information.

    Raises:
      UserError: an unknown criterion, or none with several combinations.
    """
    if criterion not in CRITERIA:
        raise UserError(f"Expected a criterion of {CRITERIA}, found {criterion!r}.")
    if criterion is None and T[0].size != 1:
        raise UserError(
            f"Expected one learner per block without a criterion, found {T.shape[1:]} learners."
        )
    rule = "minimax" if criterion == "minimax" else "mixed_minimax"
    return select.select(T, rule, models, blocks)


def estimate_selected(
    U: Float[Array, "n *learners"],
    fold_ids: Int[Array, " n"],
    n_folds: int,
    *,
    criterion: str | None = "mixed_minimax",
    models: Mapping[str, tuple[str, ...]] = MODELS,
    blocks: tuple[str, ...] = BLOCKS,
    beta: float = 5.0,
    lam: float = 10.0,
    units: Units = INDEPENDENT,
) -> Estimate:
    """Select a combination of learners and estimate with it.

    Args:
      U: out-of-fold moments, units first, then one axis per block.
      fold_ids: evaluation fold of each unit.
      n_folds: number of folds.
      criterion: "mixed_minimax", "minimax", "smooth", or None if there is one combination only.
      models: see `select.pseudo_risk`.
      blocks: names of the learner axes.
      beta: sharpness of the soft maximum of "smooth".
      lam: sharpness of the soft weights of "smooth".
      units: observation weights and clusters.

    Returns:
      The estimate. Its standard error does not account for a hard selection. Diagnostics hold
      ``T``, ``risks``, ``criterion``, ``selected`` (of the hard choice), ``theta_all`` and
      ``se_all`` of all combinations, and ``u`` of the selected one.
    """
    n = U.shape[0]
    flat = U.reshape(n, -1)
    w = units.weights_like(flat[:, 0])
    T, _ = select.fold_means(U, fold_ids, n_folds, weights=w)
    hard = hard_choice(T, criterion, models, blocks)
    position = jnp.argmin(hard.criterion)
    theta_all = w @ flat / n
    psi_all = w[:, None] * (flat - theta_all[None])
    se_all = jnp.sqrt(variance(psi_all))
    u = flat[:, position]
    theta, psi = theta_all[position], psi_all[:, position]
    diagnostics = {
        "T": T,
        "risks": hard.risks,
        "criterion": hard.criterion,
        "selected": hard.index,
        "theta_all": theta_all.reshape(U.shape[1:]),
        "se_all": se_all.reshape(U.shape[1:]),
        "u": u,
        "fold_ids": fold_ids,
    }
    if criterion == "smooth":
        soft = select.smooth_select(
            U, fold_ids, n_folds, models, blocks, beta=beta, lam=lam, weights=w
        )
        theta, psi = soft.theta, soft.psi
        diagnostics["soft_weights"] = soft.weights
        diagnostics["soft_criterion"] = soft.criterion
    return Estimate.from_psi(
        theta,
        psi,
        units=units,
        names=("ATE",),
        estimator="selective multiply debiased machine learning",
        diagnostics=diagnostics,
    )


def estimate_from_candidates(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    fold_ids: Int[Array, " n"],
    n_folds: int,
    candidates: Mapping[str, Float[Array, "*l n"]],
    *,
    clip: Clip,
    units: Units = INDEPENDENT,
    **options: Any,
) -> Estimate:
    """Select among predictions made elsewhere.

    Args:
      Y: outcome.
      A: treatment, 0 or 1.
      Z: instrument, 0 or 1.
      fold_ids: fold of each unit when the predictions were made.
      n_folds: number of folds.
      candidates: predictions "pi", "mu1", "mu0", "delta" with axes [learner, unit] and "g", "rho"
        with axes [learner, delta learner, unit] (or [learner, unit] if the same for every delta).
      clip: bounds of pi, mu and D.
      units: observation weights and clusters.
      **options: options of `estimate_selected`.

    Returns:
      As `estimate_selected`; diagnostics also hold the ``nuisances`` of the selected combination,
      and learners and moments of the least cross-validated losses (``selected_by_loss``,
      ``u_by_loss``).
    """
    c = dict(candidates)
    wanted = {"pi", "mu1", "mu0", "g", "delta", "rho"}
    if set(c) != wanted:
        raise UserError(f"Expected candidates {sorted(wanted)}, found {sorted(c)}.")
    n_delta = c["delta"].shape[0]
    for name in ("g", "rho"):
        if c[name].ndim == 2:
            shape = (c[name].shape[0], n_delta, Y.shape[0])
            c[name] = jnp.broadcast_to(c[name][:, None], shape)
    U = combination_moments(
        Y,
        A,
        Z,
        pi=c["pi"],
        mu1=c["mu1"],
        mu0=c["mu0"],
        g=c["g"][None, None, :, :, None],
        delta=c["delta"][None, None, None, :, None],
        rho=jnp.swapaxes(c["rho"], 0, 1)[None, None, None],
        clip=clip,
    )
    estimate = estimate_selected(U, fold_ids, n_folds, units=units, **options)
    i, j, k, l, r = estimate.diagnostics["selected"]
    chosen = Nuisances(
        pi=c["pi"][i],
        mu1=c["mu1"][j],
        mu0=c["mu0"][j],
        g=c["g"][k, l],
        delta=c["delta"][l],
        rho=c["rho"][r, l],
    )
    estimate.diagnostics["nuisances"] = chosen
    by_loss = cv_loss.choose_candidates(Y, A, Z, c, units.weights_like(Y), clip=clip)
    estimate.diagnostics["selected_by_loss"] = by_loss
    estimate.diagnostics["u_by_loss"] = U[(slice(None), *by_loss)]
    return estimate
