"""Grids of settings of a learner, to be chosen from by cross-validation in every fit."""

import dataclasses
import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcore.errors import UserError
from jaxcore.estimators.nuisance.base import label
from jaxcore.estimators.nuisance.best import Best
from jaxcore.estimators.nuisance.calibrate import Calibrated
from jaxcore.estimators.nuisance.host import HostLearner
from jaxcore.estimators.nuisance.stack import Stack

Grid = Mapping[str, Sequence[Any]]
"""Values to try of each setting; all combinations are tried."""

_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

# Name of a learner -> the grid it is tuned over. Lasso and LogisticLasso go down a path of
# penalties themselves; so does ElasticNet for every ratio.
GRIDS: dict[str, Grid] = {
    "Ridge": {"alpha": _PENALTIES},
    "Logistic": {"alpha": _PENALTIES},
    "Lasso": {},
    "LogisticLasso": {},
    "ElasticNet": {"l1_ratio": (0.1, 0.5, 0.9, 1.0)},
    "Boosting": {"depth": (2, 4), "learning_rate": (0.03, 0.1, 0.3)},
    "KernelRidge": {"alpha": (0.1, 1.0, 10.0), "gamma": (0.01, 0.05, 0.2, 1.0)},
    "MLP": {"learning_rate": (3e-4, 1e-3, 3e-3), "weight_decay": (1e-4, 1e-2)},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuned:
    """A learner, or its name, to be `tuned` when the target is known."""

    learner: Any
    grid: Grid | None = None
    n_inner: int = 3


def tuned(learner: Any, grid: Grid | None = None, *, n_inner: int = 3) -> Any:
    """A learner whose settings are chosen by inner cross-validation in every fit.

    Args:
      learner: a JAX learner; of `Stack`, `Best` and `Calibrated` without a grid of their own the
        learners inside are tuned.
      grid: values to try of each setting, in all combinations; None takes that of `GRIDS`. Those
        of the learner itself are tried too.
      n_inner: inner folds.

    Raises:
      UserError: an outside learner, one without a grid, unknown settings, or no values.

    >>> from jaxcore.estimators.nuisance import Ridge, label
    >>> label(tuned(Ridge(alpha=0.5), {"alpha": [0.1, 1.0]}))
    'Best(Ridge(alpha=0.5), Ridge(alpha=0.1), Ridge(alpha=1.0))'
    """
    if isinstance(learner, HostLearner | type) or not dataclasses.is_dataclass(learner):
        raise UserError(
            f"Expected a learner of jaxcore.estimators.nuisance to tune, found {label(learner)}: "
            "scikit-learn's GridSearchCV around it is a learner, too."
        )
    ours: Any = learner
    if not grid and isinstance(ours, Stack | Best):
        each = tuple(tuned(one, n_inner=n_inner) for one in ours.learners)
        return dataclasses.replace(ours, learners=each)
    if not grid and isinstance(ours, Calibrated):
        return dataclasses.replace(ours, learner=tuned(ours.learner, n_inner=n_inner))
    kind = type(learner).__name__
    if not grid:
        if kind not in GRIDS:
            raise UserError(
                f"Expected a grid for {kind}, since only {', '.join(GRIDS)} have their own, found "
                "none."
            )
        grid = GRIDS[kind]
        if hasattr(learner, "l1_ratio") or kind == "LogisticLasso":
            ours = dataclasses.replace(ours, alpha=None)  # chosen on a path
    _check(ours, grid)
    every = [ours]
    for values in itertools.product(*grid.values()):
        one = dataclasses.replace(ours, **dict(zip(grid, values, strict=True)))
        if one not in every:
            every.append(one)
    return every[0] if len(every) == 1 else Best(learners=tuple(every), n_inner=n_inner)


def _check(learner: Any, grid: Grid) -> None:
    known = [field.name for field in dataclasses.fields(learner)]
    for name, values in grid.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UserError(
                f"Expected settings of {type(learner).__name__} ({', '.join(known)}) to tune, "
                f"found {name!r}{hint}."
            )
        if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
            raise UserError(f"Expected a list of values to try for {name}, found {values!r}.")


def differences(learners: Sequence[Any]) -> list[str]:
    """What tells learners apart: settings, or their names where kinds differ.

    >>> from jaxcore.estimators.nuisance import Lasso, Ridge
    >>> differences([Ridge(alpha=0.1), Ridge(alpha=1.0)])
    ['alpha=0.1', 'alpha=1.0']
    >>> differences([Ridge(), Lasso()])
    ['Ridge()', 'Lasso()']
    """
    if len({type(one) for one in learners}) > 1 or not dataclasses.is_dataclass(learners[0]):
        return [label(one) for one in learners]
    names = [
        field.name
        for field in dataclasses.fields(learners[0])
        if any(getattr(one, field.name) != getattr(learners[0], field.name) for one in learners)
    ]
    return [", ".join(f"{n}={_short(getattr(one, n))}" for n in names) for one in learners]


def _short(value: Any) -> str:
    return label(value) if dataclasses.is_dataclass(value) else repr(value)
