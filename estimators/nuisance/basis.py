"""Feature bases: constant, polynomial, additive B-spline, random Fourier features.

Bases compute with the library their covariates come from: NumPy on the host, where nothing needs
compiling, JAX inside a compiled program.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError


class Basis(Protocol):
    """Columns computed from the covariates; the first is the constant.

    ``keys`` names the columns so that several bases can share theirs.
    """

    def prepare(self, X: Float[Array, "n p"]) -> Any:
        """What must be known of the covariates beforehand (knots, frequencies): a pytree."""
        ...

    def keys(self, p: int) -> tuple[Any, ...]:
        """A hashable name for every column."""
        ...

    def expand(self, state: Any, X: Float[Array, "n p"]) -> Float[Array, "n q"]:
        """The columns."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Polynomial:
    """All monomials up to a degree; degree 0 is the constant alone.

    >>> import jax.numpy as jnp
    >>> Polynomial(degree=2).keys(2)
    ((0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (1, 1))
    """

    degree: int = 1
    interactions: bool = True  # products of different covariates too

    def prepare(self, X: Float[Array, "n p"]) -> Any:
        """Nothing to prepare."""
        return ()

    def keys(self, p: int) -> tuple[Any, ...]:
        """Exponents of each monomial: pure powers first, then products, degree by degree."""
        out = [(0,) * p]
        for degree in range(1, self.degree + 1):
            pure = [tuple(degree if i == j else 0 for i in range(p)) for j in range(p)]
            mixed = []
            if self.interactions:
                for chosen in itertools.combinations_with_replacement(range(p), degree):
                    exponents = tuple(chosen.count(i) for i in range(p))
                    if exponents not in pure:
                        mixed.append(exponents)
            out += pure + mixed
        return tuple(out)

    def expand(self, state: Any, X: Float[Array, "n p"]) -> Float[Array, "n q"]:
        """Columns in the order of `keys`."""
        del state
        xp = X.__array_namespace__()
        columns = []
        for exponents in self.keys(X.shape[1]):
            column = xp.ones(X.shape[0], X.dtype)
            for i, e in enumerate(exponents):
                for _ in range(e):
                    column = column * X[:, i]
            columns.append(column)
        return xp.stack(columns, axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BSpline:
    """Additive B-splines: for each covariate ``df`` columns, knots at quantiles, plus a constant.

    Outside the range of the covariates seen in `prepare` the value at the nearer end is taken.
    """

    df: int = 5  # columns per covariate, at least degree
    degree: int = 3

    def prepare(self, X: Float[Array, "n p"]) -> Any:
        """Full knot vectors, one per covariate."""
        inner = self.df - self.degree
        if inner < 0:
            raise UserError(f"Expected df >= degree = {self.degree}, found df = {self.df}.")
        xp = X.__array_namespace__()
        q = xp.linspace(0.0, 1.0, inner + 2, dtype=X.dtype)
        knots = xp.quantile(X, q, axis=0).T
        ends = self.degree
        return xp.concatenate(
            [xp.repeat(knots[:, :1], ends, 1), knots, xp.repeat(knots[:, -1:], ends, 1)], axis=1
        )

    def keys(self, p: int) -> tuple[Any, ...]:
        """The constant, then covariate by covariate."""
        name = ("bs", self.df, self.degree)
        return ((0,) * p, *((*name, i, j) for i in range(p) for j in range(self.df)))

    def expand(self, state: Any, X: Float[Array, "n p"]) -> Float[Array, "n q"]:
        """The first spline of each covariate is dropped: with the constant it is redundant."""
        xp = X.__array_namespace__()
        one = xp.ones((X.shape[0], 1), X.dtype)
        splines = self._splines(state, X)  # n, p, df + 1
        return xp.concatenate([one, splines[:, :, 1:].reshape(X.shape[0], -1)], axis=1)

    def _splines(self, knots: Float[Array, "p m"], X: Float[Array, "n p"]) -> Float[Array, "n p d"]:
        """Cox-de Boor recursion for every covariate."""
        xp = X.__array_namespace__()
        x, t = xp.clip(X, knots[None, :, 0], knots[None, :, -1])[:, :, None], knots[None]
        last = xp.sum(t < t[..., -1:], axis=2) - 1  # the last non-empty interval is closed
        cell = xp.clip(xp.sum(t <= x, axis=2) - 1, 0, last)
        b = (cell[..., None] == xp.arange(t.shape[2] - 1)[None, None]).astype(X.dtype)
        for k in range(1, self.degree + 1):
            m = t.shape[2] - 1 - k
            left = t[..., k : k + m] - t[..., :m]
            right = t[..., k + 1 : k + 1 + m] - t[..., 1 : 1 + m]
            wl = (x - t[..., :m]) / xp.where(left > 0, left, 1.0)
            wr = (t[..., k + 1 : k + 1 + m] - x) / xp.where(right > 0, right, 1.0)
            wl, wr = xp.where(left > 0, wl, 0), xp.where(right > 0, wr, 0)
            b = wl * b[..., :m] + wr * b[..., 1 : 1 + m]
        return b


@dataclasses.dataclass(frozen=True, kw_only=True)
class FourierFeatures:
    """Random Fourier features of the Gaussian kernel on standardised covariates, plus a constant.

    References:
      Rahimi and Recht (2007).
    """

    n_features: int = 50
    gamma: float = 0.2  # kernel exp(-gamma |x - x'|^2)
    seed: int = 0

    def prepare(self, X: Float[Array, "n p"]) -> Any:
        """Frequencies, phases, and the standardisation."""
        rng = np.random.default_rng(self.seed)
        omega = rng.standard_normal((X.shape[1], self.n_features)) * np.sqrt(2 * self.gamma)
        phase = rng.uniform(0, 2 * np.pi, self.n_features)
        xp = X.__array_namespace__()
        sd = xp.std(X, axis=0)
        scale = 1 / xp.where(sd > 0, sd, 1.0)
        return xp.asarray(omega, X.dtype), xp.asarray(phase, X.dtype), xp.mean(X, axis=0), scale

    def keys(self, p: int) -> tuple[Any, ...]:
        """The constant, then the features."""
        name = ("rff", self.gamma, self.seed, self.n_features)
        return ((0,) * p, *((*name, j) for j in range(self.n_features)))

    def expand(self, state: Any, X: Float[Array, "n p"]) -> Float[Array, "n q"]:
        """Cosines of random projections."""
        xp = X.__array_namespace__()
        omega, phase, mean, scale = state
        projected = ((X - mean[None]) * scale[None]) @ omega + phase[None]
        features = xp.cos(projected) * math.sqrt(2 / self.n_features)
        return xp.concatenate([xp.ones((X.shape[0], 1), X.dtype), features], axis=1)


NAMED = {
    "const": Polynomial(degree=0),
    "lin": Polynomial(degree=1),
    "quad": Polynomial(degree=2),
    "cubic": Polynomial(degree=3),
    "spline": BSpline(),
    "fourier": FourierFeatures(),
}


def resolve(basis: Any) -> Any:
    """A basis from its name or itself.

    >>> resolve("quad")
    Polynomial(degree=2, interactions=True)
    """
    if isinstance(basis, str):
        if basis not in NAMED:
            raise UserError(f"Expected a basis of {', '.join(NAMED)}, found {basis!r}.")
        return NAMED[basis]
    return basis


def library(
    bases: Sequence[Any], X: Float[Array, "n p"]
) -> tuple[Float[Array, "n q"], Float[Array, "l q"]]:
    """All columns several bases need, each once, and a 0/1 mask of them per basis.

    >>> import jax.numpy as jnp
    >>> B, masks = library(["const", "lin", "quad"], jnp.ones((3, 2)))
    >>> B.shape, masks.sum(1).tolist()
    ((3, 6), [1.0, 3.0, 6.0])
    """
    resolved = [resolve(b) for b in bases]
    place: dict[Any, int] = {}
    columns, used = [], []
    for basis in resolved:
        expanded = None
        mine = []
        for j, key in enumerate(basis.keys(X.shape[1])):
            if key not in place:
                if expanded is None:
                    expanded = basis.expand(basis.prepare(X), X)
                place[key] = len(place)
                columns.append(expanded[:, j])
            mine.append(place[key])
        used.append(mine)
    masks = np.zeros((len(resolved), len(place)))
    for i, mine in enumerate(used):
        masks[i, mine] = 1
    xp = X.__array_namespace__()
    return xp.stack(columns, axis=1), xp.asarray(masks, X.dtype)
