"""How fast are cross-fitted estimates and simulation studies beside DoubleML and EconML?

    python -m benchmarks.estimators            # rivals too, if they are installed
    python -m benchmarks.estimators --smoke    # tiny sizes, nothing written

Same data, same folds, same penalties, one process. Estimates are compared before times: a pair
that does not agree is reported as such and gets no ratio. ``pip install -e '.[rivals-econ]'`` in an
environment of its own brings the rivals.

* ``fit``: IIVM and PLR on the 401(k) data with lasso and logistic lasso on degree-2 terms, five
  folds, once with fixed penalties and once cross-validated.
* ``effects``: difference in differences and omitted variables (`benchmarks.estimators_effects`).
* ``monte_carlo``: 1,000 replications at n = 1,000 with linear nuisances.
* ``scaling``: the selective estimator in n (to a million rows, 50 covariates), folds, learners.
* ``devices``: replications over one and two devices.
"""

import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import PartitionSpec

from benchmarks import estimators_effects
from benchmarks.harness import RESULTS, compiled, environment, interleaved, ratios, say, write
from jaxcore.estimators import double_ml
from jaxcore.estimators.datasets import load_401k
from jaxcore.estimators.monte_carlo import replicate
from jaxcore.estimators.nuisance import Lasso, Logistic, LogisticLasso, Ridge, basis
from jaxcore.estimators.selective_iv import BLOCKS, Clip
from jaxcore.estimators.selective_iv.basis_selected import estimate_bases
from jaxcore.estimators.selective_iv.simulate import simulate_siv2
from jaxcore.estimators.selective_iv.studies import siv1_study
from jaxcore.parallel import make_mesh
from jaxcore.parallel.mesh import DATA_AXIS

FOLDS = 5
AGREE = 0.02  # standard errors, for the same optimum reached by other algorithms
AGREE_CV = 0.5  # standard errors, where inner folds and paths differ


def folds_of(n: int, k: int = FOLDS) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.arange(n) % k)


def k401_features(smoke: bool) -> tuple[np.ndarray, ...]:
    """Outcome, treatment, instrument, standardised degree-2 terms."""
    Y, A, Z, X = (np.asarray(v, np.float64) for v in load_401k())
    if smoke:
        Y, A, Z, X = (v[::10] for v in (Y, A, Z, X))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    pairs = [X[:, i] * X[:, j] for i in range(4) for j in range(i, 4) if (i, j) != (3, 3)]
    F = np.stack([*X.T, *pairs], axis=1)
    return Y, A, Z, (F - F.mean(axis=0)) / F.std(axis=0)


# --- rivals -------------------------------------------------------------------------------------


def doubleml_fit(model: str, data: tuple[np.ndarray, ...], ids: np.ndarray, learners: Any):
    """A function that runs one DoubleML fit and returns (estimate, standard error)."""
    import doubleml as dml  # pyright: ignore[reportMissingImports]  # extra rivals-econ

    Y, A, Z, X = data
    splits = [(np.flatnonzero(ids != f), np.flatnonzero(ids == f)) for f in range(ids.max() + 1)]

    def run():
        if model == "plr":
            d = dml.DoubleMLData.from_arrays(X, Y, A)
            one = dml.DoubleMLPLR(
                d, learners["reg"](), learners["clf"](), draw_sample_splitting=False
            )
        else:
            d = dml.DoubleMLData.from_arrays(X, Y, A, Z)
            one = dml.DoubleMLIIVM(
                d,
                learners["reg"](),
                learners["clf"](),
                learners["clf"](),
                subgroups={"always_takers": False, "never_takers": True},
                draw_sample_splitting=False,
            )
        one.set_sample_splitting(splits)
        one.fit(store_predictions=False)
        return float(one.coef[0]), float(one.se[0])

    return run


def econml_fit(data: tuple[np.ndarray, ...], ids: np.ndarray, learners: Any):
    """The partially linear model in EconML (LinearDML without effect modifiers)."""
    from econml.dml import LinearDML  # pyright: ignore[reportMissingImports]  # the same

    Y, A, _, X = data
    splits = [(np.flatnonzero(ids != f), np.flatnonzero(ids == f)) for f in range(ids.max() + 1)]

    def run():
        one = LinearDML(
            model_y=learners["reg"](),
            model_t=learners["clf"](),
            discrete_treatment=True,
            cv=splits,
            fit_cate_intercept=True,
        )
        one.fit(Y, A.astype(int), X=None, W=X)
        return float(np.ravel(one.intercept_)[0]), float(
            np.ravel(one.intercept__inference().stderr)[0]
        )

    return run


def sklearn_learners(kind: str, alpha: float, alpha_logit: float, n_train: int) -> dict[str, Any]:
    import sklearn
    from sklearn import linear_model as lm

    old = tuple(int(v) for v in sklearn.__version__.split(".")[:2]) < (1, 8)
    l1 = {"penalty": "l1"} if old else {"l1_ratio": 1.0}
    l1_cv = {"penalty": "l1"} if old else {"l1_ratios": (1.0,), "use_legacy_attributes": False}
    path: dict[str, Any] = {"n_alphas": 50} if old else {"alphas": 50}
    saga = {"solver": "saga", "tol": 1e-4, "max_iter": 1000}
    grid = {"Cs": 10, "cv": 5, "scoring": "neg_log_loss"}
    linear = {"C": 1e8, "solver": "newton-cholesky", "tol": 1e-8}
    return {
        "cv": {
            "reg": lambda: lm.LassoCV(cv=5, **path),
            "clf": lambda: lm.LogisticRegressionCV(**grid, **l1_cv, **saga),
        },
        "linear": {
            "reg": lm.LinearRegression,
            "clf": lambda: lm.LogisticRegression(**linear),
        },
        "fixed": {
            "reg": lambda: lm.Lasso(alpha=alpha),
            "clf": lambda: lm.LogisticRegression(C=1 / (n_train * alpha_logit), **l1, **saga),
        },
    }[kind]


# --- questions ----------------------------------------------------------------------------------


def our_fit(model: str, n_folds: int, reg: Any, clf: Any):
    """The same models as functions of arrays."""

    def plr(Y, A, Z, X, ids):
        return _pair(double_ml.plr(Y, A, X, ml_l=reg, ml_m=clf, fold_ids=ids, n_folds=n_folds))

    def iivm(Y, A, Z, X, ids):
        learners = {"ml_g": reg, "ml_m": clf, "ml_r": clf, "clip": (1e-8, 1 - 1e-8)}
        return _pair(
            double_ml.iivm(
                Y, A, Z, X, fold_ids=ids, n_folds=n_folds, always_takers=False, **learners
            )
        )

    return {"plr": plr, "iivm": iivm}[model]


def _pair(estimate):
    return estimate.theta, estimate.se


def single_fits(repeats: int, smoke: bool) -> dict[str, Any]:
    """One cross-fitted fit on the 401(k) data."""
    data = k401_features(smoke)
    ids = folds_of(len(data[0]))
    n_train = len(ids) * (FOLDS - 1) // FOLDS
    alpha, alpha_logit = 0.5, 0.002
    ours = {
        "fixed": (
            Lasso(alpha=alpha, standardize=False),
            LogisticLasso(alpha=alpha_logit, standardize=False),
        ),
        "cv": (Lasso(standardize=False), LogisticLasso(standardize=False, n_alphas=10, eps=1e-3)),
    }
    out = {}
    for kind, (reg, clf) in ours.items():
        theirs = sklearn_learners(kind, alpha, alpha_logit, n_train)
        for model in ("iivm", "plr"):
            say(f"fit: {model}, {kind} penalties")
            args = [jnp.asarray(v) for v in data] + [jnp.asarray(ids, jnp.int32)]
            program = compiled(our_fit(model, FOLDS, reg, clf), *args)
            calls = {"jaxcore": program.call, "doubleml": doubleml_fit(model, data, ids, theirs)}
            if model == "plr" and kind == "fixed":
                calls["econml"] = econml_fit(data, ids, theirs)
            out[f"{model}, {kind}"] = compare(
                calls,
                program.facts,
                AGREE_CV if kind == "cv" else AGREE,
                1 if smoke else max(3, repeats // (3 if kind == "cv" else 1)),
            )
    return out


def compare(calls: dict[str, Any], facts: Any, tolerance: float, repeats: int) -> dict[str, Any]:
    """Estimates of all, agreement in standard errors, and times only of those that agree."""
    found = {name: tuple(float(v) for v in call()) for name, call in calls.items()}
    theta, se = found["jaxcore"]
    apart = {n: abs(v[0] - theta) / se for n, v in found.items() if n != "jaxcore"}
    agree = {n: a <= tolerance for n, a in apart.items()}
    times = interleaved(calls, repeats)
    record = {
        "estimates": {n: {"theta": v[0], "se": v[1]} for n, v in found.items()},
        "apart_in_se": apart,
        "agree": agree,
        "tolerance_in_se": tolerance,
        "times": times,
        **facts,
    }
    rivals = tuple(n for n, ok in agree.items() if ok)
    if rivals:
        record["ratios"] = ratios(times, "jaxcore", rivals)
    say(f"  {found}\n  {record.get('ratios')}")
    return record


def effects(repeats: int, smoke: bool) -> dict[str, Any]:
    """Difference in differences and omitted variables."""
    out = {}
    for name, (calls, facts) in estimators_effects.rows(smoke).items():
        say(f"effects: {name}")
        out[name] = compare(calls, facts, AGREE, 1 if smoke else repeats)
    return out


def simulated(reps: int, n: int) -> tuple[np.ndarray, ...]:
    """Data of all replications: Y, A, Z (reps, n) and X (reps, n, 5); linear nuisances."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(reps, n, 5))
    U = rng.normal(size=(reps, n))
    Z = (rng.uniform(size=(reps, n)) < 1 / (1 + np.exp(-0.5 * X[..., 0]))).astype(float)
    A = ((U + 1.2 * Z - 0.3 * X[..., 1] > 0.8) & (Z > 0)).astype(float)
    Y = A + X @ [1.0, 0.5, -0.5, 0, 0] + U + rng.normal(size=(reps, n))
    return Y, A, Z, X


def replications(fit: Any, ids: np.ndarray, at_once: int, devices: int) -> Any:
    """One fit for every sample; samples are split over the devices, one per core."""

    def run(*samples):
        one = jnp.asarray(ids, jnp.int32)
        return jax.lax.map(lambda row: fit(*row, one), samples, batch_size=at_once)

    mesh = make_mesh(devices=jax.devices()[:devices])
    rows = PartitionSpec(DATA_AXIS)
    return jax.shard_map(run, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)


def simulations(reps: int, n: int, checked: int) -> dict[str, Any]:
    """Replications with linear regressions and unpenalised logistic regressions."""
    data, ids = simulated(reps, n), folds_of(n)
    theirs = sklearn_learners("linear", 0, 0, n)
    out = {}
    for model in ("plr", "iivm"):
        fit = our_fit(model, FOLDS, Ridge(alpha=0.0), Logistic(alpha=0.0, max_steps=50))
        args = [jnp.asarray(v) for v in data]
        say(f"monte_carlo: {model}, {reps} x n = {n}")
        rows = {}
        for at_once, count in ((1, 1), (5, 1), (20, 1), (20, 2)):
            program = compiled(replications(fit, ids, at_once, count), *args)
            times = interleaved({"jaxcore": program.call}, 5)["jaxcore"]
            key = f"at_once={at_once}, devices={count}"
            rows[key] = {**times, **program.facts}
        theta, se = (np.asarray(v) for v in program.call())
        calls = [
            doubleml_fit(model, tuple(v[r] for v in data), ids, theirs) for r in range(checked)
        ]

        def loop(calls=calls):
            return [call() for call in calls]

        loop_time = interleaved({"doubleml": loop}, 1, warm_up=0)["doubleml"]
        found = np.array(loop())
        apart = np.abs(found[:, 0] - theta[:checked]) / se[:checked]
        per = loop_time["median_s"] / checked
        best, two = (
            min(r["median_s"] for name, r in rows.items() if name.endswith(f"={count}")) / reps
            for count in (1, 2)
        )
        out[model] = {
            "replications": reps,
            "n": n,
            "jaxcore": rows,
            "doubleml_replications": checked,
            "doubleml_s_per_replication": per,
            "jaxcore_s_per_replication": best,
            "jaxcore_s_per_replication_two_devices": two,
            "apart_in_se_largest": float(apart.max()),
            "agree": bool(apart.max() <= AGREE),
        }
        if out[model]["agree"]:
            out[model]["ratio"] = round(per / best, 1)
            out[model]["ratio_two_devices"] = round(per / two, 1)
        say(f"  {out[model]}")
    return out


def scaling(smoke: bool) -> dict[str, Any]:
    """Seconds and memory of the selective estimator (single precision at the largest sizes)."""
    out = {}
    grid = [
        (10**3, 50, 2, 1),
        (10**4, 50, 2, 1),
        (10**5, 50, 2, 1),
        (10**6, 50, 2, 1),
        (10**4, 2, 2, 3),
        (10**4, 2, 5, 3),
        (10**4, 2, 10, 3),
        (10**4, 2, 5, 1),
        (10**4, 2, 5, 2),
        (10**5, 2, 5, 3),
        (10**6, 2, 5, 3),
    ]
    for n, p, k, learners in grid[:1] if smoke else grid:
        say(f"scaling: n={n} p={p} folds={k} learners={learners}")
        with jax.enable_x64(False):
            s = simulate_siv2(jax.random.key(0), n, p=p)
            names = {1: ("lin",), 2: ("const", "lin"), 3: ("const", "lin", "quad")}[learners]
            B, mask = basis.library(names, s.X)
            ids = jnp.asarray(folds_of(n, k), jnp.int32)

            def fit(Y, A, Z, B, mask, ids, k=k):
                return _pair(
                    estimate_bases(Y, A, Z, B, dict.fromkeys(BLOCKS, mask), ids, k, clip=Clip())
                )

            program = compiled(fit, s.Y, s.A, s.Z, B, mask, ids)
            long = n >= 10**6  # compiled ahead: once is enough
            repeats, warm_up = (1, 0) if long else (3, 1)
            times = interleaved({"t": program.call}, repeats, warm_up=warm_up)["t"]
        key = f"n={n}, p={p}, folds={k}, learners={learners}, combinations={learners**5}"
        out[key] = {**times, **program.facts}
        say(f"  {out[key]}")
    return out


def devices(reps: int, n: int) -> dict[str, Any]:
    """Replications split over one and two devices (two fake ones share these cores)."""
    draw = siv1_study(n, scenarios=("all",)).draw
    index, out, found = jnp.arange(reps, dtype=jnp.int32), {}, {}
    for count in (1, 2):
        mesh = make_mesh(devices=jax.devices()[:count])
        program = compiled(
            lambda i, m=mesh: tuple(replicate(draw, jax.random.key(0), i, mesh=m)), index
        )
        found[count] = np.asarray(program.call()[0])
        times = interleaved({"t": program.call}, 2)["t"]
        out[f"devices={count}"] = {**times, **program.facts, "replications": reps, "n": n}
    out["largest_difference"] = float(np.abs(found[1] - found[2]).max())
    say(f"devices: {out}")
    return out


def main(
    out: Path = RESULTS / "estimators.json",
    only: tuple[str, ...] = ("fit", "effects", "monte_carlo", "scaling", "devices"),
    repeats: int = 10,
    smoke: bool = False,
) -> None:
    """Run the questions and write one JSON file.

    Args:
      out: result file; questions not in ``only`` keep their place if the file exists.
      only: which questions.
      repeats: repetitions of every timed call.
      smoke: tiny sizes; nothing is written.
    """
    import json

    warnings.filterwarnings("ignore", module="(sklearn|doubleml|econml)")
    questions = {
        "fit": lambda: single_fits(repeats, smoke),
        "effects": lambda: effects(repeats, smoke),
        "monte_carlo": lambda: simulations(*((20, 200, 2) if smoke else (1000, 1000, 200))),
        "scaling": lambda: scaling(smoke),
        "devices": lambda: devices(*((4, 200) if smoke else (100, 5000))),
    }
    record = json.loads(out.read_text()) if out.exists() else {}
    for name in only:
        with jax.enable_x64(True):
            answer = questions[name]()
        record[name] = {
            "answer": answer,
            "environment": environment("doubleml", "econml", "scikit-learn"),
        }
        if not smoke:
            write(record, out)


if __name__ == "__main__":
    tyro.cli(main)
