"""What a nuisance learner is, and the one function that fits learners over many weightings."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators.nuisance.host import HostLearner
from jaxcore.typing import Key


def static(default: Any) -> Any:
    """A field of a learner that is no leaf: another value is another program."""
    return dataclasses.field(default=default, metadata={"static": True})


@runtime_checkable
class Learner(Protocol):
    """A frozen pytree that fits and predicts with pure functions of fixed shape.

    Rows left out of a fit carry weight zero, so that `jax.vmap` runs over folds; numeric settings
    are leaves, so that it runs over settings.
    """

    # Of a binary instrument or treatment: one fit in each arm (learners that add up terms), or one
    # fit with the arm as a feature (those that find interactions themselves).
    per_arm: ClassVar[bool]

    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> Any:
        """Fit on the rows with positive weight; returns a pytree."""
        ...

    def predict(self, fitted: Any, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Predicted mean (a probability for classifiers)."""
        ...


def classifies(learner: object) -> bool:
    """Whether a learner predicts probabilities of a target of 0 and 1."""
    return bool(getattr(learner, "binary", False))


def joint(learner: object, other: object) -> bool:
    """Whether one program had better fit both: they differ in numbers alone, and ask for it.

    Fits in one program all go on until the last one ends. That takes less time than one after the
    other for learners whose loops are made of many small steps, which say so by ``joint``.

    >>> from jaxcore.estimators.nuisance import LogisticLasso
    >>> one = LogisticLasso(alpha=0.1)
    >>> joint(one, LogisticLasso(alpha=0.2)), joint(one, LogisticLasso())
    (True, False)
    """
    if not getattr(learner, "joint", False):
        return False
    (a, tree), (b, same) = (jax.tree.flatten(one) for one in (learner, other))
    return tree == same and [jnp.shape(x) for x in a] == [jnp.shape(x) for x in b]


def fit_predict(
    learner: Learner | HostLearner,
    X: Float[Array, "n p"],
    y: Float[Array, "*k n"],
    masks: Float[Array, "k n"],
    at: Sequence[Float[Array, "m p"]],
    *,
    key: Key | None = None,
) -> Float[Array, "k e m"]:
    """Fit one learner under each of several row weightings and predict everywhere.

    Args:
      learner: a `Learner` or a `HostLearner`.
      X: features.
      y: target, one for all fits or one per fit.
      masks: weights of the rows in each of ``k`` fits; zero leaves a row out.
      at: feature arrays to predict at.
      key: PRNG key for learners that draw; every fit gets its own.

    Returns:
      Predictions, axes [fit, feature array, row].
    """
    return fit_predict_find(learner, X, y, masks, at, key=key)[0]


def fit_predict_find(
    learner: Learner | HostLearner,
    X: Float[Array, "n p"],
    y: Float[Array, "*k n"],
    masks: Float[Array, "k n"],
    at: Sequence[Float[Array, "m p"]],
    *,
    key: Key | None = None,
    keys: Key | None = None,
    own: bool = False,
) -> tuple[Float[Array, "k e m"], dict[str, Array]]:
    """`fit_predict`, and what every fit found out, first axis [fit].

    ``keys`` are those of the fits, instead of one to be split. With ``own`` the leaves of a JAX
    learner have an axis of fits in front: each has its own settings. A JAX learner may have a
    method ``findings(fitted) -> dict`` of arrays: chosen penalties, weights, losses.
    """
    if isinstance(learner, HostLearner):
        return learner.fit_predict(X, y, masks, tuple(at)), {}
    if keys is None:
        keys = jax.random.split(jax.random.key(0) if key is None else key, masks.shape[0])
    return _fit_predict(learner, X, y, masks, tuple(at), keys, own=own)


@functools.partial(jax.jit, static_argnames="own")
def _fit_predict(
    learner: Learner,
    X: Float[Array, "n p"],
    y: Float[Array, "*k n"],
    masks: Float[Array, "k n"],
    at: tuple[Float[Array, "m p"], ...],
    keys: Key,
    *,
    own: bool,
) -> tuple[Float[Array, "k e m"], dict[str, Array]]:
    def one(
        learner: Learner, y_k: Array, w: Array, k: Key
    ) -> tuple[Float[Array, "e m"], dict[str, Array]]:
        findings = getattr(learner, "findings", None)
        fitted = learner.fit(X, y_k, w, k)
        found = {} if findings is None else findings(fitted)
        return jnp.stack([learner.predict(fitted, x) for x in at]), found

    axes = (0 if own else None, 0 if y.ndim == 2 else None, 0, 0)
    return jax.vmap(one, in_axes=axes)(learner, y, masks, keys)


def label(learner: object) -> str:
    """Short name of a candidate.

    >>> from jaxcore.estimators.nuisance import Polynomial
    >>> label("quad"), label(Polynomial(degree=2))
    ('quad', 'Polynomial(degree=2)')
    """
    if isinstance(learner, str):
        return learner
    if isinstance(learner, HostLearner) or not dataclasses.is_dataclass(learner):
        return repr(learner)
    changed = []
    for field in dataclasses.fields(learner):
        value = getattr(learner, field.name)
        plain = field.default is not dataclasses.MISSING and value == field.default
        if not plain:
            text = _text(value)
            changed.append(text if isinstance(value, tuple) else f"{field.name}={text}")
    return f"{type(learner).__name__}({', '.join(changed)})"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        kinds = {type(one).__name__ for one in value}
        if len(value) > 3 and len(kinds) == 1:
            return f"{len(value)} of {kinds.pop()}"
        return ", ".join(map(_text, value))
    return label(value) if dataclasses.is_dataclass(value) else repr(value)
