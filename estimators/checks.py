"""Checks of data before it is used: every refusal is one sentence, every dropped row is counted."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from jaxcore.data.columns import array_of, check_index, frame_columns, name_of
from jaxcore.data.columns import missing as absent
from jaxcore.errors import UserError
from jaxcore.estimators.columns import (
    column,
    covariate_columns,
    label_numbers,
    several_levels,
    single,
    two_levels,
)
from jaxcore.estimators.units import Units

MISSING = ("error", "drop")
BINARY = {"treatment": "treated", "instrument": "assigned"}
"""Roles that may have two levels, and the settings that name the level which counts as 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Checked data on the host, float64, and what was done to them."""

    Y: np.ndarray
    A: np.ndarray
    Z: np.ndarray
    X: np.ndarray  # n, p
    covariates: tuple[str, ...]
    weights: np.ndarray | None
    clusters: np.ndarray | None  # 0 .. g-1; of several kinds in columns
    kept: np.ndarray  # True for the rows of the input that are here
    notices: tuple[str, ...]
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)  # role -> column
    levels: tuple[str, ...] = ()  # of a treatment numbered 0, 1, ..., or names of several

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.Y)

    def units(self, dtype: DTypeLike = np.float64, *, clustered: bool = True) -> Units:
        """Weights and, if wanted, clusters."""
        weights: Any = None if self.weights is None else self.weights.astype(dtype)
        clusters: Any = self.clusters if clustered else None
        return Units(weights, clusters)


def check_both(values: np.ndarray, name: str) -> None:
    """Refuse a column of 0 and 1 in which one of them is absent.

    Raises:
      UserError: with the value found.
    """
    if np.all(values == values[0]):
        raise UserError(f"Expected both 0 and 1 in the {name}, found only {values[0]:g}.")


def check_sample(
    Y: Any,
    A: Any,
    Z: Any,
    X: Any,
    *,
    weights: Any = None,
    clusters: Any = None,
    covariates: Sequence[str] | None = None,
    missing: str = "error",
    binary: Sequence[str] = ("treatment", "instrument"),
    many: bool = False,
    levels: Mapping[str, Any] | None = None,
    holes: bool = False,
    names: Mapping[str, str] | None = None,
) -> Sample:
    """Check outcome, treatment, instrument and covariates: arrays, lists, series or frames.

    Args:
      Y: outcome.
      A: treatment.
      Z: instrument; None stands for the treatment itself.
      X: covariates, one column or several.
      weights: observation weights, non-negative and not all zero.
      clusters: cluster labels of any kind; columns of several kinds (firm and year).
      covariates: names of the columns of ``X``; None takes those of a frame.
      missing: "error" refuses missing or infinite values; "drop" leaves such rows out and says
        how many.
      binary: roles of two levels; see `two_levels`.
      many: the treatment has several levels, which are numbered.
      levels: role -> the level that counts as 1.
      holes: NaN may stand in covariates (the learners take them).
      names: role -> name of its column, for tables.

    Raises:
      UserError: what is wrong with the data.
    """
    if missing not in MISSING:
        raise UserError(f"Expected missing='error' or 'drop', found {missing!r}.")
    given = {"outcome": Y, "treatment": A} | ({} if Z is None else {"instrument": Z})
    named = {role: name_of(values, role) for role, values in given.items()} | dict(names or {})
    extra = {"covariates": X, "weights": weights, "clusters": clusters}
    check_index(given | extra)
    y = column(Y, "outcome")
    n = len(y)
    if n == 0:
        raise UserError("Expected at least one row of data, found none.")
    columns, notices = {"outcome": y}, []
    named_levels: tuple[str, ...] = ()
    for role, values in list(given.items())[1:]:
        if many and role == "treatment":
            columns[role], named_levels = several_levels(values, role, n=n)
            continue
        columns[role] = (
            column(values, role, n=n)
            if role not in binary
            else _coded(values, role, (levels or {}).get(role), n, notices)
        )
    x, x_names = covariate_columns(X, covariates, n)
    w = None if weights is None else column(weights, "weights", n=n)
    labels = None if clusters is None else _labels(clusters, n)
    bad = {role: ~np.isfinite(v) for role, v in columns.items()}
    for j, name in enumerate(x_names):
        bad[f"covariate {name!r}"] = np.isinf(x[:, j]) if holes else ~np.isfinite(x[:, j])
    if w is not None:
        bad["weights"] = ~np.isfinite(w)
    if labels is not None:
        bad["clusters"] = np.any([absent(kind) for kind in labels], axis=0)
    kept, dropped = _complete(bad, n, missing)
    notices = dropped + notices
    columns, x = {role: v[kept] for role, v in columns.items()}, x[kept]
    if many:
        columns["treatment"], named_levels = _present(columns["treatment"], named_levels)
    for role, values in columns.items():
        _check_values(role, values, role in binary)
    if w is not None:
        w = w[kept]
        if w.min() < 0 or w.sum() == 0:
            raise UserError(
                "Expected weights that are not negative and not all zero, "
                f"found a smallest one of {w.min():g} and a sum of {w.sum():g}."
            )
    _check_roles(columns, {f"covariate {name!r}": x[:, j] for j, name in enumerate(x_names)})
    varies = _varies(x)
    if not varies.all():
        gone = [name for name, v in zip(x_names, varies, strict=True) if not v]
        notices.append(f"left out {_count(len(gone), 'constant covariate')}: {', '.join(gone)}")
    a = columns["treatment"]
    return Sample(
        Y=columns["outcome"],
        A=a,
        Z=columns.get("instrument", a),
        X=x[:, varies],
        covariates=tuple(name for name, v in zip(x_names, varies, strict=True) if v),
        weights=w,
        clusters=None if labels is None else _cluster_columns([kind[kept] for kind in labels]),
        kept=kept,
        notices=tuple(notices),
        names=named,
        levels=named_levels,
    )


def _present(numbers: np.ndarray, levels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers 0, 1, ... of the levels that are left."""
    left, numbers = np.unique(numbers, return_inverse=True)
    kept = [levels[int(place)] for place in left]
    if len(kept) < 2:
        raise UserError(f"Expected several levels of the treatment, found only {kept[0]}.")
    return numbers.astype(np.float64), tuple(kept)


def _coded(values: Any, role: str, level: Any, n: int, notices: list[str]) -> np.ndarray:
    out, notice = two_levels(values, role, level, n=n, setting=BINARY[role])
    if notice is not None:
        notices.append(notice)
    return out


def _check_values(role: str, values: np.ndarray, binary: bool) -> None:
    if binary:
        check_both(values, role)
    elif np.all(values == values[0]):
        article = "a" if role == "treatment" else "an"
        raise UserError(f"Expected {article} {role} that varies, found only {values[0]:g}.")


def _varies(x: np.ndarray) -> np.ndarray:
    """Columns with two different values and more."""
    if not x.size:
        return np.zeros(x.shape[1], bool)
    with np.errstate(invalid="ignore"):
        return np.fmax.reduce(x, axis=0) > np.fmin.reduce(x, axis=0)


def _labels(clusters: Any, n: int) -> list[np.ndarray]:
    """Labels of each kind."""
    parts = frame_columns(clusters)
    if parts is not None:
        kinds = [single(kind, "clusters") for _, kind in parts]
    else:
        a = array_of(clusters, "the clusters")
        kinds = list(a.T) if a.ndim == 2 else [single(a, "clusters")]
    if not kinds or any(len(kind) != n for kind in kinds):
        found = f"{len(kinds[0])}" if kinds else "none"
        raise UserError(f"Expected {n} cluster labels, found {found}.")
    return kinds


def _cluster_columns(kinds: list[np.ndarray]) -> np.ndarray:
    numbers = [cluster_numbers(kind) for kind in kinds]
    return numbers[0] if len(numbers) == 1 else np.stack(numbers, axis=1)


def cluster_numbers(labels: np.ndarray) -> np.ndarray:
    """Cluster labels of any kind as numbers 0 .. g-1.

    >>> cluster_numbers(np.array(["b", "a", "b"])).tolist()
    [1, 0, 1]
    """
    found, numbers = label_numbers(labels, "cluster")
    if len(found) < 2:
        raise UserError(f"Expected at least 2 clusters, found {len(found)}.")
    return numbers


def _check_roles(roles: dict[str, np.ndarray], covariates: dict[str, np.ndarray]) -> None:
    """Refuse one variable in two roles, perhaps with another unit or the other way round.

    Treatment and instrument may be the same here: a fit treats that as full compliance.
    """
    lines = {role: _centred(values) for role, values in roles.items()}
    for other in list(lines)[1:]:
        _refuse_same("outcome", lines["outcome"], other, lines[other])
    for name, values in covariates.items():
        if np.isnan(values).any():
            continue
        line = _centred(values)
        for role in roles:
            _refuse_same(role, lines[role], name, line)


def _centred(values: np.ndarray) -> np.ndarray:
    """Values less their mean, of length one; zeros if they do not vary."""
    v = values / max(np.max(np.abs(values)), 1e-300)  # its square must not overflow
    v = v - np.mean(v)
    length = np.sqrt(v @ v)
    return v / length if length > 0 else v


def _refuse_same(one: str, a: np.ndarray, other: str, b: np.ndarray) -> None:
    if abs(a @ b) >= 1 - 1e-12:
        raise UserError(
            f"Expected different variables, found that {one} and {other} are the same (or one a "
            "multiple of the other plus a constant)."
        )


def _complete(
    parts: Mapping[str, np.ndarray], n: int, missing: str
) -> tuple[np.ndarray, list[str]]:
    """Rows that are good in every part, and what to say about the others."""
    kept = np.ones(n, bool)
    worst = []
    for name, bad in parts.items():
        if bad.any():
            worst.append(f"{int(bad.sum())} in the {name}")
            kept &= ~bad
    if not worst:
        return kept, []
    if missing == "error":
        raise UserError(
            f"Expected no missing or infinite values, found {', '.join(worst)}: remove them or "
            "allow rows to be dropped (missing='drop', --missing drop)."
        )
    gone = int(n - kept.sum())
    if gone == n:
        raise UserError(
            f"Expected rows without missing values, found some in all {n}: {', '.join(worst)}."
        )
    return kept, [f"dropped {_count(gone, 'row')} of {n} with missing values: {', '.join(worst)}"]


def complete_rows(columns: Mapping[str, np.ndarray], missing: str) -> tuple[np.ndarray, list[str]]:
    """Rows without missing or infinite values, and what to say about the others.

    Raises:
      UserError: there are some and they may not be dropped, or there are no others.

    >>> complete_rows({"x": np.array([1.0, np.nan])}, "drop")[0].tolist()
    [True, False]
    """
    bad = {f"column {name!r}": absent(a) for name, a in columns.items()}
    for name, a in columns.items():
        if a.dtype.kind == "f":
            bad[f"column {name!r}"] = ~np.isfinite(a)
    return _complete(bad, len(next(iter(columns.values()))), missing)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def independent_columns(
    B: np.ndarray, weights: np.ndarray | None = None, tol: float = 1e-9
) -> np.ndarray:
    """True for the columns that are no linear combination of columns before them.

    A Cholesky factorisation of the correlations in the order of the columns; ``tol`` is the share
    of a column's mean square that its predecessors must leave unexplained.

    >>> x = np.array([0.0, 1.0, 1.0, 0.0])
    >>> independent_columns(np.stack([np.ones(4), x, x**2, x + 1], axis=1)).tolist()
    [True, True, False, False]
    """
    gram = B.T @ B if weights is None else (B * weights[:, None]).T @ B
    size = np.sqrt(np.diag(gram))
    size = np.where(size > 0, size, 1.0)
    rest = gram / size[:, None] / size[None]
    out = np.zeros(B.shape[1], bool)
    for j in range(B.shape[1]):
        out[j] = rest[j, j] > tol
        if out[j]:
            row = rest[j] / np.sqrt(rest[j, j])
            rest = rest - np.outer(row, row)
    return out
