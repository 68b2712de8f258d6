"""Nuisance learners: frozen pytrees with pure ``fit`` and ``predict`` of fixed shape."""

import importlib

_WHERE = {
    "Learner": "base", "fit_predict": "base", "fit_predict_many": "base",
    "HostLearner": "host",
    "BSpline": "basis", "FourierFeatures": "basis", "Polynomial": "basis",
    "Ridge": "linear", "Lasso": "linear", "ElasticNet": "linear",
    "Logistic": "logistic", "LogisticLasso": "logistic",
    "KernelRidge": "kernel",
    "MLP": "mlp",
    "Boosting": "boosting",
    "Stack": "stack", "Calibrated": "calibrate",
}  # fmt: skip

__all__ = list(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll] (names come from __getattr__)


def __getattr__(name: str):
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
