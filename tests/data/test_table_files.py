"""Files of every kind and dialect give the same table; what swells or lies is refused."""

import gzip
import io
import zipfile

import numpy as np
import pytest

from jaxcore.data import table_files
from jaxcore.data.table_files import Reading, read_table
from jaxcore.errors import UserError

Y, WHO = [1.5, np.nan, -2.25, 4.0], ["ann", "bob", None, "Zoë"]
CSV = "y,größe,who\n1.5,1,ann\n,2,bob\n-2.25,3,\n4,4,Zoë\n"


def check(table, names=("y", "größe", "who")):
    assert table.names == names
    np.testing.assert_array_equal(table.numbers("y"), Y)
    np.testing.assert_array_equal(table.numbers(names[1]), [1, 2, 3, 4])
    assert [None if v in (None, "") else v for v in table.values("who")] == WHO


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separator_and_encoding_are_found(tmp_path, encoding, separator):
    path = tmp_path / "t.csv"
    path.write_bytes(CSV.replace(",", separator).encode(encoding))
    check(read_table(path))
    check(read_table(path, Reading(separator=separator, encoding=encoding)))


def test_decimal_commas_are_found_and_told(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(CSV.replace(",", ";").replace(".", ","))
    table = read_table(path)
    check(table)
    assert table.notices == ("t.csv: separator ';', decimal mark ','",)
    (tmp_path / "plain.csv").write_text(CSV)
    assert read_table(tmp_path / "plain.csv").notices == ()


@pytest.mark.parametrize("ending", ["csv.gz", "csv.bz2", "csv.xz", "csv.zst", "csv"])
def test_compression_is_found_whatever_the_name(tmp_path, ending):
    import bz2
    import lzma

    import pyarrow as pa

    def zstd(content):
        return pa.compress(content, codec="zstd", asbytes=True)

    packers = {"csv.bz2": bz2.compress, "csv.xz": lzma.compress, "csv.zst": zstd}
    path = tmp_path / f"t.{ending}"
    path.write_bytes(packers.get(ending, gzip.compress)(CSV.encode()))
    check(read_table(path))


@pytest.mark.parametrize("ending", ["parquet", "feather", "dta", "xlsx"])
def test_files_of_other_programs(tmp_path, ending):
    pd = pytest.importorskip("pandas")
    names = ("y", "size" if ending == "dta" else "größe", "who")
    who = [w or "" for w in WHO] if ending == "dta" else WHO
    frame = pd.DataFrame({"y": Y, names[1]: [1, 2, 3, 4], "who": who})
    path = tmp_path / f"t.{ending}"
    if ending == "xlsx":
        pytest.importorskip("openpyxl")
        frame.to_excel(path, index=False)
        assert read_table(path, Reading(sheet="Sheet1")).names == names
        with pytest.raises(UserError, match=r"a sheet 'b' in .*, found Sheet1"):
            read_table(path, Reading(sheet="b"))
    elif ending == "dta":
        frame.to_stata(path, write_index=False, version=118)
    else:
        getattr(frame, f"to_{ending}")(path)
    check(read_table(path), names)


def test_named_codes_are_missing_in_every_kind_of_file(tmp_path):
    pd = pytest.importorskip("pandas")
    path = tmp_path / "t.csv"
    path.write_text("y,x,g\n1,.,a\n-99,2,-99\n3,n.r.,b\n")
    table = read_table(path, Reading(missing_codes=("-99", "n.r.")))
    np.testing.assert_array_equal(table.numbers("y"), [1, np.nan, 3])
    np.testing.assert_array_equal(table.numbers("x"), [np.nan, 2, np.nan])
    assert table.values("g").tolist() == ["a", None, "b"]
    pd.DataFrame({"y": [1.0, -99.0, 3.0]}).to_stata(tmp_path / "t.dta", write_index=False)
    table = read_table(tmp_path / "t.dta", Reading(missing_codes=("-99",)))
    np.testing.assert_array_equal(table.numbers("y"), [1, np.nan, 3])


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (Reading(separator="::"), "one character as the separator, found '::'"),
        (Reading(decimal="x"), "'.' or ',' as the decimal mark, found 'x'"),
        (Reading(encoding="klingon"), "text in klingon"),
        (Reading(encoding="utf-16"), "text in utf-16"),
    ],
)
def test_readings_that_cannot_be(tmp_path, reading, message):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n5,6\n7")
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "t.csv", reading)


def test_packed_files_that_swell_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "_ALWAYS", 10_000)
    monkeypatch.setattr(table_files, "MAX_SWELLING", 2)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 100_000))
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("xl/worksheets/sheet1.xml", b" " * 1_000_000)
    for name in ("t.csv.gz", "t.xlsx"):
        with pytest.raises(UserError, match="at most 2 times the size"):
            read_table(tmp_path / name)


def test_a_sheet_that_claims_to_be_huge(tmp_path, monkeypatch):
    """Two far cells span 17 billion between them."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active["A1"], book.active["B1"] = "y", "x"
    book.active["XFD2"] = 1
    book.active["A1048576"] = 1
    content = io.BytesIO()
    book.save(content)
    (tmp_path / "t.xlsx").write_bytes(content.getvalue())
    with pytest.raises(UserError, match=r"2 columns in .*, found more in a row"):
        read_table(tmp_path / "t.xlsx")


def test_a_stata_file_that_claims_more_rows_than_it_has(tmp_path):
    pd = pytest.importorskip("pandas")
    path = tmp_path / "t.dta"
    pd.DataFrame({"y": np.arange(5.0)}).to_stata(path, write_index=False, version=118)
    content = path.read_bytes()
    at = content.index(b"<N>") + 3
    path.write_bytes(content[:at] + (1 << 40).to_bytes(8, "little") + content[at + 8 :])
    with pytest.raises(UserError, match="a readable table"):
        read_table(path)
