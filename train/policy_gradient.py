"""From scored completions to what a policy descends: GRPO and relatives, RLOO, REINFORCE, PPO.

Two pure functions with a batch between them: `targets` compares the completions of a whole batch
with each other, once, after they were sampled; `loss` is that of any part of the batch, as often as
it is updated on.
"""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcore.bounds import Above, AtLeast, AtMost, OneOf, Positive
from jaxcore.serial import Serial
from jaxcore.train.losses import advantages, policy, ppo
from jaxcore.train.losses.advantages import Rewards, Scale
from jaxcore.train.losses.policy import Surrogate
from jaxcore.train.losses.sequences import kept, sequence_sum, token_log_ratio
from jaxcore.train.rollouts import Rollout
from jaxcore.train.step import Loss, Mean
from jaxcore.typing import Batch

ALGORITHMS = (*policy.KINDS, "rloo", "reinforce", "ppo")
Share = Annotated[float, AtLeast(0), AtMost(1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyGradient(Serial):
    """Which algorithm, and its settings.

    "grpo", "bnpo", "dr_grpo", "dapo", "cispo" and "gspo" are the surrogates of
    `jaxcore.train.losses.policy.Surrogate`, with advantages within the group of a prompt and the
    divergence from the reference in the loss; "rloo" and "reinforce" compare a completion with the
    others of its prompt and have the divergence in the reward; so has "ppo", with a value per
    token.

    >>> PolicyGradient(algorithm="rloo").before_update, PolicyGradient().before_update
    (True, False)
    """

    algorithm: Annotated[str, OneOf(ALGORITHMS)] = "grpo"
    beta: Annotated[float, AtLeast(0)] = 0.04  # weight of the divergence from the reference
    eps_low: Share = 0.2  # the ratio is clipped to [1 - eps_low, 1 + eps_high]
    eps_high: Annotated[float, AtLeast(0)] = 0.2
    delta: float | None = None  # largest ratio on the side that is not clipped
    cispo_max: Positive = 1.28  # largest weight of "cispo"
    scale: Scale = "group"  # what advantages within a group are divided by: its deviation, ...
    normalize: bool = False  # advantages of rloo and reinforce over the batch
    gamma: Share = 1.0  # ppo: discount of a token
    lam: Share = 0.95  # ppo: weight of longer horizons
    value_coef: Annotated[float, AtLeast(0)] = 0.1  # ppo: weight of the loss of the values
    value_clip: Positive = 0.2  # ppo: how far values may move from those that were sampled with
    dual_clip: Annotated[float, Above(1)] | None = None  # ppo: limit where advantages are negative
    # of completions without an end: one less than the lowest reward of the batch; left out of the
    # loss; or rewarded as they are
    truncated: Literal["penalise", "mask", "keep"] = "penalise"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.surrogate  # its own limits

    @property
    def surrogate(self) -> Surrogate:
        """Settings of the loss of GRPO and its relatives."""
        kind = self.algorithm if self.algorithm in policy.KINDS else "grpo"
        own = {name: getattr(self, name) for name in ("eps_low", "eps_high", "delta", "cispo_max")}
        return Surrogate(kind=kind, beta=self.beta, **own)

    @property
    def valued(self) -> bool:
        """Whether there is a value per token."""
        return self.algorithm == "ppo"

    @property
    def before_update(self) -> bool:
        """Whether log-probabilities are needed before the first update on a batch."""
        return self.valued or (self.algorithm in ("rloo", "reinforce") and self.beta > 0)


def counted(rollout: Rollout, rewards: Rewards, settings: PolicyGradient) -> Bool[Array, "b n"]:
    """Tokens that count: those of completions with a reward, and with an end if that is asked."""
    there = rewards.valid
    if settings.truncated == "mask":
        there = there & rollout.ended
    return rollout.mask & there[:, None]


def final_rewards(
    rollout: Rollout, rewards: Rewards, settings: PolicyGradient
) -> Float[Array, " b"]:
    """Rewards with the price of a missing end.

    >>> import jax.numpy as jnp
    >>> none = jnp.zeros((2, 0))
    >>> two = Rollout(none, none > 0, none, none > 0, none, none, jnp.array([True, False]))
    >>> rewards = Rewards(jnp.array([0.5, 9.0]), jnp.array([True, True]))
    >>> final_rewards(two, rewards, PolicyGradient()).tolist()
    [0.5, -0.5]
    """
    if settings.truncated != "penalise":
        return rewards.total
    known = rewards.valid & rollout.ended
    known = jnp.where(jnp.any(known), known, rewards.valid)
    least = jnp.min(jnp.where(known, rewards.total, jnp.inf))
    least = jnp.where(jnp.isfinite(least), least, 0)
    return jnp.where(rollout.ended | ~rewards.valid, rewards.total, least - 1)


def targets(
    rollout: Rollout,
    rewards: Rewards,
    settings: PolicyGradient,
    *,
    group: int,
    old: Float[Array, "b n"] | None = None,
    reference: Float[Array, "b n"] | None = None,
    values: Float[Array, "b n"] | None = None,
) -> Batch:
    """What the updates on a batch of completions need, besides their tokens.

    Args:
      rollout: groups of completions, one after the other.
      rewards: of each completion.
      settings: which algorithm.
      group: completions of each prompt.
      old: log-probabilities of the tokens before the first update.
      reference: log-probabilities by the reference, where ``beta`` is above 0.
      values: of each token, by a network that has values.

    Returns:
      Arrays with a row for each completion: ``mask``, ``advantages``, those of the arguments that
      the loss needs, and what is logged: ``reward``, ``rewarded``, ``ended``, ``equal`` (the
      rewards of its group are all equal, so that it teaches nothing).
    """
    mask = counted(rollout, rewards, settings)
    scores = final_rewards(rollout, rewards, settings)

    def by_group(x: Array) -> Array:
        return x.reshape(-1, group)

    equal = advantages.zero_variance(by_group(scores), by_group(rewards.valid))
    out: dict[str, Any] = {
        "mask": mask,
        "reward": rewards.total,
        "rewarded": rewards.valid,
        "ended": rollout.ended,
        "equal": jnp.repeat(equal, group),
    }
    if old is not None:
        out["old"] = old
    if reference is not None:
        out["reference"] = reference
    if settings.algorithm == "ppo":
        assert old is not None and values is not None
        base = old if reference is None else reference
        earned = ppo.shaped_rewards(scores, old, base, mask, kl_coef=settings.beta)
        found = ppo.gae(earned, values, mask, gamma=settings.gamma, lam=settings.lam)
        own = ppo.whiten(found.advantages, mask)
        return out | {"advantages": own, "returns": found.returns, "values": values}
    if settings.algorithm in ("rloo", "reinforce"):
        if reference is not None and settings.beta:
            assert old is not None
            scores = policy.kl_in_reward(scores, old, reference, mask, settings.beta)
        found = advantages.rloo(
            by_group(scores), normalize=settings.normalize, valid=by_group(rewards.valid)
        )
    else:
        found = advantages.group(
            by_group(scores), scale=settings.scale, valid=by_group(rewards.valid)
        )
    return out | {"advantages": found.reshape(-1)}


def loss(
    logps: Float[Array, "b n"],
    batch: Batch,
    settings: PolicyGradient,
    values: Float[Array, "b n"] | None = None,
) -> Loss:
    """Loss of a part of a batch, and what to follow.

    The value of the surrogate is about zero right after sampling; look at the metrics instead:
    reward, divergence from the reference, entropy.

    Args:
      logps: log-probabilities of the tokens of the completions by the policy.
      batch: of `targets`.
      settings: which algorithm.
      values: of the tokens, for "ppo".
    """
    mask = jnp.asarray(batch["mask"])
    own = jnp.asarray(batch["advantages"])
    old = batch.get("old")
    old = jax.lax.stop_gradient(logps) if old is None else jnp.asarray(old)
    reference = batch.get("reference")
    metrics = _followed(logps, batch, None if reference is None else jnp.asarray(reference))
    clip = {"eps_low": settings.eps_low, "eps_high": settings.eps_high}
    match settings.algorithm:
        case "rloo":
            mean = policy.rloo_loss(logps, old, own, mask, **clip)
        case "reinforce":
            mean = policy.reinforce_loss(logps, own, mask)
        case "ppo":
            assert values is not None
            mean = ppo.ppo_policy(
                logps, old, own, mask, clip=settings.eps_low, dual_clip=settings.dual_clip
            )
            wanted = jnp.asarray(batch["values"]), jnp.asarray(batch["returns"])
            value = ppo.ppo_value(values, *wanted, mask, clip=settings.value_clip)
            metrics["value_loss"] = jax.lax.stop_gradient(value)
            mean = Mean(mean.total + settings.value_coef * value.total, mean.weight)
        case _:
            with_reference = reference if settings.beta else None
            found = policy.policy_loss(
                logps, old, own, mask, settings.surrogate, reference=with_reference
            )
            mean, metrics["clipped"] = found.mean, found.clipped
    return Loss(*mean, metrics=metrics)


def _followed(
    logps: Float[Array, "b n"], batch: Batch, reference: Float[Array, "b n"] | None
) -> dict[str, Mean]:
    mask = kept(jnp.asarray(batch["mask"]))
    logps = jax.lax.stop_gradient(logps)
    counts, there = mask.astype(jnp.float32), jnp.any(mask, axis=1).astype(jnp.float32)
    rewarded = jnp.asarray(batch["rewarded"]).astype(jnp.float32)
    ones = jnp.ones_like(rewarded)
    out = {
        "reward": Mean.of(jnp.asarray(batch["reward"]), rewarded),
        "unrewarded": Mean.of(1 - rewarded, ones),
        "truncated": Mean.of(1 - jnp.asarray(batch["ended"]).astype(jnp.float32), ones),
        "equal_groups": Mean.of(jnp.asarray(batch["equal"]).astype(jnp.float32), ones),
        "tokens": Mean.of(jnp.sum(counts, axis=1), there),
        "entropy": Mean.of(-logps, counts),  # estimated by the tokens that were drawn
    }
    if reference is not None:
        for kind in ("k1", "k2", "k3"):
            out[f"kl_{kind}"] = Mean.of(policy.kl_estimator(logps, reference, mask, kind), counts)
        apart = sequence_sum(token_log_ratio(logps, reference, mask), mask)
        out["kl"] = Mean.of(apart, there)  # of whole completions
    return out
