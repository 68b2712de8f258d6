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

    Classifiers (with ``predict_proba``) give the probability of 1, everything else what
    ``predict`` returns.

    Args:
      model: an object with ``fit(X, y, sample_weight=...)`` and ``predict`` or ``predict_proba``
        (copied before every fit), or a function ``(X_train, y_train, w_train, X_test) -> values``.
      binary: whether ``predict_proba`` is asked; None: where there is one.
      missing: whether it takes NaN among the features; None asks its scikit-learn tags.

    >>> import numpy as np
    >>> mean = HostLearner(lambda X, y, w, X_new: np.full(len(X_new), np.average(y, weights=w)))
    >>> mean.fit_predict(np.zeros((2, 1)), np.ones(2), np.ones((1, 2)), (np.zeros((2, 1)),)).shape
    (1, 1, 2)
    """

    per_arm: ClassVar[bool] = False

    def __init__(
        self, model: Any, *, binary: bool | None = None, missing: bool | None = None
    ) -> None:
        self._is_object = is_outside_learner(model)
        if isinstance(model, type) or not (self._is_object or callable(model)):
            found = f"the class {model.__name__}" if isinstance(model, type) else repr(model)
            raise UserError(
                "Expected a learner with fit and predict, or a function of "
                f"(X_train, y_train, w_train, X_test), found {found}."
            )
        self.model: Any = model  # an estimator of scikit-learn's kind or a function
        kind = _tag(model, "estimator_type") or getattr(model, "_estimator_type", None)
        has = hasattr(model, "predict_proba")
        self.binary = has if binary is None else binary and has
        if kind == "classifier" and not self.binary:
            raise UserError(
                "Expected a classifier with predict_proba, for probabilities instead of labels, "
                f"found {_name(model)}: wrap it in scikit-learn's CalibratedClassifierCV."
            )
        self.missing = bool(_tag(model, "input_tags", "allow_nan")) if missing is None else missing

    def __repr__(self) -> str:
        return f"HostLearner({_name(self.model)})"

    def fit_predict(self, X: Any, y: Any, masks: Any, at: tuple[Any, ...]) -> jax.Array:
        """Predictions of every fit at every feature array, axes [fit, feature array, row].

        Raises:
          UserError: under ``jit`` or ``vmap``, or what the learner says of the data.
        """
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
        if self.binary and len(y) and np.all(y == y[0]):  # classifiers want two classes
            return np.stack([np.full(len(x), y[0]) for x in at])
        if not self._is_object:
            values = [np.asarray(self.model(X, y, w, x)) for x in at]
        else:
            model = copy.deepcopy(self.model)
            weighted = not np.all(w == w[0])
            if weighted and "sample_weight" not in inspect.signature(model.fit).parameters:
                raise UserError(
                    f"Expected {_name(model)}.fit to take sample_weight, since the observations "
                    "are weighted, found that it does not."
                )
            try:
                model.fit(X, y, **({"sample_weight": w} if weighted else {}))
                values = [self._predict(model, x) for x in at]
            except ValueError as error:  # its own refusal of these data
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise UserError(
                    f"Expected data that {_name(model)} can learn from, found: {first}"
                ) from error
        for v, x in zip(values, at, strict=True):
            if v.shape != (len(x),):
                raise UserError(
                    f"Expected one prediction per row ({len(x)},) from {self!r}, found {v.shape}."
                )
        return np.stack(values)

    def _predict(self, model: Any, x: np.ndarray) -> np.ndarray:
        if not self.binary:
            return np.asarray(model.predict(x))
        p = np.asarray(model.predict_proba(x))
        classes = [float(c) for c in getattr(model, "classes_", range(p.shape[1]))]
        if 1.0 not in classes or len(classes) > 2:
            raise UserError(
                f"Expected a target of 0 and 1 for the classifier {_name(model)}, found "
                f"{len(classes)} classes."
            )
        return p[:, classes.index(1.0)]


def is_outside_learner(model: object) -> bool:
    """Whether something fits and predicts as scikit-learn's estimators do."""
    predicts = hasattr(model, "predict") or hasattr(model, "predict_proba")
    return hasattr(model, "fit") and predicts and not isinstance(model, type)


def _name(model: object) -> str:
    if is_outside_learner(model):
        return type(model).__name__
    return getattr(model, "__name__", "function")


def _tag(model: Any, *names: str) -> Any:
    """One of scikit-learn's tags; None of a model without them."""
    tags = getattr(model, "__sklearn_tags__", None)
    if tags is None:
        return None
    try:
        found = tags()
    except (AttributeError, TypeError):  # of another version of scikit-learn
        return None
    for name in names:
        found = getattr(found, name, None)
    return found
