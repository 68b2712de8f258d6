"""From what a user names as a learner to a learner: a word, one of ours, or one from outside."""

from typing import Any

import jax
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators.nuisance.base import Learner, label
from jaxcore.estimators.nuisance.basis import BSpline
from jaxcore.estimators.nuisance.boosting import Boosting
from jaxcore.estimators.nuisance.calibrate import Calibrated
from jaxcore.estimators.nuisance.host import HostLearner, is_outside_learner
from jaxcore.estimators.nuisance.linear import Lasso, Ridge
from jaxcore.estimators.nuisance.logistic import Logistic, LogisticLasso
from jaxcore.estimators.nuisance.stack import Stack

_NUMBERS = (int, float, np.generic, np.ndarray, jax.Array)  # leaves of a learner are settings
_SPLINE = BSpline()

# Name -> the learner of a target of any kind, and that of a target of 0 and 1.
NAMED: dict[str, tuple[Learner, Learner]] = {
    "lasso": (Lasso(), LogisticLasso()),
    "ridge": (Ridge(), Logistic()),
    "linear": (Ridge(alpha=0.0), Logistic(alpha=0.0, max_steps=50)),
    "spline": (Ridge(basis=_SPLINE), Logistic(basis=_SPLINE)),
    "boosting": (Boosting(), Boosting(binary=True)),
    "stack": (
        Stack(learners=(Ridge(), Ridge(basis=_SPLINE), Boosting())),
        Stack(learners=(Logistic(), Logistic(basis=_SPLINE), Boosting(binary=True))),
    ),
}

Candidate = str | Learner | HostLearner | Any
"""A name of `NAMED`, a learner of ours, or an outside one with ``fit`` and ``predict``."""


def check(
    candidate: Candidate, what: str, also: str = f"one of {', '.join(NAMED)}"
) -> Learner | HostLearner | None:
    """A learner, or None for a name that waits for its target.

    Args:
      candidate: what the user gave.
      what: the setting, for messages.
      also: what else there may be, for messages.

    Raises:
      UserError: it is no learner.
    """
    if isinstance(candidate, str):
        if candidate not in NAMED:
            raise UserError(f"Expected a learner or {also} for {what}, found {candidate!r}.")
        return None
    if isinstance(candidate, HostLearner):
        return candidate
    outside = jax.tree_util.all_leaves([candidate])  # ours are pytrees
    if isinstance(candidate, Learner) and not outside:
        if not all(isinstance(leaf, _NUMBERS) for leaf in jax.tree.leaves(candidate)):
            raise UserError(
                f"Expected {type(candidate).__name__} of JAX learners, found {label(candidate)}."
            )
        return candidate
    if is_outside_learner(candidate):
        return HostLearner(candidate)
    raise UserError(
        "Expected a learner of jaxcore.estimators.nuisance, one with fit and predict, or "
        f"{also} for {what}, found {candidate!r}."
    )


def learner_for(candidate: Candidate, what: str, target: np.ndarray) -> Learner | HostLearner:
    """The learner of a target; names mean another one where it is 0 and 1.

    Raises:
      UserError: it is no learner, or a classifier of something else than 0 and 1.

    >>> label(learner_for("ridge", "ml_m", np.array([0.0, 1.0])))
    'Logistic()'
    """
    binary = bool(np.all((target == 0) | (target == 1)))
    found = check(candidate, what)
    if found is None:
        return NAMED[str(candidate)][int(binary)]
    if classifies(found) and not binary:
        raise UserError(
            f"Expected a regression for {what}, whose target is not 0 and 1, found the classifier "
            f"{label(found)}."
        )
    return found


def classifies(learner: object) -> bool:
    """Whether a learner predicts probabilities of a target of 0 and 1."""
    if isinstance(learner, Logistic | LogisticLasso | Calibrated):
        return True
    return bool(getattr(learner, "binary", False))


def takes_missing(learner: object) -> bool:
    """Whether a learner fits and predicts with NaN among the features."""
    return isinstance(learner, HostLearner) and learner.missing
