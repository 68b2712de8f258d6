"""Simulation studies of the designs `siv1` (robustness) and `siv2` (selection).

The designs are this library's own; published tables use others.
"""

import jax
import jax.numpy as jnp

from jaxcore.estimators import select
from jaxcore.estimators.crossfit import fold_ids
from jaxcore.estimators.genius import genius
from jaxcore.estimators.linear_iv import ols, tsls
from jaxcore.estimators.monte_carlo import Replication, Study
from jaxcore.estimators.nuisance import basis
from jaxcore.estimators.selective_iv import simulate
from jaxcore.estimators.selective_iv.basis_selected import estimate_bases
from jaxcore.estimators.selective_iv.moment import BLOCKS, MODELS, Clip, from_predictions
from jaxcore.estimators.selective_iv.parametric import mr_parametric
from jaxcore.typing import Key


def siv1_study(n: int, *, scenarios: tuple[str, ...] | None = None) -> Study:
    """Parametric estimator with right and wrong nuisances, two standard errors; baselines.

    Args:
      n: units per sample.
      scenarios: names of `simulate.SCENARIOS`; None takes all.
    """
    scenarios = tuple(simulate.SCENARIOS) if scenarios is None else scenarios
    names = [f"{s}, {kind} se" for s in scenarios for kind in ("IF", "sandwich")]
    names += ["oracle nuisances", "OLS of Y on A, Z, X", "2SLS", "GENIUS constant effect"]

    def draw(key: Key) -> Replication:
        s = simulate.simulate_siv1(key, n)
        theta, se = [], []
        for scenario in scenarios:
            bases = simulate.bases_siv1(s.Z, s.X, simulate.SCENARIOS[scenario])
            e = mr_parametric(s.Y, s.A, s.Z, bases)
            theta += [e.theta, e.theta]
            se += [e.diagnostics["se_if"], e.diagnostics["se_sandwich"]]
        W = jnp.concatenate([jnp.ones((n, 1), s.X.dtype), s.X], axis=1)
        right = simulate.bases_siv1(s.Z, s.X)
        others = [
            from_predictions(s.Y, s.A, s.Z, simulate.truth_siv1(s.X, s.Z)),
            ols(s.Y, s.A, jnp.concatenate([W, s.Z[:, None]], axis=1)),
            tsls(s.Y, s.A, s.Z, W),
            genius(s.Y, s.A, s.Z, Bpi=right.pi, Bmu=right.mu),
        ]
        theta += [e.theta for e in others]
        se += [e.se for e in others]
        return Replication(jnp.stack(theta), jnp.stack(se))

    return Study(names=tuple(names), truth=simulate.TRUE_ATE, draw=draw)


def siv2_study(
    n: int, *, n_folds: int = 3, libraries: tuple[str, ...] = ("const", "lin", "quad")
) -> Study:
    """Selection among bases by every rule, beside one basis for all blocks.

    Args:
      n: units per sample.
      n_folds: cross-fitting folds.
      libraries: candidate bases of every block.
    """
    same = [f"all {name}" for name in libraries]
    picks = tuple(f"share of {libraries[-1]} for {b}" for b in BLOCKS)
    names = (
        *same,
        "selected, minimax",
        "selected, mixed minimax",
        "least cross-validated loss",
        "smooth",
        "oracle nuisances",
    )

    def draw(key: Key) -> Replication:
        k_data, k_fold = jax.random.split(key)
        s = simulate.simulate_siv2(k_data, n)
        strata = (2 * s.Z + s.A).astype(jnp.int32)
        ids = fold_ids(k_fold, n, n_folds, strata=strata)
        B, mask = basis.library(libraries, s.X)
        e = estimate_bases(
            s.Y,
            s.A,
            s.Z,
            B,
            dict.fromkeys(BLOCKS, mask),
            ids,
            n_folds,
            clip=Clip(),
            criterion="smooth",
        )
        d = e.diagnostics
        oracle = from_predictions(s.Y, s.A, s.Z, simulate.truth_siv2(s.X, s.Z))
        theta, se = [], []
        for i in range(len(libraries)):
            theta.append(d["theta_all"][(i,) * 5])
            se.append(d["se_all"][(i,) * 5])
        for rule in ("minimax", "mixed_minimax"):
            chosen = select.select(d["T"], rule, MODELS, BLOCKS).index
            theta.append(d["theta_all"][tuple(chosen)])
            se.append(d["se_all"][tuple(chosen)])
        by_loss = tuple(d["selected_by_loss"])
        theta.append(d["theta_all"][by_loss])
        se.append(d["se_all"][by_loss])
        theta += [e.theta, oracle.theta]
        se += [e.se, oracle.se]
        last = (d["selected"] == len(libraries) - 1).astype(s.Y.dtype)
        return Replication(
            jnp.concatenate([jnp.stack(theta), last]),
            jnp.concatenate([jnp.stack(se), jnp.full_like(last, jnp.nan)]),
        )

    return Study(names=names, extras=picks, truth=simulate.TRUE_ATE, draw=draw)
