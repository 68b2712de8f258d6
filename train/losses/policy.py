"""Policy-gradient losses of completions with one advantage each: GRPO and relatives, RLOO.

The value of a surrogate right after sampling is about zero (the ratio is one and advantages add up
to zero within a group) while its gradient is not: follow rewards, divergence and entropy instead.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from jaxcore.errors import UserError
from jaxcore.train.losses.sequences import (
    clamped_exp,
    kept,
    masked,
    sequence_mean,
    sequence_sum,
    token_log_ratio,
)
from jaxcore.train.step import Mean

KINDS = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "gspo")
Estimator = Literal["k1", "k2", "k3"]


def kl_estimator(
    logps: Float[Array, "b t"],
    reference: Float[Array, "b t"],
    mask: Shaped[Array, "b t"],
    kind: Estimator = "k3",
) -> Float[Array, "b t"]:
    """Estimates per token of the divergence policy || reference, on samples of the policy.

    ``k1`` is the log-ratio, ``k2`` half its square, ``k3`` (never negative) exp(-k1) - 1 + k1.

    All have the same mean, or nearly; their gradients have not. In a loss, that of ``k3`` is the
    gradient of reference || policy: a token that the reference never writes costs no more than
    its weight, however unlikely it is, which does not keep a policy from writing what the reference
    would not. With the log-ratio in the reward (`kl_in_reward`) it costs ever more.

    References:
      Schulman (2020), Approximating KL divergence.

    >>> import jax.numpy as jnp
    >>> one = jnp.ones((1, 1))
    >>> [round(float(kl_estimator(-one, -2 * one, one, k)[0, 0]), 4) for k in ("k1", "k2", "k3")]
    [1.0, 0.5, 0.3679]
    """
    keep = kept(mask)
    k1 = token_log_ratio(logps, reference, keep)
    if kind == "k1":
        return k1
    if kind == "k2":
        return 0.5 * k1**2
    if kind != "k3":
        raise UserError(f"Expected an estimator 'k1', 'k2' or 'k3', found {kind!r}.")
    return masked(clamped_exp(-k1) + k1 - 1, keep)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surrogate:
    """Which surrogate of the policy gradient, and its settings.

    ``kind`` says how tokens are averaged: "grpo" over each completion, then over completions;
    "bnpo" over the tokens of the batch given; "dr_grpo" divides the sum by completions times
    ``max_tokens``; "dapo" by all tokens, over devices and micro-batches; "cispo" averages as "dapo"
    and clips the weight of the gradient instead of the surrogate; "gspo" averages as "grpo" and has
    one ratio for each completion.
    """

    kind: str = "grpo"
    eps_low: float = 0.2  # the ratio is clipped to [1 - eps_low, 1 + eps_high]
    eps_high: float = 0.2
    delta: float | None = None  # largest ratio on the side that is not clipped
    cispo_max: float = 1.28  # largest weight of "cispo"
    beta: float = 0.0  # weight of the divergence from the reference (k3)
    max_tokens: int | None = None  # of "dr_grpo"; None: the length of the arrays

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"Expected a surrogate among {', '.join(KINDS)}, found {self.kind!r}.")
        if not (0 <= self.eps_low <= 1 and self.eps_high >= 0):
            raise UserError(
                "Expected eps_low in [0, 1] and eps_high of at least 0, found "
                f"{self.eps_low} and {self.eps_high}."
            )
        if self.delta is not None and self.delta <= 1 + self.eps_high:
            raise UserError(
                f"Expected delta above 1 + eps_high = {1 + self.eps_high:g}, found {self.delta}."
            )


class PolicyLoss(NamedTuple):
    """A surrogate and what to follow while it is trained; all as means in two parts."""

    mean: Mean
    kl: Mean  # of the tokens, k3; of weight 0 without a reference
    clipped: Mean  # share of tokens whose gradient the clipping stops
    tokens: Mean  # per completion


def policy_loss(
    logps: Float[Array, "b t"],
    old: Float[Array, "b t"],
    advantages: Float[Array, " b"],
    mask: Shaped[Array, "b t"],
    settings: Surrogate = Surrogate(),
    *,
    reference: Float[Array, "b t"] | None = None,
) -> PolicyLoss:
    """Surrogate of GRPO and its relatives.

    Args:
      logps: log-probabilities of the sampled tokens by the policy.
      old: by the policy that sampled them; the stopped ``logps`` on the first update.
      advantages: of each completion.
      mask: true at tokens that count; leave out completions cut short here.
      settings: which surrogate.
      reference: log-probabilities by the frozen reference, for ``beta``.

    Raises:
      UserError: ``beta`` without a reference.

    References:
      Shao et al. (2024), GRPO; Liu et al. (2025), Dr. GRPO; Yu et al. (2025), DAPO; Zheng et al.
      (2025), GSPO; MiniMax (2025), CISPO.
    """
    keep, s = kept(mask), settings
    lp, old = masked(logps, keep), jax.lax.stop_gradient(masked(old, keep))
    a = jax.lax.stop_gradient(advantages.astype(lp.dtype))[:, None]
    log_ratio = lp - old
    if s.kind == "gspo":
        log_ratio = jnp.broadcast_to(sequence_mean(log_ratio, keep)[:, None], lp.shape)
    ratio = clamped_exp(log_ratio)
    high = (ratio > 1 + s.eps_high) & (a > 0)
    low = (ratio < 1 - s.eps_low) & (a < 0)
    if s.kind == "cispo":
        high, low = ratio > s.cispo_max, jnp.zeros_like(low)
        loss = -jax.lax.stop_gradient(jnp.minimum(ratio, s.cispo_max)) * a * lp
    else:
        free = ratio if s.delta is None else jnp.minimum(ratio, s.delta)
        loss = -jnp.minimum(free * a, jnp.clip(ratio, 1 - s.eps_low, 1 + s.eps_high) * a)
    kl = jnp.zeros_like(lp)
    if reference is not None:
        kl = kl_estimator(lp, jax.lax.stop_gradient(reference), keep)
        loss = loss + s.beta * kl
    elif s.beta:
        raise UserError(
            f"Expected log-probabilities of a reference with beta={s.beta}, found none."
        )
    weights = keep.astype(lp.dtype)
    none = jnp.zeros_like(weights) if reference is None else weights
    return PolicyLoss(
        aggregate(loss, keep, s),
        jax.lax.stop_gradient(Mean.of(kl, none)),
        Mean.of((high | low).astype(lp.dtype), weights),
        Mean.of(jnp.sum(weights, axis=1)),
    )


def aggregate(loss: Float[Array, "b t"], mask: Bool[Array, "b t"], settings: Surrogate) -> Mean:
    """The mean over tokens that `Surrogate` describes, in two parts."""
    loss = masked(loss, mask)
    b, t = mask.shape
    if settings.kind in ("grpo", "gspo"):
        return Mean.of(sequence_mean(loss, mask))
    if settings.kind == "dr_grpo":
        return Mean(jnp.sum(loss), jnp.asarray(float(b * (settings.max_tokens or t)), loss.dtype))
    tokens = jnp.sum(mask, dtype=loss.dtype)
    if settings.kind == "bnpo":
        return Mean(jnp.sum(loss) / jnp.maximum(tokens, 1), jnp.ones((), loss.dtype))
    return Mean(jnp.sum(loss), tokens)


def rloo_loss(
    logps: Float[Array, "b t"],
    old: Float[Array, "b t"],
    advantages: Float[Array, " b"],
    mask: Shaped[Array, "b t"],
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
) -> Mean:
    """Surrogate with one clipped ratio for each whole completion; the divergence is in the reward.

    See `kl_in_reward`; arguments as in `policy_loss`.

    References:
      Ahmadian et al. (2024), Back to basics.
    """
    keep = kept(mask)
    log_ratio = sequence_sum(token_log_ratio(logps, jax.lax.stop_gradient(old), keep), keep)
    ratio, a = clamped_exp(log_ratio), jax.lax.stop_gradient(advantages).astype(log_ratio.dtype)
    return Mean.of(-jnp.minimum(ratio * a, jnp.clip(ratio, 1 - eps_low, 1 + eps_high) * a))


def reinforce_loss(
    logps: Float[Array, "b t"], advantages: Float[Array, " b"], mask: Shaped[Array, "b t"]
) -> Mean:
    """Mean over completions of minus advantage times log-probability of the completion.

    References:
      Williams (1992).

    >>> import jax.numpy as jnp
    >>> float(reinforce_loss(jnp.array([[-1.0, -2.0]]), jnp.ones(1), jnp.ones((1, 2))).value())
    3.0
    """
    total = sequence_sum(logps, kept(mask))
    return Mean.of(-jax.lax.stop_gradient(advantages).astype(total.dtype) * total)


def kl_in_reward(
    rewards: Float[Array, " b"],
    old: Float[Array, "b t"],
    reference: Float[Array, "b t"],
    mask: Shaped[Array, "b t"],
    beta: float = 0.05,
) -> Float[Array, " b"]:
    """Rewards less ``beta`` times the summed log-ratio of the sampling policy to the reference."""
    keep = kept(mask)
    apart = sequence_sum(token_log_ratio(old, reference, keep), keep)
    return rewards.astype(apart.dtype) - beta * apart
