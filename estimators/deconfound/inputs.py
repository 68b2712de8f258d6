"""What a fit is given, checked and as arrays; every refusal is one sentence."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcore.data.columns import check_index, frame_columns, name_of
from jaxcore.errors import UserError
from jaxcore.estimators.arguments import checked_units
from jaxcore.estimators.checks import (
    Sample,
    cluster_numbers,
    complete_rows,
    independent_columns,
)
from jaxcore.estimators.columns import column, covariate_columns, label_numbers, single
from jaxcore.estimators.deconfound.bends import Bend
from jaxcore.estimators.units import Units


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of groups: its name, the labels that occur, and the place of every row's."""

    name: str
    labels: list[Any]
    numbers: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Rows of each group."""
        return np.bincount(self.numbers, minlength=len(self.labels))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Checked data on the host, float64; parts that were not given have no columns.

    The arrays are NumPy's, and go into functions that are typed for JAX's.
    """

    Y: Any  # outcome, (n,)
    C: Any  # confounders, (n, p)
    Z: Any  # instruments, (n, m)
    X: Any  # features of the texts, (n, d)
    W: Any  # controls, (n, w)
    kinds: tuple[Kind, ...]  # of groups
    confounders: tuple[str, ...]
    instruments: tuple[str, ...]
    controls: tuple[str, ...]
    units: Units
    kept: np.ndarray  # True for the rows given that are here
    notices: tuple[str, ...]
    outcome: str = "outcome"

    def bent(self, of_c: Bend, of_z: Bend) -> "Inputs":
        """The same with further columns of the confounders, and of the instruments."""
        new = dataclasses.replace(
            self,
            C=of_c.columns(self.C),
            Z=of_z.columns(self.Z),
            confounders=of_c.names(self.confounders),
            instruments=of_z.names(self.instruments),
        )
        parts = {"confounders": new.C, "instruments": new.Z, "controls": new.W}
        named = {"confounders": new.confounders, "instruments": new.instruments}
        _check_apart(parts, named, self.units)
        return new

    def rows(self, good: np.ndarray, notice: str) -> "Inputs":
        """Some rows alone, and a word on the others."""
        kept = self.kept.copy()
        kept[self.kept] = good
        parts = {name: getattr(self, name)[good] for name in ("Y", "C", "Z", "X", "W")}
        given = (self.units.weights, self.units.clusters)
        held: list[Any] = [None if a is None else np.asarray(a)[good] for a in given]
        return dataclasses.replace(
            self,
            **parts,
            kinds=tuple(kind_of(k.name, np.array(k.labels)[k.numbers[good]]) for k in self.kinds),
            units=checked_units(Units(*held), int(good.sum())),
            kept=kept,
            notices=(*self.notices, notice),
        )

    def sample(self) -> Sample:
        """What results keep: controls as covariates; features of texts are not kept."""
        n = len(self.Y)
        groups = [kind.numbers[:, None].astype(np.float64) for kind in self.kinds[:1]]
        A = self.C if self.C.shape[1] else np.concatenate([np.zeros((n, 0)), *groups], axis=1)
        names = {"outcome": self.outcome, "confounders": ", ".join(self.confounders)}
        names |= {"instruments": ", ".join(self.instruments)}
        names |= {"groups": ", ".join(kind.name for kind in self.kinds)}
        return Sample(
            Y=self.Y,
            A=A,
            Z=self.Z if self.Z.shape[1] else A,
            X=self.W,
            covariates=self.controls,
            weights=_host(self.units.weights),
            clusters=_host(self.units.clusters),
            kept=self.kept,
            notices=self.notices,
            names={role: name for role, name in names.items() if name},
        )


def _host(values: Any) -> np.ndarray | None:
    return None if values is None else np.asarray(values)


def kind_of(name: str, labels: Any) -> Kind:
    """A kind of groups from the label of every row."""
    found, numbers = label_numbers(single(labels, name), name)
    return Kind(name, found.tolist(), numbers)


def checked(
    Y: Any,
    C: Any,
    *,
    instruments: Any = None,
    features: Any = None,
    groups: Any = None,
    controls: Any = None,
    weights: Any = None,
    clusters: Any = None,
    missing: str = "error",
    names: Mapping[str, Sequence[str] | str] | None = None,
) -> Inputs:
    """Check outcome, confounders and what the routes need besides: arrays, lists, or frames.

    Args:
      Y: outcome.
      C: confounders, one column or several.
      instruments: one column or several.
      features: of the texts, (n, d).
      groups: labels, of several kinds in columns or a frame.
      controls: further regressors.
      weights: observation weights.
      clusters: cluster labels.
      missing: "error" refuses missing values; "drop" leaves such rows out and says how many.
      names: "outcome", "confounders", "instruments", "controls", "groups" -> names.

    Raises:
      UserError: what is wrong with the data.
    """
    told: dict[str, Any] = dict(names or {})
    given = {"outcome": Y, "confounders": C, "instruments": instruments, "controls": controls}
    check_index(given | {"features": features, "groups": groups, "weights": weights})
    outcome = str(told.get("outcome") or name_of(Y, "outcome"))
    y = column(Y, "outcome")
    n = len(y)
    if n == 0:
        raise UserError("Expected at least one row of data, found none.")
    parts, found = {}, {}
    for role, letter in (("confounders", "c"), ("instruments", "z"), ("controls", "w")):
        parts[role], found[role] = _columns(given[role], told.get(role), letter, n)
    x = _columns(features, None, "x", n)[0]
    kinds = _kinds(groups, told.get("groups"), n)
    bad = {outcome: y}
    for role in parts:
        bad |= dict(zip(found[role], parts[role].T, strict=True))
    if x.shape[1]:
        bad["features"] = np.where(np.isfinite(x).all(axis=1), 0.0, np.nan)
    together = _kinds(clusters, None, n)
    bad |= {f"cluster {name}": labels for name, labels in together.items()}
    bad |= {kind: labels for kind, labels in kinds.items() if kind not in bad}
    kept, notices = complete_rows(bad, missing)
    w: Any = None if weights is None else column(weights, "weights", n=n)[kept]
    units = Units(
        w,
        _numbered([labels[kept] for labels in together.values()]),
    )
    y, x = y[kept], x[kept]
    parts = {role: a[kept] for role, a in parts.items()}
    if np.ptp(y) <= 1e-14 * np.max(np.abs(y)):  # nothing but rounding
        raise UserError(f"Expected an outcome that varies, found only {y[0]:g}.")
    units = checked_units(units, len(y))
    _check_apart(parts, found, units)
    return Inputs(
        Y=y,
        C=parts["confounders"],
        Z=parts["instruments"],
        X=x,
        W=parts["controls"],
        kinds=tuple(kind_of(name, labels[kept]) for name, labels in kinds.items()),
        **found,
        units=units,
        kept=kept,
        notices=tuple(notices),
        outcome=outcome,
    )


def _columns(
    values: Any, names: Sequence[str] | None, letter: str, n: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Columns of numbers and their names; none at all if nothing is given."""
    if values is None:
        return np.zeros((n, 0)), ()
    if isinstance(names, str):
        names = (names,)
    a, found = covariate_columns(values, names, n)
    if names is None and frame_columns(values) is None and not hasattr(values, "name"):
        found = tuple(f"{letter}{j + 1}" for j in range(a.shape[1]))
    return a, found


def _kinds(groups: Any, names: Any, n: int) -> dict[str, np.ndarray]:
    """Labels of every kind of groups, by its name."""
    if groups is None:
        return {}
    parts = frame_columns(groups)
    if parts is None:
        a = np.asarray(groups)
        columns = list(a.T) if a.ndim == 2 else [a]
        if isinstance(names, str):
            names = (names,)
        named = names or (["group"] if len(columns) == 1 else [f"g{j}" for j in range(1, 9)])
        parts = list(zip(map(str, named), columns, strict=False))
    return {name: single(labels, name, n=n) for name, labels in parts}


def _numbered(kinds: Sequence[np.ndarray]) -> Any:
    """Numbers of clusters, of several kinds in columns; None without any."""
    numbers = [cluster_numbers(labels) for labels in kinds]
    return None if not numbers else numbers[0] if len(numbers) == 1 else np.stack(numbers, axis=1)


def _check_apart(
    parts: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]], units: Units
) -> None:
    """Refuse columns that do not vary or are linear combinations of those before them."""
    n = len(parts["confounders"])
    one = np.ones((n, 1))
    w: Any = units.weights
    # centred: dates in seconds vary by a tiny share of what they are
    parts = {role: a - a.mean(axis=0)[None] for role, a in parts.items()}
    for role in ("confounders", "instruments"):
        before = np.concatenate([one, parts["controls"]], axis=1)
        free = independent_columns(np.concatenate([before, parts[role]], axis=1), w)
        for name, good in zip(names[role], free[before.shape[1] :], strict=True):
            if not good:
                raise UserError(
                    f"Expected {role} that vary and are no linear combinations of each other and "
                    f"the controls, found that {name!r} is one."
                )
