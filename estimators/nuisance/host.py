"""Learners that live outside JAX: scikit-learn, LightGBM, XGBoost, or any function."""

import copy
import inspect
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcore.errors import UserError


class HostLearner:
    """Wrap an outside learner: it is fitted on the host, once per fold, on the rows of that fold.

    Args:
      model: an object with ``fit(X, y, sample_weight=...)`` and ``predict`` or ``predict_proba``
        (copied before every fit), or a function ``(X_train, y_train, w_train, X_test) -> values``.
      binary: the target is 0/1 and probabilities are wanted.

    >>> import numpy as np
    >>> mean = HostLearner(lambda X, y, w, X_new: np.full(len(X_new), np.average(y, weights=w)))
    >>> mean.fit_predict(np.zeros((2, 1)), np.ones(2), np.ones((1, 2)), (np.zeros((2, 1)),)).shape
    (1, 1, 2)
    """

    per_arm: ClassVar[bool] = False

    def __init__(self, model: Any, *, binary: bool = False) -> None:
        is_object = hasattr(model, "fit") and (
            hasattr(model, "predict") or hasattr(model, "predict_proba")
        )
        if not is_object and not callable(model):
            raise UserError(
                "Expected a learner with fit and predict, or a function of "
                f"(X_train, y_train, w_train, X_test), found {type(model).__name__}."
            )
        self.model: Any = model  # an estimator of scikit-learn's kind or a function
        self.binary = binary
        self._is_object = is_object

    def __repr__(self) -> str:
        name = (
            type(self.model).__name__
            if self._is_object
            else getattr(self.model, "__name__", "function")
        )
        return f"HostLearner({name})"

    def fit_predict(self, X: Any, y: Any, masks: Any, at: tuple[Any, ...]) -> jax.Array:
        """Predictions of every fit at every feature array, axes [fit, feature array, row]."""
        if any(isinstance(v, Tracer) for v in (X, y, masks, *at)):
            raise UserError("Expected a JAX learner under jit or vmap, found a host learner.")
        X, y, masks = (np.asarray(v) for v in (X, y, masks))
        at = tuple(np.asarray(v) for v in at)
        out = [
            self._one(X, y[k] if y.ndim == 2 else y, masks[k], at) for k in range(masks.shape[0])
        ]
        return jnp.asarray(np.stack(out), jax.dtypes.canonicalize_dtype(X.dtype))

    def _one(
        self, X: np.ndarray, y: np.ndarray, w: np.ndarray, at: tuple[np.ndarray, ...]
    ) -> np.ndarray:
        rows = w > 0
        X, y, w = X[rows], y[rows], w[rows]
        if not self._is_object:
            values = [np.asarray(self.model(X, y, w, x)) for x in at]
        else:
            model = copy.deepcopy(self.model)
            if np.all(w == 1) or "sample_weight" not in inspect.signature(model.fit).parameters:
                if not np.all(w == w[0]):
                    raise UserError(
                        f"Expected {type(model).__name__}.fit to take sample_weight, since the "
                        "observations are weighted, found that it does not."
                    )
                model.fit(X, y)
            else:
                model.fit(X, y, sample_weight=w)
            values = [self._predict(model, x) for x in at]
        for v, x in zip(values, at, strict=True):
            if v.shape != (len(x),):
                raise UserError(
                    f"Expected one prediction per row ({len(x)},) from {self!r}, found {v.shape}."
                )
        return np.stack(values)

    def _predict(self, model: Any, x: np.ndarray) -> np.ndarray:
        if self.binary and hasattr(model, "predict_proba"):
            p = np.asarray(model.predict_proba(x))
            if p.shape[1] == 1:  # only one class was seen
                return np.full(len(x), float(model.classes_[0]))
            return p[:, 1]
        return np.asarray(model.predict(x))
