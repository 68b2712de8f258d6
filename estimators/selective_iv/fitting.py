"""From checked data and settings to estimates of every repetition.

What is small stays in NumPy: every operation on JAX arrays outside a compiled program would be a
program of its own.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators.checks import Sample, independent_columns
from jaxcore.estimators.chunks import rounded_up
from jaxcore.estimators.compiling import ALMOST_FULLY, QUICKLY
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance import Logistic, Ridge
from jaxcore.estimators.nuisance import basis as bases
from jaxcore.estimators.partitions import partitions
from jaxcore.estimators.selective_iv.bases import BasisFits, fit_bases
from jaxcore.estimators.selective_iv.basis_selected import estimate_fitted
from jaxcore.estimators.selective_iv.learners import PlugIn, VaryingCoefficient, fit_learners
from jaxcore.estimators.selective_iv.moment import (
    BLOCKS,
    Clip,
    clip_nuisances,
    from_predictions,
    overlap_mask,
)
from jaxcore.estimators.selective_iv.parametric import Bases, mr_parametric
from jaxcore.estimators.selective_iv.selected import estimate_from_candidates
from jaxcore.estimators.selective_iv.settings import Settings, is_basis, learner_of
from jaxcore.estimators.units import Units

_Run: TypeAlias = Callable[[Any, int], Estimate]
"""From fold ids (NumPy, for compiled functions) and their number to the estimate of a partition."""

_STATIC = ("n_folds", "clip", "ridge", "criterion", "models", "beta", "lam")


_fit_bases = jax.jit(fit_bases, static_argnames=("n_folds", "clip"), compiler_options=ALMOST_FULLY)


@functools.partial(jax.jit, static_argnames=_STATIC, compiler_options=QUICKLY)
def _estimate_fitted(
    fits: BasisFits,
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    B: Float[Array, "n q"],
    ids: Int[Array, " n"],
    *,
    models: tuple[tuple[str, tuple[str, ...]], ...],
    **options: Any,
) -> Estimate:
    return estimate_fitted(fits, Y, A, Z, B, ids, models=dict(models), **options)


@functools.partial(jax.jit, static_argnames=_STATIC)
def _estimate_candidates(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    ids: Int[Array, " n"],
    n_folds: int,
    found: dict[str, Array],
    *,
    models: tuple[tuple[str, tuple[str, ...]], ...],
    **options: Any,
) -> Estimate:
    return estimate_from_candidates(Y, A, Z, ids, n_folds, found, models=dict(models), **options)


def _filled(values: Any, value: float | None = None, *, rows: int) -> Any:
    """As many rows as asked for: with copies of the last row, or with ``value``."""
    if values is None:
        return None
    width = [(0, rows - len(values))] + [(0, 0)] * (values.ndim - 1)
    if value is None:
        return np.pad(values, width, mode="edge")
    return np.pad(values, width, constant_values=value)


_OF_UNITS = ("u", "u_by_loss", "fold_ids", "raw", "nuisances", "inside_overlap")


def _first_rows(estimate: Estimate, n: int) -> Estimate:
    """The estimate of the first ``n`` units when the others had weight zero.

    Influence values count all rows in their weights; nothing else does.
    """
    clusters = None if estimate.clusters is None else estimate.clusters[:n]
    cut = {
        name: jax.tree.map(lambda v: v[:n], value) if name in _OF_UNITS else value
        for name, value in estimate.diagnostics.items()
    }
    psi = estimate.psi[:n] * (n / len(estimate.psi))
    return dataclasses.replace(estimate, psi=psi, clusters=clusters, diagnostics=cut)


class Fitter:
    """One call of ``SelectiveIV.fit`` (``config``), inside the precision it runs in."""

    def __init__(self, config: Settings, sample: Sample, clip: Clip) -> None:
        self.config, self.sample, self.clip = config, sample, clip
        self.notices: list[str] = []
        dtype = np.dtype(jnp.result_type(float))

        # NumPy arrays, for compiled functions
        self.Y: Any = sample.Y.astype(dtype)
        self.A: Any = sample.A.astype(dtype)
        self.Z: Any = sample.Z.astype(dtype)
        X = sample.X
        if config.standardise and X.size:
            X = (X - np.nanmean(X, axis=0)) / np.nanstd(X, axis=0)
        self.X: Any = X.astype(dtype)
        self.units = sample.units(dtype, clustered=config.clustered)
        holes = int(np.sum(np.isnan(X)))
        if holes:
            self.notices.append(
                f"{holes} missing values of covariates stay, as all learners take them; the first "
                "step of delta, which is linear, has their means instead"
            )
        self.models = tuple((name, tuple(kept)) for name, kept in config.models.items())

    def repetitions(self, fold_ids: Any = None) -> list[Estimate]:
        """Estimates of all partitions, on the host."""
        if self.config.se == "sandwich":
            return [self._parametric().on_host()]
        run = self._run_bases() if self.config.all_bases else self._run_learners()
        out = []
        roles = ("treatment", "instrument")
        folds = partitions(
            self.config, self.sample, fold_ids, binary=roles, check=self._check_training
        )
        for ids, k in folds:
            estimate = run(ids, k).on_host()
            discards = self.config.overlap == "discard"
            if discards and not np.any(estimate.diagnostics["inside_overlap"]):
                raise UserError("Expected units within the overlap bounds, found none.")
            if not np.isfinite(estimate.theta) or not np.isfinite(estimate.se):
                raise UserError(
                    "Expected a finite estimate and error, found "
                    f"{estimate.theta:g} ({estimate.se:g}): a singular system in some fold (use "
                    "fewer basis columns or folds, or penalised learners), a learner that predicts "
                    "no finite numbers, or too large an outcome."
                )
            out.append(estimate)
        return out

    def _check_training(self, rows: np.ndarray, fold: int) -> None:
        """Every fit needs both arms of Z, and both arms of A within them."""
        Z, A = self.sample.Z[rows], self.sample.A[rows]
        if len(np.unique(Z)) < 2:
            raise UserError(
                "Expected both values of the instrument outside every fold, found only "
                f"{Z[0] if len(Z) else 'none'} outside fold {fold}."
            )
        for z in (1,) if self.clip.one_sided else (0, 1):
            if len(np.unique(A[z == Z])) < 2:
                raise UserError(
                    f"Expected treated and untreated units with Z={z} outside every fold, found "
                    f"only A={A[z == Z][0]:g} outside fold {fold}."
                )

    # --- bases, fitted jointly ------------------------------------------------------------------

    def _library(self) -> tuple[Any, dict[str, Any]]:
        """All columns once, and per block the independent columns of every candidate."""
        blocks = self.config.blocks
        flat = [bases.resolve(c) for b in BLOCKS for c in blocks[b]]
        B: Any
        B, masks = bases.library(flat, self.X)
        dropped: set[int] = set()
        for mask in masks:
            used = np.flatnonzero(mask)
            keep = independent_columns(B[:, used], self.sample.weights)
            dropped.update(used[~keep].tolist())
            mask[used[~keep]] = 0
        if dropped:
            self.notices.append(
                f"left out {len(dropped)} basis column(s) that others already determine"
            )
        out, start = {}, 0
        for b in BLOCKS:
            end = start + len(blocks[b])
            out[b] = masks[start:end]
            start = end
        return B, out

    def _check_size(self, masks: Mapping[str, np.ndarray], rows: int) -> None:
        widest = {b: int(np.max(np.sum(masks[b], axis=1))) for b in BLOCKS}
        if self.clip.one_sided:
            size, rows = widest["g"] + widest["delta"], int(rows * np.mean(self.sample.Z))
        else:
            size = 2 * widest["g"] + widest["delta"] + widest["rho"]
        if size >= rows:
            raise UserError(
                f"Expected more training rows than the {size} coefficients of g, delta and rho, "
                f"found {rows}: use smaller bases or penalised learners such as Lasso()."
            )

    def _run_bases(self) -> _Run:
        c = self.config
        B, masks = self._library()
        self._check_size(masks, int(self.sample.n * (1 - 1 / c.n_folds)))

        n = self.sample.n
        fill = functools.partial(_filled, rows=rounded_up(n))
        weights = np.ones_like(self.Y) if self.units.weights is None else self.units.weights
        arrays = [fill(v) for v in (self.Y, self.A, self.Z, B)]
        count = self.units.n_clusters
        units = Units(  # some clusters may be empty
            fill(weights, 0),
            fill(self.units.clusters),
            rounded_up(count) if isinstance(count, int) else None,
        )

        def run(ids: Any, k: int) -> Estimate:
            ids = fill(ids)
            fits = _fit_bases(
                *arrays, masks, ids, k, ridge=c.ridge, clip=self.clip, weights=units.weights
            )
            estimate = _estimate_fitted(
                fits,
                *arrays,
                ids,
                clip=self.clip,
                criterion=c.criterion,
                models=self.models,
                beta=c.beta,
                lam=c.lam,
                units=units,
            )
            return _first_rows(estimate.on_host(), n)

        return run

    def _parametric(self) -> Estimate:
        c = self.config
        if not c.all_bases or any(len(c.blocks[b]) != 1 for b in BLOCKS):
            raise UserError("Expected one basis per block with se='sandwich', found others.")
        B, masks = self._library()
        self._check_size(masks, self.sample.n)
        of: dict[str, Any] = {b: B[:, np.flatnonzero(masks[b][0])] for b in BLOCKS}
        Z = self.Z[:, None]
        both: dict[str, Any] = {
            b: of[b] if self.clip.one_sided else np.concatenate([of[b], Z * of[b]], 1) for b in of
        }
        zero = np.zeros_like(of["mu"])
        mu1: Any = of["mu"] if self.clip.one_sided else np.concatenate([of["mu"], of["mu"]], 1)
        mu0: Any = of["mu"] if self.clip.one_sided else np.concatenate([of["mu"], zero], 1)
        designs = Bases(of["pi"], both["mu"], mu1, mu0, both["g"], of["delta"], of["rho"])
        estimate = mr_parametric(
            self.Y, self.A, self.Z, designs, one_sided=self.clip.one_sided, units=self.units
        )
        if not bool(estimate.diagnostics["converged"]):
            raise UserError(
                "Expected convergent logistic regressions, found that they diverge (separation): "
                "use cross-fitting (se='if'), whose regressions are penalised."
            )
        raw = estimate.diagnostics["nuisances"]
        estimate.diagnostics["raw"] = raw
        estimate.diagnostics["fold_ids"] = np.zeros(self.sample.n, np.int32)
        return estimate

    # --- general learners, fitted one after the other -------------------------------------------

    def _run_learners(self) -> _Run:
        c = self.config
        learners: dict[str, list[Any]] = {}
        for block, every in c.blocks.items():
            learners[block] = [self._as_learner(block, one) for one in every]
        learners.setdefault("m", learners["g"])
        if self.clip.one_sided:
            learners["rho"] = learners["rho"][:1]

        key = jax.random.key(c.seed)

        def run(ids: Any, k: int) -> Estimate:
            found, notes = fit_learners(
                self.Y,
                self.A,
                self.Z,
                self.X,
                learners,
                ids,
                k,
                clip=self.clip,
                key=key,
                weights=self.units.weights,
            )
            estimate = _estimate_candidates(
                self.Y,
                self.A,
                self.Z,
                ids,
                k,
                found,
                clip=self.clip,
                criterion=c.criterion,
                models=self.models,
                beta=c.beta,
                lam=c.lam,
                units=self.units,
            )
            raw = estimate.diagnostics["nuisances"]
            estimate.diagnostics["raw"] = raw
            found = {
                f"{block} {i}": one
                for block, every in notes.items()
                for i, one in enumerate(every)
                if one
            }
            if found:
                estimate.diagnostics["findings"] = found
            estimate.diagnostics["nuisances"] = clip_nuisances(raw, self.clip)
            estimate.diagnostics["inside_overlap"] = overlap_mask(raw, self.clip)
            return self._discard(estimate, raw) if c.overlap == "discard" else estimate

        return run

    def _discard(self, estimate: Estimate, raw: Any) -> Estimate:
        """The mean over the units within the bounds only."""
        final = from_predictions(self.Y, self.A, self.Z, raw, clip=self.clip, units=self.units)
        return dataclasses.replace(estimate, theta=final.theta, se=final.se, psi=final.psi)

    def _as_learner(self, block: str, candidate: Any) -> Any:
        """A basis among general learners becomes the penalised regression on it."""
        if isinstance(candidate, PlugIn):
            return PlugIn(learner=self._as_learner("m", candidate.learner))
        if isinstance(candidate, VaryingCoefficient):
            return candidate
        if not is_basis(candidate):
            return learner_of(block, candidate)
        basis = bases.resolve(candidate)
        if block in ("pi", "mu"):
            return Logistic(alpha=self.config.ridge, basis=basis)
        if block == "delta":
            return VaryingCoefficient(basis=basis)
        return Ridge(alpha=self.config.ridge, basis=basis)
