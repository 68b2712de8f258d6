"""What the estimators of `double_ml` return: the estimate, its nuisances, tables and pictures."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxcore.errors import UserError
from jaxcore.estimators import plots
from jaxcore.estimators.balance import Arm, Weighted, arms_of
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.double_ml import analyses
from jaxcore.estimators.double_ml.fitting import columns_of, fit_partition
from jaxcore.estimators.double_ml.model import INSTRUMENT, IRM_TREATED, Model
from jaxcore.estimators.estimate import Estimate, aggregate_estimates, frame_from_rows
from jaxcore.estimators.linear_iv import ConfidenceSet, anderson_rubin, majority
from jaxcore.estimators.nuisance import findings, label
from jaxcore.estimators.policy_tree import PolicyTree
from jaxcore.estimators.report import PICTURES, WEIGHTED, Report
from jaxcore.estimators.result import EffectResult
from jaxcore.estimators.settings import CrossFitting
from jaxcore.estimators.wild_bootstrap import WildBootstrap, wild_scores


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class DoubleMLResult(EffectResult, Weighted):
    """Estimate and everything it was made from (on the host)."""

    config: CrossFitting
    model: Model
    learners: dict[str, Any]  # by prediction

    @classmethod
    def build(
        cls,
        config: CrossFitting,
        model: Model,
        sample: Sample,
        repetitions: Sequence[Estimate],
        notices: Sequence[str],
        learners: Mapping[str, Any],
    ) -> "DoubleMLResult":
        """Aggregate the partitions' estimates."""
        with config.precision():
            estimate = aggregate_estimates(repetitions, how=config.aggregate).on_host()
        return cls(
            config=config,
            model=model,
            sample=sample,
            estimate=dataclasses.replace(estimate, notices=tuple(notices)),
            repetitions=tuple(repetitions),
            learners=dict(learners),
        )

    @property
    def nuisances(self) -> dict[str, np.ndarray]:
        """Out-of-fold predictions by name (first repetition)."""
        return {name: self.estimate.diagnostics[name] for name in self.model.nuisances}

    def learner_names(self) -> dict[str, str]:
        """The learner of every nuisance, by its symbol."""
        return {n.symbol: label(self.learners[k]) for k, n in self.model.nuisances.items()}

    def evaluate_learners(self, *, library: str | None = None, frame: bool = False) -> Any:
        """Out-of-fold losses, one row per nuisance; medians over the repetitions.

        ``rmse`` is the root mean squared error, ``r2`` the share of the variance explained out of
        fold, ``log_loss`` is there where the target is 0 and 1, and ``chosen`` says what learners
        chose that choose (penalties, settings, weights). With ``frame`` the rows come as a
        dataframe.
        """
        rows = []
        for name, one in self.model.nuisances.items():
            losses = [self._losses(name, e) for e in self.repetitions]
            medians = {k: float(np.median([x[k] for x in losses])) for k in losses[0]}
            who = {"nuisance": one.symbol, "learner": label(self.learners[name])}
            chosen = findings.chosen(self.learners[name], self._findings(name))
            rows.append({**who, **medians, **({"chosen": chosen} if chosen else {})})
        return frame_from_rows(rows, library) if frame else rows

    def tuning(self, *, library: str | None = None, frame: bool = False) -> Any:
        """Losses of all settings that learners chose from, one row per nuisance and candidate.

        ``loss`` is the mean over all fits (folds and repetitions) of the loss on inner folds of
        their training rows, ``kind`` says which loss, ``chosen`` in how many of ``fits`` it was
        the least. No rows without learners that choose (`tune`, `nuisance.Best`).
        """
        rows = [
            {"nuisance": one.symbol, **row}
            for name, one in self.model.nuisances.items()
            for row in findings.rows(self.learners[name], self._findings(name))
        ]
        return frame_from_rows(rows, library) if frame else rows

    def _findings(self, name: str) -> dict[str, np.ndarray]:
        """What the learner of a nuisance found out in all fits."""
        every = (e.diagnostics.get("findings", {}) for e in self.repetitions)
        return findings.together([one.get(name, {}) for one in every])

    def _losses(self, name: str, estimate: Estimate) -> dict[str, float]:
        one, columns = self.model.nuisances[name], columns_of(self.model, self.sample)
        y, d = columns[one.target], estimate.diagnostics
        p = np.asarray(d.get("raw", {}).get(name, d[name]), np.float64)
        w = np.ones(self.sample.n) if self.sample.weights is None else self.sample.weights
        if one.given is not None:
            w = w * (columns[one.given[0]] == one.given[1])
        mse = np.average((y - p) ** 2, weights=w)
        variance = np.average((y - np.average(y, weights=w)) ** 2, weights=w)
        out = {"rmse": float(np.sqrt(mse)), "r2": float(1 - mse / variance) if variance else 0.0}
        if np.all((y == 0) | (y == 1)):
            q = np.clip(p, 1e-12, 1 - 1e-12)
            loss = -(y * np.log(q) + (1 - y) * np.log1p(-q))
            out["log_loss"] = float(np.average(loss, weights=w))
        return out

    def robust_set(self, level: float = 0.95) -> ConfidenceSet:
        """Confidence set that stays valid when the instrument is weak (Anderson and Rubin).

        Of several partitions: the values that at least half of them do not reject.

        Raises:
          UserError: there is no instrument.
        """
        if INSTRUMENT not in self.model.roles:
            raise UserError(f"Expected an instrument for a robust set, found {self.model.title}.")
        columns: dict[str, Any] = {**columns_of(self.model, self.sample)}
        with self.config.precision():
            found = [
                anderson_rubin(
                    self.model.score(
                        columns, {name: e.diagnostics[name] for name in self.model.nuisances}
                    ),
                    self.units,
                    level=level,
                )
                for e in self.repetitions
            ]
            return majority([one.pieces() for one in found])

    def wild_bootstrap(
        self, *, null: float = 0.0, level: float = 0.95, kind: str | None = None, n_boot: int = 9999
    ) -> WildBootstrap:
        """Test and interval that hold with few clusters (first repetition); see `wild_scores`.

        Args:
          null: value that is tested.
          level: coverage of the interval.
          kind: of the draws; None takes that for the number of clusters.
          n_boot: draws.

        Raises:
          UserError: there are no clusters, or several kinds.
        """
        columns: dict[str, Any] = {**columns_of(self.model, self.sample)}
        with self.config.precision():
            found: dict[str, Any] = {**self.nuisances}
            score = self.model.score(columns, found)
        options: dict[str, Any] = {"null": null, "level": level, "kind": kind, "n_boot": n_boot}
        return wild_scores(score, self.units, seed=self.config.seed, **options)

    # --- further analyses -----------------------------------------------------------------------

    def sensitivity(
        self,
        cf_y: float = 0.03,
        cf_d: float = 0.03,
        rho: float = 1.0,
        *,
        null: float = 0.0,
        level: float = 0.95,
    ) -> analyses.OmittedVariables:
        """Bounds of the effect of PLR or IRM if confounders were left out, and robustness values.

        Args:
          cf_y: share of the outcome's residual variance that they would explain.
          cf_d: share of the variance of the weights that they would add.
          rho: correlation of both; 1 is the worst case.
          null: effect that would change the conclusion.
          level: of the one-sided limits.

        References:
          Chernozhukov, Cinelli, Newey, Sharma and Syrgkanis (2022), Long story short.
        """
        return analyses.omitted_variables(self, cf_y, cf_d, rho, null, level)

    def benchmark(self, groups: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
        """How strong groups of observed covariates would have been as omitted ones.

        Args:
          groups: name of a group -> names of its covariates; every group is left out of a fit on
            the same (first) folds.
        """
        return analyses.benchmarks(self, groups, self._without)

    def plot_sensitivity(self, ax: Any = None, *, null: float = 0.0, **options: Any) -> Any:
        """Contours of the bound over strengths of omitted variables (first repetition).

        ``options`` are those of `sensitivity.contour`, ``benchmarks`` from `benchmark`, and
        ``scenario``, a pair (cf_y, cf_d) to mark.
        """
        return analyses.contour_picture(self, null, ax, **options)

    def cate(self, W: ArrayLike, names: Sequence[str] | None = None) -> Estimate:
        """The effect (of IRM or PLR) as a linear function of the columns of ``W``.

        Put a constant column into ``W`` for an intercept. Rows as in the data given to ``fit``.
        """
        rows = self._rows(W)
        return self._aggregated(lambda e: analyses.projected(self, rows, names, e))

    def gate(self, groups: ArrayLike) -> Estimate:
        """Average effects (of IRM or PLR) in groups given by a label per unit."""
        rows = self._rows(groups)
        return self._aggregated(lambda e: analyses.by_group(self, rows, e))

    def policy_tree(
        self, X: ArrayLike | None = None, *, cost: float = 0.0, depth: int = 2, min_leaf: int = 10
    ) -> PolicyTree:
        """The tree that treats whom the treatment does more good than it costs (IRM or PLR).

        Args:
          X: covariates it may split on; None takes those of the fit.
          cost: of treating a unit, in units of the outcome.
          depth: 1 or 2.
          min_leaf: fewest units in a leaf.
        """
        rows = self.sample.X if X is None else self._rows(X)
        return analyses.best_policy(self, rows, cost, depth, min_leaf)

    def _without(self, kept: Sequence[int]) -> "DoubleMLResult":
        """The fit with some of the covariates, on the first folds."""
        ids = self.estimate.diagnostics["fold_ids"]
        names = [self.sample.covariates[j] for j in kept]
        sample = dataclasses.replace(
            self.sample, X=self.sample.X[:, list(kept)], covariates=tuple(names)
        )
        with self.config.precision():
            one = fit_partition(
                self.model,
                sample,
                self.learners,
                ids,
                int(np.max(ids)) + 1,
                clip=self.config.clip,
                key=jax.random.key(self.config.seed),
            )
        return dataclasses.replace(self, sample=sample, estimate=one, repetitions=(one,))

    # --- tables, pictures and files -------------------------------------------------------------

    def details(self) -> list[str]:
        """Learners with their losses and choices, the first stage, repetitions."""
        lines, tuning = [], self.tuning()
        for row in self.evaluate_learners():
            loss = f"log-loss {row['log_loss']:.4g}" if "log_loss" in row else f"R2 {row['r2']:.3g}"
            chosen = f"; {row['chosen']}" if "chosen" in row else ""
            lines.append(f"{row['nuisance']}: {row['learner']}, out of fold {loss}{chosen}")
            lines += findings.tried([r for r in tuning if r["nuisance"] == row["nuisance"]])
        d = self.estimate.diagnostics
        if "first_stage" in d:
            lines.append(f"first stage {d['first_stage']:.4g} (t = {d['first_stage_t']:.1f})")
        return lines + super().details()

    def plot_overlap(self, figure: Any = None) -> Any:
        """Distributions of the probability by arm."""
        (name,) = self._bounded
        one = self.model.nuisances[name]
        arm = columns_of(self.model, self.sample)[one.target]
        raw = np.asarray(self.estimate.diagnostics["raw"][name])
        return plots.arms(raw, arm, symbol=one.symbol, clip=self.config.clip, figure=figure)

    def arms(self) -> tuple[Arm, ...]:
        """Units by treatment, with an instrument by that, with their weights (first repetition).

        Raises:
          UserError: this estimator does not divide by probabilities.
        """
        if not self._bounded:
            raise UserError(f"Expected IRM or IIVM for weights, found {self.model.title}.")
        (name,) = self._bounded
        role = self.model.nuisances[name].target
        value, p = columns_of(self.model, self.sample)[role], self.estimate.diagnostics[name]
        letter = "Z" if role == INSTRUMENT else "A"
        target = p if self.model is IRM_TREATED else None
        own = np.where(value > 0.5, p, 1 - p)
        return arms_of(self.sample, value, (f"{letter} = 0", f"{letter} = 1"), own, target)

    @property
    def _bounded(self) -> tuple[str, ...]:
        return tuple(name for name, one in self.model.nuisances.items() if one.bounded)

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Everything but the arrays of units, JSON-able."""
        return {
            "estimate": self.estimate.rows(level)[0],
            "level": level,
            "n": self.sample.n,
            "estimator": self.model.title,
            "columns": dict(self.sample.names),
            "covariates": list(self.sample.covariates),
            "repetitions": [
                {"estimate": float(e.theta), "std_error": float(e.se)} for e in self.repetitions
            ],
            "notices": list(self.notices),
            "learners": self.evaluate_learners(),
            "tuning": self.tuning(),
            "config": {
                name: label(value) if name.startswith("ml_") else value
                for name, value in self.config.get_params(deep=False).items()
            },
        }

    @property
    def report_pictures(self) -> Sequence[str]:
        """Names of the pictures in a report."""
        return (*PICTURES, "overlap.png", *WEIGHTED) if self._bounded else PICTURES

    def report(self, level: float = 0.95) -> Report:
        """Summary, numbers, the robust set, the interval and the overlap drawn."""
        figures = [self.estimate.plot(level=level).figure]
        if self._bounded:
            figures += [self.plot_overlap(), self.plot_weights(), self.plot_balance().figure]
        pictures = dict(zip(self.report_pictures, figures, strict=True))
        text, content = self.summary(level), self.to_dict(level)
        if INSTRUMENT in self.model.roles:
            content["robust_set"] = self.robust_set(level).describe()
            text += f"\n{100 * level:g}% set, robust to a weak instrument: {content['robust_set']}"
        return Report(text, content, pictures)
