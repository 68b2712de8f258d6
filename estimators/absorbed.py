"""Effects of one kind of groups with many features, in rows that come in blocks.

Rows are read twice and never held together: memory is that of the sums of every group and of a
matrix of the features, whatever the number of rows.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxcore.errors import UserError

Block = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Outcomes (b,), features (b, d), and groups (b,), whole numbers from 0."""
Errors = Literal["cluster", "hc0"]
_AT_ONCE = 1 << 20  # numbers that are worked on at a time: they stay in the processor's cache


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
    root = np.sqrt(np.where(there, counts, 1))[:, None]
    sums /= root  # in place: the sums of many groups are most of the memory
    gram -= sums.T @ sums
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
    means = np.divide(sums, root, out=sums)
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
        y, x, ids = _checked(block, n_groups)
        if not np.isfinite(x.sum() + y.sum()) and not (
            np.isfinite(x).all() and np.isfinite(y).all()
        ):
            raise UserError("Expected finite outcomes and features, found others.")
        if not n:  # close to the means: products then lose few digits
            shift = np.append(x.mean(axis=0, dtype=np.float64), y.mean(dtype=np.float64))
            sums, gram = np.zeros((n_groups, len(shift))), np.zeros((len(shift), len(shift)))
        if x.shape[1] + 1 != len(shift):
            raise UserError(
                f"Expected {len(shift) - 1} features in every block, found {x.shape[1]}."
            )
        for z, own in _pieces(y, x, ids, shift):
            gram += z.T @ z
            _add(sums, z, own)
        counts += np.bincount(ids, minlength=n_groups)
        n += len(y)
    if not n:
        raise UserError("Expected blocks of rows, found none.")
    return sums, counts, gram, shift, n


def _checked(block: Block, n_groups: int) -> Block:
    """A block as arrays that fit each other."""
    y, x, ids = map(np.asarray, block)
    if len(y) != len(x) or len(ids) != len(y) or np.ndim(x) != 2 or not len(y):
        raise UserError(
            f"Expected as many outcomes and groups as rows of features, found {len(y)}, {len(ids)} "
            f"and an array of shape {np.shape(x)}."
        )
    if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= n_groups:
        raise UserError(f"Expected groups 0 to {n_groups - 1}, found others.")
    return y, x, ids


def _pieces(
    y: np.ndarray, x: np.ndarray, ids: np.ndarray, shift: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Features and outcome side by side in float64 less a shift, and groups, of some rows.

    The array is overwritten by the next rows.
    """
    rows = max(_AT_ONCE // len(shift), 1)
    held = np.empty((min(rows, len(y)), len(shift)))
    for start in range(0, len(y), rows):
        part = slice(start, start + rows)
        z = held[: len(y[part])]
        np.subtract(x[part], shift[:-1], out=z[:, :-1])
        np.subtract(y[part], shift[-1], out=z[:, -1])
        yield z, ids[part]


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
    """Products of the scores, and the sum of squared residuals; ``means`` is overwritten."""
    d = len(beta)
    meat, square = np.zeros((d, d)), 0.0
    of_groups = means[:, :-1]
    if errors == "cluster":  # residuals add up to zero in a group: no need to centre the features
        of_groups[:] = 0  # the memory serves again
    for block in blocks():
        for z, ids in _pieces(*_checked(block, len(own)), shift):
            x = z[:, :-1]
            e = z[:, -1] - x @ beta - own[ids]
            square += float(e @ e)
            if errors == "hc0":
                x -= means[ids, :-1]
            x *= e[:, None]
            if errors == "hc0":
                meat += x.T @ x
            else:
                _add(of_groups, x, ids)
    return (meat if errors == "hc0" else of_groups.T @ of_groups), square
