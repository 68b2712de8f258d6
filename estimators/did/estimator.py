"""`DID`: from a long table to effects on the treated, with everything chosen and checked."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from jaxcore.data.tables import Table, as_table, design
from jaxcore.errors import UserError
from jaxcore.estimators import overlap
from jaxcore.estimators.checks import Sample, check_sample, complete_rows
from jaxcore.estimators.did.aggregate import AGGREGATIONS
from jaxcore.estimators.did.long import Roles, Wide, first_periods, wide_table
from jaxcore.estimators.did.result import DIDResult, DIDSettings, average, common_cells
from jaxcore.estimators.did.staggered import BASES, CONTROLS, Cell, cells_of, group_time
from jaxcore.estimators.did.two_periods import did_cross_sections
from jaxcore.estimators.estimate import Estimate, aggregate_estimates
from jaxcore.estimators.nuisance import label
from jaxcore.estimators.nuisance.candidates import learner_for, resolved
from jaxcore.estimators.options import Option, settings_function
from jaxcore.estimators.partitions import partitions
from jaxcore.estimators.report import PICTURES
from jaxcore.estimators.saved import Restored

ANY, ZERO_ONE = np.array([-1.0, 1.0]), np.array([0.0, 1.0])  # kinds of the targets


@dataclasses.dataclass(frozen=True, kw_only=True)
class DID(DIDSettings):
    """Difference in differences: effects on the treated, cross-fitted and doubly robust.

    Of a panel (the same units in all periods; treatment may start at different times) or, without
    a column of units, of two repeated cross-sections. Trends are parallel given the covariates,
    treatment is not anticipated and stays. Learners as in `double_ml.PLR`. Always in float64.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> table = {"id": np.arange(160) // 2, "t": np.arange(160) % 2, "x": rng.normal(size=160)}
    >>> table["start"] = np.where(table["id"] % 2, 1.0, np.nan)
    >>> treated = table["t"] * (table["id"] % 2)
    >>> table["y"] = 2 * treated + table["t"] + 0.1 * rng.normal(size=160)
    >>> columns = {"outcome": "y", "unit": "id", "time": "t", "first": "start", "covariates": "x"}
    >>> result = DID(ml_g="ridge", ml_m="ridge", n_folds=2).fit_frame(table, **columns)
    >>> result.names, bool(abs(result.theta[0] - 2) < 0.1)
    (('ATT',), True)

    References:
      Sant'Anna and Zhao (2020); Callaway and Sant'Anna (2021).
    """

    roles: ClassVar[tuple[str, ...]] = ("outcome", "unit", "time", "first")
    report_pictures: ClassVar[tuple[str, ...]] = PICTURES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_folds < 2:
            raise UserError(f"Expected at least 2 folds, found {self.n_folds}.")
        known = {"by": AGGREGATIONS, "control": CONTROLS, "base": BASES}
        for name, words in known.items():
            if getattr(self, name) not in words:
                told = ", ".join(map(repr, words))
                raise UserError(f"Expected {name} of {told}, found {getattr(self, name)!r}.")
        cells_of([], [], anticipation=self.anticipation)
        for name in ("ml_g", "ml_m"):
            resolved(getattr(self, name), name)

    @classmethod
    def options(cls) -> Callable[..., "DID"]:
        """Makes the settings from what the command line can say."""
        learners = {"ml_g": "the change without treatment", "ml_m": "P(group|X)"}
        by, control, base = (Literal[words] for words in (AGGREGATIONS, CONTROLS, BASES))
        told = "averages: all, by group, by calendar time, by time since treatment."
        more = {
            "by": Option("by", by, told),
            "control": Option("control", control, "compare with never or not yet treated units."),
            "base": Option("base", base, "before treatment: the period before, or the last one."),
            "anticipation": Option("anticipation", int, "periods in which treatment acts early."),
            "experimental": Option("experimental", bool, "treatment is randomised."),
        }
        return settings_function(cls, learners, more, without=("treated", "assigned"))

    def fit_frame(
        self,
        frame: Any,
        *,
        outcome: str,
        time: str,
        unit: str | None = None,
        first: str | None = None,
        treatment: str | None = None,
        covariates: Sequence[str] | str = (),
        weights: str | None = None,
        clusters: str | Sequence[str] | None = None,
        fold_ids: Any = None,
    ) -> DIDResult:
        """Estimate from a long table with a row for each unit and period.

        Args:
          frame: a dataframe (pandas, polars, pyarrow) or a dict of columns.
          outcome: column of the outcome; rows without one count as not seen.
          time: column of the period, numbers.
          unit: column that names the unit; None for other units in each of two periods.
          first: column of the first treated period; missing or infinite for never, and so is 0
            where all periods are later.
          treatment: instead of ``first``, column that is 1 in every row of a treated unit from its
            first treated period on, and 0 otherwise.
          covariates: columns of covariates; of every comparison those before treatment are used.
          weights: column of observation weights, one number for each unit.
          clusters: columns of clusters above the unit.
          fold_ids: folds instead of random ones, one for each unit (in the order of their labels).

        Raises:
          UserError: what is wrong with the data.
        """
        self.check_given(fold_ids)
        if (first is None) == (treatment is None):
            found = "neither" if first is None else "both"
            raise UserError(f"Expected a column of the first period or treatment, found {found}.")
        if unit is None and first is None:
            raise UserError("Expected a column of the first period for cross-sections, found none.")
        names = (covariates,) if isinstance(covariates, str) else tuple(map(str, covariates))
        kinds = (clusters,) if isinstance(clusters, str) else tuple(clusters or ())
        roles = Roles(outcome, unit, time, first, names, weights, kinds, treatment)
        table = as_table(frame)
        roles.check(table)
        if unit is None:
            return self._cross_sections(table, roles, fold_ids)
        return self._panel(table, roles, fold_ids)

    # --- the same units in all periods ----------------------------------------------------------

    def _panel(self, table: Table, roles: Roles, fold_ids: Any) -> DIDResult:
        table, notices = self._complete(table, roles)
        wide = wide_table(table, roles)
        sample = _as_sample(wide, roles)
        learners = self._learners(ANY)
        every = []
        with jax.enable_x64(True):
            key = jax.random.key(self.seed)
            for ids, k in self._folds(sample, fold_ids, lambda rows, fold: None):
                found = group_time(
                    wide.y,
                    wide.first,
                    wide.x,
                    wide.times,
                    **learners,
                    fold_ids=ids,
                    n_folds=k,
                    control=self.control,
                    anticipation=self.anticipation,
                    base=self.base,
                    clip=(float(self.clip[0]), float(self.clip[1])),
                    experimental=self.experimental,
                    units=wide.units,
                    key=key,
                )
                found.estimate.diagnostics["fold_ids"] = ids
                every.append(found)
        cells, repetitions = common_cells(every)
        notices += wide.notices
        unseen = int(np.sum(~np.isfinite(wide.y)))
        if unseen:
            notices.append(f"units are not seen in {unseen} of {wide.y.size} periods")
        notices += every[0].estimate.notices
        parts = {"cells": cells, "first": _within(wide), "times": wide.times}
        return self.build(sample, repetitions, notices, learners, **parts)

    def _complete(self, table: Table, roles: Roles) -> tuple[Table, list[str]]:
        """Rows with all that is needed of them, if those without may be dropped."""
        if self.missing == "error":
            return table, []
        wanted = dict.fromkeys(
            [str(roles.unit), roles.time, *roles.covariates, *roles.clusters]
            + [name for name in (roles.weights, roles.treatment) if name is not None]
        )
        columns = {name: table.values(name) for name in dict.fromkeys([*table.names])}
        kept, notices = complete_rows({name: columns[name] for name in wanted}, self.missing)
        return Table({k: v[kept] for k, v in columns.items()}, table.source), notices

    # --- other units in each period -------------------------------------------------------------

    def _cross_sections(self, table: Table, roles: Roles, fold_ids: Any) -> DIDResult:
        period = table.numbers(roles.time)
        times = np.unique(period[np.isfinite(period)])
        if len(times) != 2:
            raise UserError(
                "Expected two periods of cross-sections (or a column of units for a panel), found "
                f"{len(times)}."
            )
        first = first_periods(table, str(roles.first), times)
        first = np.where(first > times[1], np.inf, first)
        if np.any(first <= times[0]):
            raise UserError(
                f"Expected treatment to start in {times[1]:g} or never, found rows treated from "
                f"{np.min(first):g} on."
            )
        x, names = design(table, roles.covariates)
        cell = 2.0 * (first == times[1]) + np.where(np.isfinite(period), period == times[1], np.nan)
        sample = check_sample(
            table.numbers(roles.outcome),
            cell,
            None,
            x,
            weights=None if roles.weights is None else table.numbers(roles.weights),
            clusters={k: table.values(k) for k in roles.clusters} if roles.clusters else None,
            covariates=names,
            missing=self.missing,
            binary=(),
            names=roles.named,
        )
        every, learners = [], self._learners(sample.Y)
        after, group = sample.A % 2, np.floor(sample.A / 2)
        with jax.enable_x64(True):
            key = jax.random.key(self.seed)
            x = sample.X if sample.X.shape[1] else np.zeros((sample.n, 1))
            for ids, k in self._folds(sample, fold_ids, _all_cells(sample.A)):
                arrays: list[Any] = [sample.Y, group, after, x, ids]
                *arrays, folds = arrays
                found = did_cross_sections(
                    *arrays,
                    **learners,
                    fold_ids=folds,
                    n_folds=k,
                    clip=(float(self.clip[0]), float(self.clip[1])),
                    experimental=self.experimental,
                    units=sample.units(),
                    key=key,
                ).on_host()
                found.diagnostics["fold_ids"] = ids
                every.append(_column(found))
        if not np.all(np.isfinite([*every[0].theta, *every[0].se])):
            raise UserError(
                "Expected a finite estimate and error, found others: use penalised learners "
                f"(found {', '.join(label(one) for one in learners.values())}) or fewer folds."
            )
        clipped = {"P(group|X)": int(every[0].diagnostics.get("n_clipped", 0))}
        notices = [*sample.notices, *overlap.notices(clipped, sample.n, sample.n)]
        first = np.where(group > 0, times[1], np.inf)
        ends = tuple(map(float, times))
        return self.build(sample, every, notices, learners, cells=(), first=first, times=ends)

    # --- both -----------------------------------------------------------------------------------

    def _learners(self, outcome: np.ndarray) -> dict[str, Any]:
        return {
            "ml_g": learner_for(self.ml_g, "ml_g", outcome),
            "ml_m": learner_for(self.ml_m, "ml_m", ZERO_ONE),
        }

    def _folds(self, sample: Sample, given: Any, check: Any) -> Any:
        """Folds that hold every group."""
        return partitions(self, sample, given, binary=("treatment",), check=check)

    def restored(self, parts: Restored) -> DIDResult:
        """The result of a fit that was saved."""
        cells = tuple(Cell(*cell) for cell in parts.more["cells"])
        learners = self._learners(ANY if cells else parts.sample.Y)
        more = {"cells": cells, "first": parts.arrays["first"], "times": tuple(parts.more["times"])}
        return self.build(parts.sample, parts.repetitions, parts.notices, learners, **more)

    def build(
        self,
        sample: Sample,
        every: Sequence[Estimate],
        notices: Sequence[str],
        learners: Mapping[str, Any],
        **parts: Any,
    ) -> DIDResult:
        """The result, from the estimates of every partition."""
        symbols = {"ml_g": "outcome" if not parts["cells"] else "change", "ml_m": "P(group|X)"}
        result = DIDResult(
            config=self,
            sample=sample,
            estimate=every[0],
            repetitions=tuple(every),
            learners={symbols[name]: one for name, one in learners.items()},
            **parts,
        )
        if len(result.cells) < 2:
            several = [dataclasses.replace(e, names=("ATT",)) for e in every]
        else:
            several = [average(self, result, e, self.by) for e in every]
        with jax.enable_x64(True):
            estimate = aggregate_estimates(several, how=self.aggregate).on_host()
        kept = {"fold_ids": every[0].diagnostics["fold_ids"]}
        noted = dataclasses.replace(estimate, notices=tuple(notices), diagnostics=kept)
        return dataclasses.replace(result, estimate=noted)


def _within(wide: Wide) -> np.ndarray:
    """First treated periods, infinite where they come after the last period."""
    return np.where(wide.first > wide.times[-1], np.inf, wide.first)


def _as_sample(wide: Wide, roles: Roles) -> Sample:
    """The panel as a sample: outcomes and covariates have an axis of periods, groups numbers."""
    group = np.unique(_within(wide), return_inverse=True)[1].astype(np.float64)
    weights: Any = wide.units.weights
    clusters: Any = wide.units.clusters
    return Sample(
        Y=wide.y,
        A=group,
        Z=group,
        X=wide.x,
        covariates=wide.covariates,
        weights=weights,
        clusters=clusters,
        kept=wide.kept,
        notices=(),
        names=roles.named,
    )


def _all_cells(cell: np.ndarray) -> Callable[[np.ndarray, int], None]:
    """A check that units of both groups and periods are outside of every fold."""

    def checked(rows: np.ndarray, fold: int) -> None:
        absent = np.setdiff1d(np.arange(4), cell[rows])
        if len(absent):
            who = "treated" if absent[0] >= 2 else "untreated"
            when = "after" if absent[0] % 2 else "before"
            raise UserError(
                f"Expected units of both groups and periods outside every fold, found none {who} "
                f"and {when} outside fold {fold}."
            )

    return checked


def _column(found: Estimate) -> Estimate:
    """One number as a vector of one."""
    theta, se, psi = (np.asarray(v) for v in (found.theta, found.se, found.psi))
    return dataclasses.replace(found, theta=theta[None], se=se[None], psi=psi[:, None])
