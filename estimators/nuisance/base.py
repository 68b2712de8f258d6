"""What a nuisance learner is, and the one function that fits learners over many weightings."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators.nuisance.host import HostLearner
from jaxcore.typing import Key


@runtime_checkable
class Learner(Protocol):
    """A frozen pytree that fits and predicts with pure functions of fixed shape.

    Rows left out of a fit carry weight zero, so that `jax.vmap` runs over folds; numeric settings
    are leaves, so that it runs over settings.
    """

    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> Any:
        """Fit on the rows with positive weight; returns a pytree."""
        ...

    def predict(self, fitted: Any, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Predicted mean (a probability for classifiers)."""
        ...


def fit_predict(
    learner: Any,
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
    if isinstance(learner, HostLearner):
        return learner.fit_predict(X, y, masks, tuple(at))
    key = jax.random.key(0) if key is None else key
    return _fit_predict(learner, X, y, masks, tuple(at), key)


@jax.jit
def _fit_predict(learner, X, y, masks, at, key):
    def one(y_k, w, k):
        fitted = learner.fit(X, y_k, w, k)
        return jnp.stack([learner.predict(fitted, x) for x in at])

    keys = jax.random.split(key, masks.shape[0])
    return jax.vmap(one, in_axes=(0 if y.ndim == 2 else None, 0, 0))(y, masks, keys)


def fit_predict_many(
    learners: Sequence[Any],
    X: Float[Array, "n p"],
    y: Float[Array, "*k n"],
    masks: Float[Array, "k n"],
    at: Sequence[Float[Array, "m p"]],
    *,
    key: Key | None = None,
) -> Float[Array, "l k e m"]:
    """`fit_predict` for several learners; learners that differ only in numbers share one `vmap`."""
    key = jax.random.key(0) if key is None else key
    groups: dict[Any, list[int]] = {}
    for i, learner in enumerate(learners):
        on_host = isinstance(learner, HostLearner)
        groups.setdefault(i if on_host else jax.tree.structure(learner), []).append(i)
    out: dict[int, Any] = {}
    for members in groups.values():
        if len(members) == 1:
            i = members[0]
            out[i] = fit_predict(learners[i], X, y, masks, at, key=key)
            continue
        stacked = jax.tree.map(
            lambda *leaves: jnp.stack([jnp.asarray(v, X.dtype) for v in leaves]),
            *[learners[i] for i in members],
        )
        together = jax.vmap(lambda one: _fit_predict(one, X, y, masks, tuple(at), key))(stacked)
        out.update(zip(members, together, strict=True))
    return jnp.stack([out[i] for i in range(len(learners))])
