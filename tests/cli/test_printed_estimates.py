"""What the README prints of `jaxcore estimate` works on tables of the named columns.

Slow, because the same commands with other names of columns are in the default run; that on images
is there alone, as it trains networks for minutes.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxcore.estimators.deconfound.simulate import entangled_headlines
from tests.cli.reader import printed

pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.slow
N = 300


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """The reader's folder with the files that are named."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 3))
    z = rng.integers(0, 2, N)
    taken = np.where(rng.uniform(size=N) < 0.8, z, 1 - z)
    y = 2 * taken + x[:, 0] + rng.normal(size=N)
    own = {"x1": x[:, 0], "x2": x[:, 1], "y": y, "a": taken, "z": z}
    arm = np.where(taken, "drug", "placebo")
    pd.DataFrame({"age": x[:, 0], "sex": z, "arm": arm, "y": y}).to_csv("trial.csv", index=False)
    firm, region = np.arange(N) // 6, np.arange(N) % 3
    pd.DataFrame({**own, "firm": firm, "region": region}).to_stata("data.dta", write_index=False)
    pd.DataFrame(own).to_csv("data.csv", index=False)
    unit, year = np.repeat(np.arange(N), 3), np.tile([2000, 2001, 2002], N)
    start = np.repeat(np.where(z, 2001.0, np.nan), 3)
    panel = {"id": unit, "time": year, "start": start, "x": np.repeat(x[:, 0], 3)}
    change = 2 * (year >= start) + 0.1 * rng.normal(size=3 * N)
    pd.DataFrame({**panel, "year": year, "y": change}).to_csv("panel.csv", index=False)
    made = entangled_headlines(N, seed=1)
    columns = zip(made.texts(), made.Y.tolist(), made.C.tolist(), made.Z.tolist(), strict=True)
    rows = [
        {"text": text, "outcome": y, "confounders": {"c": c}, "instruments": {"slot": z}}
        for text, y, c, z in columns
    ]
    Path("logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("estimate irm", "report/estimate.json"),
        ("estimate pliv", "report/estimate.json"),
        ("estimate selective-iv", "report/estimate.json"),
        ("estimate did", "report/estimate.json"),
        ("estimate deconfound", "adjusted.jsonl"),
    ],
)
def test_what_is_printed_works(tables, call, words, written):
    (argv,) = printed("README.md", words)
    code, _, err = call(*argv)
    assert code == 0, err
    assert Path(written).exists()
