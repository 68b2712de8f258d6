"""Effects by group and time where units start treatment at different times.

A group are the units that start in the same period. For every group and period the change since
before treatment is compared with that of units that are not treated (Callaway and Sant'Anna 2021),
with the score of two periods and cross-fitted nuisances. All cells run through one program.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from jaxcore.errors import UserError
from jaxcore.estimators.arguments import CHANCE, checked_folds, checked_units
from jaxcore.estimators.did.two_periods import did_panel
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance import HostLearner, Learner
from jaxcore.estimators.nuisance.candidates import learner_for
from jaxcore.estimators.precision import check_estimate, check_finite
from jaxcore.estimators.settings import check_clip
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.typing import Key

CONTROLS = ("never", "not yet")
BASES = ("varying", "universal")


class Cell(NamedTuple):
    """One comparison: the group, the period before and the period that is looked at."""

    group: float  # first period with treatment
    before: float
    time: float

    @property
    def treated(self) -> bool:
        """Whether the group is treated then; else the cell is a test of parallel trends."""
        return self.time >= self.group

    @property
    def name(self) -> str:
        """Such as ``"group 2004, time 2006"``."""
        return f"group {self.group:g}, time {self.time:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupTime:
    """Estimates of all cells, and what `aggregate` needs of the units."""

    estimate: Estimate  # one number per cell, on the host
    cells: tuple[Cell, ...]
    first: np.ndarray  # first period with treatment of each unit, infinite for never
    weights: np.ndarray  # of the units, with mean one

    def rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """`Estimate.rows` with the cell's group, time and the period before."""
        found = self.estimate.rows(level)
        return [c._asdict() | row for c, row in zip(self.cells, found, strict=True)]


def cells_of(
    groups: Sequence[float],
    times: Sequence[float],
    *,
    anticipation: int = 0,
    base: str = "varying",
) -> tuple[Cell, ...]:
    """All comparisons of groups that have a period before treatment.

    Args:
      groups: first treated periods.
      times: periods, ascending.
      anticipation: periods before treatment in which it may act already.
      base: before treatment, compare with the period just before ("varying") or, as after, with the
        last one before treatment ("universal").

    >>> cells_of([2.0], [1.0, 2.0, 3.0])
    (Cell(group=2.0, before=1.0, time=2.0), Cell(group=2.0, before=1.0, time=3.0))
    """
    if base not in BASES:
        raise UserError(f"Expected base='varying' or 'universal', found {base!r}.")
    if anticipation < 0:
        raise UserError(f"Expected 0 or more periods of anticipation, found {anticipation}.")
    times = [float(t) for t in times]
    out = []
    for g in map(float, groups):
        earlier = [t for t in times if t < g]
        if len(earlier) <= anticipation:
            continue
        last = earlier[-1 - anticipation]
        if base == "universal":
            out += [Cell(g, last, t) for t in times if t != last]
        else:
            later = times[anticipation + 1 :]
            out += [Cell(g, min(times[i], last), t) for i, t in enumerate(later)]
    return tuple(out)


def group_time(
    Y: ArrayLike,
    first: ArrayLike,
    X: ArrayLike,
    times: Sequence[float],
    *,
    ml_g: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    fold_ids: Int[Array, " n"],
    n_folds: int,
    control: str = "never",
    anticipation: int = 0,
    base: str = "varying",
    clip: tuple[float, float] = (0.01, 0.99),
    experimental: bool = False,
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> GroupTime:
    """Average effects on the treated of every group in every period.

    Cells without treated or comparison units in some training fold are left out with a notice, and
    so are units without an outcome or not seen before they are treated.
    Computed in float64. Not checked: that treatment stays once it has begun.

    Args:
      Y: outcomes (n, periods); NaN where a unit is not seen: it then stays out of those cells.
      first: first treated period of each unit; infinite, or after the last period, for never.
      X: covariates (n, p), or (n, periods, p), of which those of a cell's earlier period are used.
      times: the periods, ascending.
      ml_g: see `did_panel`.
      ml_m: see `did_panel`.
      fold_ids: fold of each unit (`crossfit.fold_ids` with the groups as strata).
      n_folds: number of folds.
      control: compare with units that are "never" treated, or those "not yet" treated as well.
      anticipation: see `cells_of`.
      base: see `cells_of`.
      clip: bounds of the probability of the group.
      experimental: see `did_panel`.
      units: observation weights and clusters.
      key: PRNG key for learners that draw.

    Raises:
      UserError: shapes, periods, values that are not finite, weights, folds, learners, or no cell
        that can be computed.
    """
    y, started, x = _checked(Y, first, X, times, control)
    groups = sorted(set(started[np.isfinite(started)]))
    cells = cells_of(groups, times, anticipation=anticipation, base=base)
    units = checked_units(units, len(y))
    used, told = usable(y, started, np.asarray(times, np.float64))
    w = used * np.asarray(units.weights_like(np.ones(len(y))), np.float64)
    w = w / max(np.mean(w), 1e-300)  # those left out do not count in the groups' shares
    ids = checked_folds(fold_ids, n_folds, len(y), units)
    check_clip(clip)
    ml_g = learner_for(ml_g, "ml_g", np.array([-1.0, 1.0]))
    ml_m = learner_for(ml_m, "ml_m", CHANCE)
    kept, rows, gone = [], [], []
    for cell in cells:
        row = _Rows.of(cell, y, started, list(times), control, anticipation)
        (kept.append(cell), rows.append(row)) if row.enough(w, ids, n_folds) else gone.append(cell)
    if not kept:
        raise UserError(
            "Expected groups with treated and comparison units in every training fold, found none."
        )
    fixed = {"clip": clip, "experimental": experimental, "n_folds": n_folds}
    with jax.enable_x64(True):
        theta, psi = _cells(rows, w, x, ids, ml_g, ml_m, key, fixed)
        several = Estimate.from_psi(
            jnp.asarray(theta),
            jnp.asarray(psi.T),
            units,
            names=tuple(cell.name for cell in kept),
            estimator="difference in differences by group and time",
            notices=told + _words(gone),
        ).on_host()
    check_estimate(several)
    return GroupTime(estimate=several, cells=tuple(kept), first=started, weights=w)


def usable(
    y: np.ndarray, first: np.ndarray, times: np.ndarray
) -> tuple[Bool[np.ndarray, " n"], tuple[str, ...]]:
    """Units that are seen before they are treated, and what to say about the others.

    Args:
      y: outcomes (n, periods), NaN where a unit is not seen.
      first: first treated period, infinite for never.
      times: the periods.
    """
    seen = np.isfinite(y)
    past = np.isinf(first) | np.any(seen & (times[None] < first[:, None]), axis=1)
    never, late = ~seen.any(axis=1), seen.any(axis=1) & ~past
    notices = tuple(
        f"left out {int(gone.sum())} of {len(y)} units {why}"
        for gone, why in (
            (never, "without an outcome"),
            (late, "that are not seen before they are treated"),
        )
        if gone.any()
    )
    return ~never & ~late, notices


class _Rows(NamedTuple):
    """What a cell takes of the units."""

    change: np.ndarray  # zero outside
    member: np.ndarray  # of the group, 0/1
    inside: np.ndarray  # of the group or its comparison, and seen in both periods, 0/1
    period: int  # whose covariates are used

    @classmethod
    def of(
        cls,
        cell: Cell,
        y: np.ndarray,
        started: np.ndarray,
        times: list[float],
        control: str,
        anticipation: int,
    ) -> "_Rows":
        before, after = times.index(cell.before), times.index(cell.time)
        member, compared = started == cell.group, np.isinf(started)
        if control == "not yet":
            horizon = times[min(after + anticipation, len(times) - 1)]
            compared = compared | (started > max(horizon, cell.before))
        change = y[:, after] - y[:, before]
        inside = (member | (compared & ~member)) & np.isfinite(change)
        return cls(np.where(inside, change, 0), member * 1.0, inside * 1.0, min(before, after))

    def enough(self, w: np.ndarray, ids: np.ndarray, n_folds: int) -> bool:
        """Whether every training fold has units of both kinds."""
        used = (self.inside > 0) & (w > 0)
        columns = ids.reshape(len(ids), -1)
        arms = [columns[used & (self.member == arm)] for arm in (0, 1)]
        if n_folds == 1:
            return all(len(arm) > 0 for arm in arms)
        folds = itertools.product(range(n_folds), repeat=columns.shape[1])
        return all(np.any(np.all(arm != fold, axis=1)) for fold in folds for arm in arms)


def _checked(
    Y: ArrayLike, first: ArrayLike, X: ArrayLike, times: Sequence[float], control: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y, started, x = (np.asarray(v, np.float64) for v in (Y, first, X))
    if control not in CONTROLS:
        raise UserError(f"Expected control='never' or 'not yet', found {control!r}.")
    if y.ndim != 2 or y.shape[1] != len(times) or started.shape != y.shape[:1]:
        raise UserError(
            f"Expected outcomes (n, {len(times)}) and a first period of each unit, found arrays of "
            f"shapes {y.shape} and {started.shape}."
        )
    if x.ndim not in (2, 3) or len(x) != len(y) or (x.ndim == 3 and x.shape[1] != len(times)):
        raise UserError(
            f"Expected covariates (n, p) or (n, {len(times)}, p), found an array of shape "
            f"{x.shape}."
        )
    if len(times) < 2 or not np.all(np.diff(times) > 0):
        raise UserError(f"Expected two or more ascending periods, found {list(times)}.")
    check_finite({"X": x, "Y": y[~np.isnan(y)]})
    if np.isnan(started).any():
        raise UserError(
            "Expected a first treated period of every unit (infinity for never), found missing "
            "ones."
        )
    started = np.where(started > times[-1], np.inf, started)
    strange = sorted(set(started[np.isfinite(started) & ~np.isin(started, times)]))
    if strange and strange[-1] > times[0]:
        raise UserError(f"Expected first treated periods among the periods, found {strange[-1]:g}.")
    return y, started, x


def _cells(
    rows: "Sequence[_Rows]",
    w: np.ndarray,
    x: np.ndarray,
    ids: np.ndarray,
    ml_g: Any,
    ml_m: Any,
    key: Any,
    fixed: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray]:
    """Estimates (c,) and influence values (c, n) of the cells."""
    change, member, inside = (np.stack([getattr(r, k) for r in rows]) for k in _Rows._fields[:3])
    change, member, weights = (jnp.asarray(v) for v in (change, member, inside * w[None]))
    arrays = change, member, weights, jnp.asarray([r.period for r in rows], jnp.int32)
    covariates, fold = jnp.asarray(x), jnp.asarray(ids)
    if isinstance(ml_g, HostLearner) or isinstance(ml_m, HostLearner):
        each = [
            _one_cell(cell, covariates, fold, ml_g, ml_m, key, **fixed)
            for cell in zip(*arrays, strict=True)
        ]
        theta, psi = (np.stack([np.asarray(v) for v in part]) for part in zip(*each, strict=True))
        return theta, psi
    key = jax.random.key(0) if key is None else key
    return jax.device_get(_every_cell(arrays, covariates, fold, ml_g, ml_m, key, **fixed))


def _one_cell(
    cell: Sequence[Array],
    X: Array,
    fold_ids: Array,
    ml_g: Any,
    ml_m: Any,
    key: Any,
    **fixed: Any,
) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    change, member, weights, period = cell
    found = did_panel(
        change,
        member,
        X if X.ndim == 2 else X[:, period],
        ml_g=ml_g,
        ml_m=ml_m,
        fold_ids=fold_ids,
        units=Units(weights=weights),
        key=key,
        **fixed,
    )
    return found.theta, found.psi


@functools.partial(jax.jit, static_argnames=("n_folds", "clip", "experimental"))
def _every_cell(
    cells: tuple[Array, Array, Array, Array],  # change, member, weights (c, n); period (c,)
    X: Array,
    fold_ids: Int[Array, " n"],
    ml_g: Learner,
    ml_m: Learner,
    key: Key,
    *,
    n_folds: int,
    clip: tuple[float, float],
    experimental: bool,
) -> tuple[Float[Array, " c"], Float[Array, "c n"]]:
    """One cell after the other, so that memory is that of one."""
    fixed = {"clip": clip, "experimental": experimental, "n_folds": n_folds}

    def one(cell: Sequence[Array]) -> tuple[Array, Array]:
        return _one_cell(cell, X, fold_ids, ml_g, ml_m, key, **fixed)

    return jax.lax.map(one, cells)


def _words(gone: Sequence[Cell]) -> tuple[str, ...]:
    if not gone:
        return ()
    shown = "; ".join(cell.name for cell in gone[:5]) + ("; ..." if len(gone) > 5 else "")
    return (
        f"left out {len(gone)} cells without treated or comparison units in a training fold: "
        f"{shown}",
    )
