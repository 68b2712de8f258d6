"""The columns of an estimator, checked one by one: numbers, two levels, covariates, labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcore.data.columns import array_of, floats, frame_columns, missing
from jaxcore.errors import UserError


def single(values: Any, name: str, *, n: int | None = None) -> np.ndarray:
    """One column of any kind, of ``n`` rows.

    >>> single([["a"], ["b"]], "treatment").tolist()
    ['a', 'b']
    """
    a = array_of(values, f"the {name}")
    if a.ndim == 2 and a.shape[1] == 1:
        a = a[:, 0]
    if a.ndim != 1:
        raise UserError(f"Expected one column for the {name}, found an array of shape {a.shape}.")
    if n is not None and len(a) != n:
        raise UserError(f"Expected {n} rows in the {name}, found {len(a)}.")
    return a


def column(values: Any, name: str, *, n: int | None = None) -> np.ndarray:
    """One numeric column as float64; missing entries are NaN.

    >>> column([1, None], "outcome").tolist()
    [1.0, nan]
    """
    return floats(single(values, name, n=n), f"the {name}")


def two_levels(
    values: Any, name: str, chosen: Any = None, *, n: int | None = None, setting: str = "treated"
) -> tuple[np.ndarray, str | None]:
    """A column of two levels as 0 and 1, and what to say about it.

    Numbers 0 and 1, and truth values, stay as they are. Of two others the larger or later one (in
    the order of its categories, or of the alphabet) counts as 1.

    Args:
      values: the column; missing entries become NaN.
      name: its role.
      chosen: the level that counts as 1, instead.
      n: rows there must be.
      setting: the name of ``chosen``, for messages.

    Raises:
      UserError: not two levels, or ``chosen`` is none of them.

    >>> two_levels(["drug", "placebo", "drug"], "treatment", "drug")[0].tolist()
    [1.0, 0.0, 1.0]
    """
    a = single(values, name, n=n)
    absent = missing(a)
    if a.dtype.kind == "c":
        raise UserError(f"Expected real numbers in the {name}, found complex ones.")
    if a.dtype.kind in "biuf" or _all_numbers(a[~absent]):
        a = floats(a, f"the {name}")
        absent = absent | ~np.isfinite(a)  # infinite ones are counted by whoever uses the column
        levels = np.unique(a[~absent]).tolist()
        plain = set(levels) <= {0.0, 1.0}
    else:
        levels, plain = _ordered(values, a[~absent]), False
    if chosen is not None:
        return _as_chosen(a, absent, levels, name, chosen, setting)
    if plain or not levels:
        return floats(a, f"the {name}"), None
    if len(levels) == 1:
        raise UserError(f"Expected both 0 and 1 in the {name}, found only {_shown(levels[0])}.")
    if len(levels) > 2:
        shown = ", ".join(map(_shown, levels[:5])) + (", ..." if len(levels) > 5 else "")
        raise UserError(f"Expected only 0 and 1 in the {name}, or two levels, found {shown}.")
    return _coded(a, absent, levels, name, setting)


MOST_LEVELS = 30


def several_levels(
    values: Any, name: str, *, n: int | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column of several levels as numbers 0, 1, ... (NaN where missing), and the levels.

    Numbers stand in their order, texts in that of their categories or of the alphabet.

    Raises:
      UserError: too many levels.

    >>> several_levels(["b", None, "a"], "treatment")
    (array([ 1., nan,  0.]), ('a', 'b'))
    """
    a = single(values, name, n=n)
    absent = missing(a)
    if a.dtype.kind == "c":
        raise UserError(f"Expected real numbers in the {name}, found complex ones.")
    if a.dtype.kind in "biuf" or _all_numbers(a[~absent]):
        a = floats(a, f"the {name}")
        absent = ~np.isfinite(a)
        found: list[Any] = np.unique(a[~absent]).tolist()
        shown = [f"{v:g}" for v in found]
    else:
        found = _ordered(values, a[~absent])
        shown = [str(v) for v in found]
    if len(found) > MOST_LEVELS:
        raise UserError(
            f"Expected at most {MOST_LEVELS} levels of the {name}, found {len(found)}: PLR takes "
            "numbers of any kind."
        )
    out = np.full(len(a), np.nan)
    for number, level in enumerate(found):
        out[~absent & (a == level)] = number
    return out, tuple(shown)


def level_named(levels: Sequence[str], wanted: Any, what: str) -> int:
    """The place of a level.

    Raises:
      UserError: there is no such level.

    >>> level_named(("0", "1.5"), 1.5, "reference")
    1
    """
    texts = {str(wanted)} | ({f"{wanted:g}"} if isinstance(wanted, int | float) else set())
    for place, level in enumerate(levels):
        if level in texts:
            return place
    raise UserError(f"Expected one of {', '.join(levels)} as {what}, found {wanted}.")


def _as_chosen(
    a: np.ndarray, absent: np.ndarray, levels: list[Any], name: str, chosen: Any, setting: str
) -> tuple[np.ndarray, str]:
    """The chosen level is 1, the other one 0."""
    found = [v for v in levels if _same(v, chosen)]
    if len(levels) != 2 or not found:
        shown = ", ".join(map(_shown, levels[:5])) + (", ..." if len(levels) > 5 else "")
        raise UserError(
            f"Expected two levels in the {name}, one of them {setting}={chosen!r}, found {shown}."
        )
    return _coded(a, absent, [v for v in levels if not _same(v, chosen)] + found, name, setting)


def _coded(
    a: np.ndarray, absent: np.ndarray, levels: list[Any], name: str, setting: str
) -> tuple[np.ndarray, str]:
    low, high = levels
    out = np.where(absent, np.nan, (a == high).astype(np.float64))
    if a.dtype.kind == "f":
        out = np.where(np.isinf(a), a, out)
    return out, (
        f"{name}: 1 stands for {_shown(high)}, 0 for {_shown(low)} ({setting}={_shown(low)} turns "
        "it round)"
    )


def _same(level: Any, chosen: Any) -> bool:
    if level == chosen or str(level) == str(chosen):
        return True
    try:  # "1" of a command line is the number 1
        return isinstance(level, float) and level == float(chosen)
    except (TypeError, ValueError):
        return False


def _shown(level: Any) -> str:
    return f"{level:g}" if isinstance(level, float) else repr(str(level))


def _all_numbers(a: np.ndarray) -> bool:
    if a.dtype.kind != "O":
        return False
    return all(isinstance(v, bool | int | float | np.bool_ | np.number) for v in a)


def _ordered(values: Any, present: np.ndarray) -> list[Any]:
    """The levels that occur, in the order of the categories if there is one."""
    found = sorted(set(present.tolist()), key=str)
    categories = getattr(getattr(values, "cat", None), "categories", None)
    if categories is None:
        return found
    return [c for c in categories if c in found]


def covariate_columns(
    X: Any, names: Sequence[str] | None, n: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Covariates as float64, and their names: those given, of a frame, or x1, x2, ...

    Raises:
      UserError: what is wrong with them.
    """
    parts = frame_columns(X)
    if parts is not None:
        names = tuple(name for name, _ in parts) if names is None else names
        columns = [single(column, f"covariate {name!r}", n=n) for name, column in parts]
    else:
        a = array_of(X, "the covariates")
        if a.ndim == 1:
            a = a[:, None]
        if a.ndim != 2:
            raise UserError(
                f"Expected covariates with rows and columns, found an array of shape {a.shape}."
            )
        if len(a) != n:
            raise UserError(f"Expected {n} rows in the covariates, found {len(a)}.")
        if names is None and a.shape[1] == 1:
            names = (str(getattr(X, "name", None) or "x1"),)
        columns = list(a.T)
    if names is None:
        names = tuple(f"x{j + 1}" for j in range(len(columns)))
    if len(names) != len(columns):
        raise UserError(f"Expected {len(columns)} covariate names, found {len(names)}.")
    names = tuple(map(str, names))
    check_unique(names)
    if parts is None and columns and columns[0].dtype.kind in "biuf":
        return array_of(X).reshape(n, -1).astype(np.float64), names
    named = zip(names, columns, strict=True)
    values = [floats(values, f"covariate {name!r}") for name, values in named]
    return np.stack(values, axis=1) if values else np.zeros((n, 0)), names


def check_unique(names: Sequence[str]) -> None:
    """Refuse names that occur twice.

    Raises:
      UserError: names them.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"Expected different column names, found more than one {name!r}.")
        seen.add(name)


def label_numbers(labels: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The different labels in order, and the place of every unit's among them.

    Raises:
      UserError: a label is missing, or 1 and "1" are both there.

    >>> label_numbers(np.array(["b", "a", "b"]), "group")[1].tolist()
    [1, 0, 1]
    """
    if missing(labels).any():
        raise UserError(
            f"Expected a {what} label for every unit, found {int(missing(labels).sum())} missing."
        )
    if labels.dtype.kind != "O":
        found, numbers = np.unique(labels, return_inverse=True)
        return found, numbers.astype(np.int32)
    texts: dict[str, Any] = {}
    named = [label_text(label) for label in labels]
    for text, label in zip(named, labels, strict=True):
        if texts.setdefault(text, label) != label:
            raise UserError(
                f"Expected {what} labels of one kind, found both the number and the text {text}."
            )
    place = {text: i for i, text in enumerate(sorted(texts))}
    return np.array(sorted(texts)), np.array([place[text] for text in named], np.int32)


def label_text(label: Any) -> str:
    """A label as text; 1.0 is the number 1.

    >>> label_text(1.0), label_text("a")
    ('1', 'a')
    """
    whole = isinstance(label, float | np.floating) and float(label).is_integer()
    return str(int(label)) if whole else str(label)
