"""Learners chosen by cross-validated loss, block by block: what the selection is compared with.

pi and mu by their log-loss; then, given these, delta, g and rho together by the squared error with
which ``rho + delta Var(A|Z,X)`` predicts the residual product ``(A - mu)(Y - g - delta mu)``. All
predictions are out of fold. Which loss stands for the last three blocks is this library's own
choice. Small losses of single nuisances are not a small error of the effect.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.estimators.chunks import in_chunks, sum_chunks
from jaxcore.estimators.selective_iv import bases
from jaxcore.estimators.selective_iv.moment import Clip, clip_arms


def log_loss(p: Float[Array, "*l n"], y: Float[Array, "*l n"]) -> Float[Array, "*l n"]:
    """Negative log-likelihood of 0/1 outcomes, probabilities held a little off the edges.

    >>> import jax.numpy as jnp
    >>> round(float(log_loss(jnp.array([0.5]), jnp.array([1.0]))[0]), 4)
    0.6931
    """
    p = jnp.clip(p, 1e-6, 1 - 1e-6)
    return -(y * jnp.log(p) + (1 - y) * jnp.log1p(-p))


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


def _index(pi, mu, rest) -> Int[Array, "5"]:
    best = jnp.unravel_index(jnp.argmin(rest), rest.shape)
    return jnp.stack([jnp.argmin(pi), jnp.argmin(mu), *best]).astype(jnp.int32)


def choose_bases(
    fits: bases.BasisFits,
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    B: Float[Array, "n q"],
    fold_ids: Int[Array, " n"],
    weights: Float[Array, " n"],
    *,
    clip: Clip,
) -> Int[Array, "5"]:
    """Indices of the learners of `bases.fit_bases` with the smallest losses."""
    rows = bases.moment_rows(fits)
    chunks = in_chunks((Y, A, Z, B, fold_ids, weights), rows)

    def first(Y, A, Z, B, fold, w):
        pick = bases.own_predictors(fold, fits.pi)
        pi = jnp.clip(jax.nn.sigmoid(pick(fits.pi, B)), *clip.pi)
        mu = _at_z(Z[None], bases.both_arms(fits.mu, B, pick, clip.one_sided), clip)
        return log_loss(pi, Z[None]) @ w, log_loss(mu, A[None]) @ w

    loss_pi, loss_mu = sum_chunks(first, chunks)
    i, j = jnp.argmin(loss_pi), jnp.argmin(loss_mu)

    def second(Y, A, Z, B, fold, w):
        pick = bases.own_predictors(fold, fits.pi)
        mu = _at_z(Z, bases.both_arms(fits.mu[:, j], B, pick, clip.one_sided), clip)
        g = pick(fits.g[:, i, j], bases.with_instrument(B, Z))
        delta, rho = pick(fits.delta[:, i, j], B), pick(fits.rho[:, i, j], B)
        Y, A, mu = (v[None, None, None] for v in (Y, A, mu))
        return product_loss(Y, A, mu, g, delta, rho) @ w

    return _index(loss_pi, loss_mu, sum_chunks(second, chunks))


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
    loss_pi = log_loss(jnp.clip(c["pi"], *clip.pi), Z[None]) @ weights
    every_mu = _at_z(Z[None], (c["mu1"], c["mu0"]), clip)
    loss_mu = log_loss(every_mu, A[None]) @ weights
    mu = every_mu[jnp.argmin(loss_mu)]
    Y, A, mu = (v[None, None, None] for v in (Y, A, mu))
    g, delta = c["g"][:, :, None], c["delta"][None, :, None]
    rho = jnp.swapaxes(c["rho"], 0, 1)[None]
    return _index(loss_pi, loss_mu, product_loss(Y, A, mu, g, delta, rho) @ weights)


def _at_z(Z, arms, clip):
    """Clipped P(A=1|Z,X) at the observed Z."""
    one, zero = clip_arms(arms[0], arms[1], clip)
    return jnp.where(Z > 0.5, one, zero)
