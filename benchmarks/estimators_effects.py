"""Difference in differences and omitted variables beside DoubleML; rows of `benchmarks.estimators`.

Linear and logistic regressions, equal folds, everything from the arrays to the numbers. Staggered
adoption of DoubleML splits every cell anew: here it is given the folds of the units.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.estimators import did, double_ml, sensitivity
from jaxcore.estimators.nuisance import Logistic, Ridge

K = 5  # folds
TIMES = tuple(map(float, range(1, 6)))
G, M = Ridge(alpha=0.0), Logistic(alpha=0.0, max_steps=50)
STRENGTH = {"cf_y": 0.03, "cf_d": 0.03}

Calls = dict[str, Callable[[], tuple[float, float]]]


def rows(smoke: bool) -> dict[str, tuple[Calls, dict[str, Any]]]:
    """Question -> the calls to be compared, which give an estimate with its error, and facts."""
    n = 400 if smoke else 4000
    made = {
        "did, two periods": lambda: _two_periods(n),
        "did, staggered": lambda: _staggered(n // 4),
        "omitted variables, plr": lambda: _omitted("plr", n),
        "omitted variables, irm": lambda: _omitted("irm", n),
    }
    out = {}
    for name, make in made.items():
        ours, theirs = make()
        start = time.perf_counter()
        ours()
        facts = {"first_call_s": round(time.perf_counter() - start, 2), "n": n}
        out[name] = ({"jaxcore": ours, "doubleml": theirs}, facts)
    return out


def _learners() -> tuple[Any, Any]:
    from sklearn import linear_model as lm

    return lm.LinearRegression(), lm.LogisticRegression(C=1e8, solver="newton-cholesky", tol=1e-8)


def _sample(n: int) -> tuple[np.ndarray, ...]:
    """Outcome before and after, treatment, covariates, folds."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5))
    D = (rng.uniform(size=n) < 1 / (1 + np.exp(-0.5 * X[:, 0]))).astype(float)
    before = X @ [1.0, 0.5, 0, 0, 0] + rng.normal(size=n)
    after = before + 1.5 * D + 0.3 * X[:, 1] + rng.normal(size=n)
    return before, after, D, X, rng.permutation(np.arange(n) % K)


def _splits(ids: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.flatnonzero(ids != f), np.flatnonzero(ids == f)) for f in range(K)]


def _two_periods(n: int) -> tuple[Any, Any]:
    import doubleml as dml  # pyright: ignore[reportMissingImports]  # extra rivals-econ

    before, after, D, X, ids = _sample(n)

    @jax.jit
    def program(change: Any, D: Any, X: Any, ids: Any) -> tuple[Any, Any]:
        found = did.did_panel(change, D, X, ml_g=G, ml_m=M, fold_ids=ids, n_folds=K)
        return found.theta, found.se

    def ours() -> tuple[float, float]:
        theta, se = program(after - before, D, X, ids.astype(np.int32))
        return float(theta), float(se)

    def theirs() -> tuple[float, float]:
        data = dml.DoubleMLDIDData.from_arrays(X, after - before, D)
        one = dml.DoubleMLDID(data, *_learners(), draw_sample_splitting=False)
        one.set_sample_splitting(_splits(ids))
        one.fit(store_predictions=False)
        return float(one.coef[0]), float(one.se[0])

    return ours, theirs


def _staggered(n: int) -> tuple[Any, Any]:
    import doubleml as dml  # pyright: ignore[reportMissingImports]  # extra rivals-econ
    import pandas as pd

    rng = np.random.default_rng(1)
    first = rng.choice([3.0, 4.0, np.inf], size=n)
    X = rng.normal(size=(n, 3))
    since = np.array(TIMES)[None] - np.where(np.isinf(first), 99, first)[:, None]
    trend = np.array(TIMES)[None] * (0.5 + 0.2 * X[:, :1])
    Y = rng.normal(size=(n, 1)) + trend + (since >= 0) * (1 + 0.5 * since)
    Y = Y + rng.normal(size=Y.shape)
    ids = rng.permutation(np.arange(n) % K)
    t = len(TIMES)

    def ours() -> tuple[float, float]:
        folds = {"fold_ids": jnp.asarray(ids, jnp.int32), "n_folds": K}
        found = did.aggregate(did.group_time(Y, first, X, TIMES, ml_g=G, ml_m=M, **folds), "event")
        return float(found.theta[-1]), float(found.se[-1])

    def theirs() -> tuple[float, float]:
        long = pd.DataFrame(
            {
                "id": np.repeat(np.arange(n), t),
                "t": np.tile(TIMES, n),
                "y": Y.ravel(),
                "g": np.repeat(first, t),
                **{f"x{j}": np.repeat(X[:, j], t) for j in range(X.shape[1])},
            }
        )
        columns = [f"x{j}" for j in range(X.shape[1])]
        data = dml.data.DoubleMLPanelData(
            long, y_col="y", d_cols="g", id_col="id", t_col="t", x_cols=columns
        )
        model = dml.did.DoubleMLDIDMulti(data, *_learners(), n_folds=K)
        for cell in model.modellist:
            cell.set_sample_splitting(_splits(ids[cell.id_positions]))
        model.fit(store_predictions=False)
        found = model.aggregate("eventstudy").overall_aggregated_framework
        return float(found.thetas[0]), float(found.ses[0])

    return ours, theirs


def _omitted(model: str, n: int) -> tuple[Any, Any]:
    """The analysis alone, of a fit that is there: the lower bound with its error."""
    import doubleml as dml  # pyright: ignore[reportMissingImports]  # extra rivals-econ

    arrays: tuple[Any, ...] = _sample(n)
    _, Y, D, X, ids = arrays
    options: dict[str, Any] = {"fold_ids": ids, "n_folds": K}
    if model == "plr":
        fit = double_ml.plr(Y, D, X, ml_l=G, ml_m=M, **options)
        names, rival = ("ml_l", "ml_m"), dml.DoubleMLPLR
    else:
        fit = double_ml.irm(Y, D, X, ml_g=G, ml_m=M, **options)
        names, rival = ("ml_m", "ml_g0", "ml_g1"), dml.DoubleMLIRM
    given = tuple(fit.diagnostics[name] for name in names)
    strength: Any = STRENGTH

    @jax.jit
    def program(Y: Any, D: Any, theta: Any, psi: Any, given: Any) -> tuple[Any, Any, Any]:
        if model == "plr":
            l, m = given  # noqa: E741  # the paper's name
            elements = sensitivity.plr_elements(Y, D, l, m, theta)
        else:
            m, g0, g1 = given
            elements = sensitivity.irm_elements(Y, D, m, g0, g1)
        found = sensitivity.bounds(theta, psi, elements, **strength)
        values = sensitivity.robustness_value(theta, psi, elements)
        return found.theta[0], found.se[0], values

    def ours() -> tuple[float, float]:
        low, se, values = program(Y, D, fit.theta, fit.psi, given)
        jax.block_until_ready(values)
        return float(low), float(se)

    data = dml.DoubleMLData.from_arrays(X, Y, D)
    other = rival(data, *_learners(), draw_sample_splitting=False)
    other.set_sample_splitting(_splits(ids))
    other.fit()

    def theirs() -> tuple[float, float]:
        other.sensitivity_analysis(**STRENGTH)
        p = other.sensitivity_params  # its errors of the two bounds are exchanged
        return float(p["theta"]["lower"][0]), float(p["se"]["upper"][0])

    return ours, theirs
