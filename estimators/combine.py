"""Several estimates of the same units together, and linear combinations of them.

Influence values add up as estimates do, so errors of sums, differences and curves need no new
theory: contrasts of potential outcomes, effects of several treatments with joint intervals, curves
of conditional effects, averages over groups and times.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators.estimate import Estimate, scope_of
from jaxcore.estimators.units import INDEPENDENT, Units


def together(estimates: Sequence[Estimate], **fields: Any) -> Estimate:
    """Estimates of the same units as one, for joint intervals and `linear`.

    Args:
      estimates: of the same units in the same order, with the same clusters (those of the first
        are taken; neither is checked).
      **fields: fields of the result; names are joined and the title is that of the first.

    Raises:
      UserError: different numbers of units.

    >>> import jax.numpy as jnp
    >>> one = Estimate.from_psi(jnp.float32(1.0), jnp.array([1.0, -1.0]), names=("a",))
    >>> together([one, one]).theta.tolist()
    [1.0, 1.0]
    """
    sizes = sorted({e.n_obs for e in estimates})
    if len(sizes) != 1:
        raise UserError(f"Expected estimates of the same units, found {sizes} of them.")
    first = estimates[0]
    xp: Any = np if all(isinstance(e.psi, np.ndarray) for e in estimates) else jnp
    with scope_of(first.psi):
        parts = [
            (xp.atleast_1d(e.theta), xp.atleast_1d(e.se), e.psi.reshape(e.n_obs, -1))
            for e in estimates
        ]
        theta, se, psi = (xp.concatenate(list(part), axis=-1) for part in zip(*parts, strict=True))
    given = {
        "names": tuple(name for e in estimates for name in e.names),
        "estimator": first.estimator,
        "notices": tuple(dict.fromkeys(text for e in estimates for text in e.notices)),
    }
    return Estimate(theta=theta, se=se, psi=psi, clusters=first.clusters, **(given | fields))


def linear(estimate: Estimate, matrix: Float[Array | np.ndarray, "r q"], **fields: Any) -> Estimate:
    """The estimates ``matrix @ theta`` with their errors.

    Errors are those of the influence values and clusters: other errors the estimate may hold
    (sandwich, several partitions) do not enter.

    Args:
      estimate: of ``q`` numbers.
      matrix: one row for each combination.
      **fields: fields of the result (``names``, ...).

    >>> import jax.numpy as jnp
    >>> two = Estimate.from_psi(jnp.array([1.0, 3.0]), jnp.array([[1.0, 0.0], [-1.0, 0.0]]))
    >>> linear(two, jnp.array([[-1.0, 1.0]]), names=("difference",)).theta.tolist()
    [2.0]
    """
    on_host = isinstance(estimate.psi, np.ndarray)
    with scope_of(estimate.psi):
        matrix = jnp.asarray(matrix, estimate.psi.dtype)
        clusters = estimate.clusters
        units = INDEPENDENT if clusters is None else Units(clusters=clusters)
        psi = jnp.asarray(estimate.psi) @ matrix.T
        given = {"estimator": estimate.estimator, "notices": estimate.notices} | fields
        given.setdefault("names", tuple(f"combination {i + 1}" for i in range(matrix.shape[0])))
        out = Estimate.from_psi(
            matrix @ jnp.asarray(estimate.theta, psi.dtype), psi, units, **given
        )
    return out.on_host() if on_host else out


def contrasts(estimate: Estimate, reference: int | str = 0) -> Estimate:
    """Every estimate less the one of reference, named ``"a - reference"``.

    Args:
      estimate: of several numbers.
      reference: place or name of the estimate that is subtracted.

    Raises:
      UserError: no such name.
    """
    names, q = estimate.names, estimate.psi.shape[1]
    if isinstance(reference, str):
        if reference not in names:
            raise UserError(f"Expected one of {', '.join(names)} as reference, found {reference}.")
        reference = names.index(reference)
    if not 0 <= reference < q:
        raise UserError(f"Expected a reference from 0 to {q - 1}, found {reference}.")
    others = [j for j in range(q) if j != reference]
    matrix = np.eye(q)[others]
    matrix[:, reference] = -1
    return linear(estimate, matrix, names=tuple(f"{names[j]} - {names[reference]}" for j in others))
