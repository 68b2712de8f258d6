"""Simulation designs `siv1` and `siv2`, their bases, and their true nuisances.

In both the average treatment effect is 1, the treatment is confounded by U, and the instrument has
a direct effect on the outcome.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.estimators.selective_iv.moment import Nuisances
from jaxcore.estimators.selective_iv.parametric import Bases
from jaxcore.typing import Key

TRUE_ATE = 1.0

SCENARIOS: dict[str, tuple[str, ...]] = {
    "all": (),
    "M1": ("g", "delta", "rho"),
    "M2": ("mu", "rho"),
    "M3": ("pi", "g"),
    "M4": ("pi", "mu"),
    "only pi": ("mu", "g", "delta", "rho"),
    "only mu": ("pi", "g", "delta", "rho"),
    "none": ("pi", "mu", "g", "delta", "rho"),
}
"""Name of each scenario -> the nuisances that get the wrong basis."""


class Drawn(NamedTuple):
    """Outcome, treatment, instrument, covariates."""

    Y: Float[Array, " n"]
    A: Float[Array, " n"]
    Z: Float[Array, " n"]
    X: Float[Array, "n p"]


def _draw(key: Key, n: int, p: int) -> tuple[Array, Array, Array, Array, Array]:
    """X, U, and uniforms for Z and A, and the outcome noise."""
    dtype = jnp.result_type(float)
    kx, ku, kz, ka, ke = jax.random.split(key, 5)
    X = jax.random.uniform(kx, (n, p), dtype, -1, 1)
    U = jax.random.rademacher(ku, (n,), dtype)
    return (
        X,
        U,
        jax.random.uniform(kz, (n,), dtype),
        jax.random.uniform(ka, (n,), dtype),
        jax.random.normal(ke, (n,), dtype),
    )


def _sample(key: Key, n: int, p: int, truth: Callable[[Array, Array], Nuisances]) -> Drawn:
    X, U, z, a, noise = _draw(key, n, p)
    Z = (z < truth(X, jnp.zeros(n, X.dtype)).pi).astype(X.dtype)
    t = truth(X, Z)
    mu = jnp.where(Z > 0.5, t.mu1, t.mu0)
    A = (a < mu + 0.07 * U).astype(X.dtype)
    Y = t.delta * A + t.g + 2 * (1 + 0.4 * X[:, 0]) * U + noise
    return Drawn(Y, A, Z, X)


def truth_siv1(X: Float[Array, "n p"], Z: Float[Array, " n"]) -> Nuisances:
    """True nuisances of `simulate_siv1`."""
    x1, x2 = X[:, 0], X[:, 1]
    base = -2 + 0.3 * x1 + 0.2 * x2
    return Nuisances(
        pi=jax.nn.sigmoid(0.2 + 0.6 * x1 - 0.4 * x2),
        mu1=jax.nn.sigmoid(base + 1.9),
        mu0=jax.nn.sigmoid(base),
        g=1 + 0.8 * Z + x1 - x2 + 0.5 * Z * x1,
        delta=1 + 0.5 * x1 - 0.5 * x2,
        rho=0.14 * (1 + 0.4 * x1),
    )


def truth_siv2(X: Float[Array, "n p"], Z: Float[Array, " n"]) -> Nuisances:
    """True nuisances of `simulate_siv2`."""
    x1, x2 = X[:, 0], X[:, 1]
    base = -2.2 + 0.8 * x1**2 + 0.3 * x2
    return Nuisances(
        pi=jax.nn.sigmoid(0.4 + 0.8 * x1 - 1.2 * x2**2),
        mu1=jax.nn.sigmoid(base + 1.9),
        mu0=jax.nn.sigmoid(base),
        g=1 + 0.8 * Z + 2 * x1**2 - 1.5 * x2**2 + x2 + 0.5 * Z * x1,
        delta=1 + 1.5 * (x1**2 - 1 / 3) - 0.5 * x2,
        rho=0.14 * (1 + 0.4 * x1),
    )


def simulate_siv1(key: Key, n: int, *, p: int = 2) -> Drawn:
    """Design in which all five parametric models of `bases_siv1` are right.

    Args:
      key: PRNG key.
      n: number of units.
      p: number of covariates; those after the second are noise.

    >>> import jax
    >>> simulate_siv1(jax.random.key(0), 4).X.shape
    (4, 2)
    """
    return _sample(key, n, p, truth_siv1)


def simulate_siv2(key: Key, n: int, *, p: int = 2) -> Drawn:
    """Design with quadratic terms in every nuisance, for learner selection; see `simulate_siv1`."""
    return _sample(key, n, p, truth_siv2)


def bases_siv1(Z: Float[Array, " n"], X: Float[Array, "n p"], wrong: tuple[str, ...] = ()) -> Bases:
    """Design matrices for `mr_parametric` on `siv1`.

    Args:
      Z: instrument.
      X: covariates.
      wrong: nuisances whose covariate terms are replaced by ``|x1|``.
    """
    one, x1, x2 = jnp.ones_like(Z), X[:, 0], X[:, 1]
    off = jnp.abs(x1)

    def stack(*columns: Float[Array, " n"]) -> Float[Array, "n q"]:
        return jnp.stack(columns, axis=1)

    def mu(z: Float[Array, " n"]) -> Float[Array, "n q"]:
        return stack(one, z, off) if "mu" in wrong else stack(one, z, x1, x2)

    return Bases(
        pi=stack(one, off) if "pi" in wrong else stack(one, x1, x2),
        mu=mu(Z),
        mu1=mu(one),
        mu0=mu(jnp.zeros_like(Z)),
        g=stack(one, Z, off) if "g" in wrong else stack(one, Z, x1, x2, Z * x1),
        delta=stack(one, off) if "delta" in wrong else stack(one, x1, x2),
        rho=stack(one, off) if "rho" in wrong else stack(one, x1),
    )
