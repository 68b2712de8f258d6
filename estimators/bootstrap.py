"""Multiplier bootstrap of influence functions, with joint critical values."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.estimators.variance import covariance
from jaxcore.typing import Key

KINDS = ("normal", "rademacher", "bayes")


def multipliers(
    key: Key, shape: tuple[int, ...], kind: str = "normal", dtype: DTypeLike | None = None
) -> Float[Array, "*shape"]:
    """Multipliers of mean zero and variance one.

    Args:
      key: PRNG key.
      shape: shape of the result.
      kind: "normal", "rademacher" (fair signs), or "bayes" (exponential minus one).
      dtype: floating type.

    >>> import jax
    >>> multipliers(jax.random.key(0), (2, 3), "rademacher").shape
    (2, 3)
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    if kind == "normal":
        return jax.random.normal(key, shape, dtype)
    if kind == "rademacher":
        return jax.random.rademacher(key, shape, dtype)
    if kind == "bayes":
        return jax.random.exponential(key, shape, dtype) - 1
    raise UserError(f"Expected a bootstrap kind of {', '.join(KINDS)}, found {kind!r}.")


def t_statistics(
    psi: Float[Array, "n *q"], se: Float[Array, "*q"], xi: Float[Array, "b n"]
) -> Float[Array, "b *q"]:
    """Bootstrap t-statistics ``mean(xi_b psi) / se`` for given multipliers.

    >>> import jax.numpy as jnp
    >>> t_statistics(jnp.array([1.0, -1.0]), jnp.float32(0.5), jnp.array([[1.0, 0.0]])).tolist()
    [1.0]
    """
    t = jnp.tensordot(xi, psi, axes=1) / psi.shape[0]
    return t / jnp.broadcast_to(se, t.shape)


def multiplier(
    key: Key,
    psi: Float[Array, "n *q"],
    se: Float[Array, "*q"],
    *,
    n_boot: int = 1000,
    kind: str = "normal",
    units: Units = INDEPENDENT,
    batch_size: int = 100,
) -> Float[Array, "b *q"]:
    """Bootstrap t-statistics with fresh multipliers, the same ones for every estimate.

    Args:
      key: PRNG key.
      psi: centred influence values.
      se: standard errors.
      n_boot: number of draws.
      kind: see `multipliers`.
      units: every cluster gets one multiplier; without clusters every unit. With clusters of
        several kinds the draws are normal with the estimates' correlations.
      batch_size: draws computed at a time; bounds the memory at ``batch_size * n`` numbers.

    References:
      Chernozhukov, Chetverikov and Kato (2013).
    """
    psi = jnp.asarray(psi)
    if units.multiway:
        if kind != "normal":
            raise UserError(
                f"Expected normal multipliers with clusters of several kinds, found {kind!r}."
            )
        return _correlated(key, psi, n_boot, units)
    sums = units.sums(psi)
    rows = sums.shape[0]
    sums = sums * (rows / psi.shape[0])

    def one(k: Key) -> Float[Array, "*q"]:
        return t_statistics(sums, se, multipliers(k, (rows,), kind, psi.dtype)[None])[0]

    return jax.lax.map(one, jax.random.split(key, n_boot), batch_size=min(batch_size, n_boot))


def _correlated(
    key: Key, psi: Float[Array, "n *q"], n_boot: int, units: Units
) -> Float[Array, "b *q"]:
    """Normal draws of mean zero, variance one and the correlations of the estimates."""
    values, vectors = jnp.linalg.eigh(covariance(psi.reshape(psi.shape[0], -1), units))
    root = vectors * jnp.sqrt(jnp.maximum(values, 0))[None]
    size = jnp.sqrt(jnp.sum(root**2, axis=1))
    root = root / jnp.where(size > 0, size, 1)[:, None]
    draws = jax.random.normal(key, (n_boot, root.shape[1]), psi.dtype) @ root.T
    return draws.reshape(n_boot, *psi.shape[1:])


def critical_value(t: Float[Array, "b *q"], level: float = 0.95) -> Float[Array, ""]:
    """The ``level`` quantile of max |t| over the estimates (linear interpolation).

    >>> import jax.numpy as jnp
    >>> float(critical_value(jnp.array([[1.0, -3.0], [2.0, 0.0]]), 0.5))
    2.5
    """
    largest = jnp.max(jnp.abs(t).reshape(t.shape[0], -1), axis=1)
    return jnp.quantile(largest, level)
