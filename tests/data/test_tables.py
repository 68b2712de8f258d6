"""Tables from files and dataframes, formulas, and what is refused."""

import tracemalloc

import numpy as np
import pytest

from jaxcore.data import table_files
from jaxcore.data.formulas import formula_parts
from jaxcore.data.table_files import read_table
from jaxcore.data.tables import as_table, design
from jaxcore.errors import UserError

pytestmark = pytest.mark.newest

CSV = "y,a,z,x,marr,who\n1.5,1,0,0.1,1,ann\n2.5,0,1,,0,bob\n3.5,1,1,0.3,1,\n4.5,0,0,NA,0,dan\n"


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(CSV)
    return path


def test_csv_and_parquet_are_the_same_table(csv, tmp_path):
    import pyarrow.csv
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.csv.read_csv(csv), tmp_path / "t.parquet")
    a, b = read_table(csv), read_table(tmp_path / "t.parquet")
    assert a.names == b.names and len(a) == len(b) == 4
    for name in ("y", "a", "x"):
        np.testing.assert_array_equal(a.numbers(name), b.numbers(name))
    assert np.isnan(a.numbers("x")).tolist() == [False, True, False, True]
    assert a.values("who").tolist() == ["ann", "bob", None, "dan"]


def test_tabs(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\n1\t2\n")
    assert read_table(tmp_path / "t.tsv").numbers("b").tolist() == [2.0]


def test_a_table_that_swells_is_refused(tmp_path, monkeypatch):
    """Equal numbers take a few bytes of Parquet, whatever their number; so do equal texts."""
    import pyarrow as pa
    import pyarrow.parquet

    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"y": np.zeros(2_000_000)}), path)
    assert path.stat().st_size < 20_000
    assert len(read_table(path)) == 2_000_000
    monkeypatch.setattr(table_files, "_ALWAYS", 100_000)
    monkeypatch.setattr(table_files, "MAX_SWELLING", 10)
    with pytest.raises(UserError, match=r"at most 10 times the size .* more than [\d,]+ bytes in"):
        read_table(path)


def test_a_long_text_in_every_row_is_held_once(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    text = pa.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), ["x" * 100_000])
    table = pa.table({"y": np.arange(20_000.0), "who": text.cast(text.type)})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", store_schema=False)
    tracemalloc.start()
    read = read_table(tmp_path / "t.parquet")
    assert [len(v) for v in read.values("who")[:2]] == [100_000] * 2
    assert pa.total_allocated_bytes() + tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_many_columns_are_refused_by_the_first_line(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "MAX_COLUMNS", 10)
    (tmp_path / "t.csv").write_text("a" + ",b" * 10 + "\n")
    with pytest.raises(UserError, match="at most 10 columns, found 11"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "found no file"),
        ("t.sas", "x", "a file ending in"),
        ("t.xlsx", "x", "a readable table"),
        ("t.dta", "x", "a readable table"),
        ("t.feather", "x", "a readable table"),
        ("t.csv.gz", b"\x1f\x8b\x08 no", "a readable table"),
        ("t.csv", "", "a readable table"),
        ("t.csv", "a,b\n1,2\n1,2,3\n", "a readable table"),
        ("t.csv", "a,a\n1,2\n", "found 'a' twice"),
        ("t.parquet", "not parquet", "a readable table"),
        ("t.csv", "a" * 3_000_000, "Expected"),
        ("t.csv", b"\xff\xfe\x00a,b\n\x9d,\x81\n", "Expected"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        table = read_table(path)
        table.numbers(table.names[0])
    assert "\n" not in str(error.value)


def test_text_of_a_parquet_file_that_is_no_text(tmp_path):
    path = tmp_path / "t.parquet"
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"who": ["anna", None, "anna"]}), path, compression="none")
    path.write_bytes(path.read_bytes().replace(b"anna", b"a\xeena"))
    with pytest.raises(UserError, match=r"Expected a readable table in .*UTF8"):
        read_table(path)


def test_a_table_without_rows(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="at least one row"):
        read_table(tmp_path / "t.csv").check(["a"])


def test_columns_that_are_absent_or_text(csv):
    table = read_table(csv)
    with pytest.raises(UserError, match=r"did you mean 'marr'\?"):
        table.check(["mar"])
    with pytest.raises(UserError, match=r"numbers in column 'who' of .*, found 'ann' in row 1"):
        table.numbers("who")
    with pytest.raises(UserError, match="found 'x' twice"):
        design(table, ["x", "x"])


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "dict"])
def test_dataframes_of_every_kind(library):
    columns = {"y": [1.0, 2.0, None], "flag": [True, False, True], "i": [1, 2, 3]}
    if library == "dict":
        frame = {"y": [1.0, 2.0, np.nan], "flag": [True, False, True], "i": [1, 2, 3]}
    elif library == "pyarrow":
        import pyarrow as pa

        frame = pa.table(columns)
    else:
        frame = pytest.importorskip(library).DataFrame(columns)
    table = as_table(frame)
    assert table.numbers("flag").tolist() == [1, 0, 1]
    assert table.numbers("i").dtype == np.float64
    np.testing.assert_array_equal(table.numbers("y"), [1, 2, np.nan])


def test_only_the_protocol_is_needed():
    pa = pytest.importorskip("pyarrow")

    class Frame:
        def __arrow_c_stream__(self, requested_schema=None):
            return pa.table({"a": [1, 2]}).__arrow_c_stream__(requested_schema)

    assert as_table(Frame()).numbers("a").tolist() == [1, 2]


def test_pandas_with_a_name_twice_and_categories():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    with pytest.raises(UserError, match="found 'a' twice"):
        as_table(frame)
    frame = pd.DataFrame({"c": pd.Categorical(["u", "v", "u"])})
    assert as_table(frame).values("c").tolist() == ["u", "v", "u"]


def test_things_that_are_no_dataframes():
    with pytest.raises(UserError, match="Expected a dataframe, found list"):
        as_table([1, 2])
    with pytest.raises(UserError, match="columns of one length"):
        as_table({"a": [1, 2], "b": [1]})


def test_formula(csv):
    pytest.importorskip("formulaic")
    (Y, A, Z), _, X, names = formula_parts("y ~ a | z | x + C(marr)", read_table(csv))
    assert Y.tolist() == [1.5, 2.5, 3.5, 4.5] and A.tolist() == [1, 0, 1, 0]
    assert Z.tolist() == [0, 1, 1, 0]
    assert names == ("x", "C(marr)[T.1]")
    np.testing.assert_array_equal(X[:, 0], [0.1, np.nan, 0.3, np.nan])
    assert X[:, 1].tolist() == [1, 0, 1, 0]


def test_a_missing_category_is_missing_and_not_the_reference():
    pytest.importorskip("formulaic")
    pd = pytest.importorskip("pandas")
    x, text = np.arange(8.0), ["a", None, "b", "a", "b", "c", "c", "a"]
    x[7] = np.nan
    frame = pd.DataFrame({"y": x, "t": 1.0, "z": 0.0, "x": x, "text": text})
    (y, _, _), _, X, names = formula_parts("y ~ t | z | scale(x) + C(text)", as_table(frame))
    assert names == ("scale(x)", "C(text)[T.b]", "C(text)[T.c]")
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    np.testing.assert_array_equal(np.isnan(X[:, 0]), np.isnan(x))
    np.testing.assert_array_equal(np.isnan(X[:, 1]), [t is None for t in text])
    assert abs(np.nanmean(X[:, 0])) < 1e-12
    named = [i for i, t in enumerate(text) if t is not None]
    np.testing.assert_array_equal(X[named, 1], [text[i] == "b" for i in named])
    frame["x"] = np.nan
    with pytest.raises(UserError, match="some values of x in the table, found only missing"):
        formula_parts("y ~ t | z | x", as_table(frame))


def test_values_a_function_does_not_take_are_not_finite():
    pytest.importorskip("formulaic")
    table = as_table({"y": [1.0, 2.0], "t": [0, 1], "z": [1, 0], "x": [-1.0, 1.0]})
    X = formula_parts("y ~ t | z | log(x)", table).X
    np.testing.assert_array_equal(X[:, 0], [np.nan, 0.0])


def test_polars_categories():
    pl = pytest.importorskip("polars")
    column = pl.Series(["u", None, "v"], dtype=pl.Categorical)
    assert as_table(pl.DataFrame({"g": column})).values("g").tolist() == ["u", None, "v"]


def test_formula_with_splines():
    pytest.importorskip("formulaic")
    rng = np.random.default_rng(0)
    frame = {
        "y": rng.normal(size=30),
        "a": np.arange(30) % 2,
        "z": np.arange(30) % 3 % 2,
        "age": rng.uniform(20, 60, 30),
    }
    X, names = formula_parts("y ~ a | z | bs(age, 4)", as_table(frame))[2:]
    assert X.shape == (30, 4) and len(names) == 4


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ a + x", r"outcome ~ treatment \| instrument \| covariates"),
        ("a | z | x", "outcome ~ treatment"),
        ("y ~ a | z | nothing", "nothing"),
        ("y ~ a | z | x +", "Expected"),
        ("y ~ a + z | z | x", "one column for the treatment"),
        ("y ~ a | z | who(x)", "Expected"),
    ],
)
def test_formulas_that_cannot_be_used(csv, formula, message):
    pytest.importorskip("formulaic")
    with pytest.raises(UserError, match=message):
        formula_parts(formula, read_table(csv))
