"""Numbers of DoubleML on the cases of this folder.

    python -m tests.peers.doubleml_numbers > tests/peers/doubleml.json

in an environment with ``doubleml`` (extra `rivals-econ`).
"""

import json
import warnings

import numpy as np

from tests.peers import doubleml_cases as cases

QUANTILES = (0.25, 0.5)


def _frame(columns):
    import pandas as pd

    flat = {}
    for name, values in columns.items():
        if values.ndim == 2:
            flat |= {f"{name}{j}": values[:, j] for j in range(values.shape[1])}
        else:
            flat[name] = values
    return pd.DataFrame(flat)


def _numbers(model) -> dict[str, list[float]]:
    return {"theta": model.coef.tolist(), "se": model.se.tolist()}


def numbers() -> dict[str, object]:
    """All of them, by case."""
    warnings.simplefilter("ignore")
    return one_period() | did() | staggered()


def one_period() -> dict[str, object]:
    """All models of one period: effects, sensitivity, sets, conditional effects, quantiles."""
    import doubleml as dml
    import pandas as pd
    from doubleml.utils import DMLDummyClassifier, DMLDummyRegressor

    c = cases.data()
    x, frame = c["x"], _frame(c)
    rest, maybe = DMLDummyRegressor(), DMLDummyClassifier()

    def sample(d, y="y", z=None):
        return dml.DoubleMLData(frame, y, d, x_cols=["x0", "x1"], z_cols=z)

    def fitted(model, d, **predictions):
        given = {d: {k: np.asarray(v, float)[:, None] for k, v in predictions.items()}}
        return model.fit(external_predictions=given)

    def told(model):
        model.sensitivity_analysis(0.05, 0.04, 0.9, 0.9, 0.0)
        p = model.sensitivity_params
        out = _numbers(model)
        for key in ("theta", "se", "ci"):
            out[f"bounds_{key}"] = [float(p[key][s][0]) for s in ("lower", "upper")]
        return out | {"rv": float(p["rv"][0]), "rva": float(p["rva"][0])}

    one = np.ones(cases.N)
    out: dict[str, object] = {}
    basis = pd.DataFrame({"const": one, "x1": x[:, 1]})
    groups = pd.DataFrame({"g": c["group"]})

    plr = fitted(
        dml.DoubleMLPLR(sample("dose"), rest, rest),
        "dose",
        ml_l=cases.l_of(x),
        ml_m=0.8 * x[:, 0],
    )
    out["plr"] = told(plr)
    for name, blp in (("plr_cate", plr.cate(basis)), ("plr_gate", plr.gate(groups))):
        model = blp.blp_model[0] if isinstance(blp.blp_model, list) else blp.blp_model
        out[name] = {"theta": list(map(float, model.params)), "se": list(map(float, model.bse))}
    short = fitted(
        dml.DoubleMLPLR(sample("dose"), rest, rest), "dose", ml_l=0 * one, ml_m=0.2 * x[:, 1]
    )
    gains = dml.utils.gain_statistics(plr, short)
    out["plr_benchmark"] = {k: float(np.ravel(v)[0]) for k, v in gains.items()}

    for target, score in (("ATE", "ATE"), ("ATT", "ATTE")):
        irm = fitted(
            dml.DoubleMLIRM(sample("d"), rest, maybe, score=score),
            "d",
            ml_g0=cases.g_of(x),
            ml_g1=cases.g_of(x, 1),
            ml_m=cases.m_of(x),
        )
        out[f"irm_{target}"] = told(irm)
        if target == "ATE":
            for name, blp in (("irm_cate", irm.cate(basis)), ("irm_gate", irm.gate(groups))):
                model = blp.blp_model[0] if isinstance(blp.blp_model, list) else blp.blp_model
                out[name] = {
                    "theta": list(map(float, model.params)),
                    "se": list(map(float, model.bse)),
                }

    pliv = fitted(
        dml.DoubleMLPLIV(sample("dose", z="z"), rest, rest, rest),
        "dose",
        ml_l=cases.l_of(x),
        ml_m=cases.m_of(x),
        ml_r=0.8 * x[:, 0],
    )
    out["pliv"] = _numbers(pliv)
    iivm = fitted(
        dml.DoubleMLIIVM(sample("d", z="z"), rest, maybe, maybe),
        "d",
        ml_g0=cases.g_of(x),
        ml_g1=cases.g_of(x, 1),
        ml_m=cases.m_of(x),
        ml_r0=cases.share_of(x),
        ml_r1=cases.share_of(x, 1),
    )
    out["iivm"] = _numbers(iivm) | {
        "set": [[float(v) for v in piece] for piece in iivm.robust_confset(0.95)],
        "set_50": [[float(v) for v in piece] for piece in iivm.robust_confset(0.5)],
    }

    apos = [
        fitted(
            dml.DoubleMLAPO(sample("level"), rest, maybe, treatment_level=level),
            "level",
            ml_g_d_lvl1=cases.g_of(x, level),
            ml_g_d_lvl0=cases.g_of(x),
            ml_m=cases.share_of(x, level / 3),
        )
        for level in range(3)
    ]
    out["apos"] = {
        "theta": [float(m.coef[0]) for m in apos],
        "se": [float(m.se[0]) for m in apos],
    }
    contrasts = [m.framework - apos[0].framework for m in apos[1:]]
    out["apos_contrasts"] = {
        "theta": [float(m.thetas[0]) for m in contrasts],
        "se": [float(m.ses[0]) for m in contrasts],
    }

    for arm in (0, 1):
        for tau in QUANTILES:
            pq = fitted(
                dml.DoubleMLPQ(
                    sample("d"), maybe, maybe, treatment=arm, quantile=tau, normalize_ipw=False
                ),
                "d",
                ml_g=cases.share_of(x, tau),
                ml_m=cases.m_of(x),
            )
            out[f"pq_{arm}_{tau}"] = _numbers(pq)
            lpq = fitted(
                dml.DoubleMLLPQ(
                    sample("d", z="z"),
                    maybe,
                    maybe,
                    treatment=arm,
                    quantile=tau,
                    normalize_ipw=False,
                ),
                "d",
                ml_m_z=cases.m_of(x),
                ml_g_du_z0=0.5 * cases.share_of(x, tau),
                ml_g_du_z1=0.7 * cases.share_of(x, tau),
                ml_m_d_z0=cases.share_of(x),
                ml_m_d_z1=cases.share_of(x, 1),
            )
            out[f"lpq_{arm}_{tau}"] = _numbers(lpq)
    return out


def did() -> dict[str, object]:
    """Two periods."""
    import doubleml as dml
    from doubleml.utils import DMLDummyClassifier, DMLDummyRegressor

    c = cases.data()
    x, frame = c["x"], _frame(c)
    out: dict[str, object] = {}
    for score in ("observational", "experimental"):
        given = {"ml_g0": cases.g_of(x), "ml_g1": cases.g_of(x, 1), "ml_m": cases.m_of(x)}
        out[f"did_{score}"] = _did(
            dml.DoubleMLDID(
                dml.DoubleMLDIDData(frame, "y", "d", x_cols=["x0", "x1"]),
                DMLDummyRegressor(),
                DMLDummyClassifier(),
                score=score,
            ),
            given,
        )
        given = {
            f"ml_g_d{g}_t{t}": cases.g_of(x, g) + 0.2 * t * x[:, 1] for g in (0, 1) for t in (0, 1)
        }
        out[f"did_cs_{score}"] = _did(
            dml.DoubleMLDIDCS(
                dml.DoubleMLDIDData(frame, "y", "d", x_cols=["x0", "x1"], t_col="after"),
                DMLDummyRegressor(),
                DMLDummyClassifier(),
                score=score,
            ),
            given | {"ml_m": cases.m_of(x)},
        )
    return out


def _did(model, given):
    predictions = {"d": {k: np.asarray(v, float)[:, None] for k, v in given.items()}}
    if model.score == "experimental":
        predictions["d"].pop("ml_m")
    return _numbers(model.fit(external_predictions=predictions))


def staggered() -> dict[str, object]:
    """Groups and times, with their averages."""
    import doubleml as dml
    import pandas as pd
    from doubleml.utils import DMLDummyClassifier, DMLDummyRegressor

    c = cases.panel()
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
    out: dict[str, object] = {}
    for control in ("never_treated", "not_yet_treated"):
        for kind in ("standard", "universal"):
            model = dml.did.DoubleMLDIDMulti(
                sample,
                DMLDummyRegressor(),
                DMLDummyClassifier(),
                gt_combinations=kind,
                control_group=control,
            )
            given = {}
            for label, (_, before, after) in zip(
                model.gt_labels, model.gt_combinations, strict=True
            ):
                early = c["x"][:, np.flatnonzero(c["times"] == min(before, after))[0]]
                given[label] = {
                    "ml_g0": cases.l_of(early)[:, None],
                    "ml_g1": cases.l_of(early)[:, None],
                    "ml_m": cases.m_of(early)[:, None],
                }
            model.fit(external_predictions=given)
            found = {
                "cells": [[float(v) for v in cell] for cell in model.gt_combinations]
            } | _numbers(model)
            for by in ("group", "time", "eventstudy"):
                averages = model.aggregate(by)
                part, whole = averages.aggregated_frameworks, averages.overall_aggregated_framework
                found[by] = {
                    "names": list(averages.aggregation_names),
                    "theta": [*map(float, part.thetas), float(whole.thetas[0])],
                    "se": [*map(float, part.ses), float(whole.ses[0])],
                }
            out[f"{control}, {kind}"] = found
    return out


if __name__ == "__main__":
    import doubleml

    print(json.dumps({"doubleml": doubleml.__version__} | numbers(), indent=1))
