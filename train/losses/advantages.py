"""Advantages of sampled completions: what each earned beyond its group."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcore.errors import UserError
from jaxcore.train.losses.sequences import masked, masked_std
from jaxcore.train.step import at_least_float32 as wide

Scale = Literal["group", "batch", "none"]


class Rewards(NamedTuple):
    """Rewards of several functions, added up."""

    total: Float[Array, "*n"]  # zero where no function gave a number
    valid: Bool[Array, "*n"]  # at least one did

    @property
    def dropped(self) -> Float[Array, ""]:
        """How many rows have no reward."""
        return jnp.sum(~self.valid)


def combined(each: Float[Array, "f *n"], weights: Float[Array, " f"] | None = None) -> Rewards:
    """Weighted sum of the rewards of several functions; a missing one (NaN) counts nothing.

    >>> import jax.numpy as jnp
    >>> found = combined(jnp.array([[1.0, jnp.nan], [2.0, jnp.nan]]))
    >>> found.total.tolist(), found.valid.tolist(), int(found.dropped)
    ([3.0, 0.0], [True, False], 1)
    """
    each = wide(each)
    w = jnp.ones(each.shape[0], each.dtype) if weights is None else wide(weights)
    there = jnp.isfinite(each)
    total = jnp.tensordot(w, masked(each, there), axes=1)
    return Rewards(total, jnp.any(there, axis=0))


def group(
    rewards: Float[Array, "p g"],
    *,
    scale: Scale = "group",
    eps: float = 1e-4,
    valid: Bool[Array, "p g"] | None = None,
) -> Float[Array, "p g"]:
    """Reward less the mean of the completions of the same prompt, on some scale.

    A group whose rewards are equal gets exactly zero.

    Args:
      rewards: of g completions of each of p prompts.
      scale: divide by the standard deviation (ddof 1) of the group, of the batch, or by nothing.
      eps: added to the standard deviation.
      valid: rows that count; the others get zero.

    References:
      Shao et al. (2024), DeepSeekMath (GRPO); without a scale: Liu et al. (2025), Dr. GRPO.

    >>> import jax.numpy as jnp
    >>> group(jnp.array([[1.0, 3.0], [0.1, 0.1]]), scale="none").tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    if scale not in ("group", "batch", "none"):
        raise UserError(f"Expected scale='group', 'batch' or 'none', found {scale!r}.")
    there = jnp.ones(rewards.shape, bool) if valid is None else valid
    rewards = masked(rewards, there)
    mean, deviation = masked_std(rewards, there, axis=1)
    own = _apart(rewards - mean, rewards, there)
    if scale == "none":
        return own
    if scale == "batch":
        deviation = masked_std(rewards, there)[1]
    return own / (deviation + eps)


def rloo(
    rewards: Float[Array, "p g"],
    *,
    normalize: bool = False,
    eps: float = 1e-4,
    valid: Bool[Array, "p g"] | None = None,
) -> Float[Array, "p g"]:
    """Reward less the mean of the *other* completions of the same prompt.

    Args:
      rewards: of g >= 2 completions of each prompt.
      normalize: subtract the mean over the batch and divide by its standard deviation.
      eps: added to that.
      valid: rows that count; the others get zero.

    Raises:
      UserError: groups of one.

    References:
      Kool, van Hoof and Welling (2019); Ahmadian et al. (2024), Back to basics.

    >>> import jax.numpy as jnp
    >>> rloo(jnp.array([[1.0, 3.0]])).tolist()
    [[-2.0, 2.0]]
    """
    if rewards.shape[1] < 2:
        raise UserError("Expected groups of at least 2 completions, found groups of one.")
    there = jnp.ones(rewards.shape, bool) if valid is None else valid
    rewards = masked(rewards, there)
    n = jnp.sum(there, axis=1, keepdims=True, dtype=rewards.dtype)
    others = (jnp.sum(rewards, axis=1, keepdims=True) - rewards) / jnp.maximum(n - 1, 1)
    own = _apart(rewards - others, rewards, there & (n > 1))
    if not normalize:
        return own
    mean, deviation = masked_std(own, there)
    return masked((own - mean) / (deviation + eps), there)


def zero_variance(
    rewards: Float[Array, "p g"], valid: Bool[Array, "p g"] | None = None
) -> Bool[Array, " p"]:
    """Groups whose rewards are all equal: they teach nothing and could be sampled again.

    >>> import jax.numpy as jnp
    >>> zero_variance(jnp.array([[1.0, 1.0], [0.0, 1.0]])).tolist()
    [True, False]
    """
    there = jnp.ones(rewards.shape, bool) if valid is None else valid
    return ~_varies(wide(rewards), there)[:, 0]


def _apart(own: Array, rewards: Array, there: Array) -> Array:
    """Zero where a group does not vary: what is left there is rounding."""
    return jnp.where(there & _varies(rewards, there), own, 0)


def _varies(rewards: Array, there: Array) -> Array:
    high = jnp.max(jnp.where(there, rewards, -np.inf), axis=1, keepdims=True)
    low = jnp.min(jnp.where(there, rewards, np.inf), axis=1, keepdims=True)
    return high > low
