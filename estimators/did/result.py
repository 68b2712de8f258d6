"""What `DID` returns: effects by group and time, their averages, tests and pictures."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators import curve_plots
from jaxcore.estimators.did.aggregate import aggregate
from jaxcore.estimators.did.staggered import Cell, GroupTime
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance.candidates import Candidate
from jaxcore.estimators.result import SeveralResult, joint_rows
from jaxcore.estimators.settings import CrossFitting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DIDSettings(CrossFitting):
    """Settings of difference in differences."""

    ml_g: Candidate = "lasso"  # of the change (of the outcome, in cross-sections) given X
    ml_m: Candidate = "lasso"  # of the probability of the group given X
    by: str = "event"  # averages that are reported; see `aggregate`
    control: str = "never"  # or "not yet": whom the treated are compared with
    base: str = "varying"  # or "universal"; see `cells_of`
    anticipation: int = 0  # periods before treatment in which it may act already
    experimental: bool = False  # treatment is randomised
    known_shares: bool = False  # see `aggregate`

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """The scope the arithmetic runs in: always float64."""
        return jax.enable_x64(True)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class DIDResult(SeveralResult):
    """Averages of effects on the treated; one effect where there are two periods.

    ``repetitions`` hold the effects by group and time in every partition.
    """

    config: DIDSettings
    cells: tuple[Cell, ...]  # none for repeated cross-sections
    first: np.ndarray  # first treated period of each unit, infinite for never
    times: tuple[float, ...]

    def group_time(self) -> Estimate:
        """Effects of every group in every period, those before treatment as tests."""
        return self._aggregated(lambda e: e)

    def aggregate(self, by: str = "event") -> Estimate:
        """Averages "simple", by "group", by "time" (calendar) or by "event", the overall one last.

        Raises:
          UserError: another kind of average, or repeated cross-sections.
        """
        if not self.cells:
            raise UserError("Expected a panel for averages, found repeated cross-sections.")
        return self._aggregated(lambda e: average(self.config, self, e, by))

    def since(self) -> np.ndarray:
        """Periods since treatment that occur, in the order of the averages by "event"."""
        return np.array(sorted({cell.time - cell.group for cell in self.cells}))

    def pretrend(self, seed: int = 0) -> tuple[float, float] | None:
        """Largest |t| before treatment, and how often as large a one comes by chance.

        None where there is nothing before treatment. The p-value is that of all times at once, by
        a multiplier bootstrap.
        """
        if len(self.cells) < 2:
            return None
        before = np.flatnonzero(self.since() < -self.config.anticipation)
        events = self.aggregate("event")
        se = np.asarray(events.se)[before]
        if not len(before) or not np.all(se > 0):
            return None
        t = float(np.max(np.abs(np.asarray(events.theta)[before] / se)))
        draws = np.asarray(events.bootstrap(2000, seed=seed))[:, before]
        return t, float(np.mean(np.max(np.abs(draws), axis=1) >= t))

    def details(self) -> list[str]:
        """Learners, repetitions, and the test of what came before treatment."""
        lines, found = super().details(), self.pretrend()
        if found is not None:
            lines.append(
                f"before treatment: largest |t| {found[0]:.2f}, p = {found[1]:.3f} of all times at "
                "once"
            )
        return lines

    def more_to_save(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Groups and times."""
        cells = [list(cell) for cell in self.cells]
        return {"cells": cells, "times": list(self.times)}, {"first": self.first}

    def plot(self, ax: Any = None, *, level: float = 0.95) -> Any:
        """The event study, or the averages asked for with intervals; returns the axes."""
        if self.config.by != "event" or len(self.cells) < 2:
            return super().plot(ax, level=level)
        events = self.aggregate("event")
        q = len(self.since())
        alone = dataclasses.replace(
            events, theta=events.theta[:q], se=events.se[:q], psi=events.psi[:, :q]
        )
        gap = self.config.anticipation
        return curve_plots.event_study(alone, self.since(), anticipation=gap, level=level, ax=ax)

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Everything but the arrays of units, JSON-able, with all groups and times."""
        cells: Mapping[str, Any] = {}
        if self.cells:
            rows = joint_rows(self.group_time(), level)
            named = [c._asdict() | row for c, row in zip(self.cells, rows, strict=True)]
            cells = {"group_time": named, "by": self.config.by}
        found = self.pretrend()
        test = {} if found is None else {"pretrend": {"t": found[0], "p_value": found[1]}}
        return {**super().to_dict(level), **cells, **test, "periods": list(self.times)}


def average(config: DIDSettings, of: Any, cells: Estimate, by: str) -> Estimate:
    """Averages of the effects of one partition.

    Args:
      config: settings.
      of: has ``cells``, ``first`` and ``sample``.
      cells: effects by group and time.
      by: see `aggregate`.
    """
    weights = np.asarray(of.sample.units().weights_like(np.ones(len(of.first))))
    effects = GroupTime(estimate=cells, cells=of.cells, first=of.first, weights=weights)
    return aggregate(effects, by, known_shares=config.known_shares)


def common_cells(every: Sequence[GroupTime]) -> tuple[tuple[Cell, ...], list[Estimate]]:
    """The cells that all partitions have, and their estimates."""
    kept = tuple(c for c in every[0].cells if all(c in one.cells for one in every))
    if not kept:
        raise UserError("Expected groups and times that every partition can compare, found none.")
    out = []
    for one in every:
        at = np.array([one.cells.index(c) for c in kept])
        e = one.estimate
        out.append(
            dataclasses.replace(
                e,
                theta=np.asarray(e.theta)[at],
                se=np.asarray(e.se)[at],
                psi=np.asarray(e.psi)[:, at],
                names=tuple(c.name for c in kept),
            )
        )
    return kept, out
