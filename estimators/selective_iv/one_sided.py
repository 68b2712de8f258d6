"""One-sided non-compliance: nobody with Z=0 is treated.

P(A=1|Z=0,X) and rho are then zero by design, and g may be zero at Z=0: the estimate is AIPW
among Z=1 weighted by 1/pi.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators import linear_algebra
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.selective_iv.moment import Clip

NOTICE = (
    "non-compliance is one-sided (nobody with Z=0 is treated): P(A=1|Z=0)=0 and rho=0 hold by "
    "design, and the estimate leaves no room for unmeasured confounding"
)


def choose(clip: Clip, sample: Sample, asked: bool | str) -> Clip:
    """The bounds of a fit, with ``one_sided`` as the data are or as asked (not "auto").

    Raises:
      UserError: treatment or instrument must be recoded, or Z=0 has treated units against what
        was asked.
    """
    A, Z = sample.A, sample.Z
    treated = {z: A[z == Z] for z in (0, 1)}
    for z, a, how in (
        (1, 1.0, "recode the treatment and the instrument as 1-A and 1-Z"),
        (1, 0.0, "recode the instrument as 1-Z"),
        (0, 1.0, "recode the treatment as 1-A"),
    ):
        if np.all(treated[z] == a) and asked is not False:
            raise UserError(
                f"Expected both treated and untreated units where Z={z}, found only A={a:g}: {how}."
            )
    empty = bool(np.all(treated[0] == 0))
    if asked is True and not empty:
        raise UserError(
            "Expected no treated units where Z=0 with one_sided=True, "
            f"found {int(treated[0].sum())}."
        )
    return dataclasses.replace(clip, one_sided=empty if asked == "auto" else bool(asked))


def least_squares(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Bd: Float[Array, "n q_d"],
    Bg: Float[Array, "n q_g"],
    w: Float[Array, " n"],
) -> tuple[Float[Array, " q_d"], Float[Array, " q_g"]]:
    """Coefficients of delta and g by least squares of Y on ``[A Bd, Bg]`` among Z=1.

    Args:
      Y: outcome.
      A: treatment.
      Bd: basis of delta.
      Bg: basis of g.
      w: weights, zero where Z=0.
    """
    both = jnp.concatenate([A[:, None] * Bd, Bg], axis=1)
    weighted = both * (w / jnp.sum(w))[:, None]
    x = linear_algebra.solve(weighted.T @ both, weighted.T @ Y)
    return x[: Bd.shape[1]], x[Bd.shape[1] :]
