"""Proximal policy optimisation with a value per token: rewards, advantages, both losses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxcore.train.losses.sequences import clamped_exp, kept, masked, token_log_ratio
from jaxcore.train.step import Mean


class Advantages(NamedTuple):
    """Of every token; zero where masked."""

    advantages: Float[Array, "b t"]
    returns: Float[Array, "b t"]  # what the values are trained on


def shaped_rewards(
    scores: Float[Array, " b"],
    old: Float[Array, "b t"],
    reference: Float[Array, "b t"],
    mask: Shaped[Array, "b t"],
    *,
    kl_coef: float = 0.05,
) -> Float[Array, "b t"]:
    """Rewards per token: the divergence from the reference, and the score at the last token.

    An empty completion has no token to carry its score.

    >>> import jax.numpy as jnp
    >>> zero, mask = jnp.zeros((1, 3)), jnp.array([[1, 1, 0]])
    >>> shaped_rewards(jnp.ones(1), zero, zero, mask).tolist()
    [[0.0, 1.0, 0.0]]
    """
    keep = kept(mask)
    penalty = -kl_coef * token_log_ratio(old, reference, keep)
    after = jnp.cumsum(keep[:, ::-1], axis=1, dtype=jnp.int32)[:, ::-1]  # tokens from here on
    last = keep & (after == 1)
    return penalty + jnp.where(last, scores.astype(penalty.dtype)[:, None], 0)


def gae(
    rewards: Float[Array, "b t"],
    values: Float[Array, "b t"],
    mask: Shaped[Array, "b t"],
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> Advantages:
    """Generalised advantage estimation over the tokens of each completion.

    After the last token the value is zero; what is masked is passed over, in the midst of a
    completion as well.

    Args:
      rewards: per token.
      values: per token, of the network that sampled.
      mask: true at tokens of the completion.
      gamma: discount.
      lam: weight of longer horizons, in [0, 1].

    References:
      Schulman et al. (2016), High-dimensional continuous control using GAE, equation 16.
    """
    keep = kept(mask)
    rewards, values = masked(rewards, keep), masked(values, keep)

    def back(carry: tuple[Array, Array], now: tuple[Array, Array, Array]) -> tuple:
        (after, value_after), (reward, value, there) = carry, now
        own = reward + gamma * value_after - value + gamma * lam * after
        carry = jnp.where(there, own, after), jnp.where(there, value, value_after)
        return carry, jnp.where(there, own, 0)

    start = jnp.zeros_like(rewards[:, 0])
    steps = (rewards.T, values.T, keep.T)
    advantages = jax.lax.scan(back, (start, start), steps, reverse=True)[1].T
    return Advantages(advantages, masked(advantages + values, keep))


def whiten(x: Float[Array, "b t"], mask: Shaped[Array, "b t"]) -> Float[Array, "b t"]:
    """Mean zero and variance one (ddof 1) over the tokens that count; zero elsewhere.

    >>> import jax.numpy as jnp
    >>> whiten(jnp.array([[2.0, 2.0, 9.0]]), jnp.array([[1, 1, 0]])).tolist()
    [[0.0, 0.0, 0.0]]
    """
    keep = kept(mask)
    x = masked(x, keep)
    n = jnp.sum(keep, dtype=x.dtype)
    apart = masked(x - jnp.sum(x) / jnp.maximum(n, 1), keep)
    variance = jnp.sum(apart**2) / jnp.maximum(n - 1, 1)
    return apart / jnp.sqrt(variance + 1e-8)


def ppo_policy(
    logps: Float[Array, "b t"],
    old: Float[Array, "b t"],
    advantages: Float[Array, "b t"],
    mask: Shaped[Array, "b t"],
    *,
    clip: float = 0.2,
    dual_clip: float | None = None,
) -> Mean:
    """Clipped surrogate, a mean over tokens.

    Args:
      logps: log-probabilities of the sampled tokens by the policy.
      old: by the policy that sampled them.
      advantages: per token, whitened.
      mask: true at tokens of the completion.
      clip: the ratio is clipped to [1 - clip, 1 + clip].
      dual_clip: c > 1: where the advantage A is negative, the loss is at most -c A.

    References:
      Schulman et al. (2017), PPO, equation 7; dual clip: Ye et al. (2020), equation 5.
    """
    keep = kept(mask)
    ratio = clamped_exp(token_log_ratio(logps, jax.lax.stop_gradient(old), keep))
    a = jax.lax.stop_gradient(masked(advantages, keep)).astype(ratio.dtype)
    loss = jnp.maximum(-ratio * a, -jnp.clip(ratio, 1 - clip, 1 + clip) * a)
    if dual_clip is not None:
        loss = jnp.where(a < 0, jnp.minimum(loss, -dual_clip * a), loss)
    return Mean.of(loss, keep.astype(loss.dtype))


def ppo_value(
    values: Float[Array, "b t"],
    old_values: Float[Array, "b t"],
    returns: Float[Array, "b t"],
    mask: Shaped[Array, "b t"],
    *,
    clip: float = 0.2,
) -> Mean:
    """Half the larger squared error of the values and of the values clipped around the old ones."""
    keep = kept(mask)
    values = masked(values, keep)
    old, returns = jax.lax.stop_gradient((masked(old_values, keep), masked(returns, keep)))
    near = jnp.clip(values, old - clip, old + clip)
    loss = 0.5 * jnp.maximum((values - returns) ** 2, (near - returns) ** 2)
    return Mean.of(loss, keep.astype(loss.dtype))
