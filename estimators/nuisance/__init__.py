"""Nuisance learners: frozen pytrees with pure ``fit`` and ``predict`` of fixed shape."""

from typing import TYPE_CHECKING, Any

from jaxcore.estimators.nuisance.base import Learner, fit_predict, label
from jaxcore.estimators.nuisance.basis import Basis, BSpline, FourierFeatures, Polynomial
from jaxcore.estimators.nuisance.best import Best
from jaxcore.estimators.nuisance.boosting import Boosting
from jaxcore.estimators.nuisance.calibrate import Calibrated
from jaxcore.estimators.nuisance.host import HostLearner
from jaxcore.estimators.nuisance.kernel import KernelRidge
from jaxcore.estimators.nuisance.linear import ElasticNet, Lasso, Ridge
from jaxcore.estimators.nuisance.logistic import Logistic, LogisticLasso
from jaxcore.estimators.nuisance.stack import Stack
from jaxcore.estimators.nuisance.tuning import tuned

if TYPE_CHECKING:
    from jaxcore.estimators.nuisance.mlp import MLP

__all__ = [
    "MLP",
    "BSpline",
    "Basis",
    "Best",
    "Boosting",
    "Calibrated",
    "ElasticNet",
    "FourierFeatures",
    "HostLearner",
    "KernelRidge",
    "Lasso",
    "Learner",
    "Logistic",
    "LogisticLasso",
    "Polynomial",
    "Ridge",
    "Stack",
    "fit_predict",
    "label",
    "tuned",
]


def __getattr__(name: str) -> Any:
    if name == "MLP":  # flax, optax and the training step only where they are used
        from jaxcore.estimators.nuisance.mlp import MLP

        return MLP
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
