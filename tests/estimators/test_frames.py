"""An estimator of two columns and covariates gets tables, formulas and reports for nothing."""

import dataclasses
import json
from typing import ClassVar

import jax
import numpy as np
import pytest

from jaxcore.cli.estimate import Columns
from jaxcore.data.tables import as_table
from jaxcore.errors import UserError
from jaxcore.estimators.checks import check_sample
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.frames import FitsFrames
from jaxcore.estimators.linear_iv import ols
from jaxcore.estimators.report import write_report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slope(FitsFrames[Estimate]):
    """Coefficient of the treatment."""

    roles: ClassVar[tuple[str, ...]] = ("outcome", "treatment")
    missing: str = "error"

    def fit(self, Y, A, X, *, weights=None, clusters=None, covariates=None):
        units = {"weights": weights, "clusters": clusters, "covariates": covariates}
        s = check_sample(Y, A, None, X, missing=self.missing, **units)
        with jax.enable_x64(True):
            W = np.c_[np.ones(s.n), s.X]
            return dataclasses.replace(ols(s.Y, s.A, W, s.units()).on_host(), notices=s.notices)


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    a, x = np.arange(40) % 2.0, rng.normal(size=40)
    return {"y": 2 * a + x + rng.normal(size=40), "a": a, "x": x, "g": np.arange(40) // 4}


def test_columns_and_formulas_without_an_instrument(frame):
    columns = {"outcome": "y", "treatment": "a", "covariates": "x", "clusters": "g"}
    found = Slope().fit_frame(frame, **columns)
    regressors = np.c_[frame["a"], np.ones(40), frame["x"]]
    assert abs(found.theta - np.linalg.lstsq(regressors, frame["y"], rcond=None)[0][0]) < 1e-9
    assert found.clusters.max() == 9
    assert Columns(**columns | {"covariates": ("x",)}).fit(Slope(), as_table(frame)).se == found.se
    with pytest.raises(UserError, match="Expected no instrument, found 'g'"):
        Slope().fit_frame(frame, **columns, instrument="g")
    with pytest.raises(UserError, match="Expected --treatment or --formula, found neither"):
        Columns(outcome="y").fit(Slope(), as_table(frame))
    pytest.importorskip("formulaic")
    assert Slope().fit_formula("y ~ a | x", frame, clusters="g").se == found.se
    with pytest.raises(UserError, match=r"a formula 'outcome ~ treatment \| covariates'"):
        Slope().fit_formula("y ~ a | g | x", frame)


def test_an_instrument_is_asked_for_where_there_is_one(frame):
    from jaxcore.estimators import SelectiveIV

    with pytest.raises(UserError, match="Expected a column for the instrument, found none"):
        SelectiveIV().fit_frame(frame, outcome="y", treatment="a", covariates="x")


def test_a_missing_treatment_is_counted_once(frame):
    holes = {**frame, "a": np.where(np.arange(40) == 3, np.nan, frame["a"])}
    columns = {"outcome": "y", "treatment": "a", "covariates": "x"}
    found = Slope(missing="drop").fit_frame(holes, **columns)
    assert found.notices == ("dropped 1 row of 40 with missing values: 1 in the treatment",)


def test_every_estimate_makes_a_report(frame, tmp_path):
    found = Slope().fit_frame(frame, outcome="y", treatment="a", covariates="x")
    folder = write_report(found, tmp_path / "report")
    assert {p.name for p in folder.iterdir()} == {"summary.txt", "estimate.json", "estimates.png"}
    content = json.loads((folder / "estimate.json").read_text())
    assert content["estimates"][0]["estimate"] == float(found.theta) and content["n"] == 40
