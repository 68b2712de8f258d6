"""Tables from files: CSV of any dialect, Parquet, Feather, Stata and Excel; bounded.

What a file of text does not say of itself (separator, decimal mark, encoding, compression) is found
from its first lines, or given.
"""

import bz2
import codecs
import dataclasses
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxcore.data.tables import Table, as_table, from_arrow
from jaxcore.errors import UserError

TEXT, PARQUET, ARROW = (".csv", ".tsv", ".txt"), (".parquet", ".pq"), (".feather", ".arrow")
READERS = (*TEXT, *PARQUET, *ARROW, ".dta", ".xlsx")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

MAX_COLUMNS = 100_000
"""Of a file: each takes a kilobyte and more however short it is, and one byte of a CSV."""
MAX_SWELLING = 1000
"""Times its size that a file may take as a table: a kilobyte of Parquet can declare a terabyte."""
_ALWAYS = 2**28  # bytes that any file may take
_ROWS = 2**16  # of Parquet, read together
_SAMPLE = 2**16  # bytes of text that its dialect is found from
_CELL = 64  # bytes that a cell of a sheet takes at least

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"(\xb5/\xfd": "zstd"}
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Besides what Arrow takes for missing by itself; a lone point is Stata's and SAS's.
_NULLS = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "#N/A", "#NA", "<NA>", "None", ".")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file is read; what is None is found from its first lines."""

    separator: str | None = None  # of the columns of a text file
    decimal: str | None = None  # mark of a text file: "." or ","
    encoding: str | None = None  # of a text file, such as utf-8 or latin-1
    missing_codes: tuple[str, ...] = ()  # fields that stand for a missing value, such as -99
    sheet: str | None = None  # of an Excel file; its first one


def read_table(path: str | Path, reading: Reading = Reading()) -> Table:
    """Read a CSV (``.csv``, ``.tsv``, ``.txt``), Parquet, Feather, Stata or Excel file.

    Empty fields, ``NA``, ``NaN``, ``null``, a lone point and the given codes are missing values.
    Files of text may be compressed (gzip, bzip2, xz, zstd); Stata's value labels are not read, so
    that numbers stay numbers.

    Args:
      path: the file.
      reading: what is not to be found from the file itself.

    Raises:
      UserError: no such file, an unknown ending, a file that cannot be read, more columns than
        `MAX_COLUMNS`, or one that takes more than `MAX_SWELLING` times its size and 256 MiB.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Expected a table, found no file {path}.")
    endings = [s.lower() for s in path.suffixes[-2:]]
    packed = bool(endings) and endings[-1] in COMPRESSED
    ending = ([""] + endings[: -1 if packed else None])[-1]
    if ending not in READERS:
        raise UserError(
            f"Expected a file ending in {', '.join(READERS)} (text also with "
            f"{', '.join(COMPRESSED)}), found {path}."
        )
    read = _readers()[ending]
    try:
        table = read(path, reading)
        _check_columns(len(table.columns), path)
    except UserError:
        raise
    except Exception as error:  # readers of strangers' files raise whatever they stumble over
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"Expected a readable table in {path}, found: {reason[0]}") from error
    return dataclasses.replace(table, codes=reading.missing_codes)


def _readers() -> dict[str, Callable[[Path, Reading], Table]]:
    """Ending -> reader."""
    readers = {TEXT: _read_text, PARQUET: _read_parquet, ARROW: _read_arrow}
    out = {ending: read for endings, read in readers.items() for ending in endings}
    return {**out, ".dta": _read_stata, ".xlsx": _read_excel}


def _imported(name: str, what: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"Expected {name.partition('.')[0]} for reading {what} (pip install "
            "'jaxcore[frames]'), found it is not installed."
        ) from error


def _check_columns(count: int, path: Path) -> None:
    if count > MAX_COLUMNS:
        raise UserError(f"Expected at most {MAX_COLUMNS:,} columns, found {count:,} in {path}.")


def _limit(path: Path) -> int:
    return _ALWAYS + MAX_SWELLING * path.stat().st_size


def _check_size(size: int, path: Path) -> None:
    if size > _limit(path):
        raise UserError(
            f"Expected a table of at most {MAX_SWELLING:,} times the size of its file, found more "
            f"than {_limit(path):,} bytes in {path}."
        )


def _content(path: Path) -> bytes:
    """All bytes of a file, unpacked if it is compressed."""
    with path.open("rb") as file:
        start = file.read(6)
    kind = next((k for magic, k in _MAGIC.items() if start.startswith(magic)), None)
    if kind is None:
        return path.read_bytes()
    openers: dict[str, Callable[[Path], Any]] = {
        "gzip": gzip.open,
        "bzip2": bz2.open,
        "xz": lzma.open,
        "zstd": lambda p: _imported("pyarrow", "tables").CompressedInputStream(str(p), "zstd"),
    }
    with openers[kind](path) as file:
        content = file.read(_limit(path) + 1)
    _check_size(len(content), path)
    return content


# --- text ---------------------------------------------------------------------------------------


def _read_text(path: Path, reading: Reading) -> Table:
    csv = _imported("pyarrow.csv", "tables")
    content = _content(path)
    encoding = reading.encoding or _encoding(content)
    if encoding.replace("_", "-").lower() not in ("utf-8", "utf8"):
        try:
            content = content.decode(encoding).encode()
        except (LookupError, UnicodeError) as error:
            raise UserError(f"Expected text in {encoding} in {path}, found other.") from error
    lines = content[:_SAMPLE].decode("utf-8", "replace").splitlines()
    lines = [line for line in (lines[:-1] if len(content) > _SAMPLE else lines) if line][:50]
    if not lines and content:
        _check_columns(content.count(b",") + 1, path)
    separator = reading.separator or _separator(lines, path)
    separator = {"tab": "\t", "\\t": "\t", "space": " "}.get(separator, separator)
    if len(separator) != 1:
        raise UserError(f"Expected one character as the separator, found {separator!r}.")
    decimal = reading.decimal or _decimal(lines, separator)
    if decimal not in (".", ","):
        raise UserError(f"Expected '.' or ',' as the decimal mark, found {decimal!r}.")
    header = content.partition(b"\n")[0]
    _check_columns(header.count(separator.encode()) + 1, path)
    table = csv.read_csv(
        io.BytesIO(content),
        parse_options=csv.ParseOptions(delimiter=separator),
        convert_options=csv.ConvertOptions(
            decimal_point=decimal,
            null_values=[*_NULLS, *reading.missing_codes],
            strings_can_be_null=True,
        ),
    )
    plain = (",", "\t") if path.suffix.lower() == ".tsv" else (",",)
    found = {
        "separator": None if separator in plain else separator,
        "decimal mark": None if decimal == "." else decimal,
        "encoding": None if encoding.startswith(("utf-8", "utf8")) else encoding,
    }
    told = ", ".join(f"{what} {value!r}" for what, value in found.items() if value is not None)
    whole = from_arrow(table, str(path))
    return dataclasses.replace(whole, notices=(f"{path.name}: {told}",) if told else ())


def _encoding(content: bytes) -> str:
    """By its mark; UTF-8 if it can be that, else Latin-1 with Microsoft's additions."""
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return name
    for encoding in ("utf-8", "cp1252"):
        try:
            codecs.decode(content, encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def _separator(lines: list[str], path: Path) -> str:
    """The character that stands equally often in all lines, and most often; else a comma.

    >>> _separator(["a;b", "1,5;2"], Path("t.csv")), _separator(["a"], Path("t.csv"))
    (';', ',')
    """
    if path.suffix.lower() == ".tsv" or not lines:
        return "\t" if lines else ","
    plain = [re.sub(r'"[^"]*"', "", line) for line in lines]
    best, most = ",", 0
    for one in ",;\t|":
        counts = {line.count(one) for line in plain}
        if len(counts) == 1 and (count := counts.pop()) > most:
            best, most = one, count
    return best


def _decimal(lines: list[str], separator: str) -> str:
    """A comma where numbers have one and none has a point.

    >>> _decimal(["a;b", "1,5;2"], ";"), _decimal(["a,b", "1,5"], ",")
    (',', '.')
    """
    if separator == ",":
        return "."
    fields = [f.strip().strip('"') for line in lines[1:] for f in line.split(separator)]
    commas = sum(re.fullmatch(r"[-+]?\d*,\d+([eE][-+]?\d+)?", f) is not None for f in fields)
    points = sum(re.fullmatch(r"[-+]?\d*\.\d+([eE][-+]?\d+)?", f) is not None for f in fields)
    return "," if commas and not points else "."


# --- columns and sheets -------------------------------------------------------------------------


def _read_parquet(path: Path, reading: Reading) -> Table:
    """A table, put together from pieces until it is whole or takes too much."""
    pa = _imported("pyarrow", "tables")
    pq = _imported("pyarrow.parquet", "tables")
    schema = pq.read_schema(path)
    _check_columns(len(schema), path)
    # Text stays numbered, as it is stored: a long one that is repeated would swell.
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        return _from_pieces(file.iter_batches(_ROWS), lambda: file.schema_arrow, path)


def _read_arrow(path: Path, reading: Reading) -> Table:
    pa = _imported("pyarrow", "tables")
    with pa.OSFile(str(path)) as file:
        whole = pa.ipc.open_file(file)
        _check_columns(len(whole.schema), path)
        pieces = (whole.get_batch(i) for i in range(whole.num_record_batches))
        return _from_pieces(pieces, lambda: whole.schema, path)


def _from_pieces(batches: Any, schema: Callable[[], Any], path: Path) -> Table:
    pa = _imported("pyarrow", "tables")
    pieces, size = [], 0
    for piece in batches:
        piece.validate(full=True)  # text that is none, and places beyond the end
        pieces.append(piece)
        size += piece.nbytes
        _check_size(size, path)
    table = pa.Table.from_batches(pieces, schema())
    _ = table.column_names  # may not be text at all
    return from_arrow(table, str(path))


def _read_stata(path: Path, reading: Reading) -> Table:
    pd = _imported("pandas", "Stata files")
    content = io.BytesIO(_content(path))  # of which no header can promise too much
    frame = pd.read_stata(content, convert_categoricals=False, convert_dates=False)
    return as_table(frame, str(path))


def _read_excel(path: Path, reading: Reading) -> Table:
    """A sheet as columns of numbers, or of objects; its first row has the names."""
    openpyxl = _imported("openpyxl", "Excel files")
    with zipfile.ZipFile(path) as parts:
        _check_size(sum(part.file_size for part in parts.infolist()), path)
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        if reading.sheet is not None and reading.sheet not in book.sheetnames:
            raise UserError(
                f"Expected a sheet {reading.sheet!r} in {path}, found {', '.join(book.sheetnames)}."
            )
        sheet = book[book.sheetnames[0] if reading.sheet is None else reading.sheet]
        sheet.reset_dimensions()  # what the file claims of its size
        rows, cells = sheet.iter_rows(values_only=True), 0
        names = list(next(rows, ()))
        while names and names[-1] is None:
            names.pop()
        columns: dict[str, list[Any]] = {str(name): [] for name in names}
        if len(columns) < len(names):
            raise UserError(f"Expected different column names in {path}, found some twice.")
        for row in rows:
            cells += max(len(row), len(names))
            _check_size(cells * _CELL, path)
            if any(value is not None for value in row[len(names) :]):
                raise UserError(f"Expected {len(names)} columns in {path}, found more in a row.")
            if any(value is not None for value in row):
                for i, values in enumerate(columns.values()):
                    values.append(row[i] if i < len(row) else None)
    finally:
        book.close()
    codes = {*_NULLS, *reading.missing_codes}
    held = {
        name: [None if isinstance(v, str) and v.strip() in codes else v for v in values]
        for name, values in columns.items()
    }
    return as_table(held, str(path))
