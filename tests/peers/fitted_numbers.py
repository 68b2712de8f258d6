"""Numbers of DoubleML and EconML that fit the learners of this module on the folds of this module.

    python -m tests.peers.fitted_numbers > tests/peers/fitted.json

in an environment with ``doubleml`` and ``econml`` (extra `rivals-econ`).
"""

import json
import warnings
from typing import Any

import numpy as np

from tests.peers import doubleml_cases as cases

K = 3


def learners() -> dict[str, Any]:
    """Outside learners, the same on both sides."""
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

    return {
        "linear": LinearRegression(),
        "ridge": Ridge(alpha=2.0),
        "chance": LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000),
    }


def folds(n: int = cases.N) -> np.ndarray:
    """Fold of each unit."""
    return np.random.default_rng(3).permutation(np.arange(n) % K)


def pairs(ids: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test rows of every fold."""
    return [(np.flatnonzero(ids != k), np.flatnonzero(ids == k)) for k in range(K)]


def numbers() -> dict[str, object]:
    """All of them, by case."""
    warnings.simplefilter("ignore")
    return doubleml_models() | doubleml_staggered() | econml_models()


def _frame():
    import pandas as pd

    c = cases.data()
    x = c.pop("x")
    return pd.DataFrame(c | {"x0": x[:, 0], "x1": x[:, 1]})


def _fitted(model) -> dict[str, object]:
    model.set_sample_splitting([pairs(folds())])
    model.fit()
    out: dict[str, object] = {"theta": model.coef.tolist(), "se": model.se.tolist()}
    if model.sensitivity_elements is not None:
        model.sensitivity_analysis(0.05, 0.04, 0.9, 0.9, 0.0)
        p = model.sensitivity_params
        out["bounds"] = [float(p["theta"][s][0]) for s in ("lower", "upper")]
        out["rv"] = float(p["rv"][0])
    return out


def doubleml_models() -> dict[str, object]:
    """Models of one period, and differences of two."""
    import doubleml as dml

    frame, had = _frame(), learners()
    linear, ridge, chance = (had[name] for name in ("linear", "ridge", "chance"))

    def sample(d, z=None):
        return dml.DoubleMLData(frame, "y", d, x_cols=["x0", "x1"], z_cols=z)

    def changes(after=None):
        return dml.DoubleMLDIDData(frame, "y", "d", x_cols=["x0", "x1"], t_col=after)

    drawn = {"draw_sample_splitting": False}
    out: dict[str, object] = {
        "plr": _fitted(dml.DoubleMLPLR(sample("dose"), ridge, linear, **drawn)),
        "plr_binary": _fitted(dml.DoubleMLPLR(sample("d"), linear, chance, **drawn)),
        "pliv": _fitted(dml.DoubleMLPLIV(sample("dose", "z"), linear, linear, ridge, **drawn)),
        "irm_ATE": _fitted(dml.DoubleMLIRM(sample("d"), linear, chance, score="ATE", **drawn)),
        "irm_ATT": _fitted(dml.DoubleMLIRM(sample("d"), linear, chance, score="ATTE", **drawn)),
        "iivm": _fitted(dml.DoubleMLIIVM(sample("d", "z"), linear, chance, chance, **drawn)),
        "did": _fitted(dml.DoubleMLDID(changes(), linear, chance, **drawn)),
        "did_experimental": _fitted(
            dml.DoubleMLDID(changes(), linear, score="experimental", **drawn)
        ),
        "did_cs": _fitted(dml.DoubleMLDIDCS(changes("after"), linear, chance, **drawn)),
    }
    apos = [
        dml.DoubleMLAPO(sample("level"), linear, chance, treatment_level=level, **drawn)
        for level in range(3)
    ]
    each = [_fitted(model) for model in apos]
    out["apos"] = {key: [one[key][0] for one in each] for key in ("theta", "se")}
    contrasts = [model.framework - apos[0].framework for model in apos[1:]]
    out["apos_contrasts"] = {
        "theta": [float(m.thetas[0]) for m in contrasts],
        "se": [float(m.ses[0]) for m in contrasts],
    }
    return out


def doubleml_staggered() -> dict[str, object]:
    """Groups and times, each cell on the folds of its units."""
    import doubleml as dml
    import pandas as pd

    c, had = cases.panel(), learners()
    n, t = c["y"].shape
    long = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), t),
            "t": np.tile(c["times"], n),
            "y": c["y"].ravel(),
            "g": np.repeat(c["first"], t),
            "x0": c["x"][:, :, 0].ravel(),
            "x1": c["x"][:, :, 1].ravel(),
        }
    )
    sample = dml.data.DoubleMLPanelData(
        long, y_col="y", d_cols="g", id_col="id", t_col="t", x_cols=["x0", "x1"]
    )
    model = dml.did.DoubleMLDIDMulti(
        sample,
        had["linear"],
        had["chance"],
        gt_combinations="standard",
        control_group="never_treated",
        draw_sample_splitting=False,
    )
    for one, (group, _, _) in zip(model.modellist, model.gt_combinations, strict=True):
        inside = np.isinf(c["first"]) | (c["first"] == group)
        one.set_sample_splitting([pairs(folds()[inside])])
    model.fit()
    averages = model.aggregate("eventstudy")
    part, whole = averages.aggregated_frameworks, averages.overall_aggregated_framework
    return {
        "staggered": {
            "cells": [[float(v) for v in cell] for cell in model.gt_combinations],
            "theta": model.coef.tolist(),
            "se": model.se.tolist(),
        },
        "staggered_events": {
            "theta": [*map(float, part.thetas), float(whole.thetas[0])],
            "se": [*map(float, part.ses), float(whole.ses[0])],
        },
    }


class InArms:
    """A regression in each treatment arm, for EconML, which gives the treatment as last column."""

    def __init__(self) -> None:
        self.arms: dict[float, Any] = {}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """None."""
        return {}

    def set_params(self, **params: Any) -> "InArms":
        """Nothing to set."""
        return self

    def fit(self, X, y):
        """One fit in each arm."""
        for arm in (0, 1):
            rows = X[:, -1] == arm
            self.arms[arm] = learners()["linear"].fit(X[rows, :-1], y[rows])
        return self

    def predict(self, X):
        """Each row by the fit of its arm."""
        each = [self.arms[arm].predict(X[:, :-1]) for arm in (0, 1)]
        return np.where(np.ravel(X[:, -1]) == 1, np.ravel(each[1]), np.ravel(each[0]))


def econml_models() -> dict[str, object]:
    """Constant effects of EconML: partially linear, with an instrument, doubly robust."""
    from econml.dml import LinearDML
    from econml.dr import LinearDRLearner
    from econml.iv.dml import OrthoIV

    c, had = cases.data(), learners()
    splits = pairs(folds())

    def constant(model) -> dict[str, list[float]]:
        found = model.const_marginal_effect_inference()
        return {
            "theta": [float(np.ravel(found.point_estimate)[0])],
            "se": [float(np.ravel(found.stderr)[0])],
        }

    plr = LinearDML(model_y=had["ridge"], model_t=had["linear"], cv=splits)
    plr.fit(c["y"], c["dose"], W=c["x"])
    discrete = LinearDML(
        model_y=had["linear"], model_t=had["chance"], discrete_treatment=True, cv=splits
    )
    discrete.fit(c["y"], c["d"], W=c["x"])
    iv = OrthoIV(
        model_y_xw=had["linear"], model_t_xw=had["ridge"], model_z_xw=had["linear"], cv=splits
    )
    iv.fit(c["y"], c["dose"], Z=c["z"], W=c["x"])
    robust = LinearDRLearner(
        model_propensity=had["chance"], model_regression=InArms(), min_propensity=0.01, cv=splits
    )
    robust.fit(c["y"], c["d"], W=c["x"])
    return {
        "econml_plr": constant(plr),
        "econml_plr_binary": constant(discrete),
        "econml_pliv": constant(iv),
        "econml_irm": constant(robust),
    }


if __name__ == "__main__":
    import doubleml
    import econml

    versions = {"doubleml": doubleml.__version__, "econml": econml.__version__}
    print(json.dumps(versions | numbers(), indent=1))
