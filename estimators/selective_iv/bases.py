"""Cross-fitting of basis learners: all combinations of bases from one set of cross-products.

pi and mu are ridge-penalised logistic regressions, mu on ``[B, Z B]``; delta, g and rho solve the
three linear equations of the parametric estimator on the training rows. Bases of all learners are
column masks of one matrix ``B``, so every combination is a masked system of the same size.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxcore.estimators import linear_algebra
from jaxcore.estimators.chunks import in_chunks, map_chunks, rows_at_once, sum_chunks
from jaxcore.estimators.crossfit import training_masks
from jaxcore.estimators.selective_iv import cv_loss
from jaxcore.estimators.selective_iv.moment import Clip, Nuisances, combination_moments
from jaxcore.estimators.selective_iv.probabilities import fit_probabilities


class BasisFits(NamedTuple):
    """Coefficients on ``B`` (or ``[B, Z B]``) of every fold and combination of learners."""

    pi: Float[Array, "k pi q"]
    mu: Float[Array, "k mu q2"]
    g: Float[Array, "k pi mu g delta rho q2"]
    delta: Float[Array, "k pi mu g delta rho q"]
    rho: Float[Array, "k pi mu g delta rho q"]
    converged_pi: Bool[Array, "k pi"]
    converged_mu: Bool[Array, "k mu"]


def with_instrument(B: Float[Array, "n q"], Z: Float[Array, " n"]) -> Float[Array, "n q2"]:
    """``[B, Z B]``."""
    return jnp.concatenate([B, Z[:, None] * B], axis=1)


@functools.partial(jax.jit, static_argnames=("n_folds", "clip"))
def fit_bases(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    B: Float[Array, "n q"],
    masks: Mapping[str, Float[Array, "l q"]],
    fold_ids: Int[Array, " n"],
    n_folds: int,
    *,
    ridge: float = 1e-3,
    clip: Clip,
    weights: Float[Array, " n"] | None = None,
) -> BasisFits:
    """Fit every learner of every block on the training rows of every fold.

    Args:
      Y: outcome.
      A: treatment, 0 or 1.
      Z: instrument, 0 or 1.
      B: all basis columns, the constant first.
      masks: for each block the columns its learners use.
      fold_ids: fold of each unit.
      n_folds: number of folds.
      ridge: penalty added to the mean log-likelihood (the constant is free).
      clip: bounds of pi and mu.
      weights: observation weights.
    """
    train = training_masks(fold_ids, n_folds, weights=weights, dtype=Y.dtype)
    train = train / jnp.sum(train, axis=1, keepdims=True)
    n_pi, n_mu = masks["pi"].shape[0], masks["mu"].shape[0]
    rows = rows_at_once(n_folds * max(n_pi * n_mu, n_pi + 2 * n_mu) * B.shape[1])
    found = fit_probabilities(
        A, Z, B, train, masks, ridge=ridge, rows=rows, one_sided=clip.one_sided
    )

    def fit(w: Array, pi: Array, mu: Array) -> tuple[Array, Array, Array]:
        if not clip.one_sided:
            return _fold(Y, A, Z, B, w, pi, mu, masks, clip, rows)
        return _one_sided_fold(Y, A, B, w * Z, masks, rows)

    g, delta, rho = jax.vmap(fit)(train, found.pi, found.mu)
    return BasisFits(found.pi, found.mu, g, delta, rho, found.converged_pi, found.converged_mu)


def _weighted_grams(
    V: Float[Array, "v n"], left: Float[Array, "n a"], right: Float[Array, "n b"]
) -> Float[Array, "v a b"]:
    """``left' diag(v) right`` for every row ``v`` of ``V``, as one matrix product."""
    lhs = (V.T[:, :, None] * left[:, None, :]).reshape(left.shape[0], -1)
    return (lhs.T @ right).reshape(V.shape[0], left.shape[1], right.shape[1])


def _fold(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    B: Float[Array, "n q"],
    w: Float[Array, " n"],
    pi: Float[Array, "pi q"],
    mu: Float[Array, "mu q2"],
    masks: Mapping[str, Float[Array, "l q"]],
    clip: Clip,
    rows: int,
) -> tuple[Array, Array, Array]:
    n_pi, n_mu, q = pi.shape[0], mu.shape[0], B.shape[1]

    def products(Y: Array, A: Array, Z: Array, B: Array, w: Array) -> tuple[Array, ...]:
        BZ = with_instrument(B, Z)
        wide = jnp.concatenate([BZ, A[:, None] * B, Y[:, None]], axis=1)  # n, 3q + 1
        h = Z[None] - jnp.clip(jax.nn.sigmoid(pi @ B.T), *clip.pi)
        e = A[None] - jnp.clip(jax.nn.sigmoid(mu @ BZ.T), *clip.mu)
        he = (h[:, None] * e[None]).reshape(n_pi * n_mu, -1)
        rows_both = _weighted_grams(w[None] * jnp.concatenate([he, e]), B, wide)
        return (
            (BZ * w[:, None]).T @ wide,
            rows_both[:-n_mu].reshape(n_pi, n_mu, q, -1),
            rows_both[-n_mu:],
            _weighted_grams(w[None] * h, B, B),
        )

    left, rows_delta, rows_rho, delta_rho = sum_chunks(products, in_chunks((Y, A, Z, B, w), rows))
    plain = left[:q, :q]  # B'wB

    def pair(of_delta: Array, of_rho: Array, of_both: Array) -> tuple[Array, Array, Array]:
        return _solve_all(left, of_delta, of_rho, of_both, plain, masks)

    per_mu = jax.vmap(pair, in_axes=(0, 0, None))
    return jax.vmap(per_mu, in_axes=(0, None, 0))(rows_delta, rows_rho, delta_rho)


def _solve_all(
    left: Float[Array, "q2 q3"],
    rows_delta: Float[Array, "q q3"],
    rows_rho: Float[Array, "q q3"],
    delta_rho: Float[Array, "q q"],
    plain: Float[Array, "q q"],
    masks: Mapping[str, Float[Array, "l q"]],
) -> tuple[Array, Array, Array]:
    """The joint system for every combination of the g, delta and rho bases.

    Unknowns and equations are both in the order [g (B, ZB), delta, rho].
    """
    q = plain.shape[0]
    zero = jnp.zeros((2 * q, q), plain.dtype)
    system = jnp.concatenate(
        [
            jnp.concatenate([left[:, :-1], zero], axis=1),
            jnp.concatenate([rows_delta[:, :-1], delta_rho], axis=1),
            jnp.concatenate([rows_rho[:, :-1], plain], axis=1),
        ]
    )
    right = jnp.concatenate([left[:, -1], rows_delta[:, -1], rows_rho[:, -1]])

    def solve(m_g: Array, m_d: Array, m_r: Array) -> tuple[Array, Array, Array]:
        m = jnp.concatenate([m_g, m_g, m_d, m_r])
        masked = system * m[:, None] * m[None] + jnp.diag(1 - m)
        x = linear_algebra.solve(masked, right * m)
        return x[: 2 * q], x[2 * q : 3 * q], x[3 * q :]

    over_rho = jax.vmap(solve, in_axes=(None, None, 0))
    over_delta = jax.vmap(over_rho, in_axes=(None, 0, None))
    return jax.vmap(over_delta, in_axes=(0, None, None))(masks["g"], masks["delta"], masks["rho"])


def _one_sided_fold(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    B: Float[Array, "n q"],
    w1: Float[Array, " n"],
    masks: Mapping[str, Float[Array, "l q"]],
    rows: int,
) -> tuple[Array, Array, Array]:
    """Delta and g1 by least squares of Y on [A B, B] among Z=1; rho = 0."""
    w1 = w1 / jnp.sum(w1)
    q, n_pi, n_mu = B.shape[1], masks["pi"].shape[0], masks["mu"].shape[0]

    def products(Y: Array, A: Array, B: Array, w1: Array) -> tuple[Array, ...]:
        both = jnp.concatenate([A[:, None] * B, B], axis=1)
        return (both * w1[:, None]).T @ both, both.T @ (w1 * Y)

    gram, right = sum_chunks(products, in_chunks((Y, A, B, w1), rows))

    def solve(m_g: Array, m_d: Array) -> tuple[Array, ...]:
        m = jnp.concatenate([m_d, m_g])
        masked = gram * m[:, None] * m[None] + jnp.diag(1 - m)
        x = linear_algebra.solve(masked, right * m)
        return jnp.concatenate([jnp.zeros(q, x.dtype), x[q:]]), x[:q]

    over_delta = jax.vmap(solve, in_axes=(None, 0))
    g, delta = jax.vmap(over_delta, in_axes=(0, None))(masks["g"], masks["delta"])

    def spread(x: Array) -> Array:
        return jnp.broadcast_to(
            x[None, None, :, :, None], (n_pi, n_mu, *x.shape[:2], 1, x.shape[2])
        )

    delta = spread(delta)
    return spread(g), delta, jnp.zeros_like(delta)


def own_predictors(
    fold: Int[Array, " n"], per_fold: Float[Array, "k *l q"]
) -> Callable[[Array, Array], Array]:
    """Function of coefficients [fold, ..., q] and a design: predictors of each row's own fold.

    Its results have the rows last. ``per_fold`` gives the number of folds and the type.
    """
    k = per_fold.shape[0]
    own = jax.nn.one_hot(fold, k, dtype=per_fold.dtype, axis=0)  # k, n

    def pick(coef: Array, design: Array) -> Array:
        flat = coef.reshape(k, -1, coef.shape[-1])
        out = jnp.einsum("kcq,nq->kcn", flat, design)
        return jnp.sum(out * own[:, None], axis=0).reshape(*coef.shape[1:-1], -1)

    return pick


def both_arms(
    mu: Float[Array, "k *l q2"],
    B: Float[Array, "n q"],
    pick: Callable[[Array, Array], Array],
    one_sided: bool,
) -> tuple[Float[Array, "*l n"], Float[Array, "*l n"]]:
    """P(A=1|Z=1,X) and P(A=1|Z=0,X) from coefficients and `own_predictors`."""
    q = B.shape[1]
    mu1 = jax.nn.sigmoid(pick(mu[..., :q] + mu[..., q:], B))
    return mu1, jnp.zeros_like(mu1) if one_sided else jax.nn.sigmoid(pick(mu[..., :q], B))


@functools.partial(jax.jit, static_argnames=("clip",))
def all_moments(
    fits: BasisFits,
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    B: Float[Array, "n q"],
    fold_ids: Int[Array, " n"],
    *,
    clip: Clip,
) -> Float[Array, "n pi mu g delta rho"]:
    """Out-of-fold moments ``u`` of every unit under every combination of learners."""
    found = _predictions(fits, Z, B, fold_ids, clip.one_sided)
    return combination_moments(Y, A, Z, **found, clip=clip)


def _predictions(
    fits: BasisFits, Z: Array, B: Array, fold_ids: Array, one_sided: bool
) -> dict[str, Array]:
    """Out-of-fold nuisances of all combinations, rows last."""
    pick = own_predictors(fold_ids, fits.pi)
    mu1, mu0 = both_arms(fits.mu, B, pick, one_sided)
    return {
        "pi": jax.nn.sigmoid(pick(fits.pi, B)),
        "mu1": mu1,
        "mu0": mu0,
        "g": pick(fits.g, with_instrument(B, Z)),
        "delta": pick(fits.delta, B),
        "rho": pick(fits.rho, B),
    }


class MomentSums(NamedTuple):
    """Weighted sums of the moments of all combinations, enough for estimates and errors."""

    weight: Float[Array, " k"]  # of every fold
    total: Float[Array, "k pi mu g delta rho"]  # sum of w u in every fold
    w2: Float[Array, ""]  # sums of w^2, w^2 u, w^2 u^2 over all units
    w2u: Float[Array, "pi mu g delta rho"]
    w2u2: Float[Array, "pi mu g delta rho"]
    loss_pi: Float[Array, " pi"]  # log-losses
    loss_mu: Float[Array, " mu"]


def moment_sums(
    fits: BasisFits,
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    B: Float[Array, "n q"],
    fold_ids: Int[Array, " n"],
    weights: Float[Array, " n"],
    *,
    clip: Clip,
) -> MomentSums:
    """Sums of `all_moments`, in chunks of rows: no array of units times combinations is kept."""
    k = fits.pi.shape[0]

    def sums(Y: Array, A: Array, Z: Array, B: Array, fold: Array, w: Array) -> MomentSums:
        found = _predictions(fits, Z, B, fold, clip.one_sided)
        u = combination_moments(Y, A, Z, **found, clip=clip)
        u = jnp.where((w > 0).reshape(-1, 1, 1, 1, 1, 1), u, 0)  # filled-up rows may be infinite
        flat = u.reshape(u.shape[0], -1)
        member = jax.nn.one_hot(fold, k, dtype=u.dtype, axis=0) * w[None]
        linear = jnp.concatenate([member, w[None] ** 2]) @ flat
        shape = u.shape[1:]
        return MomentSums(
            jnp.sum(member, axis=1),
            linear[:k].reshape(k, *shape),
            jnp.sum(w**2),
            linear[k].reshape(shape),
            (w**2 @ flat**2).reshape(shape),
            *cv_loss.log_losses(A, Z, found["pi"], found["mu1"], found["mu0"], w, clip=clip),
        )

    arrays = in_chunks((Y, A, Z, B, fold_ids, weights), moment_rows(fits))
    return sum_chunks(sums, arrays)


def moment_rows(fits: BasisFits) -> int:
    """Rows whose moments of all combinations fit into one chunk."""
    return rows_at_once(fits.pi.shape[0] * fits.g[0, ..., 0].size)


def choose_by_loss(
    fits: BasisFits,
    sums: MomentSums,
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    B: Float[Array, "n q"],
    fold_ids: Int[Array, " n"],
    weights: Float[Array, " n"],
    *,
    clip: Clip,
) -> Int[Array, "5"]:
    """The combination of smallest losses, see `cv_loss`; a second pass over the rows."""
    i, j = jnp.argmin(sums.loss_pi), jnp.argmin(sums.loss_mu)

    def losses(Y: Array, A: Array, Z: Array, B: Array, fold: Array, w: Array) -> Array:
        pick = own_predictors(fold, fits.pi)
        arms = both_arms(fits.mu[:, j], B, pick, clip.one_sided)
        mu = cv_loss.at_observed(Z, *arms, clip=clip)
        g = pick(fits.g[:, i, j], with_instrument(B, Z))
        delta, rho = pick(fits.delta[:, i, j], B), pick(fits.rho[:, i, j], B)
        Y, A, mu = (v[None, None, None] for v in (Y, A, mu))
        return cv_loss.product_loss(Y, A, mu, g, delta, rho) @ w

    chunks = in_chunks((Y, A, Z, B, fold_ids, weights), moment_rows(fits))
    return cv_loss.best_index(sums.loss_pi, sums.loss_mu, sum_chunks(losses, chunks))


def selected_nuisances(
    fits: BasisFits,
    Z: Float[Array, " n"],
    B: Float[Array, "n q"],
    fold_ids: Int[Array, " n"],
    index: Int[Array, "c 5"],
    *,
    one_sided: bool = False,
) -> Nuisances:
    """Out-of-fold nuisances, not clipped, of combinations ``[pi, mu, g, delta, rho]``."""
    q = B.shape[1]

    at = (slice(None), *index.T)
    mu, g = fits.mu[:, index[:, 1]], fits.g[at]
    coefs = jnp.stack(
        [
            fits.pi[:, index[:, 0]],
            mu[..., :q] + mu[..., q:],
            mu[..., :q],
            g[..., :q],
            g[..., q:],
            fits.delta[at],
            fits.rho[at],
        ]
    )
    coefs = jnp.swapaxes(coefs, 1, 2).reshape(-1, fits.pi.shape[0], q)  # nuisance and combination

    def own(B: Array, fold: Array) -> Array:  # rows first
        every = jnp.einsum("nq,ckq->nck", B, coefs)
        return jnp.take_along_axis(every, fold[:, None, None], axis=2)[:, :, 0]

    found = map_chunks(own, (B, fold_ids), rows_at_once(coefs.size // q)).T
    found = found.reshape(7, *index.shape[:1], -1)
    mu1, mu0 = jax.nn.sigmoid(found[1]), jax.nn.sigmoid(found[2])
    return Nuisances(
        pi=jax.nn.sigmoid(found[0]),
        mu1=mu1,
        mu0=jnp.zeros_like(mu1) if one_sided else mu0,
        g=found[3] + Z[None] * found[4],
        delta=found[5],
        rho=found[6],
    )
