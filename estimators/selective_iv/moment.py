"""The moment of the average treatment effect with an instrument that may act on the outcome.

Binary instrument and treatment unless said otherwise. With ``D(x) = Var(A|Z=1,x) - Var(A|Z=0,x)``

    u = delta + (2Z-1)/(f(Z|X) D) [ (A - mu)(Y - delta A - g) - rho ],

whose mean is the effect if one of {pi, mu}, {pi, delta, g}, {mu, delta, rho}, {delta, rho, g} is
right, and ``u - theta`` is the efficient influence function.

References:
  Sun, Cui and Tchetgen Tchetgen (2022), Selective machine learning of the average treatment effect
  with an invalid instrumental variable, JMLR 23.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcore.errors import UserError
from jaxcore.estimators import influence
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.units import INDEPENDENT, Units

BLOCKS = ("pi", "mu", "g", "delta", "rho")
"""Nuisance blocks, in the order of the learner axes."""

MODELS: Mapping[str, tuple[str, ...]] = {
    "M1": ("pi", "mu"),
    "M2": ("pi", "delta", "g"),
    "M3": ("mu", "delta", "rho"),
    "M4": ("delta", "rho", "g"),
}
"""Sets of nuisances of which one must be right."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Nuisances:
    """Nuisance values at the units; leading axes may run over learners."""

    pi: Float[Array, "*l n"]  # P(Z=1|X)
    mu1: Float[Array, "*l n"]  # E[A|Z=1,X]
    mu0: Float[Array, "*l n"]  # E[A|Z=0,X]
    g: Float[Array, "*l n"]  # E[Y - delta(X) A|Z,X] at the observed Z
    delta: Float[Array, "*l n"]  # conditional average treatment effect
    rho: Float[Array, "*l n"]  # E[(A - mu)(Y - delta A - g)|X], the confounding bias


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """How near to the edge nuisances may come; what was clipped is counted in the diagnostics."""

    pi: tuple[float, float] = (0.01, 0.99)
    mu: tuple[float, float] = (0.01, 0.99)
    min_abs_D: float = 0.01  # floor of |D|, the sign is kept (zero counts as positive)
    overlap: str = "truncate"  # or "discard": units beyond the bounds leave the estimand
    one_sided: bool = False  # nobody with Z=0 is treated: mu0 and rho are zero and stay so

    def __post_init__(self) -> None:
        for name in ("pi", "mu"):
            low, high = getattr(self, name)
            if not 0 <= low < high <= 1:
                raise UserError(
                    f"Expected 0 <= low < high <= 1 for clip.{name}, found {low, high}."
                )
        if self.min_abs_D < 0:
            raise UserError(f"Expected min_abs_D >= 0, found {self.min_abs_D}.")
        if self.overlap not in ("truncate", "discard"):
            raise UserError(f"Expected overlap 'truncate' or 'discard', found {self.overlap!r}.")


NO_CLIP = Clip(pi=(0.0, 1.0), mu=(0.0, 1.0), min_abs_D=0.0)


def floor_keeping_sign(d: Float[Array, "*n"], least: float) -> Float[Array, "*n"]:
    """Push ``d`` away from zero to at least ``least`` in absolute value.

    >>> import jax.numpy as jnp
    >>> floor_keeping_sign(jnp.array([0.0, -0.5, 2.0]), 1.0).tolist()
    [1.0, -1.0, 2.0]
    """
    return jnp.where(d < 0, jnp.minimum(d, -least), jnp.maximum(d, least))


def variance_contrast(
    mu1: Float[Array, "*n"], mu0: Float[Array, "*n"], min_abs_D: float = 0.0
) -> Float[Array, "*n"]:
    """``D = mu1 (1 - mu1) - mu0 (1 - mu0)`` of a binary treatment, kept away from zero.

    It vanishes when ``mu1 == mu0`` and also when ``mu1 + mu0 == 1``.
    """
    return floor_keeping_sign(mu1 * (1 - mu1) - mu0 * (1 - mu0), min_abs_D)


def clip_arms(
    mu1: Float[Array, "*n"], mu0: Float[Array, "*n"], clip: Clip
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """P(A=1|Z=z,X) of both arms inside their bounds; if one-sided the second stays zero."""
    return jnp.clip(mu1, *clip.mu), mu0 if clip.one_sided else jnp.clip(mu0, *clip.mu)


def clip_nuisances(nuisances: Nuisances, clip: Clip) -> Nuisances:
    """Nuisances with pi and mu inside their bounds (mu0 stays zero if one-sided)."""
    mu1, mu0 = clip_arms(nuisances.mu1, nuisances.mu0, clip)
    return dataclasses.replace(nuisances, pi=jnp.clip(nuisances.pi, *clip.pi), mu1=mu1, mu0=mu0)


def overlap_mask(nuisances: Nuisances, clip: Clip) -> Bool[Array, "*l n"]:
    """Units whose unclipped pi and D lie within the bounds."""
    d = nuisances.mu1 * (1 - nuisances.mu1) - nuisances.mu0 * (1 - nuisances.mu0)
    inside = (nuisances.pi >= clip.pi[0]) & (nuisances.pi <= clip.pi[1])
    return inside & (jnp.abs(d) >= clip.min_abs_D)


def moment_uncentred(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    nuisances: Nuisances,
    *,
    clip: Clip = NO_CLIP,
) -> Float[Array, " n"]:
    """The moment ``u`` of every unit; its mean estimates the average treatment effect.

    Args:
      Y: outcome.
      A: treatment, 0 or 1.
      Z: instrument, 0 or 1.
      nuisances: one value per unit each.
      clip: bounds of pi, mu and D.
    """
    nu = clip_nuisances(nuisances, clip)
    d = variance_contrast(nu.mu1, nu.mu0, clip.min_abs_D)
    mu = jnp.where(Z > 0.5, nu.mu1, nu.mu0)
    return influence.multiply_robust(Y, A, Z, nu.pi, mu, nu.g, nu.delta, nu.rho, d).psi_b


def combination_moments(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    *,
    pi: Float[Array, "pi n"],
    mu1: Float[Array, "mu n"],
    mu0: Float[Array, "mu n"],
    g: Float[Array, "#pi #mu #g #delta #rho n"],
    delta: Float[Array, "#pi #mu #g #delta #rho n"],
    rho: Float[Array, "#pi #mu #g #delta #rho n"],
    clip: Clip,
) -> Float[Array, "n pi mu g delta rho"]:
    """Moments of every unit under all combinations of candidates.

    Candidates for g, delta and rho may depend on those of the other blocks they were fitted with;
    axes of length one where they do not.
    """
    mu1, mu0 = clip_arms(mu1, mu0, clip)
    d = variance_contrast(mu1, mu0, clip.min_abs_D)
    e = A[None] - jnp.where(Z[None] > 0.5, mu1, mu0)
    Y, A, Z = (v.reshape(1, 1, 1, 1, 1, -1) for v in (Y, A, Z))
    pi = jnp.clip(pi, *clip.pi)[:, None, None, None, None]
    e, d = (v[None, :, None, None, None] for v in (e, d))
    u = influence.multiply_robust_signal(pi, Z, delta, e * (Y - delta * A - g) - rho, d)
    return jnp.moveaxis(u, -1, 0)


def influence_function(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    nuisances: Nuisances,
    *,
    clip: Clip = NO_CLIP,
) -> Float[Array, " n"]:
    """Efficient influence function at each unit: the moment minus its mean."""
    u = moment_uncentred(Y, A, Z, nuisances, clip=clip)
    return u - jnp.mean(u)


@functools.partial(jax.jit, static_argnames=("clip",))
def from_predictions(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    nuisances: Nuisances,
    *,
    clip: Clip = NO_CLIP,
    units: Units = INDEPENDENT,
) -> Estimate:
    """Estimate from nuisance predictions made elsewhere.

    Args:
      Y: outcome.
      A: treatment, 0 or 1.
      Z: instrument, 0 or 1.
      nuisances: predictions, best made out of fold.
      clip: bounds; with ``overlap="discard"`` units beyond them get weight zero.
      units: observation weights and clusters.
    """
    u = moment_uncentred(Y, A, Z, nuisances, clip=clip)
    kept = overlap_mask(nuisances, clip)
    if clip.overlap == "discard":
        weights = jnp.where(kept, units.weights_like(Y), 0)
        units = dataclasses.replace(units, weights=weights)
    diagnostics: dict[str, Any] = {
        "u": u,
        "nuisances": clip_nuisances(nuisances, clip),
        "n_outside_overlap": jnp.sum(~kept),
    }
    return influence.solve(
        influence.LinearScore(jnp.full_like(u, -1.0), u),
        units=units,
        names=("ATE",),
        estimator="multiply robust, given nuisances",
        diagnostics=diagnostics,
    )


def moment_general(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    pi: Float[Array, " n"],
    mu: Float[Array, " n"],
    g: Float[Array, " n"],
    delta: Float[Array, " n"],
    rho: Float[Array, " n"],
    d_h: Float[Array, " n"],
) -> Float[Array, " n"]:
    """The moment for any real instrument and treatment (several levels or continuous).

    Args:
      Y: outcome.
      A: treatment.
      Z: instrument.
      pi: E[Z|X].
      mu: E[A|Z,X].
      g: E[Y - delta A|Z,X].
      delta: ``E[(Z-pi) Cov(A,Y|Z,X)|X] / d_h``.
      rho: E[(A-mu)(Y - delta A - g)|X].
      d_h: ``E[(Z-pi) Var(A|Z,X)|X]``, non-zero.
    """
    return delta + (Z - pi) / d_h * ((A - mu) * (Y - delta * A - g) - rho)
