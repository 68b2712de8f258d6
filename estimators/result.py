"""What a fit returns: one estimate or several, aggregated over partitions; tables and pictures."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from jaxcore import __version__
from jaxcore.errors import UserError
from jaxcore.estimators import projection, saved
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.estimate import Estimate, aggregate_estimates
from jaxcore.estimators.nuisance import label
from jaxcore.estimators.report import PICTURES, Report
from jaxcore.estimators.tables import Sheet, formatted
from jaxcore.estimators.units import Units


class Settings(Protocol):
    """What a result asks of the settings it was fitted with."""

    @property
    def aggregate(self) -> str:
        """How partitions are combined: "median" or "mean"."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the folds, and of bootstrap draws."""
        ...

    @property
    def clustered(self) -> bool:
        """Whether standard errors are clustered, if there are clusters."""
        ...

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """The scope the arithmetic runs in."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """One estimate or several, with their data and those of every partition (on the host)."""

    config: Settings
    sample: Sample
    estimate: Estimate
    repetitions: tuple[Estimate, ...]

    @property
    def psi(self) -> np.ndarray:
        """Influence values of each unit."""
        return np.asarray(self.estimate.psi)

    @property
    def notices(self) -> tuple[str, ...]:
        """What was left out, clipped, or is doubtful."""
        return self.estimate.remarks

    @property
    def units(self) -> Units:
        """Weights and clusters of the units, as the standard errors take them."""
        return self.sample.units(clustered=self.config.clustered)

    def named(self, names: Mapping[str, str]) -> Self:
        """The same fit with names of its columns, by role."""
        return dataclasses.replace(self, sample=dataclasses.replace(self.sample, names=dict(names)))

    def confint(self, level: float = 0.95, *, joint: bool = False) -> np.ndarray:
        """Confidence interval ``[lower, upper]``; with ``joint`` for all estimates at once."""
        return np.asarray(self.estimate.confint(level, joint=joint))

    def bootstrap(self, n: int = 1000, kind: str = "normal") -> np.ndarray:
        """Multiplier-bootstrap t-statistics."""
        return np.asarray(self.estimate.bootstrap(n, kind, seed=self.config.seed))

    def rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """One dict per estimate: name, estimate, standard error, t, p, interval."""
        return self.estimate.rows(level)

    def summary(self, level: float = 0.95, form: str = "text") -> str:
        """Table of the estimates with `about` and `details`, as "text", "markdown", ...

        Args:
          level: coverage of the intervals.
          form: "text", "markdown", "latex" (needs the package booktabs) or "html".
        """
        return formatted(self.sheet(level), form)

    def sheet(self, level: float = 0.95) -> Sheet:
        """What `summary` shows, as cells."""
        lines = []
        clusters = self.units.n_clusters
        if clusters is not None:
            count = " and ".join(map(str, np.atleast_1d(clusters)))
            lines.append(f"standard errors are clustered ({count} clusters)")
        return self.estimate.sheet(level, about=self.about(), details=lines + self.details())

    def _repr_html_(self) -> str:
        return self.summary(form="html")

    def about(self) -> tuple[tuple[str, str], ...]:
        """What the fit was made from: columns, covariates, folds, seed, version."""
        p = len(self.sample.covariates)
        shown = ", ".join(self.sample.covariates[:6]) + (", ..." if p > 6 else "")
        columns = tuple((role, name) for role, name in self.sample.names.items() if name != role)
        covariates = (("covariates", f"{p} ({shown})" if p else "none"),) if columns else ()
        return (*columns, *covariates, *self.settings(), ("jaxcore", __version__))

    def settings(self) -> tuple[tuple[str, str], ...]:
        """Folds, repetitions and seed."""
        k, many = int(np.max(self.estimate.diagnostics["fold_ids"])) + 1, len(self.repetitions)
        folds = str(k) if many == 1 else f"{k}, {many} repetitions"
        return ("folds", folds), ("seed", str(self.config.seed))

    def facts(self) -> tuple[tuple[str, str], ...]:
        """What stands below the estimate when several are side by side."""
        clusters = self.units.n_clusters
        count = "" if clusters is None else " and ".join(map(str, np.atleast_1d(clusters)))
        more = (("clusters", count),) if count else ()
        p = str(len(self.sample.covariates))
        return ("units", str(self.sample.n)), *more, ("covariates", p), *self.settings()

    def details(self) -> list[str]:
        """Further lines of the summary."""
        return []

    def to_frame(self, level: float = 0.95, *, library: str | None = None) -> Any:
        """The estimates as a dataframe."""
        return self.estimate.to_frame(level, library=library)

    def save(self, path: str | Path) -> None:
        """Write everything into a new folder, from which `load` restores the fit.

        Raises:
          UserError: the folder exists, the disk is full or may not be written.
        """
        saved.save_fit(path, self, *self.more_to_save())

    def more_to_save(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """JSON and arrays that the settings need to make this result again."""
        return {}, {}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Restore a fit that `save` wrote; see `saved` for what becomes of its learners.

        Raises:
          UserError: no such folder, another kind of folder, or damaged files.
        """
        return saved.load_result(cls, path)

    def _aggregated(self, of: Callable[[Estimate], Estimate]) -> Estimate:
        """An estimate from that of every partition, aggregated."""
        with self.config.precision():
            every = [of(e) for e in self.repetitions]
            return aggregate_estimates(every, how=self.config.aggregate).on_host()

    def _rows(self, values: ArrayLike) -> np.ndarray:
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


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class EffectResult(Result):
    """One effect.

    Diagnostics of the partitions hold the uncentred moment of every unit as ``u``.
    """

    def __repr__(self) -> str:
        """One line, without the arrays."""
        numbers = f"theta={self.theta:.6g}, se={self.se:.6g}, n={self.sample.n}"
        return f"{type(self).__name__}({numbers})"

    @property
    def theta(self) -> float:
        """The estimated effect."""
        return float(self.estimate.theta)

    @property
    def se(self) -> float:
        """Its standard error."""
        return float(self.estimate.se)

    @property
    def u(self) -> np.ndarray:
        """Uncentred moment of each unit, averaged over the repetitions."""
        return np.mean([e.diagnostics["u"] for e in self.repetitions], axis=0)

    def pvalue(self, null: float = 0.0) -> float:
        """Two-sided Wald p-value."""
        return float(self.estimate.pvalue(null))

    def details(self) -> list[str]:
        """Further lines of the summary: here the estimates of several partitions."""
        if len(self.repetitions) == 1:
            return []
        every = ", ".join(f"{float(e.theta):.4g}" for e in self.repetitions)
        return [f"{self.config.aggregate} of {len(self.repetitions)} partitions: {every}"]

    def cate(self, W: ArrayLike, names: Sequence[str] | None = None) -> Estimate:
        """Best linear projection of the conditional effect on the columns of ``W``.

        Put a constant column into ``W`` for an intercept. Rows as in the data given to ``fit``.
        """
        rows = self._rows(W)
        return self._over_partitions(lambda u: projection.best_linear(u, rows, names, self.units))

    def gate(self, groups: ArrayLike) -> Estimate:
        """Average effects of groups given by a label per unit."""
        rows = self._rows(groups)
        return self._over_partitions(lambda u: projection.group_effects(u, rows, self.units))

    def _over_partitions(self, of: Callable[[np.ndarray], Estimate]) -> Estimate:
        """An estimate from the moments of every partition, aggregated."""
        return self._aggregated(lambda e: of(e.diagnostics["u"]))


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class SeveralResult(Result):
    """Several estimates of the same units, with intervals that hold for all at once."""

    learners: dict[str, Any]  # by the symbol of what they predict

    def __repr__(self) -> str:
        """One line, without the arrays."""
        return f"{type(self).__name__}({len(self.names)} estimates, n={self.sample.n})"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the estimates."""
        return self.estimate.names

    @property
    def theta(self) -> np.ndarray:
        """The estimates."""
        return np.asarray(self.estimate.theta)

    @property
    def se(self) -> np.ndarray:
        """Their standard errors."""
        return np.asarray(self.estimate.se)

    def pvalue(self, null: float = 0.0) -> np.ndarray:
        """Two-sided Wald p-values, of each alone."""
        return np.asarray(self.estimate.pvalue(null))

    def tables(self) -> Mapping[str, Estimate]:
        """Further estimates that the summary shows, by their names in reports."""
        return {}

    def details(self) -> list[str]:
        """Learners, and how wide intervals are that hold for all estimates at once."""
        lines = [f"{symbol}: {label(learner)}" for symbol, learner in self.learners.items()]
        if len(self.repetitions) > 1:
            lines.append(f"{self.config.aggregate} of {len(self.repetitions)} partitions")
        return lines

    def summary(self, level: float = 0.95, form: str = "text") -> str:
        """Table of the estimates, then the further tables; see `Result.summary`."""
        sheets = [self.sheet(level)]
        for several in self.tables().values():
            sheets.append(dataclasses.replace(several.sheet(level), notes=()))
        joint = [_joint(e, level) for e in (self.estimate, *self.tables().values())]
        sheets = [
            dataclasses.replace(sheet, details=(*sheet.details, *words))
            for sheet, words in zip(sheets, joint, strict=True)
        ]
        return "\n\n".join(formatted(sheet, form) for sheet in sheets)

    def plot(self, ax: Any = None, *, level: float = 0.95) -> Any:
        """The estimates with intervals of each alone, and of all at once; returns the axes."""
        from jaxcore.estimators import plots

        return plots.intervals(joint_rows(self.estimate, level), ax=ax, level=level)

    @property
    def report_pictures(self) -> Sequence[str]:
        """Names of the pictures in a report."""
        return PICTURES

    def pictures(self, level: float) -> Sequence[Any]:
        """Figures of a report, in the order of their names."""
        return [self.plot(level=level).figure]

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Everything but the arrays of units, JSON-able."""
        return {
            "estimates": joint_rows(self.estimate, level),
            **{name: joint_rows(e, level) for name, e in self.tables().items()},
            "level": level,
            "n": self.sample.n,
            "estimator": self.estimate.estimator,
            "columns": dict(self.sample.names),
            "covariates": list(self.sample.covariates),
            "repetitions": len(self.repetitions),
            "notices": list(self.notices),
            "learners": {symbol: label(one) for symbol, one in self.learners.items()},
        }

    def report(self, level: float = 0.95) -> Report:
        """Summary, numbers and pictures."""
        pictures = dict(zip(self.report_pictures, self.pictures(level), strict=True))
        return Report(self.summary(level), self.to_dict(level), pictures)


def joint_rows(estimate: Estimate, level: float = 0.95) -> list[dict[str, Any]]:
    """`Estimate.rows`, with the ends of the intervals that hold for all rows at once."""
    rows = estimate.rows(level)
    if len(rows) == 1:
        return rows
    ends = np.asarray(estimate.confint(level, joint=True)).tolist()
    return [
        row | {"joint_lower": low, "joint_upper": high}
        for row, (low, high) in zip(rows, ends, strict=True)
    ]


def _joint(estimate: Estimate, level: float) -> tuple[str, ...]:
    """A word on the intervals that hold for all rows at once."""
    se = np.atleast_1d(estimate.se)
    if len(se) == 1 or not np.any(se > 0):
        return ()
    one = int(np.argmax(se))
    half = (np.asarray(estimate.confint(level, joint=True))[one, 1] - estimate.theta[one]) / se[one]
    return (f"{100 * level:g}% intervals of all rows at once: estimate ± {half:.3g} std. errors",)
