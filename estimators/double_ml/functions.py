"""PLR, PLIV, IRM (AIPW) and IIVM (LATE) as functions of arrays and folds.

Names of models and learners are those of DoubleML. ``n_folds=1`` switches cross-fitting off, which
is right for parametric learners only.

Called on values (arrays, lists, columns of dataframes) these functions check everything as the
classes of `double_ml.estimators` do, compute in float64, and return NumPy. Under ``jit``, ``vmap``
or ``grad`` they compute in the precision of what they are given and check nothing: not that a
treatment is 0 and 1, that folds are numbered from 0 and each has both arms outside of it, that
weights are not negative, that values are finite, that learners fit their targets, nor that the
result is finite. For float32 outside of ``jit`` take a class with ``double=False``.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxcore.data.columns import array_of
from jaxcore.errors import UserError
from jaxcore.estimators.checks import check_sample
from jaxcore.estimators.double_ml import model as models
from jaxcore.estimators.double_ml.fitting import (
    Fixed,
    check_training,
    fit_notices,
    fit_partition,
    learners_of,
)
from jaxcore.estimators.double_ml.model import IIVM, PLIV, PLR, Model, irm_of
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance import HostLearner, Learner
from jaxcore.estimators.partitions import check_training as check_folds
from jaxcore.estimators.partitions import kept_folds
from jaxcore.estimators.settings import check_clip
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.typing import Key


def plr(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_l: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Partially linear regression, partialling-out score.

    Args:
      y: outcome.
      d: treatment.
      X: covariates.
      ml_l: learner of E[Y|X].
      ml_m: learner of E[D|X].
      fold_ids: fold of each unit.
      n_folds: number of folds.
      units: observation weights and clusters; make the folds with the same clusters.
      key: PRNG key, or a seed, for learners that draw.

    Raises:
      UserError: outside of ``jit``: what is wrong with the data.

    >>> import numpy as np
    >>> from jaxcore.estimators.nuisance import Ridge
    >>> x, d = np.arange(8.0), np.tile([0, 1], 4)
    >>> folds, linear = np.repeat([0, 1], 4), Ridge(alpha=0.0)
    >>> e = plr(3 * d + x, d, x, ml_l=linear, ml_m=linear, fold_ids=folds, n_folds=2)
    >>> round(float(e.theta), 6)
    3.0
    """
    learners = {"ml_l": ml_l, "ml_m": ml_m}
    return _run(PLR, (y, d), X, learners, fold_ids, n_folds, units=units, key=key)


def pliv(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    z: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_l: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    ml_r: Learner | HostLearner,
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Partially linear IV regression, partialling-out score; arguments as in `plr`.

    ``ml_l`` learns E[Y|X], ``ml_m`` E[Z|X], ``ml_r`` E[D|X].
    """
    learners = {"ml_l": ml_l, "ml_m": ml_m, "ml_r": ml_r}
    return _run(PLIV, (y, d, z), X, learners, fold_ids, n_folds, units=units, key=key)


def irm(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_g: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    clip: tuple[float, float] = (0.01, 0.99),
    target: str = "ATE",
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Average treatment effect under no unmeasured confounding (AIPW); arguments as in `plr`.

    ``ml_g`` learns E[Y|D=d,X] in each arm, ``ml_m`` the propensity, held within ``clip``. With
    ``target="ATT"`` the effect is that on the treated.
    """
    learners, model = {"ml_g": ml_g, "ml_m": ml_m}, irm_of(target)
    return _run(model, (y, d), X, learners, fold_ids, n_folds, clip=clip, units=units, key=key)


def iivm(
    y: Float[Array, " n"],
    d: Float[Array, " n"],
    z: Float[Array, " n"],
    X: Float[Array, "n p"],
    *,
    ml_g: Learner | HostLearner,
    ml_m: Learner | HostLearner,
    ml_r: Learner | HostLearner,
    fold_ids: Int[Array, "n *ways"],
    n_folds: int,
    clip: tuple[float, float] = (0.01, 0.99),
    always_takers: bool = True,
    never_takers: bool = True,
    units: Units = INDEPENDENT,
    key: Key | None = None,
) -> Estimate:
    """Local average treatment effect of a valid binary instrument; arguments as in `plr`.

    ``ml_g`` learns E[Y|Z=z,X] in each arm, ``ml_m`` P(Z=1|X) (held within ``clip``), ``ml_r``
    E[D|Z=z,X] in each arm. Without always-takers the latter is zero at Z=0, without never-takers
    one at Z=1.
    """
    learners = {"ml_g": ml_g, "ml_m": ml_m, "ml_r": ml_r}
    fixed = () if always_takers else (("ml_r0", 0.0),)
    fixed = fixed if never_takers else (*fixed, ("ml_r1", 1.0))
    options: dict[str, Any] = {"clip": clip, "fixed": fixed, "units": units, "key": key}
    return _run(IIVM, (y, d, z), X, learners, fold_ids, n_folds, **options)


def _run(
    model: Model,
    columns: tuple[Any, ...],
    X: Any,
    learners: Mapping[str, Any],
    fold_ids: Any,
    n_folds: int,
    *,
    clip: tuple[float, float] = (0.0, 1.0),
    fixed: Fixed = (),
    units: Units,
    key: Any,
) -> Estimate:
    """`models.fit` of what is traced; what is not is checked, and computed in float64."""
    leaves = jax.tree.leaves((columns, X, learners, fold_ids, units, key))
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        columns, X, fold_ids, units = jax.tree.map(jnp.asarray, (columns, X, fold_ids, units))
        named = dict(zip(model.roles, columns, strict=True))
        return models.fit(
            model,
            named,
            X,
            learners,
            fold_ids,
            n_folds,
            clip=clip,
            fixed=fixed,
            units=units,
            key=key,
        )
    check_clip(clip)
    y, d, *z = columns
    sample = check_sample(
        y,
        d,
        z[0] if z else None,
        X,
        weights=units.weights,
        clusters=units.clusters,
        binary=model.binary,
        holes=True,
    )
    ids, k = _folds(fold_ids, n_folds, sample)
    check_folds(ids, k, sample, check_training(model, sample))
    with jax.enable_x64(True):
        found = fit_partition(
            model,
            sample,
            learners_of(model, sample, learners),
            ids,
            k,
            clip=clip,
            fixed=fixed,
            key=jax.random.key(key or 0) if key is None or isinstance(key, int) else key,
        )
    notices = [*sample.notices, *fit_notices(model, sample, found)]
    return dataclasses.replace(found, notices=tuple(notices))


def _folds(fold_ids: Any, n_folds: int, sample: Any) -> tuple[np.ndarray, int]:
    """Checked folds; with one fold every row both trains and is predicted."""
    if n_folds == 1:
        ids = array_of(fold_ids, "the fold ids")
        if len(ids) != sample.n:
            raise UserError(f"Expected {sample.n} fold ids, found an array of shape {ids.shape}.")
        return np.zeros(sample.n, np.int32), 1
    ids, k = kept_folds(fold_ids, sample.kept, sample.clusters)
    if k != n_folds:
        raise UserError(f"Expected fold ids 0 to {n_folds - 1} (n_folds), found {k} folds.")
    return ids, k
