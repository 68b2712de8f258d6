"""Tables: columns by name, from dataframes of any library."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcore.data.columns import array_of, floats, frame_columns, is_missing
from jaxcore.errors import UserError


@dataclasses.dataclass(frozen=True)
class Table:
    """Named columns of one length: NumPy arrays, or Arrow columns read when they are asked for."""

    columns: dict[str, Any]
    source: str = "the table"
    codes: tuple[str, ...] = ()  # what stands for a missing value, besides empty fields
    notices: tuple[str, ...] = ()  # how a file was taken

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.columns)

    def check(self, wanted: Sequence[str]) -> None:
        """Refuse a table without rows or without a wanted column.

        Raises:
          UserError: names what is absent, and a similar name if there is one.
        """
        import difflib

        if len(self) == 0:
            raise UserError(f"Expected at least one row in {self.source}, found none.")
        for name in wanted:
            if name not in self.columns:
                near = difflib.get_close_matches(name, self.names, 1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise UserError(
                    f"Expected a column {name!r} in {self.source}, found "
                    f"{', '.join(self.names[:20])}{hint}."
                )

    def values(self, name: str) -> np.ndarray:
        """A column as it is; missing entries are NaN, or None in columns of text."""
        self.check([name])
        return _without_codes(self._values(name), self.codes)

    def _values(self, name: str) -> np.ndarray:
        data = self.columns[name]
        if isinstance(data, np.ndarray):
            return data
        import pyarrow as pa

        if pa.types.is_dictionary(data.type):
            if not pa.types.is_primitive(data.type.value_type):  # text: each is made once
                return _numbered(data)
            data = data.cast(data.type.value_type)
        if pa.types.is_decimal(data.type):
            data = data.cast(pa.float64())
        return data.to_numpy()

    def numbers(self, name: str) -> np.ndarray:
        """A column as float64; missing entries are NaN.

        Raises:
          UserError: the column holds text or dates.
        """
        a = self.values(name)
        try:
            return floats(a, f"column {name!r} of {self.source}")
        except UserError:
            if a.dtype.kind == "c":
                raise
        text = [(i, v) for i, v in enumerate(a) if isinstance(v, (str, bytes))]
        row, value = (text or [(i, v) for i, v in enumerate(a) if not is_missing(v)])[0]
        raise UserError(
            f"Expected numbers in column {name!r} of {self.source}, found {value!r} in row "
            f"{row + 1}."
        )


def _without_codes(a: np.ndarray, codes: Sequence[str]) -> np.ndarray:
    """What is one of the codes becomes NaN, in columns of other than numbers None."""
    if not codes:
        return a
    if a.dtype.kind in "biuf":
        numbers = [float(code) for code in codes if _is_number(code)]
        hit = np.isin(a, numbers)
        return np.where(hit, np.nan, a.astype(np.float64)) if hit.any() else a
    texts = a.astype(object)
    return np.array([None if str(v) in codes else v for v in texts], object)


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def _numbered(data: Any) -> np.ndarray:
    """A column of numbered texts as objects, of which equal ones are the same."""
    parts = []
    for chunk in getattr(data, "chunks", [data]):
        texts = np.array([*chunk.dictionary.to_pylist(), None], object)
        parts.append(texts[chunk.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)])
    return np.concatenate(parts) if parts else np.empty(0, object)


def from_arrow(table: Any, source: str) -> Table:
    """A table of Arrow columns, which are made NumPy arrays when they are asked for."""
    _check_names(table.column_names, source)
    return Table(dict(zip(table.column_names, table.columns, strict=True)), source)


def _check_names(names: Sequence[Any], source: str) -> None:
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            raise UserError(f"Expected different column names in {source}, found {name!r} twice.")
        seen.add(name)


def as_table(frame: Any, source: str = "the table") -> Table:
    """A table from a dataframe (pandas, polars, pyarrow, any with the protocol) or a dict.

    Args:
      frame: something with ``__arrow_c_stream__`` or ``__dataframe__``, or a mapping of columns.
      source: how messages call it.

    >>> as_table({"y": [1.0, 2.0]}).numbers("y").tolist()
    [1.0, 2.0]
    """
    if isinstance(frame, Table):
        return frame
    if isinstance(frame, Mapping) or hasattr(frame, "iloc"):  # pandas needs no Arrow
        named = frame_columns(frame) or []
        _check_names([name for name, _ in named], source)
        columns = {name: array_of(values, f"column {name!r}") for name, values in named}
        lengths = {k: v.shape for k, v in columns.items()}
        if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
            raise UserError(f"Expected columns of one length, found {lengths}.")
        return Table(columns, source)
    if not (hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__dataframe__")):
        raise UserError(f"Expected a dataframe, found {type(frame).__name__}.")
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UserError(
            f"Expected pyarrow for a {type(frame).__name__} (pip install 'jaxcore[frames]'), found "
            "it is not installed."
        ) from error

    if hasattr(frame, "__arrow_c_stream__"):
        return from_arrow(pa.table(frame), source)
    from pyarrow import interchange

    return from_arrow(interchange.from_dataframe(frame), source)


def design(table: Table, covariates: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Covariate columns as one matrix, and their names.

    >>> design(as_table({"a": [1, 2], "b": [0.5, 1.5]}), ["b", "a"])[0].tolist()
    [[0.5, 1.0], [1.5, 2.0]]
    """
    _check_names(covariates, "the list of covariates")
    table.check(covariates)
    columns = [table.numbers(name) for name in covariates]
    X = np.stack(columns, axis=1) if columns else np.zeros((len(table), 0))
    return X, tuple(covariates)
