"""What a fit returns: an estimate aggregated over partitions, and analyses of its moments."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from jaxcore import __version__
from jaxcore.errors import UserError
from jaxcore.estimators import projection
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.estimate import Estimate, aggregate_estimates
from jaxcore.estimators.tables import formatted
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
    """One estimate with its data and the estimates of every partition (on the host).

    Diagnostics of the latter hold the uncentred moment of every unit as ``u``.
    """

    config: Settings
    sample: Sample
    estimate: Estimate
    repetitions: tuple[Estimate, ...]

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
    def psi(self) -> np.ndarray:
        """Influence value of each unit."""
        return np.asarray(self.estimate.psi)

    @property
    def u(self) -> np.ndarray:
        """Uncentred moment of each unit, averaged over the repetitions."""
        return np.mean([e.diagnostics["u"] for e in self.repetitions], axis=0)

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
        """Confidence interval ``[lower, upper]``."""
        return np.asarray(self.estimate.confint(level, joint=joint))

    def pvalue(self, null: float = 0.0) -> float:
        """Two-sided Wald p-value."""
        return float(self.estimate.pvalue(null))

    def bootstrap(self, n: int = 1000, kind: str = "normal") -> np.ndarray:
        """Multiplier-bootstrap t-statistics."""
        return np.asarray(self.estimate.bootstrap(n, kind, seed=self.config.seed))

    def rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """One dict: name, estimate, standard error, t, p, interval."""
        return self.estimate.rows(level)

    def summary(self, level: float = 0.95, form: str = "text") -> str:
        """Table of the estimate with `about` and `details`, as "text", "markdown", ...

        Args:
          level: coverage of the interval.
          form: "text", "markdown", "latex" (needs the package booktabs) or "html".
        """
        lines = []
        clusters = self.units.n_clusters
        if clusters is not None:
            count = " and ".join(map(str, np.atleast_1d(clusters)))
            lines.append(f"standard errors are clustered ({count} clusters)")
        sheet = self.estimate.sheet(level, about=self.about(), details=lines + self.details())
        return formatted(sheet, form)

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
        """Further lines of the summary: here the estimates of several partitions."""
        if len(self.repetitions) == 1:
            return []
        every = ", ".join(f"{float(e.theta):.4g}" for e in self.repetitions)
        return [f"{self.config.aggregate} of {len(self.repetitions)} partitions: {every}"]

    def to_frame(self, level: float = 0.95, *, library: str | None = None) -> Any:
        """The estimate as a dataframe."""
        return self.estimate.to_frame(level, library=library)

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
