"""Pairs of texts, the better one first, for training on preferences."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxcore.data.columns import array_of
from jaxcore.errors import UserError


class Pairs(NamedTuple):
    """Places of the rows of each pair."""

    chosen: np.ndarray
    rejected: np.ndarray


def from_outcomes(
    rewards: np.ndarray,
    prompts: Sequence[object],
    *,
    margin: float = 0.0,
    within: Sequence[object] | None = None,
    per_row: int = 1,
    seed: int = 0,
) -> Pairs:
    """Random pairs of texts of the same prompt, ordered by a reward.

    Pairs within the same group (author, week) need no estimate of what groups do: it is the same on
    both sides.

    Args:
      rewards: deconfounded outcomes; missing ones make no pair.
      prompts: prompt of each row.
      margin: the rewards of a pair must differ by more.
      within: label of each row; both texts of a pair must have the same.
      per_row: partners that are drawn for each row, before the margin is asked for.
      seed: of the draws.

    Raises:
      UserError: rows that do not belong together, or no pair.

    >>> pairs = from_outcomes(np.array([1.0, 3.0, 2.0]), ["p", "p", "q"])
    >>> pairs.chosen.tolist(), pairs.rejected.tolist()
    ([1], [0])
    """
    rewards = np.asarray(rewards, np.float64)
    n = len(rewards)
    labels = [array_of(prompts)] + ([] if within is None else [array_of(within)])
    if any(len(column) != n for column in labels):
        raise UserError(f"Expected a prompt and a label for each of {n} rewards, found others.")
    if margin < 0 or per_row < 1:
        raise UserError(f"Expected margin >= 0 and per_row >= 1, found {margin} and {per_row}.")
    number = np.zeros(n, np.int64)
    for column in labels:
        inside = np.unique(column.astype(str), return_inverse=True)[1]
        number = np.unique(number * (inside.max(initial=0) + 1) + inside, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    order = np.argsort(number, kind="stable")
    count = np.bincount(number)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    row = np.repeat(np.arange(n), per_row)
    group = number[row]
    other = order[first[group] + (rng.random(len(row)) * count[group]).astype(np.int64)]
    gap = rewards[row] - rewards[other]
    good = np.abs(gap) > margin  # false for missing ones and for a row with itself
    better = gap > 0
    chosen, rejected = np.where(better, row, other)[good], np.where(better, other, row)[good]
    both = np.unique(np.stack([chosen, rejected], axis=1), axis=0)
    if per_row == 1 and not len(both):  # two rows that were both drawn with themselves
        both = _all_pairs(rewards, number, margin)
    if not len(both):
        raise UserError(
            "Expected texts of the same prompt whose rewards differ by more than "
            f"{margin:g}, found none."
        )
    return Pairs(both[:, 0], both[:, 1])


def _all_pairs(rewards: np.ndarray, number: np.ndarray, margin: float) -> np.ndarray:
    """Neighbours by reward within each group; where random partners found nothing."""
    order = np.lexsort((rewards, number))
    low, high = order[:-1], order[1:]
    gap = rewards[high] - rewards[low]
    good = (number[low] == number[high]) & (gap > margin)
    return np.stack([high[good], low[good]], axis=1)
