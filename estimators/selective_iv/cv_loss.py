"""Learners chosen by cross-validated loss, block by block: what the selection is compared with.

pi and mu by their log-loss; then, given these, delta, g and rho together by the squared error with
which ``rho + delta Var(A|Z,X)`` predicts the residual product ``(A - mu)(Y - g - delta mu)``. All
predictions are out of fold. Which loss stands for the last three blocks is this library's own
choice. Small losses of single nuisances are not a small error of the effect.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.estimators import select
from jaxcore.estimators.nuisance.losses import log_loss
from jaxcore.estimators.selective_iv.moment import Clip, clip_arms


def product_loss(
    Y: Float[Array, "*l n"],
    A: Float[Array, "*l n"],
    mu: Float[Array, "*l n"],
    g: Float[Array, "*l n"],
    delta: Float[Array, "*l n"],
    rho: Float[Array, "*l n"],
) -> Float[Array, "*l n"]:
    """Squared error of ``rho + delta mu (1 - mu)`` as a prediction of the residual product.

    ``Y - g - delta mu`` is the residual of the outcome, since ``E[Y|Z,X] = g + delta mu``.
    """
    return ((A - mu) * (Y - g - delta * mu) - rho - delta * mu * (1 - mu)) ** 2


def log_losses(
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    pi: Float[Array, "pi n"],
    mu1: Float[Array, "mu n"],
    mu0: Float[Array, "mu n"],
    weights: Float[Array, " n"],
    *,
    clip: Clip,
) -> tuple[Float[Array, " pi"], Float[Array, " mu"]]:
    """Sums of the log-losses of clipped P(Z=1|X) and P(A=1|Z,X)."""
    mu = at_observed(Z[None], mu1, mu0, clip=clip)
    of_pi = log_loss(jnp.clip(pi, *clip.pi), Z[None]) @ weights
    return of_pi, log_loss(mu, A[None]) @ weights


def best_index(
    pi: Float[Array, " pi"], mu: Float[Array, " mu"], rest: Float[Array, "g delta rho"]
) -> Int[Array, "5"]:
    """Indices of the smallest losses, in the order of `moment.BLOCKS`."""
    return jnp.concatenate([select.place_of_least(loss) for loss in (pi, mu, rest)])


def choose_candidates(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    candidates: Mapping[str, Float[Array, "*l n"]],
    weights: Float[Array, " n"],
    *,
    clip: Clip,
) -> Int[Array, "5"]:
    """Indices of the predictions with the smallest losses; see `estimate_from_candidates`."""
    c = candidates
    loss_pi, loss_mu = log_losses(A, Z, c["pi"], c["mu1"], c["mu0"], weights, clip=clip)
    j = jnp.argmin(loss_mu)
    mu = at_observed(Z, c["mu1"][j], c["mu0"][j], clip=clip)
    Y, A, mu = (v[None, None, None] for v in (Y, A, mu))
    g, delta = c["g"][:, :, None], c["delta"][None, :, None]
    rho = jnp.swapaxes(c["rho"], 0, 1)[None]
    return best_index(loss_pi, loss_mu, product_loss(Y, A, mu, g, delta, rho) @ weights)


def at_observed(
    Z: Float[Array, "*l n"],
    mu1: Float[Array, "*l n"],
    mu0: Float[Array, "*l n"],
    *,
    clip: Clip,
) -> Float[Array, "*l n"]:
    """Clipped P(A=1|Z,X) at the observed Z."""
    one, zero = clip_arms(mu1, mu0, clip)
    return jnp.where(Z > 0.5, one, zero)
