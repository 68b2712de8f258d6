"""Cross-fitting of arbitrary learners, in the order pi, mu, m; delta; g; rho.

Everything is held as "the world of fold s": an array [fold, unit] whose row ``s`` has, for units
of fold ``s``, the prediction of the fit on all other folds, and for the training units an inner
out-of-sample prediction, so that later steps never train on overfitted inputs.

The sequence is this library's own design.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.estimators.crossfit import own_fold, training_masks
from jaxcore.estimators.influence import multiply_robust_signal
from jaxcore.estimators.nuisance.base import Learner, fit_predict_find, static
from jaxcore.estimators.nuisance.basis import Basis, Polynomial
from jaxcore.estimators.nuisance.findings import together
from jaxcore.estimators.nuisance.host import HostLearner
from jaxcore.estimators.nuisance.losses import log_loss
from jaxcore.estimators.nuisance.penalised import solve_positive
from jaxcore.estimators.selective_iv.moment import Clip, clip_arms, variance_contrast
from jaxcore.typing import Key

World = Float[Array, "k n"]
_Notes: TypeAlias = list[dict[str, np.ndarray]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class VaryingCoefficient:
    """delta from the regression of (A-mu)(Y-m) on [rho basis, delta basis times Var(A|Z,X)].

    A learner for the block delta only.
    """

    alpha: float = 1e-3  # ridge penalty relative to the mean squared column
    basis: Basis = static(Polynomial(degree=1))
    rho_basis: Basis = static(Polynomial(degree=1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlugIn:
    """delta as the ratio of differences in covariance and variance; unstable, for comparison.

    A learner for the block delta only.
    """

    learner: Learner | HostLearner  # regression of (A-mu)(Y-m) on X within each arm of Z


class Pilot(NamedTuple):
    """Best first-step fits of every fold's world."""

    pi: World
    mu1: World
    mu0: World
    m: World  # at the observed Z


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Frame:
    """Data and weights common to all steps."""

    Y: Any
    A: Any
    Z: Any
    X: Any
    known: Any  # X with means where it is missing, for regressions on bases
    fold_ids: Any
    n_folds: int = dataclasses.field(metadata={"static": True})
    outer: Any  # training weights, [fold, unit]
    inner: Any  # training weights of the inner halves, [fold, half, unit]
    half: Any  # inner half of each unit
    clip: Clip = dataclasses.field(metadata={"static": True})
    key: Any


def _world(
    f: _Frame,
    learner: Learner | HostLearner,
    X: Float[Array, "n p"],
    y: Float[Array, "*k n"],
    at: Sequence[Float[Array, "n p"]],
    step: int,
    notes: _Notes,
    within: Float[Array, " n"] | None = None,
) -> Float[Array, "e k n"]:
    """Worlds of predictions at each feature array in ``at``; ``within`` restricts training.

    What the fits of the folds found out is put to ``notes``.
    """
    masks, y = _fits(f, y, within)
    key = jax.random.fold_in(f.key, step)
    out, found = fit_predict_find(learner, X, y, masks, at, key=key)
    notes.append({name: np.asarray(v)[: f.n_folds] for name, v in found.items()})
    return _assembled(f, out)


@jax.jit
def _fits(
    f: _Frame, y: Float[Array, "*k n"], within: Float[Array, " n"] | None
) -> tuple[Array, Array]:
    """Training weights of every fold and of its inner halves, and the target of each fit."""
    masks = jnp.concatenate([f.outer, f.inner.reshape(-1, f.inner.shape[-1])])
    if within is not None:
        masks = masks * within[None]
    return masks, y if y.ndim == 1 else jnp.concatenate([y, jnp.repeat(y, 2, axis=0)])


@jax.jit
def _assembled(f: _Frame, out: Float[Array, "fits e n"]) -> Float[Array, "e k n"]:
    """From predictions of all fits to worlds."""
    out = jnp.swapaxes(out, 0, 1)
    full, halves = out[:, : f.n_folds], out[:, f.n_folds :]
    halves = halves.reshape(out.shape[0], f.n_folds, 2, -1)
    inside = jnp.where(f.half[None, None] == 0, halves[:, :, 0], halves[:, :, 1])
    own = f.fold_ids[None] == jnp.arange(f.n_folds, dtype=f.fold_ids.dtype)[:, None]
    return jnp.where(own[None], full, inside)


def _by_arm(
    f: _Frame, learner: Learner | HostLearner, y: Float[Array, "*k n"], step: int, notes: _Notes
) -> tuple[World, World]:
    """Predictions with Z set to 1 and to 0: Z as a feature, or one fit per arm on a basis."""
    if f.clip.one_sided:
        one = _world(f, learner, f.X, y, (f.X,), step, notes, f.Z)[0]
        return one, jnp.zeros_like(one)
    if learner.per_arm:
        one = _world(f, learner, f.X, y, (f.X,), step, notes, f.Z)[0]
        return one, _world(f, learner, f.X, y, (f.X,), step + 1, notes, 1 - f.Z)[0]
    n = f.X.shape[0]
    with_z = [jnp.concatenate([jnp.full((n, 1), z, f.X.dtype), f.X], axis=1) for z in (1.0, 0.0)]
    X = jnp.concatenate([f.Z[:, None], f.X], axis=1)
    both = _world(f, learner, X, y, with_z, step, notes)
    return both[0], both[1]


def _best(f: _Frame, losses: Float[Array, "l k n"]) -> Int[Array, " k"]:
    """Learner with the smallest inner out-of-sample loss on each fold's training rows."""
    return jnp.argmin(jnp.sum(losses * f.outer[None], axis=2), axis=0)


def _take(worlds: Float[Array, "l k n"], best: Int[Array, " k"]) -> World:
    return jnp.take_along_axis(worlds, best[None, :, None], axis=0)[0]


def fit_learners(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    X: Float[Array, "n p"],
    learners: Mapping[str, Sequence[Any]],
    fold_ids: Int[Array, " n"],
    n_folds: int,
    *,
    clip: Clip,
    key: Key,
    weights: Float[Array, " n"] | None = None,
) -> tuple[dict[str, Array], dict[str, list[dict[str, np.ndarray]]]]:
    """Out-of-fold predictions of all learners of all blocks, and what these found out.

    Args:
      Y: outcome.
      A: treatment, 0 or 1.
      Z: instrument, 0 or 1.
      X: covariates.
      learners: for each of "pi", "mu", "m", "g", "delta", "rho" its candidates: classifiers for pi
        and mu, regressions else. "m" (E[Y|Z,X]) serves the first step only. A regression given
        for delta is used as a DR-learner; `VaryingCoefficient` and `PlugIn` are the others.
      fold_ids: fold of each unit.
      n_folds: number of folds.
      clip: bounds of pi, mu and D inside the fits.
      key: PRNG key.
      weights: observation weights.

    Returns:
      "pi", "mu1", "mu0", "delta" with axes [learner, unit] and "g", "rho" with axes
      [learner, delta learner, unit]; and for every block and learner what its fits found out
      (chosen settings and such, of both arms and all delta learners in one).
    """
    f = _frame(Y, A, Z, X, fold_ids, n_folds, clip, key, weights)
    notes: dict[str, list[_Notes]] = {b: [[] for _ in every] for b, every in learners.items()}
    pi = jnp.stack(
        [_world(f, l, X, Z, (X,), 10 + i, notes["pi"][i])[0] for i, l in enumerate(learners["pi"])]
    )
    mu = [_by_arm(f, l, A, 100 + 2 * i, notes["mu"][i]) for i, l in enumerate(learners["mu"])]
    m = [_by_arm(f, l, Y, 200 + 2 * i, notes["m"][i]) for i, l in enumerate(learners["m"])]
    mu1, mu0 = (jnp.stack([x[j] for x in mu]) for j in (0, 1))
    pilot = _pilot(f, pi, mu1, mu0, jnp.stack([_at_z(f, *x) for x in m]))
    first = _varying(f, VaryingCoefficient(), pilot)
    delta, g, rho = [], [], []
    for i, learner in enumerate(learners["delta"]):
        d = _delta(f, learner, pilot, first, 300 + 10 * i, notes["delta"][i])
        target = Y[None] - d * A[None]
        g_all = jnp.stack(
            [
                _at_z(f, *_by_arm(f, l, target, 1000 + 100 * i + 2 * j, notes["g"][j]))
                for j, l in enumerate(learners["g"])
            ]
        )
        delta.append(d)
        g.append(g_all)
        product = _product(f, pilot, target, g_all)
        rho.append(_rho(f, learners["rho"], product, 5000 + 100 * i, notes["rho"]))
    out = {"pi": pi, "mu1": mu1, "mu0": mu0, "delta": jnp.stack(delta)}
    out |= {"g": jnp.stack(g, axis=1), "rho": jnp.stack(rho, axis=1)}
    found = {b: [together(one) for one in every] for b, every in notes.items()}
    return {k: own_fold(jnp.moveaxis(v, -2, 0), fold_ids) for k, v in out.items()}, found


def _frame(
    Y: Float[Array, " n"],
    A: Float[Array, " n"],
    Z: Float[Array, " n"],
    X: Float[Array, "n p"],
    fold_ids: Int[Array, " n"],
    n_folds: int,
    clip: Clip,
    key: Key,
    weights: Float[Array, " n"] | None,
) -> _Frame:
    outer = training_masks(fold_ids, n_folds, weights=weights, dtype=Y.dtype)
    half = jax.random.permutation(jax.random.fold_in(key, 0), Y.shape[0]) % 2
    keep = jnp.stack([half != 0, half != 1]).astype(Y.dtype)  # the half that is predicted is out
    return _Frame(
        Y=Y,
        A=A,
        Z=Z,
        X=X,
        known=_known(X),
        fold_ids=fold_ids,
        n_folds=n_folds,
        outer=outer,
        inner=outer[:, None] * keep[None],
        half=half,
        clip=clip,
        key=key,
    )


def _known(X: Any) -> Any:
    """Missing covariates at the mean of the others."""
    holes = np.isnan(X)
    return np.where(holes, np.nanmean(X, axis=0), X) if holes.any() else X


def _at_z(f: _Frame, one: Array, zero: Array) -> Array:
    return (
        jnp.where(f.Z > 0.5, one, zero) if one.ndim == 1 else jnp.where(f.Z[None] > 0.5, one, zero)
    )


@jax.jit
def _pilot(
    f: _Frame,
    pi: Float[Array, "l k n"],
    mu1: Float[Array, "l k n"],
    mu0: Float[Array, "l k n"],
    m: Float[Array, "l k n"],
) -> Pilot:
    at_z = jnp.where(f.Z[None, None] > 0.5, mu1, mu0)
    arm = f.Z[None, None] if f.clip.one_sided else jnp.ones_like(f.Z)[None, None]
    b_pi = _best(f, log_loss(pi, f.Z[None, None]))
    b_mu = _best(f, arm * log_loss(at_z, f.A[None, None]))
    b_m = _best(f, arm * (m - f.Y[None, None]) ** 2)
    arms = clip_arms(_take(mu1, b_mu), _take(mu0, b_mu), f.clip)
    return Pilot(jnp.clip(_take(pi, b_pi), *f.clip.pi), *arms, _take(m, b_m))


@jax.jit
def _varying(f: _Frame, learner: VaryingCoefficient, pilot: Pilot) -> tuple[World, World]:
    """Delta and rho of the varying-coefficient regression, in every fold's world."""
    Bd = learner.basis.expand(learner.basis.prepare(f.known), f.known)
    Br = learner.rho_basis.expand(learner.rho_basis.prepare(f.known), f.known)
    mu = _at_z(f, pilot.mu1, pilot.mu0)
    product = (f.A[None] - mu) * (f.Y[None] - pilot.m)
    variance = mu * (1 - mu)

    def one(w: Array, v: Array, y: Array) -> tuple[Array, Array]:
        if f.clip.one_sided:
            w = w * f.Z
        design = Bd * v[:, None] if f.clip.one_sided else jnp.concatenate([Br, Bd * v[:, None]], 1)
        w = w / jnp.sum(w)
        gram = (design * w[:, None]).T @ design
        x = solve_positive(gram + learner.alpha * jnp.diag(jnp.diagonal(gram)), design.T @ (w * y))
        if f.clip.one_sided:
            return Bd @ x, jnp.zeros_like(y)
        return Bd @ x[Br.shape[1] :], Br @ x[: Br.shape[1]]

    return jax.vmap(one)(f.outer, variance, product)


def _delta(
    f: _Frame,
    learner: Learner | HostLearner | VaryingCoefficient | PlugIn,
    pilot: Pilot,
    first: tuple[World, World],
    step: int,
    notes: _Notes,
) -> World:
    if isinstance(learner, VaryingCoefficient):
        return _varying(f, learner, pilot)[0]
    d, product, u, weighted = _targets(f, pilot, first)
    if isinstance(learner, PlugIn):
        c1, c0 = _by_arm(f, learner.learner, product, step, notes)
        return (c1 - c0) / d
    return _world(weighted, learner, f.X, u, (f.X,), step, notes)[0]  # DR-learner


@jax.jit
def _targets(
    f: _Frame, pilot: Pilot, first: tuple[World, World]
) -> tuple[World, World, World, _Frame]:
    """D, the residual product, and what a DR-learner regresses on X: u with weights D^2."""
    d = variance_contrast(pilot.mu1, pilot.mu0, f.clip.min_abs_D)
    e = f.A[None] - _at_z(f, pilot.mu1, pilot.mu0)
    product = e * (f.Y[None] - pilot.m)
    delta, rho = first
    u = multiply_robust_signal(pilot.pi, f.Z[None], delta, product - rho - delta * e**2, d)
    weighted = dataclasses.replace(f, outer=f.outer * d**2, inner=f.inner * (d**2)[:, None])
    return d, product, u, weighted


@jax.jit
def _product(f: _Frame, pilot: Pilot, target: World, g_all: Float[Array, "l k n"]) -> World:
    """Residual of the treatment times that of the best g."""
    g_pilot = _take(g_all, _best(f, (target[None] - g_all) ** 2))
    return (f.A[None] - _at_z(f, pilot.mu1, pilot.mu0)) * (target - g_pilot)


def _rho(
    f: _Frame,
    learners: Sequence[Learner | HostLearner],
    product: World,
    step: int,
    notes: list[_Notes],
) -> Float[Array, "l k n"]:
    if f.clip.one_sided:
        return jnp.zeros((1, *product.shape), product.dtype)
    key = jax.random.fold_in(f.key, step)
    out = []
    for i, learner in enumerate(learners):
        k = jax.random.fold_in(key, i)
        values, found = fit_predict_find(learner, f.X, product, f.outer, (f.X,), key=k)
        out.append(values[:, 0])
        notes[i].append({name: np.asarray(v) for name, v in found.items()})
    return jnp.stack(out)
