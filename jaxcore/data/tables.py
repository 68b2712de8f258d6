"""Tables: CSV and Parquet files, dataframes of any library, formulas."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.errors import UserError

READERS = (".csv", ".tsv", ".parquet", ".pq")

MAX_COLUMNS = 100_000
"""Of a file: each takes a kilobyte and more however short it is, and one byte of a CSV."""
MAX_SWELLING = 1000
"""Times its size that a file may take as a table: a kilobyte of Parquet can declare a terabyte."""
_ALWAYS = 2**28  # bytes that any file may take
_ROWS = 2**16  # of Parquet, read together
_MAX_HEADER = 2**24  # bytes of the first line of a CSV


@dataclasses.dataclass(frozen=True)
class Table:
    """Named columns of one length: NumPy arrays, or Arrow columns read when they are asked for."""

    columns: dict[str, Any]
    source: str = "the table"

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
        if a.dtype.kind in "biuf":
            return a.astype(np.float64)
        if a.dtype.kind == "O":
            present = [(i, v) for i, v in enumerate(a) if v is not None]
            text = next(((i, v) for i, v in present if isinstance(v, (str, bytes))), None)
            if text is None:
                try:
                    return np.array([np.nan if v is None else float(v) for v in a])
                except (TypeError, ValueError):
                    text = present[0]
            row, value = text
        else:
            row, value = 0, a[0]
        raise UserError(
            f"Expected numbers in column {name!r} of {self.source}, found {value!r} in row "
            f"{row + 1}."
        )


def _numbered(data: Any) -> np.ndarray:
    """A column of numbered texts as objects, of which equal ones are the same."""
    parts = []
    for chunk in getattr(data, "chunks", [data]):
        texts = np.array([*chunk.dictionary.to_pylist(), None], object)
        parts.append(texts[chunk.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)])
    return np.concatenate(parts) if parts else np.empty(0, object)


def _arrow(table: Any, source: str) -> Table:
    _check_names(table.column_names, source)
    return Table(dict(zip(table.column_names, table.columns, strict=True)), source)


def _check_names(names: Sequence[Any], source: str) -> None:
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            raise UserError(f"Expected different column names in {source}, found {name!r} twice.")
        seen.add(name)


def read_table(path: str | Path) -> Table:
    """Read a CSV (``.csv``, ``.tsv``) or Parquet file.

    Empty fields, ``NA``, ``NaN`` and ``null`` are missing values in columns of numbers.

    Raises:
      UserError: no such file, an unknown ending, a file that cannot be read, more columns than
        `MAX_COLUMNS`, or one that takes more than `MAX_SWELLING` times its size and 256 MiB.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Expected a table, found no file {path}.")
    if path.suffix.lower() not in READERS:
        raise UserError(f"Expected a file ending in {', '.join(READERS)}, found {path}.")
    try:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "Expected pyarrow for reading tables (pip install 'jaxcore[frames]'), found it is not "
            "installed."
        ) from error
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = _read_parquet(path)
        else:
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
            with path.open("rb") as file:
                header = file.readline(_MAX_HEADER)
            _check_columns(header.count(separator.encode()) + 1, path)
            table = pyarrow.csv.read_csv(
                path, parse_options=pyarrow.csv.ParseOptions(delimiter=separator)
            )
        _ = table.column_names  # may not be text at all
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"Expected a readable table in {path}, found: {first}") from error
    return _arrow(table, str(path))


def _check_columns(count: int, path: Path) -> None:
    if count > MAX_COLUMNS:
        raise UserError(f"Expected at most {MAX_COLUMNS:,} columns, found {count:,} in {path}.")


def _read_parquet(path: Path) -> Any:
    """A table, put together from pieces until it is whole or takes too much."""
    import pyarrow as pa
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(path)
    _check_columns(len(schema), path)
    # Text stays numbered, as it is stored: a long one that is repeated would swell.
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    pieces, size, limit = [], 0, _ALWAYS + MAX_SWELLING * path.stat().st_size
    with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
        for piece in file.iter_batches(_ROWS):
            piece.validate(full=True)  # text that is none, and places beyond the end
            pieces.append(piece)
            size += piece.nbytes
            if size > limit:
                raise UserError(
                    f"Expected a table of at most {MAX_SWELLING:,} times the size of its file, "
                    f"found more than {limit:,} bytes in {path}."
                )
        return pa.Table.from_batches(pieces, file.schema_arrow)


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
    if isinstance(frame, Mapping):
        columns = {str(k): np.asarray(v) for k, v in frame.items()}
        lengths = {k: v.shape for k, v in columns.items()}
        if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
            raise UserError(f"Expected columns of one length, found {lengths}.")
        return Table(columns, source)
    if not (hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__dataframe__")):
        raise UserError(f"Expected a dataframe, found {type(frame).__name__}.")
    if hasattr(frame, "columns"):  # pandas allows a name twice, Arrow then mixes them up
        names = getattr(frame, "column_names", None) or list(frame.columns)
        _check_names([str(name) for name in names], source)
    import pyarrow as pa

    if hasattr(frame, "__arrow_c_stream__"):
        return _arrow(pa.table(frame), source)
    from pyarrow import interchange

    return _arrow(interchange.from_dataframe(frame), source)


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


def formula_parts(
    formula: str, table: Table, roles: Sequence[str] = ("outcome", "treatment", "instrument")
) -> tuple[Any, ...]:
    """A column for each role, the covariates and their names from a formula.

    Args:
      formula: ``outcome ~ treatment | instrument | covariates``; the covariates may use the
        functions of formulaic, such as ``bs(age, 4)`` and ``C(married)``. The constant is left
        out. Rows with missing values, of text too, stay in, as NaN in the terms they enter; they
        have no part in knots, means and categories.
      table: the data.
      roles: of the single columns: what stands before the covariates.

    Raises:
      UserError: formulaic is not installed, or what is wrong with the formula.
    """
    try:
        import formulaic
        from formulaic.errors import FormulaicError
    except ImportError as error:
        raise UserError(
            "Expected formulaic for formulas (pip install 'jaxcore[frames]'), found it is not "
            "installed."
        ) from error
    import pandas as pd

    table.check([])
    frame = pd.DataFrame({name: table.values(name) for name in table.names})
    shape = f"{roles[0]} ~ {' | '.join([*roles[1:], 'covariates'])}"
    try:
        make: Any = formulaic.Formula  # a factory that looks like an abstract class
        parsed = make(formula)
        left, right = getattr(parsed, "lhs", None), getattr(parsed, "rhs", None)
        if left is None or not isinstance(right, tuple) or len(right) != len(roles):
            raise UserError(f"Expected a formula {shape!r}, found {formula!r}.")
        with np.errstate(all="ignore"):  # what is not finite is counted by whoever uses it
            parts = [_model_matrix(part, frame, table.source) for part in (left, *right)]
    except (FormulaicError, SyntaxError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"Expected a formula for {table.source}, found: {first}") from error
    single = []
    for name, part in zip(roles, parts, strict=False):
        part = part.drop(columns="Intercept", errors="ignore")
        if part.shape[1] != 1:
            raise UserError(
                f"Expected one column for the {name} in {formula!r}, found {part.shape[1]}."
            )
        single.append(part.iloc[:, 0].to_numpy(np.float64))
    X = parts[-1].drop(columns="Intercept", errors="ignore")
    return (*single, X.to_numpy(np.float64), tuple(str(c) for c in X.columns))


def _model_matrix(part: Any, frame: Any, source: str) -> Any:
    """Columns of one part of a formula; terms with missing values are fitted on the other rows.

    formulaic would take a missing category for the reference, and a mean over NaN for NaN.
    """
    import pandas as pd

    def fitted(rows: Any) -> tuple[Any, Any]:
        matrix = part.get_model_matrix(rows, na_action="ignore", context={})
        return matrix, matrix.model_spec

    whole, spec = fitted(frame)
    pieces = []
    for term, used in spec.term_variables.items():
        named = [name for name in frame.columns if name in used]
        there = frame[named].notna().all(axis=1)
        if not there.any():
            raise UserError(f"Expected some values of {term} in {source}, found only missing ones.")
        matrix, own = (whole, spec) if there.all() else fitted(frame[there])
        pieces.append(matrix.iloc[:, own.term_indices[term]].reindex(frame.index))
    return pd.concat(pieces, axis=1) if pieces else whole
