"""Checks of data before it is used: every refusal is one sentence, every dropped row is counted."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from jaxcore.errors import UserError
from jaxcore.estimators.units import Units

MISSING = ("error", "drop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Checked data on the host, float64, and what was done to them."""

    Y: np.ndarray
    A: np.ndarray
    Z: np.ndarray
    X: np.ndarray  # n, p
    covariates: tuple[str, ...]
    weights: np.ndarray | None
    clusters: np.ndarray | None  # 0 .. g-1
    kept: np.ndarray  # True for the rows of the input that are here
    notices: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.Y)

    def units(self, dtype: DTypeLike = np.float64, *, clustered: bool = True) -> Units:
        """Weights and, if wanted, clusters."""
        weights: Any = None if self.weights is None else self.weights.astype(dtype)
        clusters: Any = self.clusters if clustered else None
        return Units(weights, clusters)


def column(value: ArrayLike, name: str, *, n: int | None = None) -> np.ndarray:
    """One numeric column as float64.

    >>> column([1, 2], "outcome").tolist()
    [1.0, 2.0]
    """
    a = np.asarray(value)
    if a.ndim == 2 and a.shape[1] == 1:
        a = a[:, 0]
    if a.ndim != 1:
        raise UserError(
            f"Expected one column of numbers for the {name}, found an array of shape {a.shape}."
        )
    if n is not None and len(a) != n:
        raise UserError(f"Expected {n} rows in the {name}, found {len(a)}.")
    return _floats(a, f"the {name}")


def _floats(a: np.ndarray, where: str) -> np.ndarray:
    if a.dtype.kind in "biuf":
        return a.astype(np.float64)
    if a.dtype.kind == "c":
        raise UserError(f"Expected real numbers in {where}, found complex ones.")
    try:  # objects may be numbers and None; text never is, even if it looks like numbers
        if a.dtype.kind == "O" and not any(isinstance(v, (str, bytes)) for v in a.reshape(-1)):
            return a.astype(np.float64)
    except (TypeError, ValueError):
        pass
    example = next((v for v in a.reshape(-1) if isinstance(v, (str, bytes, np.str_))), a.flat[0])
    raise UserError(f"Expected numbers in {where}, found values such as {str(example)!r}.")


def _covariates(
    X: ArrayLike, names: Sequence[str] | None, n: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    a = np.asarray(X)
    if a.ndim == 1:
        a = a[:, None]
    if a.ndim != 2:
        raise UserError(
            f"Expected covariates with rows and columns, found an array of shape {a.shape}."
        )
    if len(a) != n:
        raise UserError(f"Expected {n} rows in the covariates, found {len(a)}.")
    if names is None:
        names = tuple(f"x{j + 1}" for j in range(a.shape[1]))
    if len(names) != a.shape[1]:
        raise UserError(f"Expected {a.shape[1]} covariate names, found {len(names)}.")
    check_unique(names)
    columns = [_floats(a[:, j], f"covariate {name!r}") for j, name in enumerate(names)]
    values = np.stack(columns, axis=1) if columns else np.zeros((n, 0))
    return values, tuple(names)


def check_unique(names: Sequence[str]) -> None:
    """Refuse names that occur twice.

    Raises:
      UserError: names them.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UserError(f"Expected different column names, found more than one {twice[0]!r}.")


def check_binary(values: np.ndarray, name: str) -> None:
    """Refuse a column that is not 0/1 or does not vary.

    Raises:
      UserError: with the values found.
    """
    found = np.unique(values)
    if not np.all(np.isin(found, (0.0, 1.0))):
        shown = ", ".join(f"{v:g}" for v in found[:5]) + (", ..." if len(found) > 5 else "")
        raise UserError(f"Expected only 0 and 1 in the {name}, found {shown}.")
    if len(found) < 2:
        raise UserError(f"Expected both 0 and 1 in the {name}, found only {found[0]:g}.")


def cluster_numbers(clusters: ArrayLike, n: int) -> np.ndarray:
    """Cluster labels of any kind as numbers 0 .. g-1.

    >>> cluster_numbers(["b", "a", "b"], 3).tolist()
    [1, 0, 1]
    """
    a = np.asarray(clusters)
    if a.shape != (n,):
        raise UserError(f"Expected {n} cluster labels, found an array of shape {a.shape}.")
    found, numbers = label_numbers(a, "cluster")
    if len(found) < 2:
        raise UserError(f"Expected at least 2 clusters, found {len(found)}.")
    return numbers


def label_numbers(labels: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The different labels in order, and the place of every unit's among them.

    Raises:
      UserError: a label is missing.

    >>> label_numbers(np.array(["b", "a", "b"]), "group")[1].tolist()
    [1, 0, 1]
    """
    if labels.dtype.kind == "O":
        missing = any(v is None or v != v for v in labels)
    else:
        missing = labels.dtype.kind == "f" and bool(np.isnan(labels).any())
    if missing:
        raise UserError(f"Expected a {what} label for every unit, found missing ones.")
    if labels.dtype.kind == "O":
        labels = labels.astype(str)
    found, numbers = np.unique(labels, return_inverse=True)
    return found, numbers.astype(np.int32)


def check_sample(
    Y: ArrayLike,
    A: ArrayLike,
    Z: ArrayLike | None,
    X: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    covariates: Sequence[str] | None = None,
    missing: str = "error",
) -> Sample:
    """Check outcome, binary treatment, binary instrument and covariates.

    Args:
      Y: outcome.
      A: treatment, 0 or 1.
      Z: instrument, 0 or 1; None stands for the treatment itself.
      X: covariates, one column or several.
      weights: observation weights, non-negative and not all zero.
      clusters: cluster labels of any kind.
      covariates: names of the columns of ``X``.
      missing: "error" refuses missing or infinite values; "drop" leaves such rows out and says
        how many.

    Raises:
      UserError: what is wrong with the data.
    """
    if missing not in MISSING:
        raise UserError(f"Expected missing='error' or 'drop', found {missing!r}.")
    y = column(Y, "outcome")
    n = len(y)
    if n == 0:
        raise UserError("Expected at least one row of data, found none.")
    a = column(A, "treatment", n=n)
    z = a if Z is None else column(Z, "instrument", n=n)
    x, names = _covariates(X, covariates, n)
    w = None if weights is None else column(weights, "weights", n=n)
    parts = {"outcome": y, "treatment": a} | ({} if Z is None else {"instrument": z})
    parts |= {f"covariate {name!r}": x[:, j] for j, name in enumerate(names)}
    if w is not None:
        parts["weights"] = w
    kept, notices = _complete(parts, n, missing)
    y, a, z, x = y[kept], a[kept], z[kept], x[kept]
    check_binary(a, "treatment")
    check_binary(z, "instrument")
    if np.all(y == y[0]):
        raise UserError(f"Expected an outcome that varies, found only {y[0]:g}.")
    if w is not None:
        w = w[kept]
        if w.min() < 0 or w.sum() == 0:
            raise UserError(
                "Expected weights that are not negative and not all zero, "
                f"found a smallest one of {w.min():g} and a sum of {w.sum():g}."
            )
    roles = {"outcome": y, "treatment": a, "instrument": z}
    _check_roles(roles, {f"covariate {name!r}": x[:, j] for j, name in enumerate(names)})
    varies = np.ptp(x, axis=0) > 0 if x.shape[1] else np.zeros(0, bool)
    if not varies.all():
        gone = [name for name, v in zip(names, varies, strict=True) if not v]
        notices.append(f"left out {_count(len(gone), 'constant covariate')}: {', '.join(gone)}")
    return Sample(
        Y=y,
        A=a,
        Z=z,
        X=x[:, varies],
        covariates=tuple(name for name, v in zip(names, varies, strict=True) if v),
        weights=w,
        clusters=None if clusters is None else cluster_numbers(_rows(clusters, kept, n), len(y)),
        kept=kept,
        notices=tuple(notices),
    )


def _check_roles(roles: dict[str, np.ndarray], covariates: dict[str, np.ndarray]) -> None:
    """Refuse one variable in two roles, perhaps with another unit or the other way round.

    Treatment and instrument may be the same here: a fit treats that as full compliance.
    """
    lines = {role: _centred(values) for role, values in roles.items()}
    for other in ("treatment", "instrument"):
        _refuse_same("outcome", lines["outcome"], other, lines[other])
    for name, values in covariates.items():
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


def _rows(clusters: ArrayLike, kept: np.ndarray, n: int) -> np.ndarray:
    a = np.asarray(clusters)
    if a.shape != (n,):
        raise UserError(f"Expected {n} cluster labels, found an array of shape {a.shape}.")
    return a[kept]


def _complete(parts: dict[str, np.ndarray], n: int, missing: str) -> tuple[np.ndarray, list[str]]:
    """Rows without missing or infinite values, and what to say about the others."""
    kept = np.ones(n, bool)
    worst = []
    for name, values in parts.items():
        bad = ~np.isfinite(values)
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
