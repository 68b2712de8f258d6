"""From a checked sample to the estimate of one partition, and what to say about it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators import overlap
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.double_ml import model as models
from jaxcore.estimators.double_ml.model import INSTRUMENT, OUTCOME, TREATMENT, Model
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance import HostLearner, Learner, label
from jaxcore.estimators.nuisance.candidates import Candidate, learner_for, takes_missing

_compiled = jax.jit(models.fit, static_argnums=0, static_argnames=("n_folds", "clip", "fixed"))
_solved = jax.jit(models.solve, static_argnums=0, static_argnames=("clip",))

Fixed = tuple[tuple[str, float], ...]


def columns_of(model: Model, sample: Sample) -> dict[str, np.ndarray]:
    """Columns by role."""
    every = {OUTCOME: sample.Y, TREATMENT: sample.A, INSTRUMENT: sample.Z}
    return {role: every[role] for role in model.roles}


def learners_of(
    model: Model, sample: Sample, given: Mapping[str, Candidate]
) -> dict[str, Learner | HostLearner]:
    """The learner of every prediction.

    Args:
      model: the estimator.
      sample: the data; names of learners mean another one where a target is 0 and 1.
      given: learners by setting.

    Raises:
      UserError: see `learner_for`.
    """
    columns = columns_of(model, sample)
    found = {
        name: learner_for(given[one.learner], one.learner, columns[one.target])
        for name, one in model.nuisances.items()
    }
    if np.isnan(sample.X).any():
        for name, learner in found.items():
            if not takes_missing(learner):
                raise UserError(
                    "Expected learners that take missing covariates, found "
                    f"{label(learner)} for {model.nuisances[name].learner}."
                )
    return found


def check_training(model: Model, sample: Sample) -> Callable[[np.ndarray, int], None]:
    """A check that every fit has units, and those of both kinds where it needs them."""
    columns = columns_of(model, sample)

    def check(rows: np.ndarray, fold: int) -> None:
        for role in model.binary:
            values = columns[role][rows]
            if len(np.unique(values)) < 2:
                raise UserError(
                    f"Expected both values of the {role} outside every fold, found only "
                    f"{f'{values[0]:g}' if len(values) else 'none'} outside fold {fold}."
                )
        for role in model.roles[1:]:
            values = columns[role][rows]
            if not len(values) or np.ptp(values) == 0:
                raise UserError(
                    f"Expected a {role} that varies outside every fold, found one value outside "
                    f"fold {fold}."
                )

    return check


def fit_partition(
    model: Model,
    sample: Sample,
    learners: Mapping[str, Learner | HostLearner],
    ids: np.ndarray,
    n_folds: int,
    *,
    clip: tuple[float, float],
    fixed: Fixed = (),
    key: Any,
    clustered: bool = True,
) -> Estimate:
    """The estimate on given folds, on the host; in the precision of the scope it is called in.

    Raises:
      UserError: predictions, estimate or error are not finite.
    """
    dtype = np.dtype(jnp.result_type(float))
    columns: dict[str, Any] = {r: v.astype(dtype) for r, v in columns_of(model, sample).items()}
    X: Any = sample.X.astype(dtype) if sample.X.shape[1] else np.zeros((sample.n, 1), dtype)
    folds: Any = ids.astype(np.int32)
    units, bounds = sample.units(dtype, clustered=clustered), (float(clip[0]), float(clip[1]))
    options: dict[str, Any] = {"fixed": fixed, "units": units, "key": key}
    fitted = {name: learners[name] for name in model.nuisances if name not in dict(fixed)}
    by_setting = {model.nuisances[name].learner: one for name, one in fitted.items()}
    if any(isinstance(one, HostLearner) for one in fitted.values()):
        raw, about = models.predictions(model, columns, X, by_setting, folds, n_folds, **options)
        found = _solved(model, columns, raw, clip=bounds, units=units)
        found.diagnostics["findings"] = about
    else:
        options |= {"n_folds": n_folds, "clip": bounds}
        found = _compiled(model, columns, X, by_setting, folds, **options)
    found = found.on_host()
    _check_finite(model, found, fitted)
    found.diagnostics["fold_ids"] = ids
    return found


def _check_finite(model: Model, found: Estimate, learners: Mapping[str, Any]) -> None:
    for name, learner in learners.items():
        values = found.diagnostics.get("raw", {}).get(name, found.diagnostics[name])
        if not np.all(np.isfinite(values)):
            raise UserError(
                f"Expected finite predictions of {model.nuisances[name].symbol}, found others from "
                f"{label(learner)}: use a penalised learner, fewer folds, or rescale the data."
            )
    if not np.isfinite(found.theta) or not np.isfinite(found.se):
        raise UserError(
            f"Expected a finite estimate and error, found {found.theta:g} ({found.se:g}): the "
            "covariates predict treatment or instrument without error, or the outcome is too large."
        )


def fit_notices(model: Model, sample: Sample, estimate: Estimate) -> list[str]:
    """What the user must know before the estimate is used: overlap, weak instruments."""
    d, out = estimate.diagnostics, []
    columns, clipped, load = columns_of(model, sample), {}, None
    for name, one in model.nuisances.items():
        if one.bounded:
            clipped[one.symbol] = int(np.sum(d["raw"][name] != d[name]))
            own = np.where(columns[one.target] > 0.5, d[name], 1 - d[name])
            weights = np.ones(sample.n) if sample.weights is None else sample.weights
            load = weights / np.maximum(own, 1e-12)
    if load is not None:
        out += overlap.notices(clipped, overlap.effective_size(load), sample.n)
    if "ml_m" in model.nuisances and not model.nuisances["ml_m"].bounded:
        one = model.nuisances["ml_m"]
        y, w = columns[one.target], sample.units().weights_like(sample.Y)
        share = np.mean(w * (y - d["ml_m"]) ** 2) / np.mean(w * (y - np.mean(w * y)) ** 2)
        if share < overlap.LEFT:
            out.append(
                f"{one.symbol} explains all but {100 * share:.2g}% of the {one.target}'s variance: "
                "the estimate rests on what is left, which may be noise of the fit"
            )
    t = float(d.get("first_stage_t", np.inf))
    if abs(t) < overlap.WEAK_T:
        out.append(
            f"weak instrument: it hardly moves the treatment (t = {t:.2f}); use the robust set "
            "instead of the interval"
        )
    return out
