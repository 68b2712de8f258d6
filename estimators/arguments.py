"""Arguments of functions that are called on values: checked, so that nothing is NaN in silence."""

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from jaxcore.data.columns import array_of, check_index
from jaxcore.errors import UserError
from jaxcore.estimators.checks import check_both, cluster_numbers
from jaxcore.estimators.columns import column, covariate_columns, single, two_levels
from jaxcore.estimators.nuisance.candidates import learner_for
from jaxcore.estimators.partitions import kept_folds
from jaxcore.estimators.precision import check_finite, in_double
from jaxcore.estimators.settings import check_clip
from jaxcore.estimators.units import Units

CHANCE = np.array([0.0, 1.0])
"""Values of a target of 0 and 1."""

P = ParamSpec("P")
R = TypeVar("R")


def on_values(
    *,
    numbers: Sequence[str],
    binary: Sequence[str] = (),
    arms: Sequence[str] | None = None,
    levels: str | None = None,
    tables: Sequence[str] = ("X",),
    targets: Mapping[str, str | Callable[[Mapping[str, Any]], np.ndarray]] | None = None,
    also: Callable[[Mapping[str, Any]], None] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`precision.in_double`, and checks of the arguments, where none of them is traced.

    Columns may then be lists, series or frames, learners outside ones or names. Arguments called
    ``units``, ``clip``, ``fold_ids`` and ``n_folds`` are checked where the function has them.

    Args:
      numbers: arguments that are columns of numbers; the first says how many rows there are.
      binary: those of two levels, which become 0 and 1.
      arms: of these, those whose every combination folds must leave rows of for training; None for
        all.
      levels: an argument of whole numbers 0, 1, ... below ``n_levels``, of which the same holds.
      tables: arguments of several columns; None is left alone.
      targets: learner -> the argument it predicts, "chance" for something of 0 and 1, or a
        function from the arguments to values such as it predicts.
      also: a further check, of the arguments by name as they are after the others.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature, computed = inspect.signature(function), in_double(function)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))):
                return function(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            kinds = binary if arms is None else arms
            _check(bound.arguments, numbers, binary, kinds, levels, tables, targets or {})
            if also is not None:
                also(bound.arguments)
            return computed(*bound.args, **bound.kwargs)

        return called

    return decorate


def _check(
    given: dict[str, Any],
    numbers: Sequence[str],
    binary: Sequence[str],
    arms: Sequence[str],
    levels: str | None,
    tables: Sequence[str],
    targets: Mapping[str, Any],
) -> None:
    """Replace the arguments by what they are as arrays, or refuse them."""
    present = [name for name in tables if given[name] is not None]
    one = [*numbers, *binary, *([levels] if levels else [])]
    check_index({name: given[name] for name in (*one, *present)})
    n = len(single(given[numbers[0]], numbers[0]))
    for name in numbers:
        given[name] = column(given[name], name, n=n)
    for name in binary:
        given[name] = two_levels(given[name], name, n=n, setting="none")[0]
    for name in present:
        x = covariate_columns(given[name], None, n)[0]
        given[name] = x if x.shape[1] else np.zeros((n, 1))
    check_finite({name: given[name] for name in (*numbers, *binary, *present)})
    for name in binary:
        check_both(given[name], name)
    kinds = {name: given[name] for name in arms}
    if levels:
        given[levels] = _level_numbers(given[levels], levels, n, given["n_levels"])
        kinds[levels] = given[levels]
    if "units" in given:
        given["units"] = checked_units(given["units"], n)
    if "clip" in given:
        check_clip(given["clip"])
    if "fold_ids" in given:
        units = given["units"]
        given["fold_ids"] = checked_folds(given["fold_ids"], given["n_folds"], n, units)
        if kinds:
            _check_arms(kinds, given, n)
    for name, target in targets.items():
        if given[name] is None and given.get("experimental"):
            continue  # not used then
        like: Any = CHANCE
        if callable(target):
            like = target(given)
        elif target != "chance":
            like = given[target]
        given[name] = learner_for(given[name], name, like)


def _level_numbers(values: Any, name: str, n: int, n_levels: int) -> np.ndarray:
    a = column(values, name, n=n)
    check_finite({name: a})
    strange = np.unique(a[(a != np.round(a)) | (a < 0) | (a >= n_levels)])
    if len(strange):
        raise UserError(
            f"Expected whole numbers 0 to {n_levels - 1} in the {name} (n_levels={n_levels}), "
            f"found {strange[0]:g}."
        )
    missing = sorted(set(range(n_levels)) - set(a.astype(int)))
    if missing:
        raise UserError(f"Expected units of every {name}, found none of {missing[0]}.")
    return a.astype(np.int32)


def checked_units(units: Units, n: int) -> Units:
    """Weights and clusters of ``n`` units.

    Raises:
      UserError: another number of them, or weights that are negative, not finite or all zero.
    """
    weights: Any = units.weights
    clusters: Any = units.clusters
    if weights is not None:
        w = column(weights, "weights", n=n)
        if not np.isfinite(w).all() or w.min() < 0 or w.sum() == 0:
            raise UserError(
                "Expected finite weights that are not negative and not all zero, found a smallest "
                f"one of {w.min():g} and a sum of {w.sum():g}."
            )
        weights = w
    if clusters is not None:
        a = array_of(clusters, "the clusters")
        if a.ndim not in (1, 2) or len(a) != n:
            raise UserError(f"Expected {n} cluster labels, found an array of shape {a.shape}.")
        clusters = np.stack([cluster_numbers(kind) for kind in a.reshape(n, -1).T], axis=1)
        clusters = clusters[:, 0] if a.ndim == 1 else clusters
    return Units(weights, clusters)


def checked_folds(ids: Any, n_folds: int, n: int, units: Units) -> np.ndarray:
    """Fold numbers of ``n`` units; with one fold every unit both trains and is predicted.

    Raises:
      UserError: folds that do not fit the units, split a cluster, or are more or less than said.
    """
    if n_folds == 1:
        found = array_of(ids, "the fold ids")
        if found.shape[:1] != (n,):
            raise UserError(f"Expected {n} fold ids, found an array of shape {found.shape}.")
        return np.zeros(n, np.int32)
    clusters = None if units.clusters is None else np.asarray(units.clusters)
    numbers, k = kept_folds(ids, np.ones(n, bool), clusters)
    if k != n_folds:
        raise UserError(f"Expected fold ids 0 to {n_folds - 1} (n_folds), found {k} folds.")
    return numbers


def _check_arms(arms: Mapping[str, np.ndarray], given: Mapping[str, Any], n: int) -> None:
    """Refuse folds that leave no unit of some kind for training."""
    ids, k = given["fold_ids"].reshape(n, -1), given["n_folds"]
    weighted = given["units"].weights_like(np.ones(n)) > 0
    kinds = list(itertools.product(*(np.unique(values) for values in arms.values())))
    for fold in itertools.product(range(k), repeat=ids.shape[1]):
        outside = weighted & (np.all(ids != fold, axis=1) if k > 1 else True)
        for kind in kinds:
            pairs = list(zip(arms.items(), kind, strict=True))
            if not np.any(outside & np.all([v == level for (_, v), level in pairs], axis=0)):
                told = " and ".join(f"{name}={level:g}" for (name, _), level in pairs)
                raise UserError(
                    f"Expected units of {told} outside every fold, found none outside fold "
                    f"{fold[0] if len(fold) == 1 else fold}."
                )
