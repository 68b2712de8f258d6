"""Effects of one kind of groups with many features, in rows that come in blocks.

Rows are read twice and never held together: memory is that of the sums of every group and of a
matrix of the features, whatever the number of rows.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxcore.errors import UserError

Block = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Outcomes (b,), features (b, d), and groups (b,), whole numbers from 0."""
Errors = Literal["cluster", "hc0"]


class Absorbed(NamedTuple):
    """Least squares within groups."""

    beta: Float[np.ndarray, " d"]
    cov: Float[np.ndarray, "d d"]
    effects: Float[np.ndarray, " g"]  # 0 of a group without rows
    counts: Float[np.ndarray, " g"]
    noise: float  # variance of an outcome given group and features
    n: int

    @property
    def se(self) -> Float[np.ndarray, " d"]:
        """Standard errors."""
        return np.sqrt(np.diag(self.cov))


def absorb(
    blocks: Callable[[], Iterable[Block]], n_groups: int, *, errors: Errors = "cluster"
) -> Absorbed:
    """Coefficients of features within groups, and the effects of the groups.

    The same numbers as `fixed_effects.demean` and `within` give, from blocks of rows of any
    precision; sums are taken in float64.

    Args:
      blocks: gives the blocks anew each time it is called; it is called twice.
      n_groups: groups are 0 .. n_groups - 1.
      errors: clustered by group (CR0), or "hc0".

    Raises:
      UserError: no rows, groups out of range, values that are not finite, or features that are
        linear combinations of each other and the groups.

    >>> y, x = np.array([1.0, 3.0, 5.0, 9.0]), np.array([[0.0], [1.0], [0.0], [2.0]])
    >>> found = absorb(lambda: [(y, x, np.array([0, 0, 1, 1]))], 2)
    >>> found.beta.round(9).tolist(), found.effects.round(9).tolist()
    ([2.0], [1.0, 5.0])
    """
    if errors not in ("cluster", "hc0"):
        raise UserError(f"Expected errors='cluster' or 'hc0', found {errors!r}.")
    sums, counts, gram, shift, n = _moments(blocks, n_groups)
    there = counts > 0
    root = np.sqrt(np.where(there, counts, 1))
    gram -= (sums / root[:, None]).T @ (sums / root[:, None])
    inner, cross = gram[:-1, :-1], gram[:-1, -1]
    size = np.sqrt(np.maximum(np.diag(inner), 0))
    if not np.all(size > 1e-9 * np.sqrt(n) * (np.abs(shift[:-1]) + size.max(initial=0) / n)):
        place = int(np.argmin(size))
        raise UserError(f"Expected features that vary within groups, found that {place} does not.")
    try:
        lower = np.linalg.cholesky(inner / size[:, None] / size[None])
    except np.linalg.LinAlgError:
        raise UserError(
            "Expected features that are no linear combinations of each other within groups, found "
            "that some are."
        ) from None
    inverse = np.linalg.inv(lower)
    inverse = inverse.T @ inverse / size[:, None] / size[None]
    beta = inverse @ cross
    means = sums / np.where(there, counts, 1)[:, None]
    own = means[:, -1] - means[:, :-1] @ beta  # of columns less their shift
    meat, square = _spread(blocks, shift, beta, own, means, errors)
    effects = np.where(there, own + shift[-1] - shift[:-1] @ beta, 0.0)
    free = n - int(there.sum()) - len(beta)
    noise = square / free if free > 0 else float("nan")
    return Absorbed(beta, inverse @ meat @ inverse, effects, counts, noise, n)


def _moments(
    blocks: Callable[[], Iterable[Block]], n_groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Sums and rows of every group, products of columns (outcome last), all less a shift."""
    shift, sums, gram = np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0))
    counts, n = np.zeros(n_groups), 0
    for block in blocks():
        z, ids = _checked(block, n_groups)
        if not n:  # close to the means: products then lose few digits
            shift = z.mean(axis=0)
            sums, gram = np.zeros((n_groups, z.shape[1])), np.zeros((z.shape[1], z.shape[1]))
        if z.shape[1] != len(shift):
            raise UserError(
                f"Expected {len(shift) - 1} features in every block, found {z.shape[1] - 1}."
            )
        z -= shift[None]
        gram += z.T @ z
        _add(sums, z, ids)
        counts += np.bincount(ids, minlength=n_groups)
        n += len(z)
    if not n:
        raise UserError("Expected blocks of rows, found none.")
    return sums, counts, gram, shift, n


def _checked(block: Block, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and outcome side by side in float64, and groups."""
    y, x, ids = block
    ids = np.asarray(ids)
    if len(y) != len(x) or len(ids) != len(y) or np.ndim(x) != 2 or not len(y):
        raise UserError(
            f"Expected as many outcomes and groups as rows of features, found {len(y)}, {len(ids)} "
            f"and an array of shape {np.shape(x)}."
        )
    if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= n_groups:
        raise UserError(f"Expected groups 0 to {n_groups - 1}, found others.")
    z = np.empty((len(y), x.shape[1] + 1))
    z[:, :-1], z[:, -1] = x, y
    if not np.isfinite(z.sum()) and not np.isfinite(z).all():
        raise UserError("Expected finite outcomes and features, found others.")
    return z, ids


def _add(sums: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> None:
    """Add rows to the sums of their groups."""
    from scipy.sparse import csr_matrix

    found, place = np.unique(ids, return_inverse=True)
    which: Any = csr_matrix(
        (np.ones(len(ids)), (place, np.arange(len(ids)))), (len(found), len(ids))
    )
    sums[found] += which @ rows  # seven times faster than np.add.reduceat


def _spread(
    blocks: Callable[[], Iterable[Block]],
    shift: np.ndarray,
    beta: np.ndarray,
    own: np.ndarray,
    means: np.ndarray,
    errors: Errors,
) -> tuple[np.ndarray, float]:
    """Products of the scores, and the sum of squared residuals."""
    d = len(beta)
    meat, square = np.zeros((d, d)), 0.0
    of_groups = np.zeros((len(own), d)) if errors == "cluster" else None
    for block in blocks():
        z, ids = _checked(block, len(own))
        z -= shift[None]
        x = z[:, :-1]
        e = z[:, -1] - x @ beta - own[ids]
        square += float(e @ e)
        if of_groups is None:
            x -= means[ids, :-1]
            x *= e[:, None]
            meat += x.T @ x
        else:  # residuals add up to zero in a group: no need to centre the features
            x *= e[:, None]
            _add(of_groups, x, ids)
    return (meat if of_groups is None else of_groups.T @ of_groups), square
