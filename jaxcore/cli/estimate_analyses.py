"""What follows an estimate, as options of the commands of ``jaxcore estimate``."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.data.tables import Table
    from jaxcore.estimators.report import Report

CONTOUR, GROUPS, LINE = "sensitivity.png", "gate.png", "cate.png"
Part = tuple[str, Any, Any]
"""Text, what JSON holds of it, and a figure or None."""


@dataclasses.dataclass(frozen=True)
class Nothing:
    """For estimators whose report holds all that there is."""

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the pictures that join the report."""
        return ()

    def check(self, table: "Table") -> None:
        """Refuse columns that are not there, before the work."""

    def parts(self, fit: Any, table: "Table", level: float) -> Mapping[str, Part]:
        """Analyses by their name in the JSON, in the order of `pictures` where they have one."""
        return {}


@dataclasses.dataclass(frozen=True)
class OfClusters(Nothing):
    """For every estimator with a linear score."""

    wild: bool = False  # wild cluster bootstrap, for few clusters

    def parts(self, fit: Any, table: "Table", level: float) -> Mapping[str, Part]:
        """See `Nothing.parts`."""
        if not self.wild:
            return {}
        found = fit.wild_bootstrap(level=level)
        return {"wild_bootstrap": (found.summary(), dataclasses.asdict(found), None)}


@dataclasses.dataclass(frozen=True)
class Analyses(OfClusters):
    """For estimators without an instrument."""

    # bounds of the effect if confounders were left out, robustness values, and a picture
    sensitivity: bool = False
    # shares that these confounders would explain: of the outcome, and of the weights
    strength: tuple[float, float] = (0.03, 0.03)
    benchmark: tuple[str, ...] = ()  # covariates that omitted ones are compared with
    gate: str | None = None  # column of groups: the average effect in each
    cate: tuple[str, ...] = ()  # columns: the effect as a linear function of them
    policy: tuple[str, ...] = ()  # columns that a tree of whom to treat may split on
    cost: float = 0.0  # of treating a unit, for that tree
    depth: int = 2  # of that tree

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the pictures that join the report."""
        wanted = {CONTOUR: self.sensitivity, GROUPS: self.gate, LINE: self.cate}
        return tuple(name for name, asked in wanted.items() if asked)

    def check(self, table: "Table") -> None:
        """Refuse columns that are not there, before the work."""
        if self.benchmark and not self.sensitivity:
            raise UserError("Expected --sensitivity with --benchmark, found it missing.")
        table.check([*([self.gate] if self.gate else []), *self.cate, *self.policy])

    def parts(self, fit: Any, table: "Table", level: float) -> Mapping[str, Part]:
        """See `Nothing.parts`."""
        asked = {
            "sensitivity": (self.sensitivity, self._omitted),
            "gate": (self.gate, self._groups),
            "cate": (self.cate, self._line),
            "policy": (self.policy, self._tree),
        }
        if not hasattr(fit, "gate") and (self.wild or any(wanted for wanted, _ in asked.values())):
            raise UserError("Expected one treatment for further analyses, found several.")
        found = {name: do(fit, table, level) for name, (wanted, do) in asked.items() if wanted}
        return {**found, **super().parts(fit, table, level)}

    def _omitted(self, fit: Any, table: "Table", level: float) -> Part:
        bounds = fit.sensitivity(*self.strength, level=level)
        marks = fit.benchmark({name: [name] for name in self.benchmark})
        lines = [bounds.summary()] + [
            f"as strong as {name}: cf_y = {m['cf_y']:.3g}, cf_d = {m['cf_d']:.3g}, rho = "
            f"{m['rho']:.3g}; without it the estimate is {m['change']:.4g} more"
            for name, m in marks.items()
        ]
        drawn = fit.plot_sensitivity(benchmarks=marks, scenario=self.strength)
        content = dataclasses.asdict(bounds) | {"benchmarks": marks}
        return "\n".join(lines), content, drawn.figure

    def _groups(self, fit: Any, table: "Table", level: float) -> Part:
        return _told(fit.gate(table.values(str(self.gate))), level)

    def _line(self, fit: Any, table: "Table", level: float) -> Part:
        import numpy as np

        columns = [np.ones(len(table)), *(table.numbers(name) for name in self.cate)]
        return _told(fit.cate(np.stack(columns, axis=1), ["constant", *self.cate]), level)

    def _tree(self, fit: Any, table: "Table", level: float) -> Part:
        from jaxcore.data.tables import design

        tree = fit.policy_tree(design(table, self.policy)[0], cost=self.cost, depth=self.depth)
        rule = tree.describe(self.policy, ["no treatment", "treatment"])
        content = {"rule": rule, "value": float(tree.value), "cost": self.cost}
        return f"whom to treat at a cost of {self.cost:g}\n{rule}", content, None


def _told(several: Any, level: float) -> Part:
    figure = several.plot(level=level).figure
    return several.summary(level), several.rows(level), figure


_OF = {"plr": Analyses, "irm": Analyses, "pliv": OfClusters, "iivm": OfClusters}


def analyses_of(name: str) -> type[Nothing]:
    """The options for what follows an estimator."""
    return _OF.get(name, Nothing)


@dataclasses.dataclass(frozen=True)
class Analysed:
    """A fit whose report holds the analyses that were asked for."""

    fit: Any
    table: "Table"
    analyses: Nothing

    @property
    def report_pictures(self) -> Sequence[str]:
        """Names of the pictures."""
        return (*self.fit.report_pictures, *self.analyses.pictures)

    def report(self, level: float) -> "Report":
        """The report of the fit, then the analyses."""
        report = self.fit.report(level)
        parts = self.analyses.parts(self.fit, self.table, level)
        figures = [figure for _, _, figure in parts.values() if figure is not None]
        return dataclasses.replace(
            report,
            text="\n\n".join([report.text, *(text for text, _, _ in parts.values())]),
            content={**report.content, **{name: found for name, (_, found, _) in parts.items()}},
            pictures={
                **report.pictures,
                **dict(zip(self.analyses.pictures, figures, strict=True)),
            },
        )
