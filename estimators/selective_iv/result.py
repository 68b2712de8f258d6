"""What `SelectiveIV.fit` returns: the estimate, its tables, and analyses that build on it."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators import plots, projection
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.estimate import Estimate, aggregate_estimates, frame_from_rows
from jaxcore.estimators.linear_iv import ConfidenceSet, majority
from jaxcore.estimators.selective_iv import compare, relevance, sensitivity
from jaxcore.estimators.selective_iv.moment import BLOCKS, Nuisances

_ONE_SIDED = (
    "non-compliance is one-sided (nobody with Z=0 is treated): P(A=1|Z=0)=0 and rho=0 hold by "
    "design, and the estimate leaves no room for unmeasured confounding"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectiveIVResult:
    """Estimate of the average treatment effect and everything it was made from (on the host)."""

    config: Any  # SelectiveIV
    sample: Sample
    one_sided: bool
    estimate: Estimate
    repetitions: tuple[Estimate, ...]
    relevance: relevance.Relevance
    learner_names: dict[str, tuple[str, ...]]

    @classmethod
    def build(
        cls,
        config: Any,
        sample: Sample,
        one_sided: bool,
        repetitions: Sequence[Estimate],
        notices: Sequence[str],
    ) -> "SelectiveIVResult":
        """Aggregate the partitions' estimates; add diagnostics and notices."""
        from jaxcore.estimators.selective_iv.estimator import label

        with config.precision():
            estimate = aggregate_estimates(repetitions, how=config.aggregate).on_host()
        strength = relevance.relevance(
            sample.A, sample.Z, estimate.diagnostics["raw"], config.bounds,
            one_sided=one_sided, weights=sample.weights,
            clusters=sample.clusters if config.clustered else None,
        )  # fmt: skip
        notes = list(notices)
        if one_sided:
            notes.append(_ONE_SIDED)
        flags = np.asarray(estimate.diagnostics.get("converged", True))
        if not flags.all():
            notes.append(
                "a logistic regression did not converge (separation?); its probabilities were "
                "clipped"
            )
        if config.overlap == "discard":
            outside = int(np.sum(~np.asarray(estimate.diagnostics["inside_overlap"])))
            notes.append(f"left out {outside} of {sample.n} units outside the overlap bounds")
        notes += strength.warnings()
        estimate = dataclasses.replace(estimate, notices=tuple(notes))
        names = {b: tuple(label(c) for c in config.blocks[b]) for b in BLOCKS}
        if one_sided:
            names["rho"] = ("zero",) * np.shape(estimate.diagnostics.get("T", np.zeros(6)))[-1]
        return cls(
            config=config, sample=sample, one_sided=one_sided, estimate=estimate,
            repetitions=tuple(repetitions), relevance=strength, learner_names=names,
        )  # fmt: skip

    def __repr__(self) -> str:
        """One line, without the arrays."""
        numbers = f"theta={self.theta:.6g}, se={self.se:.6g}, n={self.sample.n}"
        return f"{type(self).__name__}({numbers})"

    # --- the estimate ---------------------------------------------------------------------------

    @property
    def theta(self) -> float:
        """Average treatment effect."""
        return float(self.estimate.theta)

    @property
    def se(self) -> float:
        """Its standard error."""
        return float(self.estimate.se)

    @property
    def psi(self) -> np.ndarray:
        """Influence value of each unit."""
        return np.asarray(self.estimate.psi)

    @property
    def u(self) -> np.ndarray:
        """Uncentred moment of each unit, averaged over the repetitions."""
        return np.mean([e.diagnostics["u"] for e in self.repetitions], axis=0)

    @property
    def nuisances(self) -> Nuisances:
        """Clipped out-of-fold nuisances of the selected learners (first repetition)."""
        return self.estimate.diagnostics["nuisances"]

    @property
    def notices(self) -> tuple[str, ...]:
        """What was left out, clipped, or is doubtful."""
        return self.estimate.notices

    def confint(self, level: float = 0.95, *, joint: bool = False) -> np.ndarray:
        """Confidence interval ``[lower, upper]``."""
        return np.asarray(self.estimate.confint(level, joint=joint))

    def pvalue(self, null: float = 0.0) -> float:
        """Two-sided Wald p-value."""
        return float(self.estimate.pvalue(null))

    def bootstrap(self, n: int = 1000, kind: str = "normal") -> np.ndarray:
        """Multiplier-bootstrap t-statistics."""
        return np.asarray(self.estimate.bootstrap(n, kind, seed=self.config.seed))

    def summary(self, level: float = 0.95) -> str:
        """Table of the estimate with what was selected and what to beware of."""
        lines = [self.estimate.summary(level)]
        if self._clusters is not None:
            lines.append(f"errors heed {int(self._clusters.max()) + 1} clusters")
        if self.one_sided or self.config.se != "sandwich":
            chosen = ", ".join(f"{b}: {n}" for b, n in self.chosen().items())
            lines.append(f"selected learners ({self.config.criterion}): {chosen}")
        if len(self.repetitions) > 1:
            all_of = ", ".join(f"{float(e.theta):.4g}" for e in self.repetitions)
            lines.append(f"{self.config.aggregate} of {len(self.repetitions)} partitions: {all_of}")
        r = self.relevance
        lines.append(
            f"first stage {r.first_stage:.4g} (t = {r.first_stage_t:.1f}); median |D| "
            f"{r.abs_d_quantiles['0.5']:.4g}, test of D = 0: t = {r.d_test_t:.2f}; effective "
            f"sample size {r.effective_n:.0f}"
        )
        if len(self.combinations()) > 1:
            lines.append("the interval does not account for the selection of learners")
        return "\n".join(lines)

    def to_frame(self, level: float = 0.95, *, library: str | None = None) -> Any:
        """The estimate as a dataframe."""
        return self.estimate.to_frame(level, library=library)

    # --- the selection --------------------------------------------------------------------------

    def chosen(self) -> dict[str, str]:
        """Name of the selected learner of every block (first repetition)."""
        index = self.estimate.diagnostics.get("selected", np.zeros(5, int))
        return {b: self.learner_names[b][int(i)] for b, i in zip(BLOCKS, index, strict=True)}

    def selection_table(self, *, library: str | None = None, frame: bool = False) -> Any:
        """One row per block and candidate: how often chosen, its weight, its best criterion.

        ``weight`` is the soft weight of the smooth rule, or 1 for the chosen one. With ``frame``
        the rows come as a dataframe.
        """
        d = self.estimate.diagnostics
        if "criterion" not in d:
            rows = [
                {"block": b, "learner": self.learner_names[b][0], "chosen": 1, "weight": 1.0,
                 "best_criterion": 0.0}
                for b in BLOCKS
            ]  # fmt: skip
            return frame_from_rows(rows, library) if frame else rows
        rows = []
        for axis, block in enumerate(BLOCKS):
            others = tuple(i for i in range(len(BLOCKS)) if i != axis)
            best = np.min(d["criterion"], axis=others)
            picks = [int(e.diagnostics["selected"][axis]) for e in self.repetitions]
            soft = np.sum(d["soft_weights"], axis=others) if "soft_weights" in d else None
            for i, name in enumerate(self.learner_names[block]):
                weight = float(soft[i]) if soft is not None else float(i == picks[0])
                rows.append(
                    {"block": block, "learner": name, "chosen": picks.count(i),
                     "weight": weight, "best_criterion": float(best[i])}
                )  # fmt: skip
        return frame_from_rows(rows, library) if frame else rows

    def combinations(self) -> list[dict[str, Any]]:
        """Every combination of learners with its estimate, error, criterion and pseudo-risks.

        These errors take the units as independent, even if the estimate's own heeds clusters.
        """
        d = self.estimate.diagnostics
        if "criterion" not in d:
            return [{**self.chosen(), "estimate": self.theta, "std_error": self.se}]
        rows = []
        for c in itertools.product(*(range(n) for n in np.shape(d["criterion"]))):
            names = {b: self.learner_names[b][i] for b, i in zip(BLOCKS, c, strict=True)}
            risks = {f"R_{k}": float(v[c]) for k, v in d["risks"].items()}
            rows.append(
                {**names, "estimate": float(d["theta_all"][c]), "std_error": float(d["se_all"][c]),
                 "criterion": float(d["criterion"][c]), **risks}
            )  # fmt: skip
        return rows

    # --- further analyses -----------------------------------------------------------------------

    def cate(self, W: Any, names: Sequence[str] | None = None) -> Estimate:
        """Best linear projection of the conditional effect on the columns of ``W``.

        Put a constant column into ``W`` for an intercept. Rows as in the data given to ``fit``.
        """
        rows = self._rows(W)
        return self._over_partitions(
            lambda u: projection.best_linear(
                u, rows, names, weights=self.sample.weights, clusters=self._clusters
            )
        )

    def gate(self, groups: Any) -> Estimate:
        """Average effects of groups given by a label per unit."""
        rows = self._rows(groups)
        return self._over_partitions(
            lambda u: projection.group_effects(
                u, rows, weights=self.sample.weights, clusters=self._clusters
            )
        )

    def sensitivity(self, G: float, level: float = 0.95) -> sensitivity.Sensitivity:
        """Bounds if the assumptions are violated by at most ``G``, aggregated over the partitions.

        See `sensitivity_bounds`.
        """
        if not 0 <= G < float("inf"):
            raise UserError(f"Expected a finite G >= 0, found {G}.")
        with self.config.precision():
            s = self.sample
            every = [(e.diagnostics["u"], e.diagnostics["nuisances"]) for e in self.repetitions]
            u, nu = jax.tree.map(lambda *v: jnp.stack([jnp.asarray(x) for x in v]), *every)
            out = sensitivity.sensitivity_bounds(
                u, jnp.asarray(s.A, u.dtype), jnp.asarray(s.Z, u.dtype), nu, G, level=level,
                min_abs_D=self.config.min_abs_D, how=self.config.aggregate,
                weights=None if s.weights is None else jnp.asarray(s.weights, u.dtype),
                clusters=None if self._clusters is None else jnp.asarray(self._clusters),
            )  # fmt: skip
        out = jax.device_get(out)
        share = float(out.share_negative_D)
        if 0 < share < 1:
            raise UserError(
                "Expected D of one sign for bounds, found it negative for "
                f"{100 * share:.3g}% of the units."
            )
        return out

    def robust_set(self, level: float = 0.95) -> ConfidenceSet:
        """Confidence set of the constant-effect model that stays valid when D is near zero.

        Of several partitions: the values that at least half of them do not reject.
        """
        with self.config.precision():
            every = compare.partially_linear(self, level)
            return majority([e.diagnostics["robust_set"].pieces() for e in every])

    def baselines(self) -> list[Estimate]:
        """Other estimators on the same data and folds; see `compare`."""
        with self.config.precision():
            return [e.on_host() for e in compare.baselines(self)]

    def diagnostics(self) -> dict[str, Any]:
        """Overlap, strength of the instrument, counts."""
        return self.relevance.to_dict()

    # --- pictures and files ---------------------------------------------------------------------

    def plot_estimates(self, ax: Any = None, *, level: float = 0.95) -> Any:
        """This estimate beside the baselines."""
        rows = [{**self.estimate.rows(level)[0], "name": "selective IV"}]
        rows += [{**e.rows(level)[0], "name": e.estimator} for e in self.baselines()]
        return plots.intervals(rows, ax=ax, level=level, highlight=0)

    def plot_overlap(self, figure: Any = None) -> Any:
        """Distributions of P(Z=1|X) by instrument and of D."""
        raw = self.estimate.diagnostics["raw"]
        return plots.overlap(
            np.asarray(raw.pi), self.sample.Z,
            np.asarray(raw.mu1 * (1 - raw.mu1) - raw.mu0 * (1 - raw.mu0)),
            clip=self.config.clip, floor=self.config.min_abs_D, figure=figure,
        )  # fmt: skip

    def plot_pseudo_risk(self, figure: Any = None, *, best: int = 40) -> Any:
        """Criterion of the best combinations, split into the models, with their estimates."""
        return plots.pseudo_risk(self.combinations(), figure=figure, best=best)

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Everything but the arrays of units, JSON-able."""
        return {
            "estimate": self.estimate.rows(level)[0],
            "level": level,
            "n": self.sample.n,
            "one_sided": self.one_sided,
            "chosen": self.chosen(),
            "repetitions": [
                {"estimate": float(e.theta), "std_error": float(e.se)} for e in self.repetitions
            ],
            "notices": list(self.notices),
            "diagnostics": self.diagnostics(),
            "selection": self.selection_table(),
            "covariates": list(self.sample.covariates),
            "config": self.config.to_dict(),
        }

    def save(self, path: str | Path) -> None:
        """Write everything into a new folder, from which `load` restores the fit."""
        from jaxcore.estimators.selective_iv import saved

        saved.save_fit(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "SelectiveIVResult":
        """Restore a fit that `save` wrote; see `saved` for what becomes of its learners."""
        from jaxcore.estimators.selective_iv import saved

        return saved.load_fit(path)

    def to_npz(self, path: str | Path) -> None:
        """Arrays for other programs as one ``.npz`` file, written under a temporary name first.

        Keys: theta, se, u, phi, fold, nuisances/*, T, theta_all, se_all, R/*, B, selected, and
        ``config`` (JSON). Read it with ``numpy.load(path)``.
        """
        from jaxcore.estimators.selective_iv import report

        report.save_npz(self, Path(path))

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _clusters(self):
        return self.sample.clusters if self.config.clustered else None

    def _over_partitions(self, of: Callable[[np.ndarray], Estimate]) -> Estimate:
        """An estimate from the moments of every partition, aggregated."""
        with self.config.precision():
            every = [of(e.diagnostics["u"]) for e in self.repetitions]
            return aggregate_estimates(every, how=self.config.aggregate).on_host()

    def _rows(self, values: Any) -> np.ndarray:
        """Values of the units in use, from one per unit given to ``fit`` or one per unit in use."""
        a = np.asarray(values)
        if a.ndim and len(a) == len(self.sample.kept):
            return a[self.sample.kept]
        if a.ndim and len(a) == self.sample.n:
            return a
        raise UserError(
            f"Expected one row per unit ({len(self.sample.kept)}), found an array of shape "
            f"{a.shape}."
        )
