"""What `SelectiveIV.fit` returns: the estimate, its tables, and analyses that build on it."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators import plots
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.estimate import Estimate, aggregate_estimates, frame_from_rows
from jaxcore.estimators.linear_iv import ConfidenceSet, majority
from jaxcore.estimators.nuisance import findings, label
from jaxcore.estimators.report import Report, comparison_text, save_npz, strict_json
from jaxcore.estimators.result import EffectResult
from jaxcore.estimators.selective_iv import compare, one_sided, relevance, sensitivity
from jaxcore.estimators.selective_iv.learners import PlugIn
from jaxcore.estimators.selective_iv.moment import BLOCKS, Clip, Nuisances
from jaxcore.estimators.selective_iv.settings import Settings, learner_of


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class SelectiveIVResult(EffectResult):
    """Estimate of the average treatment effect and everything it was made from (on the host)."""

    config: Settings  # a `SelectiveIV`
    one_sided: bool
    relevance: relevance.Relevance
    learner_names: dict[str, tuple[str, ...]]

    @classmethod
    def build(
        cls,
        config: Settings,
        sample: Sample,
        clip: Clip,
        repetitions: Sequence[Estimate],
        notices: Sequence[str],
    ) -> "SelectiveIVResult":
        """Aggregate the partitions' estimates; add diagnostics and notices."""
        with config.precision():
            estimate = aggregate_estimates(repetitions, how=config.aggregate).on_host()
        strength = relevance.relevance(
            sample.A,
            sample.Z,
            estimate.diagnostics["raw"],
            clip,
            sample.units(clustered=config.clustered),
        )
        notes = list(notices)
        if clip.one_sided:
            notes.append(one_sided.NOTICE)
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
        if clip.one_sided:
            names["rho"] = ("zero",) * np.shape(estimate.diagnostics.get("T", np.zeros(6)))[-1]
        return cls(
            config=config,
            sample=sample,
            one_sided=clip.one_sided,
            estimate=estimate,
            repetitions=tuple(repetitions),
            relevance=strength,
            learner_names=names,
        )

    # --- the estimate ---------------------------------------------------------------------------

    @property
    def clip(self) -> Clip:
        """The bounds of the nuisances."""
        return dataclasses.replace(self.config.bounds, one_sided=self.one_sided)

    @property
    def nuisances(self) -> Nuisances:
        """Clipped out-of-fold nuisances of the selected learners (first repetition)."""
        return self.estimate.diagnostics["nuisances"]

    def details(self) -> list[str]:
        """What was selected, and what to beware of."""
        lines = []
        if self.one_sided or self.config.se != "sandwich":
            chosen = ", ".join(f"{b}: {n}" for b, n in self.chosen().items())
            lines.append(f"selected learners ({self.config.criterion}): {chosen}")
        for row in self._told():
            lines += row
        lines += super().details()
        r = self.relevance
        lines.append(
            f"first stage {r.first_stage:.4g} (t = {r.first_stage_t:.1f}); median |D| "
            f"{r.abs_d_quantiles['0.5']:.4g}, test of D = 0: t = {r.d_test_t:.2f}; effective "
            f"sample size {r.effective_n:.0f}"
        )
        if len(self.combinations()) > 1:
            lines.append("the interval does not account for the selection of learners")
        return lines

    # --- the selection --------------------------------------------------------------------------

    def chosen(self) -> dict[str, str]:
        """Name of the selected learner of every block (first repetition)."""
        index = self.estimate.diagnostics.get("selected", np.zeros(5, int))
        return {b: self.learner_names[b][int(i)] for b, i in zip(BLOCKS, index, strict=True)}

    def tuning(self, *, library: str | None = None, frame: bool = False) -> Any:
        """Losses of all settings that learners chose from; see `DoubleMLResult.tuning`.

        One row per block, learner and candidate, over both arms of the instrument.
        """
        rows = [
            {"block": block, "learner": name, **row}
            for block, name, learner, found in self._findings()
            for row in findings.rows(learner, found)
        ]
        return frame_from_rows(rows, library) if frame else rows

    def _findings(self) -> Iterator[tuple[str, str, Any, dict[str, np.ndarray]]]:
        """Block, name, learner and what it found out in all fits, of those that did."""
        for block, every in self.config.blocks.items():
            for i, candidate in enumerate(every):
                of = [e.diagnostics.get("findings", {}) for e in self.repetitions]
                found = findings.together([one.get(f"{block} {i}", {}) for one in of])
                if found:
                    inner = candidate.learner if isinstance(candidate, PlugIn) else candidate
                    yield block, label(candidate), learner_of(block, inner), found

    def _told(self) -> Iterator[list[str]]:
        for block, name, learner, found in self._findings():
            tried = findings.tried(findings.rows(learner, found))
            yield [f"{block}, {name}: {findings.chosen(learner, found)}", *tried]

    def selection_table(self, *, library: str | None = None, frame: bool = False) -> Any:
        """One row per block and candidate: how often chosen, its weight, its best criterion.

        ``weight`` is the soft weight of the smooth rule, or 1 for the chosen one. With ``frame``
        the rows come as a dataframe.
        """
        d = self.estimate.diagnostics
        if "criterion" not in d:
            rows = [
                {
                    "block": b,
                    "learner": self.learner_names[b][0],
                    "chosen": 1,
                    "weight": 1.0,
                    "best_criterion": 0.0,
                }
                for b in BLOCKS
            ]
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
                    {
                        "block": block,
                        "learner": name,
                        "chosen": picks.count(i),
                        "weight": weight,
                        "best_criterion": float(best[i]),
                    }
                )
        return frame_from_rows(rows, library) if frame else rows

    def combinations(self) -> list[dict[str, Any]]:
        """Every combination of learners with its estimate, error, criterion and pseudo-risks.

        These errors take the units as independent, even if that of the estimate is clustered.
        """
        d = self.estimate.diagnostics
        if "criterion" not in d:
            return [{**self.chosen(), "estimate": self.theta, "std_error": self.se}]
        rows = []
        for c in itertools.product(*(range(n) for n in np.shape(d["criterion"]))):
            names = {b: self.learner_names[b][i] for b, i in zip(BLOCKS, c, strict=True)}
            risks = {f"R_{k}": float(v[c]) for k, v in d["risks"].items()}
            rows.append(
                {
                    **names,
                    "estimate": float(d["theta_all"][c]),
                    "std_error": float(d["se_all"][c]),
                    "criterion": float(d["criterion"][c]),
                    **risks,
                }
            )
        return rows

    # --- further analyses -----------------------------------------------------------------------

    def sensitivity(self, G: float, level: float = 0.95) -> sensitivity.Sensitivity:
        """Bounds if the assumptions are violated by at most ``G``, aggregated over the partitions.

        See `sensitivity_bounds`.
        """
        if not 0 <= G < float("inf"):
            raise UserError(f"Expected a finite G >= 0, found {G}.")
        with self.config.precision():
            s = self.sample
            every = [(e.diagnostics["u"], e.diagnostics["nuisances"]) for e in self.repetitions]
            u, nu = jax.tree.map(lambda *v: np.stack(v), *every)
            A: Any = s.A.astype(u.dtype)
            Z: Any = s.Z.astype(u.dtype)
            out = sensitivity.sensitivity_bounds(
                u,
                A,
                Z,
                nu,
                G,
                level=level,
                min_abs_D=self.config.min_abs_D,
                how=self.config.aggregate,
                units=s.units(u.dtype, clustered=self.config.clustered),
            )
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
            every = compare.partially_linear(self, self.clip, level)
            return majority([e.diagnostics["robust_set"].pieces() for e in every])

    def baselines(self) -> list[Estimate]:
        """Other estimators on the same data and folds; see `compare`."""
        with self.config.precision():
            return compare.baselines(self, self.clip)

    def diagnostics(self) -> dict[str, Any]:
        """Overlap, strength of the instrument, counts."""
        return self.relevance.to_dict()

    # --- pictures and files ---------------------------------------------------------------------

    def plot_estimates(self, ax: Any = None, *, level: float = 0.95) -> Any:
        """This estimate beside the baselines."""
        return plots.intervals(self._compared(level), ax=ax, level=level, highlight=0)

    def plot_overlap(self, figure: Any = None) -> Any:
        """Distributions of P(Z=1|X) by instrument and of D."""
        raw = self.estimate.diagnostics["raw"]
        return plots.overlap(
            np.asarray(raw.pi),
            self.sample.Z,
            np.asarray(raw.mu1 * (1 - raw.mu1) - raw.mu0 * (1 - raw.mu0)),
            clip=self.config.clip,
            floor=self.config.min_abs_D,
            figure=figure,
        )

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
            "tuning": self.tuning(),
            "covariates": list(self.sample.covariates),
            "config": self.config.to_dict(),
        }

    def report(self, level: float = 0.95) -> Report:
        """Summary, numbers and pictures, beside the baselines and the robust set."""
        rows, robust = self._compared(level), self.robust_set(level).describe()
        text = (
            f"{self.summary(level)}\n\nall estimators (each under its own assumptions)\n"
            f"{comparison_text(rows, level)}\n\n"
            f"{100 * level:g}% set of a constant effect, robust to weak D: {robust}"
        )
        content = {**self.to_dict(level), "estimators": rows, "robust_set": robust}
        figures = (
            plots.intervals(rows, level=level, highlight=0).figure,
            self.plot_overlap(),
            self.plot_pseudo_risk(),
        )
        return Report(text, content, dict(zip(self.report_pictures, figures, strict=True)))

    @property
    def report_pictures(self) -> Sequence[str]:
        """Names of the pictures in a report."""
        return self.config.report_pictures

    def more_to_save(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Whether compliance is one-sided."""
        return {"one_sided": self.one_sided}, {}

    def to_npz(self, path: str | Path) -> None:
        """Arrays for other programs as one ``.npz`` file, written under a temporary name first.

        Keys: theta, se, u, phi, fold, nuisances/*, T, theta_all, se_all, R/*, B, selected, and
        ``config`` (JSON). Read it with ``numpy.load(path)``.

        Raises:
          UserError: the name does not end in ``.npz`` or the file cannot be written.
        """
        d = self.estimate.diagnostics
        arrays = {
            "theta": self.estimate.theta,
            "se": self.estimate.se,
            "u": self.u,
            "phi": self.psi,
            "fold": d["fold_ids"],
            "kept": self.sample.kept,
        }
        for field in dataclasses.fields(Nuisances):
            arrays[f"nuisances/{field.name}"] = getattr(self.nuisances, field.name)
        names = ("T", "theta_all", "se_all", "selected", "soft_weights", "cov")
        arrays |= {name: d[name] for name in names if name in d}
        if "criterion" in d:
            arrays["B"] = d["criterion"]
        arrays |= {f"R/{model}": risk for model, risk in d.get("risks", {}).items()}
        arrays["config"] = np.array(strict_json(self.to_dict()))
        save_npz(Path(path), arrays)

    def _compared(self, level: float) -> list[dict[str, Any]]:
        """Rows of this estimate and of the baselines."""
        rows = [{**self.estimate.rows(level)[0], "name": "selective IV"}]
        return rows + [{**e.rows(level)[0], "name": e.estimator} for e in self.baselines()]


def with_nuisances(diagnostics: dict[str, Any]) -> dict[str, Any]:
    """Diagnostics of a saved fit with their `Nuisances` as such."""
    held = {name: diagnostics[name] for name in ("raw", "nuisances") if name in diagnostics}
    return diagnostics | {name: Nuisances(**values) for name, values in held.items()}
