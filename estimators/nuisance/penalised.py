"""Paths of penalties, Newton's method for logistic regression, moments and scales of columns."""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxcore.estimators.chunks import NUMBERS_AT_ONCE, ROWS_AT_ONCE, in_chunks, sum_chunks
from jaxcore.estimators.linear_algebra import solve_cholesky


def best_on_path(
    step: Callable[[Array, Array], tuple[Array, Array]],
    start: Float[Array, "f q"],
    alphas: Float[Array, " a"],
) -> tuple[Float[Array, ""], Float[Array, "f q"]]:
    """The penalty of least held-out loss on a falling path, and the coefficients there.

    The path ends where the loss has not fallen for `PATIENCE` of its length: beyond lie the fits
    that follow the noise, which take the longest.

    Args:
      step: from the coefficients of all inner folds and the next penalty to those there, and the
        held-out loss.
      start: coefficients to start from, one row per inner fold.
      alphas: falling penalties.

    >>> import jax.numpy as jnp
    >>> found = best_on_path(lambda b, a: (b + 1, (a - 2) ** 2), jnp.zeros((1, 1)), jnp.arange(5.0))
    >>> float(found[0]), found[1].tolist()
    (2.0, [[3.0]])
    """
    count = alphas.shape[0]
    patience = max(1, round(PATIENCE * count))

    def go_on(state: _Path) -> Array:
        _, i, best, _, _ = state
        return (i < count) & (i - best <= patience)

    def further(state: _Path) -> _Path:
        b, i, best, least, held = state
        b, loss = step(b, alphas[i])
        better = loss < least
        best = jnp.where(better, i, best)
        return b, i + 1, best, jnp.where(better, loss, least), jnp.where(better, b, held)

    none = jnp.asarray(jnp.inf, start.dtype)
    first = (start, jnp.int32(0), jnp.int32(0), none, start)
    _, _, best, _, held = jax.lax.while_loop(go_on, further, first)
    return alphas[best], held


_Path: TypeAlias = tuple[Array, Array, Array, Array, Array]
"""Coefficients, place on the path, best place, least loss, coefficients there."""

PATIENCE = 0.25
"""Share of a path that may bring no smaller loss before it ends."""


def path_end(eps: float | None, rows: int, columns: int) -> float:
    """Smallest penalty of a path relative to the largest: less with more rows than columns."""
    if eps is not None:
        return eps
    return 1e-3 if rows > columns else 1e-2


class NewtonResult(NamedTuple):
    """Coefficients of a logistic regression and whether Newton's method converged."""

    coef: Float[Array, " q"]
    converged: Bool[Array, ""]
    steps: Int[Array, ""]


def newton_tolerance(dtype: DTypeLike) -> float:
    """The size of a step after which no further one is taken.

    In single precision half the digits are enough (3e-4): the errors of the steps are squared from
    one to the next, so the last one taken leaves an error below rounding, while smaller steps are
    rounding themselves where columns are nearly dependent.
    """
    return 1e-12 if dtype == jnp.float64 else float(jnp.finfo(dtype).eps) ** 0.5


_Newton: TypeAlias = tuple[Array, Array, Array, Array, Array]
"""Coefficients, last step, slope along it where it began, its relative size, steps so far."""

_TOO_FAR = 0.9  # slope beyond the maximum, relative to that where the step began
_NO_STEP = -1.0  # size of a step that a singular system does not give


@functools.partial(jax.jit, static_argnames=("max_steps", "rows"))
def newton_logistic(
    B: Float[Array, "n q"],
    y: Float[Array, " n"],
    w: Float[Array, " n"],
    *,
    penalty: Float[Array, " q"] | None = None,
    columns: Float[Array, " q"] | None = None,
    max_steps: int = 50,
    rows: int | None = None,
) -> NewtonResult:
    """Minimise the weighted mean negative log-likelihood plus ``sum(penalty * b**2) / 2``.

    Newton's method from zero until no coefficient moves by more than `newton_tolerance` relative to
    the largest; steps that go too far are halved. Where columns separate the target and nothing
    penalises them, coefficients grow until the system is singular, and the last finite ones are
    the result (not converged).

    Args:
      B: design, with its constant column if one is wanted.
      y: 0/1 target.
      w: weights; zero leaves a row out.
      penalty: ridge penalty of each coefficient.
      columns: 0/1 mask; coefficients of masked-out columns are zero.
      max_steps: most Newton steps.
      rows: rows taken at a time, to bound the memory; None takes as many as the cache holds.

    >>> import jax.numpy as jnp
    >>> y = jnp.array([1.0, 1.0, 1.0, 0.0])
    >>> round(float(newton_logistic(jnp.ones((4, 1)), y, jnp.ones(4)).coef[0]), 4)
    1.0986
    """
    q = B.shape[1]
    tol = newton_tolerance(B.dtype)
    penalty = jnp.zeros(q, B.dtype) if penalty is None else penalty
    columns = jnp.ones(q, B.dtype) if columns is None else columns
    used = jnp.diag(1 - columns)
    w = w / jnp.sum(w)
    pairs = pair_products(B)
    pieces = in_chunks((B, y, w), ROWS_AT_ONCE if rows is None else rows)

    def step(state: _Newton) -> _Newton:
        b, last, slope, _, i = state

        def sums(B: Array, y: Array, w: Array, pairs: Array | None = None) -> tuple[Array, Array]:
            p = jax.nn.sigmoid(B @ b)
            return B.T @ (w * (y - p)), second_moments(B, pairs, w * p * (1 - p))

        whole = pairs is not None
        gradient, hessian = sums(B, y, w, pairs) if whole else sum_chunks(sums, pieces)
        gradient = columns * (gradient - penalty * b)
        hessian = columns[:, None] * columns[None] * (hessian + jnp.diag(penalty)) + used
        move = solve_cholesky(hessian, gradient)
        # Beyond the maximum by more than it was short of it: go half of the last step back.
        too_far = ~(gradient @ last >= -_TOO_FAR * slope)
        known = jnp.all(jnp.isfinite(move)) & ~too_far
        back = jnp.where(too_far, -last / 2, jnp.zeros_like(b))
        b = b + jnp.where(known, move, back)
        size = jnp.max(jnp.abs(move)) / jnp.maximum(jnp.max(jnp.abs(b - move)), 1)
        size = jnp.where(known, size, jnp.where(too_far, jnp.inf, _NO_STEP))
        last = jnp.where(known, move, last / 2)
        slope = jnp.where(known, gradient @ move, slope / 2)
        return b, last, slope, size, i + 1

    def go_on(state: _Newton) -> Array:
        return (state[3] > tol) & (state[4] < max_steps)

    zero = jnp.zeros(q, B.dtype)
    start = (zero, zero, jnp.zeros((), B.dtype), jnp.asarray(jnp.inf, B.dtype), jnp.int32(0))
    b, _, _, size, steps = jax.lax.while_loop(go_on, step, start)
    return NewtonResult(b, (size <= tol) & (size >= 0), steps)


_PAIRS_UP_TO = 16  # columns


def pair_products(C: Float[Array, "n q"]) -> Float[Array, "n pairs"] | None:
    """Products of all pairs of columns; None where they would take much memory.

    With them the weighted second moments under many weightings are one matrix product, whose
    other factor, the weightings, is all that `jax.vmap` makes larger.
    """
    n, q = C.shape
    if q > _PAIRS_UP_TO or n * q * q > NUMBERS_AT_ONCE:
        return None
    first, second = np.triu_indices(q)
    return C[:, first] * C[:, second]


def second_moments(
    C: Float[Array, "n q"], pairs: Float[Array, "n pairs"] | None, v: Float[Array, " n"]
) -> Float[Array, "q q"]:
    """``C' diag(v) C``, from `pair_products` if they are given.

    >>> import jax.numpy as jnp
    >>> C = jnp.array([[1.0, 2.0], [1.0, 3.0]])
    >>> second_moments(C, pair_products(C), jnp.ones(2)).tolist()
    [[2.0, 5.0], [5.0, 13.0]]
    """
    if pairs is None:
        return (C * v[:, None]).T @ C
    q = C.shape[1]
    place = np.zeros((q, q), np.int32)
    place[np.triu_indices(q)] = np.arange(q * (q + 1) // 2)
    place = np.maximum(place, place.T)
    return (v @ pairs)[place]


class Scaled(NamedTuple):
    """Columns centred and scaled over all rows, whatever their weight.

    Being the same for every fold, they are formed once; what a fold's own standardisation would
    change is put into moments and penalties.
    """

    columns: Float[Array, "n q"]
    mean: Float[Array, " q"]
    scale: Float[Array, " q"]


def scaled(X: Float[Array, "n q"]) -> Scaled:
    """Centre and scale; a column that does not vary becomes zeros."""
    mean = jnp.mean(X, axis=0)
    sd = jnp.std(X, axis=0)
    floor = 1e-10 if X.dtype == jnp.float64 else 1e-5
    varies = sd > floor * jnp.maximum(jnp.abs(mean), 1)
    columns = (X - mean[None]) * jnp.where(varies, 1 / jnp.where(varies, sd, 1.0), 0.0)[None]
    return Scaled(columns, mean, jnp.where(varies, sd, 1.0))


def spread(
    columns: Float[Array, "n q"], w: Float[Array, " n"]
) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
    """Weighted means and standard deviations of scaled columns; 0 where one does not vary."""
    mean = w @ columns
    floor = 1e-12 if columns.dtype == jnp.float64 else 1e-6
    variance = w @ columns**2 - mean**2
    return mean, jnp.sqrt(jnp.where(variance > floor, variance, 0.0))


def standardisation(
    X: Float[Array, "n q"], w: Float[Array, " n"], *, scale: bool
) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
    """Weighted column means and the factors that standardise the centred columns.

    Args:
      X: columns.
      w: weights summing to one.
      scale: divide by standard deviations; otherwise the factors are ones.

    Returns:
      Means and factors; the factor of a column that does not vary is zero, which removes it.
    """
    mean = w @ X
    sd = jnp.sqrt(w @ (X - mean[None]) ** 2)
    floor = 1e-10 if X.dtype == jnp.float64 else 1e-5
    varies = sd > floor * jnp.maximum(jnp.abs(mean), 1)
    factor = 1 / jnp.where(varies, sd, 1.0) if scale else jnp.ones_like(sd)
    return mean, jnp.where(varies, factor, 0.0)


def solve_positive(a: Float[Array, "q q"], b: Float[Array, "q *k"]) -> Float[Array, "q *k"]:
    """Solve a positive definite system: Cholesky, jitter of rounding size, one refinement."""
    if a.shape[0] == 0:
        return b
    jitter = 1e-14 if a.dtype == jnp.float64 else 1e-6
    factor = jax.scipy.linalg.cho_factor(a + jnp.diag(jitter * jnp.diagonal(a)))
    x = jax.scipy.linalg.cho_solve(factor, b)
    return x + jax.scipy.linalg.cho_solve(factor, b - a @ x)
