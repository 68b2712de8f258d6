"""Folds of a fit: random ones for every repetition, or given by the user; both checked."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from jaxcore.data.columns import array_of
from jaxcore.errors import UserError
from jaxcore.estimators import crossfit
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.columns import label_numbers
from jaxcore.estimators.compiling import QUICKLY
from jaxcore.estimators.settings import CrossFitting
from jaxcore.estimators.units import Units


@functools.partial(jax.jit, static_argnames=("n", "n_folds"), compiler_options=QUICKLY)
def _random_folds(
    seed: np.int64,
    repetition: np.int32,
    strata: Int[Array, " n"] | None,
    units: Units,
    *,
    n: int,
    n_folds: int,
) -> Int[Array, " n"]:
    key = jax.random.fold_in(jax.random.key(seed), repetition)
    return crossfit.fold_ids(key, n, n_folds, strata=strata, units=units)


def partitions(
    config: CrossFitting,
    sample: Sample,
    given: Any = None,
    *,
    binary: Sequence[str],
    check: Callable[[np.ndarray, int], None],
) -> Iterator[tuple[np.ndarray, int]]:
    """Fold ids and their number for every repetition.

    Args:
      config: folds, repetitions, seed, whether to stratify.
      sample: the data.
      given: fold ids instead (see `given_folds`), one per row given to ``fit``.
      binary: roles whose values every random fold gets its share of.
      check: called with the training rows (with weight) outside every fold, and its number.

    Raises:
      UserError: given folds that do not fit, or what ``check`` raises.
    """
    n = sample.n
    for r in range(config.n_rep):
        if given is not None:
            ids, k = kept_folds(given, sample.kept, sample.clusters)
        else:
            k = config.n_folds
            strata: Any = None
            if config.stratify and binary:
                strata = _strata(sample, binary)
            seed = np.int64(config.seed), np.int32(r)
            ids = np.asarray(_random_folds(*seed, strata, sample.units(), n=n, n_folds=k))
        check_training(ids, k, sample, check)
        yield ids, k


def check_training(
    ids: np.ndarray, k: int, sample: Sample, check: Callable[[np.ndarray, int], None]
) -> None:
    """Call ``check`` with the training rows outside every fold; one fold trains on all rows."""
    weighted = np.ones(sample.n, bool) if sample.weights is None else sample.weights > 0
    columns = ids.reshape(sample.n, -1).T
    for number, folds in enumerate(itertools.product(range(k), repeat=len(columns))):
        outside = [(column != f) | (k == 1) for column, f in zip(columns, folds, strict=True)]
        check(weighted & np.all(outside, axis=0), number)


def _strata(sample: Sample, binary: Sequence[str]) -> np.ndarray:
    """2 Z + A, or A alone."""
    if "instrument" in binary:
        return (2 * sample.Z + sample.A).astype(np.int32)
    return sample.A.astype(np.int32)


def kept_folds(given: Any, kept: np.ndarray, clusters: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Given folds of the rows in use, and their number; clusters must be kept together.

    Args:
      given: see `given_folds`; with clusters of several kinds, a column of numbers for each.
      kept: True for the rows in use.
      clusters: cluster numbers of these.

    Raises:
      UserError: no folds of these rows.
    """
    n = int(kept.sum())
    if clusters is not None and clusters.ndim == 2:  # a column of folds for each kind
        a = array_of(given, "the fold ids")
        if a.shape != (len(kept), clusters.shape[1]):
            raise UserError(
                f"Expected a column of fold ids for each of {clusters.shape[1]} kinds of clusters, "
                f"found an array of shape {a.shape}."
            )
        found = [crossfit.check_fold_ids(column[kept], n) for column in a.T]
        for (ids, _), kind in zip(found, clusters.T, strict=True):
            _check_together(ids, kind)
        if len({k for _, k in found}) > 1:
            raise UserError("Expected as many folds in every column of fold ids, found others.")
        return np.stack([ids for ids, _ in found], axis=1), found[0][1]
    ids, k = crossfit.check_fold_ids(given_folds(given, len(kept))[kept], n)
    if clusters is not None:
        _check_together(ids, clusters)
    return ids, k


def _check_together(ids: np.ndarray, clusters: np.ndarray) -> None:
    """A fit must not see relatives of its fold."""
    one = np.zeros(clusters.max() + 1, ids.dtype)
    one[clusters] = ids
    split = len(np.unique(clusters[one[clusters] != ids]))
    if split:
        raise UserError(f"Expected fold ids that keep clusters together, found {split} split.")


def given_folds(given: Any, n: int) -> np.ndarray:
    """Numbers of folds from numbers, other labels, or pairs of training and test rows.

    Args:
      given: a number 0, 1, ... or a text for every row, or what scikit-learn's ``split`` gives.
      n: rows.

    Raises:
      UserError: another number of rows, or pairs that are no cross-fitting.

    >>> given_folds([([2, 3], [0, 1]), ([0, 1], [2, 3])], 4).tolist()
    [0, 0, 1, 1]
    >>> given_folds(["b", "b", "a"], 3).tolist()
    [1, 1, 0]
    """
    if hasattr(given, "__next__"):
        given = list(given)
    if isinstance(given, list | tuple) and given and all(_is_pair(pair, n) for pair in given):
        return _of_pairs(given, n)
    a = array_of(given, "the fold ids")
    if a.shape != (n,):
        raise UserError(f"Expected {n} fold ids, found an array of shape {a.shape}.")
    if a.dtype.kind not in "biuf":
        numeric = a.dtype.kind == "O" and all(isinstance(v, int | np.integer) for v in a)
        return a.astype(np.int64) if numeric else label_numbers(a, "fold")[1]
    return a


def _is_pair(pair: Any, n: int) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2 and np.ndim(pair[1]) == 1


def _of_pairs(pairs: Sequence[Any], n: int) -> np.ndarray:
    ids, seen = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for f, (train, test) in enumerate(pairs):
        train, test = (_rows(rows, n) for rows in (train, test))
        seen[test] += 1
        ids[test] = f
        if len(np.union1d(train, test)) != n or len(np.intersect1d(train, test)):
            raise UserError(
                "Expected every pair of folds to train on all rows that it does not test, found "
                f"{len(train)} and {len(test)} of {n} rows in pair {f}."
            )
    if np.any(seen != 1):
        raise UserError(
            f"Expected every row in one test fold, found {int(np.sum(seen != 1))} in none or "
            "several."
        )
    return ids


def _rows(rows: Any, n: int) -> np.ndarray:
    a = array_of(rows, "the folds")
    if a.dtype.kind == "b" and a.shape == (n,):
        return np.flatnonzero(a)
    if a.dtype.kind not in "iu" or (a.size and (a.min() < 0 or a.max() >= n)):
        raise UserError(f"Expected row numbers 0 to {n - 1} in the folds, found others.")
    return a
