"""Columns as NumPy arrays, from lists, arrays, series of any library; what is missing in them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcore.errors import UserError


def is_missing(value: object) -> bool:
    """None, NaN, NaT, or the NA of pandas.

    >>> is_missing(None), is_missing(float("nan")), is_missing(0), is_missing("")
    (True, True, False, False)
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    numbers = float | np.floating | np.datetime64 | np.timedelta64
    return isinstance(value, numbers) and value != value


def missing(a: np.ndarray) -> np.ndarray:
    """True where an entry is missing.

    >>> missing(np.array([1.0, np.nan])).tolist(), missing(np.array(["a", None], object)).tolist()
    ([False, True], [False, True])
    """
    if a.dtype.kind in "fcmM":
        return a != a
    if a.dtype.kind == "O":
        return np.fromiter(map(is_missing, a.reshape(-1)), bool, a.size).reshape(a.shape)
    return np.zeros(a.shape, bool)


def array_of(values: Any, what: str = "the column") -> np.ndarray:
    """A NumPy array of anything that holds values; what a mask hides becomes NaN or None.

    Raises:
      UserError: rows of different lengths.

    >>> array_of(np.ma.masked_equal([1, 2], 2)).tolist()
    [1.0, nan]
    """
    if isinstance(values, np.ma.MaskedArray):
        numbers = values.dtype.kind in "biuf"
        kept: Any = values.astype(np.float64 if numbers else object)
        return np.asarray(kept.filled(np.nan if numbers else None))
    if hasattr(values, "toarray"):  # a sparse matrix
        values = values.toarray()
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UserError(
            f"Expected rows of one length in {what}, found rows of different lengths."
        ) from error


def floats(values: np.ndarray, where: str) -> np.ndarray:
    """Numbers as float64; what is missing becomes NaN.

    Args:
      values: of any kind; text is refused even if it looks like numbers.
      where: how messages call it.

    Raises:
      UserError: text, dates or complex numbers.

    >>> floats(np.array([1, None], object), "x").tolist()
    [1.0, nan]
    """
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    if values.dtype.kind == "c":
        raise UserError(f"Expected real numbers in {where}, found complex ones.")
    example = values.flat[0] if values.size else None
    if values.dtype.kind == "O":
        try:
            flat = [np.nan if is_missing(v) else _number(v) for v in values.flat]
            return np.array(flat, np.float64).reshape(values.shape)
        except (TypeError, ValueError, OverflowError):
            example = next(v for v in values.flat if not is_missing(v) and not _is_number(v))
    raise UserError(f"Expected numbers in {where}, found values such as {str(example)!r}.")


def _number(value: Any) -> float:
    if isinstance(value, (str, bytes)):
        raise TypeError
    return float(value)


def _is_number(value: Any) -> bool:
    try:
        _number(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def frame_columns(frame: Any) -> list[tuple[str, Any]] | None:
    """Names and columns of a dataframe or a mapping; None if it is neither.

    >>> frame_columns({"a": [1, 2]}), frame_columns([1, 2])
    ([('a', [1, 2])], None)
    """
    if isinstance(frame, Mapping):
        return [(str(name), column) for name, column in frame.items()]
    if hasattr(frame, "iloc") and hasattr(frame, "columns"):  # pandas
        return [(str(name), frame.iloc[:, j]) for j, name in enumerate(frame.columns)]
    if hasattr(frame, "get_columns"):  # polars
        return [(column.name, column) for column in frame.get_columns()]
    if hasattr(frame, "column_names") and hasattr(frame, "columns"):  # pyarrow
        return list(zip(frame.column_names, frame.columns, strict=True))
    return None


def name_of(values: Any, default: str) -> str:
    """The name of a series or of the only column of a frame.

    >>> name_of([1.0], "outcome")
    'outcome'
    """
    columns = frame_columns(values)
    if columns is not None and len(columns) == 1:
        return columns[0][0]
    name = getattr(values, "name", None)
    return str(name) if isinstance(name, str | int) else default


def check_index(parts: Mapping[str, Any]) -> None:
    """Refuse series and frames whose rows are labelled differently: they would be mixed up.

    Raises:
      UserError: names the two.
    """
    first: tuple[str, Any] | None = None
    for role, values in parts.items():
        index: Any = getattr(values, "index", None)
        if not hasattr(index, "equals"):
            continue
        if first is None:
            first = role, index
        elif len(first[1]) == len(index) and not first[1].equals(index):
            raise UserError(
                f"Expected one index for all columns, found that those of {first[0]} and {role} "
                "differ: take them from one frame, or pass arrays if the order is right."
            )
