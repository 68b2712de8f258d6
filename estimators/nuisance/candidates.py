"""From what a user names as a learner to a learner: a word, one of ours, or one from outside."""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators.nuisance.base import Learner, classifies, label
from jaxcore.estimators.nuisance.basis import BSpline
from jaxcore.estimators.nuisance.best import Best
from jaxcore.estimators.nuisance.boosting import Boosting
from jaxcore.estimators.nuisance.host import HostLearner, is_outside_learner
from jaxcore.estimators.nuisance.linear import Lasso, Ridge
from jaxcore.estimators.nuisance.logistic import Logistic, LogisticLasso
from jaxcore.estimators.nuisance.stack import Stack
from jaxcore.estimators.nuisance.tuning import Tuned, tuned

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

COMBINED: dict[str, Callable[..., Any]] = {
    "stack": lambda *learners: Stack(learners=learners),
    "best": lambda *learners: Best(learners=learners),
    "tuned": tuned,
}
"""Word before a colon -> what it makes of the learners after it: "stack:lasso,boosting"."""

KNOWN = f"{', '.join(NAMED)}, stack:A,B, best:A,B or tuned:A"
"""The names, for messages and help."""

Candidate = str | Learner | HostLearner | Any
"""A name of `NAMED`, names after a word of `COMBINED`, a learner, or an outside one."""


def resolved(
    candidate: Candidate, what: str, *, binary: bool = False, bases: Sequence[str] = ()
) -> Learner | HostLearner:
    """The learner that a user means.

    Args:
      candidate: what the user gave.
      what: the setting, for messages.
      binary: names mean the learner of a target of 0 and 1.
      bases: names of bases that would do as well, for messages.

    Raises:
      UserError: it is no learner.

    >>> label(resolved("stack:ridge,boosting", "ml_g"))
    'Stack(Ridge(), Boosting())'
    """
    if isinstance(candidate, str):
        return _named(candidate, what, binary, bases)
    if isinstance(candidate, HostLearner):
        return candidate
    if isinstance(candidate, Tuned):
        one = resolved(candidate.learner, what, binary=binary, bases=bases)
        return tuned(one, candidate.grid, n_inner=candidate.n_inner)
    if isinstance(candidate, Stack | Best):
        if not candidate.learners:
            raise UserError(f"Expected learners in {type(candidate).__name__}, found none.")
        each = [resolved(one, what, binary=binary, bases=bases) for one in candidate.learners]
        candidate = dataclasses.replace(candidate, learners=tuple(each))
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
        f"{_known(bases)} for {what}, found {candidate!r}."
    )


def _known(bases: Sequence[str]) -> str:
    return f"a basis of {', '.join(bases)}, or one of {KNOWN}" if bases else f"one of {KNOWN}"


def _named(name: str, what: str, binary: bool, bases: Sequence[str]) -> Any:
    if name in NAMED:
        return NAMED[name][int(binary)]
    word, colon, rest = name.partition(":")
    inside = rest.split(",")
    if not colon or word not in COMBINED:
        words = (*NAMED, *COMBINED, *bases)
        near = difflib.get_close_matches(word if colon else name, words, 1)
        hint = f" (did you mean {near[0]!r}?)" if near and near[0] != name else ""
        raise UserError(f"Expected a learner or {_known(bases)} for {what}, found {name!r}{hint}.")
    if word == "tuned":
        inside = [rest]
    elif len(inside) < 2:
        raise UserError(f"Expected two learners or more after {word}: for {what}, found {name!r}.")
    return COMBINED[word](*(_named(one, what, binary, bases) for one in inside))


def learner_for(candidate: Candidate, what: str, target: np.ndarray) -> Learner | HostLearner:
    """The learner of a target; names mean another one where it is 0 and 1.

    Raises:
      UserError: it is no learner, or a classifier of something else than 0 and 1.

    >>> label(learner_for("ridge", "ml_m", np.array([0.0, 1.0])))
    'Logistic()'
    """
    binary = bool(np.all((target == 0) | (target == 1)))
    found = resolved(candidate, what, binary=binary)
    if classifies(found) and not binary:
        raise UserError(
            f"Expected a regression for {what}, whose target is not 0 and 1, found the classifier "
            f"{label(found)}."
        )
    return found


def takes_missing(learner: object) -> bool:
    """Whether a learner fits and predicts with NaN among the features."""
    return isinstance(learner, HostLearner) and learner.missing
