"""Effects of several kinds of groups that hardly hang together, by a sparse factorisation.

Conjugate gradients on the dummies' normal equations need as many passes as it takes for something
to be heard through the whole panel: thousands where authors write in neighbouring weeks alone. Such
panels come apart when few groups are taken out, and that is what a sparse factorisation is quick
at. The kind with the most groups is eliminated exactly, what is left is factorised, and a few steps
of conjugate gradients with that factor make the answer exact where the equations are singular.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

LARGEST = 4_000_000  # non-zero numbers that the reduced equations may have
_PRODUCTS = 50_000_000  # of which they are made
_HINT = 1e-11  # of the diagonal, so that singular equations have a factor
_STEPS = 50


def effects(
    x: Float[np.ndarray, "n q"],
    ids: Int[np.ndarray, "n kinds"],
    weights: Float[np.ndarray, " n"] | None,
    counts: tuple[int, ...],
    tol: float,
) -> tuple[list[np.ndarray], int] | None:
    """What groups of every kind do to columns, by least squares, and the steps it took.

    Args:
      x: columns of like size.
      ids: group of every row, of every kind.
      weights: of the rows.
      counts: groups of every kind.
      tol: largest mean of any group that may be left.

    Returns:
      None if the equations are too large to be factorised, or did not converge.

    References:
      Correia (2017), Linear models with high-dimensional fixed effects, section 3.

    >>> x = np.array([[1.0], [3.0], [10.0], [12.0]])
    >>> ids = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> (rows, columns), _ = effects(x, ids, None, (2, 2), 0.0)
    >>> (rows[[0, 0, 1, 1]] + columns[[0, 1, 0, 1]]).round(9).ravel().tolist()
    [1.0, 3.0, 10.0, 12.0]
    """
    from scipy.sparse import csr_matrix, diags

    n = len(x)
    first = int(np.argmax(counts))
    others = [k for k in range(len(counts)) if k != first]
    ends = np.cumsum([0, *(counts[k] for k in others)])
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64)

    def dummies(columns: np.ndarray, count: int) -> Any:
        pointers = np.arange(n + 1) * columns.shape[1]
        return csr_matrix((np.ones(columns.size), columns.ravel(), pointers), (n, count))

    eliminated = dummies(ids[:, [first]], counts[first])
    kept = dummies(ids[:, others] + ends[None, :-1], int(ends[-1]))
    weighted = diags(w) @ kept
    size = eliminated.T @ w
    inverse = np.divide(1, size, out=np.zeros_like(size), where=size > 0)
    cells = (eliminated.T @ weighted).tocsr()  # weight of each pair of groups
    if np.sum(np.diff(cells.indptr).astype(np.float64) ** 2) > _PRODUCTS:
        return None
    means = inverse[:, None] * (eliminated.T @ (w[:, None] * x))
    matrix = (kept.T @ weighted - cells.T @ diags(inverse) @ cells).tocsc()
    own = np.asarray(weighted.sum(axis=0)).ravel()
    solved = _solved(matrix, weighted.T @ x - cells.T @ means, own, tol)
    if solved is None:
        return None
    found, steps = solved
    out = np.split(found, ends[1:-1])
    out.insert(first, means - inverse[:, None] * (cells @ found))
    return out, steps


def means(
    x: Float[np.ndarray, "n q"],
    kind: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"] | None,
    count: int,
) -> Float[np.ndarray, "g q"]:
    """Means of columns in every group of one kind; 0 of an empty one.

    >>> means(np.array([[1.0], [3.0]]), np.array([0, 0]), None, 2).ravel().tolist()
    [2.0, 0.0]
    """
    size = np.bincount(kind, weights, count)
    w = np.ones(len(x)) if weights is None else weights
    sums = np.stack([np.bincount(kind, w * column, count) for column in x.T], axis=1)
    return np.divide(sums, size[:, None], out=np.zeros_like(sums), where=size[:, None] > 0)


def _solved(
    matrix: Any, right: np.ndarray, size: np.ndarray, tol: float
) -> tuple[np.ndarray, int] | None:
    """Conjugate gradients, every column by itself, with the factor of nearly the same matrix."""
    from scipy.sparse import diags
    from scipy.sparse.linalg import splu

    if matrix.nnz > LARGEST:
        return None
    there = size > 0
    near = (matrix + diags(np.where(there, _HINT * size, 1.0))).tocsc()
    factor = splu(near, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    inverse = np.divide(1, size, out=np.zeros_like(size), where=there)[:, None]
    found, left = np.zeros_like(right), right
    direction, before = np.zeros_like(right), np.ones(right.shape[1])
    for step in range(_STEPS):
        if np.max(np.abs(left * inverse), initial=0) <= tol:
            return found, step
        near_left = factor.solve(left)
        now = np.sum(left * near_left, axis=0)
        direction = near_left + (now / before if step else 0 * now)[None] * direction
        product = matrix @ direction
        curve = np.sum(direction * product, axis=0)
        length = np.divide(now, curve, out=np.zeros_like(now), where=curve > 0)
        found, left = found + length[None] * direction, left - length[None] * product
        before = np.where(now > 0, now, 1)
    return None
