"""Effects of many groups: taken out of columns (demeaning), estimated, and shrunken.

Of one kind of groups the group means are subtracted. Of several (authors and weeks) that is a
least-squares problem on their dummies, solved without ever making these: by alternating
projections, or by conjugate gradients with a diagonal preconditioner, which need far fewer passes
where groups are poorly connected. Where these still need more than a hundred, outside of ``jit``, a
sparse factorisation takes their place (`dummies`).
"""

import functools
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators import dummies, two_stage
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.units import INDEPENDENT, Units

METHODS = ("cg", "alternating")
Method = Literal["cg", "alternating"]
PATIENCE = 100  # passes of conjugate gradients, after which a factorisation is quicker


class Demeaned(NamedTuple):
    """Columns without the effects of groups."""

    values: Float[Array, "n q"]
    n_iter: Int[Array, ""]  # passes over the rows
    converged: Bool[Array, ""]
    change: Float[Array, ""]  # what is left, relative to the size of each column
    effects: tuple[Float[Array, "g q"], ...]  # what was taken out, of every kind of groups


def demean(
    X: Float[Array, "n q"],
    ids: Int[Array, "n *kinds"],
    *,
    weights: Float[Array, " n"] | None = None,
    n_groups: int | tuple[int, ...] | None = None,
    method: Method = "cg",
    tol: float = 1e-8,
    max_iter: int = 10_000,
) -> Demeaned:
    """Take the effects of groups out of columns.

    Outside of ``jit`` it computes in float64, and what does not converge is refused.

    Args:
      X: columns.
      ids: group of every row, 0, 1, ...; of several kinds in columns.
      weights: of the rows; a group without weight takes nothing out.
      n_groups: their number, of every kind; must be given where ``ids`` is traced.
      method: "cg" (conjugate gradients) or "alternating" (projections), for several kinds.
      tol: largest mean of any group that may be left (the last change with "alternating"),
        relative to the standard deviation of the column.
      max_iter: passes over the rows.

    Raises:
      UserError: outside of ``jit``: values that are not finite, or no convergence.

    References:
      Guimaraes and Portugal (2010); Correia (2017), Linear models with high-dimensional fixed
      effects.

    >>> x = np.array([[1.0], [3.0], [10.0]])
    >>> demean(x, np.array([0, 0, 1])).values.ravel().tolist()
    [-1.0, 1.0, 0.0]
    """
    if method not in METHODS:
        raise UserError(f"Expected method='cg' or 'alternating', found {method!r}.")
    if n_groups is None:
        if isinstance(ids, Tracer):
            raise UserError("Expected n_groups with groups inside of jit, found none.")
        n_groups = _numbers(ids)
    counts = (n_groups,) if isinstance(n_groups, int) else tuple(n_groups)
    traced = any(isinstance(a, Tracer) for a in (X, ids, weights))
    patient = traced or method != "cg" or max_iter <= PATIENCE
    found = _demeaned(X, ids, weights, counts, method, tol, max_iter if patient else PATIENCE)
    if not patient and not found.converged:
        found = _factorised(X, ids, weights, counts, tol) or _demeaned(
            X, ids, weights, counts, method, tol, max_iter
        )
    if not isinstance(found.converged, Tracer) and not found.converged:
        raise UserError(
            f"Expected convergence within {max_iter} passes, found {float(found.change):.2g} left "
            f"(tol={tol:g}): allow more passes or take method='cg'."
        )
    return found


def _numbers(ids: Any) -> tuple[int, ...]:
    a = np.asarray(ids)
    if a.ndim not in (1, 2) or a.dtype.kind not in "iu" or (a.size and a.min() < 0):
        raise UserError("Expected whole numbers 0, 1, ... as groups, found others.")
    return tuple(int(v) + 1 for v in np.max(a.reshape(len(a), -1), axis=0))


@in_double
@functools.partial(jax.jit, static_argnames=("counts", "method"))
def _demeaned(
    X: Float[Array, "n q"],
    ids: Int[Array, "n *kinds"],
    weights: Float[Array, " n"] | None,
    counts: tuple[int, ...],
    method: Method,
    tol: float,
    max_iter: int | Array,
) -> Demeaned:
    ways = [
        Groups.of(column, count, weights)
        for column, count in zip(ids.reshape(ids.shape[0], -1).T, counts, strict=True)
    ]
    if len(ways) == 1:
        means = ways[0].means(X)
        nothing = jnp.zeros((), X.dtype)
        out = X - ways[0].spread(means)
        return Demeaned(out, jnp.asarray(1), jnp.asarray(True), nothing, (means,))
    level = jnp.mean(X, axis=0)[None]  # taken out first: dates in seconds have the variation of any
    X = X - level
    scale = jnp.sqrt(jnp.mean(X**2, axis=0))
    scale = jnp.where(scale > 0, scale, 1)[None]
    solved = _conjugate if method == "cg" else _alternating
    out, n_iter, change, effects = solved(X / scale, ways, tol, max_iter)
    effects = (effects[0] * scale + level, *(of_kind * scale for of_kind in effects[1:]))
    return Demeaned(out * scale, n_iter, change <= tol, change, effects)


def _factorised(
    X: Any, ids: Any, weights: Any, counts: tuple[int, ...], tol: float
) -> Demeaned | None:
    """On the host, where panels hang together by few rows; None where that would be too large."""
    x, columns = np.asarray(X, np.float64), np.asarray(ids).T
    level = np.mean(x, axis=0)[None]
    scale = np.sqrt(np.mean((x - level) ** 2, axis=0))
    scale = np.where(scale > 0, scale, 1)[None]
    x = (x - level) / scale
    w = None if weights is None else np.asarray(weights, np.float64)
    found = dummies.effects(x, columns.T, w, counts, tol)
    if found is None:
        return None
    effects, steps = found
    out = x
    for of_kind, kind in zip(effects, columns, strict=True):
        out -= of_kind[kind]
    change = max(
        float(np.max(np.abs(dummies.means(out, kind, w, count)), initial=0))
        for kind, count in zip(columns, counts, strict=True)
    )
    back = (effects[0] * scale + level, *(of_kind * scale for of_kind in effects[1:]))
    host: Any = Demeaned  # NumPy's arrays, as all that is returned outside of jit
    told = map(np.asarray, (PATIENCE + steps, change <= 10 * tol, change))
    return host(out * scale, *told, back)


class Groups(NamedTuple):
    """One kind of groups."""

    ids: Int[Array, " n"]
    weights: Float[Array, " n"] | None
    inverse: Float[Array, " g"]  # of the weight of every group; 0 of an empty one

    @classmethod
    def of(cls, ids: Array, count: int, weights: Array | None) -> "Groups":
        """Groups 0 .. count-1 of rows with weights."""
        one = jnp.ones(ids.shape[0]) if weights is None else weights
        size = jax.ops.segment_sum(one, ids, num_segments=count)
        return cls(ids, weights, jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0))

    def sums(self, x: Float[Array, "n q"]) -> Float[Array, "g q"]:
        """Weighted sums of every group."""
        x = x if self.weights is None else x * self.weights[:, None]
        return jax.ops.segment_sum(x, self.ids, num_segments=self.inverse.shape[0])

    def means(self, x: Float[Array, "n q"]) -> Float[Array, "g q"]:
        """Means of every group; 0 of an empty one."""
        return self.sums(x) * self.inverse[:, None]

    def spread(self, of_groups: Float[Array, "g q"]) -> Float[Array, "n q"]:
        """The number of its group for every row."""
        return of_groups[self.ids]


Found = tuple[Array, Array, Array, tuple[Array, ...]]
"""Columns, passes, what is left, effects."""


def _alternating(x: Array, ways: list[Groups], tol: float, max_iter: int | Array) -> Found:
    """Subtract the means of one kind after the other until nothing changes."""

    def project(state: Found) -> Found:
        before, n, _, effects = state
        now, effects = _projected(before, ways, effects)
        return now, n + 1, jnp.max(jnp.abs(now - before)), effects

    def going(state: Found) -> Array:
        return (state[2] > tol) & (state[1] < max_iter)

    none = tuple(jnp.zeros((way.inverse.shape[0], x.shape[1]), x.dtype) for way in ways)
    start = x, jnp.asarray(0), jnp.asarray(jnp.inf, x.dtype), none
    return jax.lax.while_loop(going, project, start)


def _projected(
    x: Array, ways: list[Groups], effects: tuple[Array, ...]
) -> tuple[Array, tuple[Array, ...]]:
    """Columns less the means of every kind, one after the other, which the effects gain."""
    new = []
    for way, effect in zip(ways, effects, strict=True):
        means = way.means(x)
        x = x - way.spread(means)
        new.append(effect + means)
    return x, tuple(new)


class _Descent(NamedTuple):
    """Conjugate gradients, every column by itself; effects and residuals of all kinds stacked."""

    effects: Float[Array, "g q"]
    left: Float[Array, "g q"]  # normal equations' right-hand side less what is explained
    direction: Float[Array, "g q"]
    size: Float[Array, " q"]  # left' preconditioner left
    n: Int[Array, ""]


def _conjugate(x: Array, ways: list[Groups], tol: float, max_iter: int | Array) -> Found:
    """Solve the normal equations of the dummies, which are singular but consistent."""
    ends = np.cumsum([way.inverse.shape[0] for way in ways])[:-1]
    inverse = jnp.concatenate([way.inverse for way in ways])[:, None]

    def spread(effects: Array) -> Array:
        parts = zip(ways, jnp.split(effects, ends), strict=True)
        return sum((way.spread(part) for way, part in parts), jnp.zeros_like(x))

    def sums(rows: Array) -> Array:
        return jnp.concatenate([way.sums(rows) for way in ways])

    def going(s: _Descent) -> Array:
        return (jnp.max(jnp.abs(s.left * inverse)) > tol) & (s.n < max_iter)

    def step(s: _Descent) -> _Descent:
        product = sums(spread(s.direction))
        curve = jnp.sum(s.direction * product, axis=0)
        length = jnp.where(curve > 0, s.size / jnp.where(curve > 0, curve, 1), 0)
        left = s.left - length[None] * product
        size = jnp.sum(left**2 * inverse, axis=0)
        turn = jnp.where(s.size > 0, size / jnp.where(s.size > 0, s.size, 1), 0)
        return _Descent(
            s.effects + length[None] * s.direction,
            left,
            left * inverse + turn[None] * s.direction,
            size,
            s.n + 1,
        )

    left = sums(x)
    start = _Descent(
        jnp.zeros_like(left),
        left,
        left * inverse,
        jnp.sum(left**2 * inverse, axis=0),
        jnp.asarray(0),
    )
    found = jax.lax.while_loop(going, step, start)
    effects = tuple(jnp.split(found.effects, ends))
    # what rounding has left over many steps
    out, effects = _projected(x - spread(found.effects), ways, effects)
    left_over = jnp.max(jnp.stack([jnp.max(jnp.abs(way.means(out))) for way in ways]))
    reached = jnp.max(jnp.abs(found.left * inverse))
    change = jnp.maximum(reached, jnp.where(left_over > 10 * tol, left_over, 0))
    return out, found.n, change, effects


# --- regression within groups -------------------------------------------------------------------


@in_double
def within(
    Y: Float[Array, " n"],
    X: Float[Array, "n d"],
    units: Units = INDEPENDENT,
    **fields: Any,
) -> Estimate:
    """Least squares of demeaned columns, without a constant; `Estimate.psi` makes the errors.

    With ``units`` clustered by group and ``small_sample=False``, `variance.covariance` of its psi
    is the estimator that is known as CR0.
    """
    none = jnp.zeros((Y.shape[0], 0), Y.dtype)
    return two_stage.least_squares(two_stage.stages(Y, X, X, none, units), units, **fields)


class Shrunken(NamedTuple):
    """Effects of groups, drawn to their mean by how little each group says."""

    effects: Float[Array, " g"]  # 0 for a group without rows
    noise: Float[Array, ""]  # variance of an outcome given its group and features
    spread: Float[Array, ""]  # variance of the effects


@in_double
def shrunken(
    residual: Float[Array, " n"],
    effects: Float[Array, " g"],
    counts: Float[Array, " g"],
    n_features: int = 0,
) -> Shrunken:
    """Empirical-Bayes effects of groups from raw ones.

    Args:
      residual: outcome less features and group effects.
      effects: raw effects.
      counts: rows of each group.
      n_features: coefficients that were estimated besides.

    References:
      Morris (1983); Abowd, Kramarz and Margolis (1999) for effects of this kind.

    >>> found = shrunken(np.array([1.0, -1, 1, -1]), np.array([-2.0, 2.0]), np.array([2.0, 2.0]))
    >>> float(found.noise), float(found.spread), found.effects.tolist()
    (2.0, 3.0, [-1.5, 1.5])
    """
    there = counts > 0
    groups = jnp.sum(there, dtype=residual.dtype)

    def mean(x: Array) -> Array:
        return jnp.sum(jnp.where(there, x, 0)) / groups

    noise = jnp.sum(residual**2) / (residual.shape[0] - groups - n_features)
    centred = jnp.where(there, effects - mean(effects), 0)
    error = noise / jnp.where(there, counts, 1)
    spread = jnp.maximum(mean(centred**2) - mean(error), 0)
    total = spread + error
    kept = jnp.where(total > 0, spread / jnp.where(total > 0, total, 1), 0)
    return Shrunken(centred * kept, noise, spread)


def without_singletons(ids: Int[np.ndarray, "n *kinds"]) -> Bool[np.ndarray, " n"]:
    """Rows whose groups, of every kind, have other rows too; found again until none is dropped.

    A group of one row is explained wholly by its effect: the row says nothing about anything else.

    >>> without_singletons(np.array([[0, 0], [0, 1], [1, 1], [0, 1]])).tolist()
    [False, True, False, True]
    """
    columns = np.asarray(ids).reshape(len(ids), -1).T
    kept = np.ones(len(ids), bool)
    while True:
        good = kept.copy()
        for column in columns:
            good &= np.bincount(column, weights=kept)[column] > 1
        if good.sum() == kept.sum():
            return cast(np.ndarray, kept)
        kept = good
