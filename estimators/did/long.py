"""From a long table (a row for each unit and period) to effects by group and time."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.data.tables import Table, as_table, design
from jaxcore.errors import UserError
from jaxcore.estimators.arguments import checked_units
from jaxcore.estimators.columns import label_numbers
from jaxcore.estimators.crossfit import fold_ids
from jaxcore.estimators.did.staggered import GroupTime, group_time, usable
from jaxcore.estimators.nuisance.candidates import Candidate, learner_for
from jaxcore.estimators.units import Units


class Wide(NamedTuple):
    """A panel with a row for each unit."""

    y: np.ndarray  # n, periods; NaN where a unit is not seen
    first: np.ndarray  # first treated period, infinite for never
    x: np.ndarray  # n, periods, p; zero where a unit is not seen
    times: tuple[float, ...]
    units: Units
    covariates: tuple[str, ...]
    kept: np.ndarray  # of all units, those that are here
    notices: tuple[str, ...]  # on units that are left out


class Roles(NamedTuple):
    """Columns of a long table."""

    outcome: str
    unit: str | None  # None: other units in each period
    time: str
    first: str | None  # first treated period of the unit
    covariates: tuple[str, ...] = ()
    weights: str | None = None
    clusters: tuple[str, ...] = ()
    treatment: str | None = None  # instead of ``first``: 0 or 1 in each row

    @property
    def named(self) -> dict[str, str]:
        """Role -> column, of those that are one column."""
        single = {k: v for k, v in self._asdict().items() if k not in ("covariates", "clusters")}
        return {k: v for k, v in single.items() if v is not None}

    def check(self, table: Table) -> None:
        """Refuse a table without these columns."""
        table.check([*self.named.values(), *self.covariates, *self.clusters])


def group_time_frame(
    frame: Any,
    *,
    outcome: str,
    unit: str,
    time: str,
    first: str,
    covariates: Sequence[str] | str = (),
    weights: str | None = None,
    clusters: Sequence[str] | str | None = None,
    ml_g: Candidate = "lasso",
    ml_m: Candidate = "lasso",
    n_folds: int = 5,
    seed: int = 0,
    **options: Any,
) -> GroupTime:
    """`group_time` of a long table, with folds that hold every group.

    Units without an outcome, and those that are not seen before they are treated, are left out and
    counted: no cell compares them with their past, and they would count in the groups' shares.

    Args:
      frame: a dataframe (pandas, polars, pyarrow) or a dict of columns.
      outcome: column of the outcome; rows without one count as not seen.
      unit: column that names the unit.
      time: column of the period, numbers.
      first: column of the first treated period of the unit; missing or infinite for never, and so
        is 0 where all periods are later.
      covariates: columns of covariates.
      weights: column of observation weights, one number for each unit.
      clusters: columns of clusters above the unit.
      ml_g: see `did_panel`; a name of `nuisance.candidates.NAMED` will do.
      ml_m: see `did_panel`.
      n_folds: number of folds.
      seed: of the folds.
      **options: see `group_time`.

    Raises:
      UserError: a unit twice in a period, columns that must not vary within a unit and do, missing
        covariates, or what `group_time` refuses.
    """
    covariates = (covariates,) if isinstance(covariates, str) else tuple(covariates)
    kinds = (clusters,) if isinstance(clusters, str) else tuple(clusters or ())
    table, roles = as_table(frame), Roles(outcome, unit, time, first, covariates, weights, kinds)
    roles.check(table)
    wide = wide_table(table, roles)
    groups = np.unique(wide.first, return_inverse=True)[1]
    change, belongs = np.array([-1.0, 1.0]), np.array([0.0, 1.0])  # kinds of the targets
    with jax.enable_x64(True):
        ids = fold_ids(
            jax.random.key(seed),
            len(wide.first),
            n_folds,
            strata=jnp.asarray(groups),
            units=wide.units,
        )
        found = group_time(
            wide.y,
            wide.first,
            wide.x,
            wide.times,
            ml_g=learner_for(ml_g, "ml_g", change),
            ml_m=learner_for(ml_m, "ml_m", belongs),
            fold_ids=ids,
            n_folds=n_folds,
            units=wide.units,
            **options,
        )
    told = (*wide.notices, *found.estimate.notices)
    return dataclasses.replace(found, estimate=dataclasses.replace(found.estimate, notices=told))


def wide_table(table: Table, roles: Roles) -> Wide:
    """A row for each unit; see `group_time_frame`."""
    outcome, unit, time = roles.outcome, str(roles.unit), roles.time
    weights, kinds = roles.weights, roles.clusters
    labels, number = label_numbers(table.values(unit), "unit")
    period = table.numbers(time)
    if not np.isfinite(period).all():
        raise UserError(f"Expected a period in every row of column {time!r}, found missing ones.")
    times, place = np.unique(period, return_inverse=True)
    n, t = len(labels), len(times)
    cell = number.astype(np.int64) * t + place
    twice = np.flatnonzero(np.bincount(cell, minlength=n * t) > 1)
    if len(twice):
        who, when = labels[twice[0] // t], times[twice[0] % t]
        raise UserError(
            f"Expected one row for each unit and period, found several of unit {who!s} in {when:g}."
        )

    def once(values: np.ndarray, what: str) -> np.ndarray:
        """The value of each unit."""
        out = np.empty(n, values.dtype)
        out[number] = values
        bad = np.flatnonzero(out[number] != values)
        if len(bad):
            raise UserError(
                f"Expected one value of {what!r} for each unit, found several of unit "
                f"{labels[number[bad[0]]]!s}."
            )
        return out

    if roles.first is None:
        starts = _started(table, roles, period, number)
    else:
        starts = first_periods(table, roles.first, times)
    y = np.full((n, t), np.nan)
    y[number, place] = table.numbers(outcome)
    X, names = design(table, roles.covariates)
    holes = ~np.isfinite(X).all(axis=1) & np.isfinite(y[number, place])
    if holes.any():
        raise UserError(
            f"Expected no missing covariates where there is an outcome, found {int(holes.sum())} "
            "such rows: remove them, or let `DID` drop them (missing='drop', --missing drop)."
        )
    x = np.zeros((n, t, max(X.shape[1], 1)))
    x[number, place, : X.shape[1]] = np.where(np.isfinite(X), X, 0)
    columns = [once(label_numbers(table.values(kind), "cluster")[1], kind) for kind in kinds]
    groups: Any = np.stack(columns, axis=1) if len(columns) > 1 else (columns or [None])[0]
    mass: Any = None if weights is None else once(table.numbers(weights), weights)
    if mass is not None and not (np.isfinite(mass).all() and mass.min() >= 0 and mass.sum() > 0):
        raise UserError(f"Expected weights in {weights!r} that are not negative, found others.")
    started = once(starts, str(roles.first or roles.treatment))
    kept, notices = usable(y, started, times)
    if not kept.any():
        raise UserError("Expected units that are seen before they are treated, found none.")
    given = Units(mass if mass is None else mass[kept], groups if groups is None else groups[kept])
    units = checked_units(given, int(kept.sum()))
    ends = tuple(map(float, times))
    return Wide(y[kept], started[kept], x[kept], ends, units, names, kept, notices)


def first_periods(table: Table, name: str, times: np.ndarray) -> np.ndarray:
    """First treated periods of all rows; infinite for never."""
    starts = table.numbers(name)
    return np.where(np.isnan(starts) | ((starts == 0) & (times[0] > 0)), np.inf, starts)


def _started(table: Table, roles: Roles, period: np.ndarray, number: np.ndarray) -> np.ndarray:
    """First treated period of the unit of every row, from who is treated when."""
    name = str(roles.treatment)
    treated = table.numbers(name)
    if not np.all((treated == 0) | (treated == 1)):
        raise UserError(f"Expected 0 or 1 in every row of column {name!r}, found others.")
    first = np.full(number.max() + 1, np.inf)
    np.minimum.at(first, number[treated == 1], period[treated == 1])
    ended = np.flatnonzero((period >= first[number]) & (treated == 0))
    if len(ended):
        raise UserError(
            f"Expected treatment that stays once it has begun, found that of unit "
            f"{table.values(str(roles.unit))[ended[0]]!s} ended in {period[ended[0]]:g}."
        )
    return first[number]
