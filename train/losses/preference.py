"""Losses of pairs of completions, one chosen and one rejected: DPO and its relatives."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from jaxcore.errors import UserError
from jaxcore.serial import Serial
from jaxcore.train.losses.sequences import LARGEST_EXPONENT, counts, kept, masked
from jaxcore.train.step import Mean

log_sigmoid = jax.nn.log_sigmoid


class Pairs(NamedTuple):
    """What the losses of a pair are functions of; every field has one number per pair."""

    policy_chosen: Float[Array, " b"]  # log-probability of the completion
    policy_rejected: Float[Array, " b"]
    reference_chosen: Float[Array, " b"]
    reference_rejected: Float[Array, " b"]
    chosen: Float[Array, " b"]  # divergence transform of the log-ratio policy - reference
    rejected: Float[Array, " b"]
    tokens_chosen: Float[Array, " b"]  # at least one
    tokens_rejected: Float[Array, " b"]

    @property
    def log_chosen(self) -> Float[Array, " b"]:
        """Log-ratio policy - reference of the chosen completion."""
        return self.policy_chosen - self.reference_chosen

    @property
    def log_rejected(self) -> Float[Array, " b"]:
        """Log-ratio policy - reference of the rejected completion."""
        return self.policy_rejected - self.reference_rejected

    @property
    def margin(self) -> Float[Array, " b"]:
        """Difference of the transformed log-ratios."""
        return self.chosen - self.rejected


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preference(Serial):
    """Which losses of pairs, and their settings.

    >>> Preference(loss=("sigmoid", "sft"), weights=(1.0, 0.1)).beta
    0.1
    """

    loss: str | tuple[str, ...] = "sigmoid"  # names of `LOSSES`, or "sft"
    weights: tuple[float, ...] = ()  # of several losses; () counts all once
    beta: float = 0.1  # strength of the pull to the reference, > 0
    label_smoothing: float = 0.0  # share of labels thought wrong, in [0, 0.5)
    divergence: str = "reverse_kl"  # a name of `DIVERGENCES`
    alpha: float = 0.5  # of the alpha divergence
    ld_alpha: float | None = None  # weight of tokens beyond the shorter completion, in [0, 1]
    discopop_tau: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.names if name not in (*LOSSES, "sft")]
        if unknown or not self.names:
            known = ", ".join((*LOSSES, "sft"))
            raise UserError(f"Expected losses of pairs among {known}, found {self.loss!r}.")
        if self.divergence not in DIVERGENCES:
            known = ", ".join(DIVERGENCES)
            raise UserError(f"Expected a divergence among {known}, found {self.divergence!r}.")
        if self.weights and len(self.weights) != len(self.names):
            raise UserError(
                f"Expected a weight for each of {len(self.names)} losses, found "
                f"{len(self.weights)}."
            )
        if not self.beta > 0:
            raise UserError(f"Expected a positive beta, found {self.beta}.")
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(f"Expected label_smoothing in [0, 0.5), found {self.label_smoothing}.")
        if "exo_pair" in self.names and self.label_smoothing == 0:
            raise UserError("Expected label_smoothing above 0 with exo_pair, found 0.")
        if self.ld_alpha is not None and not 0 <= self.ld_alpha <= 1:
            raise UserError(f"Expected ld_alpha in [0, 1], found {self.ld_alpha}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The losses that are added up."""
        return (self.loss,) if isinstance(self.loss, str) else tuple(self.loss)


class PreferenceLoss(NamedTuple):
    """What `preference_loss` finds; arrays have one number per pair."""

    per_pair: Float[Array, " b"]
    chosen_reward: Float[Array, " b"]  # implicit: beta times the log-ratio
    rejected_reward: Float[Array, " b"]

    @property
    def mean(self) -> Mean:
        """Mean over the pairs, in two parts."""
        return Mean.of(self.per_pair)

    @property
    def accuracy(self) -> Mean:
        """How often the implicit reward prefers the chosen completion."""
        won = self.chosen_reward > self.rejected_reward
        return Mean.of(won.astype(self.per_pair.dtype))


# --- divergences --------------------------------------------------------------------------------


def _alpha(x: Array, s: Preference) -> Array:
    a = s.alpha - 1
    if math.isclose(a, 0, abs_tol=1e-6):
        return x
    return jnp.expm1(jnp.minimum(a * x, LARGEST_EXPONENT)) / a


DIVERGENCES: dict[str, Callable[[Array, Preference], Array]] = {
    "reverse_kl": lambda x, s: x,
    "forward_kl": lambda x, s: -jnp.expm1(jnp.minimum(-x, LARGEST_EXPONENT)),
    "js_divergence": lambda x, s: math.log(2) + log_sigmoid(x),
    "alpha_divergence": _alpha,
}
"""Transforms of the log-ratio policy - reference, before the two completions are compared."""


# --- losses per pair ----------------------------------------------------------------------------


def _smoothed(x: Array, s: Preference) -> Array:
    """Cross-entropy of a label that is right but for the smoothing."""
    e = s.label_smoothing
    return -(1 - e) * log_sigmoid(x) - e * log_sigmoid(-x)


def _robust(p: Pairs, s: Preference) -> Array:
    x, e = s.beta * p.margin, s.label_smoothing
    return (-(1 - e) * log_sigmoid(x) + e * log_sigmoid(-x)) / (1 - 2 * e)


def _per_token(p: Pairs) -> Array:
    return p.chosen / p.tokens_chosen - p.rejected / p.tokens_rejected


def _exo_pair(p: Pairs, s: Preference) -> Array:
    x, e = s.beta * p.margin, s.label_smoothing
    q = jax.nn.sigmoid(x)
    own = q * (log_sigmoid(x) - math.log1p(-e))
    return own + (1 - q) * (log_sigmoid(-x) - math.log(e))


def _nca_pair(p: Pairs, s: Preference) -> Array:
    c, r = s.beta * p.log_chosen, s.beta * p.log_rejected
    return -log_sigmoid(c) - 0.5 * log_sigmoid(-c) - 0.5 * log_sigmoid(-r)


def _sppo_hard(p: Pairs, s: Preference) -> Array:
    half = 1 / (2 * s.beta)
    return (p.log_chosen - half) ** 2 + (p.log_rejected + half) ** 2


def _aot(p: Pairs, s: Preference) -> Array:
    policy = jnp.sort(p.policy_chosen - p.policy_rejected)
    reference = jnp.sort(p.reference_chosen - p.reference_rejected)
    return _smoothed(s.beta * (policy - reference), s)


def _apo_zero(p: Pairs, s: Preference) -> Array:
    return 1 - jax.nn.sigmoid(s.beta * p.log_chosen) + jax.nn.sigmoid(s.beta * p.log_rejected)


def _apo_down(p: Pairs, s: Preference) -> Array:
    between = jax.nn.sigmoid(s.beta * (p.log_chosen - p.log_rejected))
    return jax.nn.sigmoid(s.beta * p.log_chosen) + 1 - between


def _discopop(p: Pairs, s: Preference) -> Array:
    x = s.beta * p.margin
    blend = jax.nn.sigmoid(x / s.discopop_tau)
    return -log_sigmoid(x) * (1 - blend) + jnp.exp(jnp.minimum(-x, LARGEST_EXPONENT)) * blend


LOSSES: dict[str, Callable[[Pairs, Preference], Array]] = {
    "sigmoid": lambda p, s: -log_sigmoid(s.beta * p.margin),
    "cdpo": lambda p, s: _smoothed(s.beta * p.margin, s),
    "robust": _robust,
    "hinge": lambda p, s: jax.nn.relu(1 - s.beta * p.margin),
    "ipo": lambda p, s: (_per_token(p) - 1 / (2 * s.beta)) ** 2,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "bco_pair": lambda p, s: (
        -log_sigmoid(s.beta * p.log_chosen) - log_sigmoid(-s.beta * p.log_rejected)
    ),
    "sppo_hard": _sppo_hard,
    "aot": _aot,
    "aot_unpaired": lambda p, s: _smoothed(
        s.beta * (jnp.sort(p.log_chosen) - jnp.sort(p.log_rejected)), s
    ),
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
    "sigmoid_norm": lambda p, s: -log_sigmoid(s.beta * _per_token(p)),
}
"""Loss of every pair by the name that the literature and TRL give it; "sft" joins them.

Those of "aot" and "aot_unpaired" are in sorted order, not in that of the pairs.
"""


def preference_loss(
    policy: Float[Array, "r t"],
    reference: Float[Array, "r t"],
    mask: Shaped[Array, "r t"],
    settings: Preference = Preference(),
) -> PreferenceLoss:
    """Losses of pairs from log-probabilities of tokens.

    Args:
      policy: log-probability of every token, rows 0..b-1 chosen and b..2b-1 rejected.
      reference: the same by the frozen reference; no gradient flows into it.
      mask: true at tokens of the completion.
      settings: which losses.

    Returns:
      The loss of every pair, weighted sums where there are several losses, and implicit rewards.

    Raises:
      UserError: an odd number of rows.

    References:
      Rafailov et al. (2023), Direct preference optimization; the further losses are those of TRL
      1.16 by name; divergences: Wang et al. (2024), Beyond reverse KL, and Tang et al. (2024).

    >>> import jax.numpy as jnp
    >>> lp, mask = jnp.array([[-1.0, -2.0], [-3.0, 0.0]]), jnp.array([[1, 1], [1, 0]])
    >>> found = preference_loss(lp, jnp.full((2, 2), -2.0), mask)
    >>> [round(float(x), 4) for x in (found.chosen_reward[0], found.rejected_reward[0])]
    [0.1, -0.1]
    """
    if policy.shape[0] % 2:
        raise UserError(
            "Expected as many rejected as chosen completions, found "
            f"{policy.shape[0]} rows, an odd number."
        )
    keep = kept(mask)
    policy, reference = masked(policy, keep), jax.lax.stop_gradient(masked(reference, keep))
    pairs = pairs_of(policy, reference, keep, settings)
    total = jnp.zeros_like(pairs.chosen)
    for name, weight in zip(
        settings.names, settings.weights or (1.0,) * len(settings.names), strict=True
    ):
        one = _chosen_nll(policy, keep) if name == "sft" else LOSSES[name](pairs, settings)
        total = total + weight * one
    beta = settings.beta
    rewards = jax.lax.stop_gradient((beta * pairs.log_chosen, beta * pairs.log_rejected))
    return PreferenceLoss(total, *rewards)


def pairs_of(
    policy: Float[Array, "r t"],
    reference: Float[Array, "r t"],
    mask: Bool[Array, "r t"],
    settings: Preference,
) -> Pairs:
    """Sums of the completions; log-probabilities must be zero where masked."""
    b = mask.shape[0] // 2
    tokens = counts(mask, policy.dtype)
    if settings.ld_alpha is not None:
        shorter = jnp.minimum(*jnp.split(jnp.sum(mask, axis=1, dtype=jnp.int32), 2))
        place = jnp.cumsum(
            mask, axis=1, dtype=jnp.int32
        )  # 1, 2, ... at the tokens of the completion
        beyond = place > jnp.concatenate([shorter, shorter])[:, None]
        weight = jnp.where(beyond, settings.ld_alpha, 1.0).astype(policy.dtype)
        policy, reference = policy * weight, reference * weight
    own, ref = jnp.sum(policy, axis=1), jnp.sum(reference, axis=1)
    s = DIVERGENCES[settings.divergence](own - ref, settings)
    return Pairs(own[:b], own[b:], ref[:b], ref[b:], s[:b], s[b:], tokens[:b], tokens[b:])


def _chosen_nll(policy: Float[Array, "r t"], mask: Bool[Array, "r t"]) -> Float[Array, " b"]:
    """Mean negative log-likelihood of the tokens of all chosen completions, for every pair."""
    b = mask.shape[0] // 2
    tokens = jnp.maximum(jnp.sum(mask[:b], dtype=policy.dtype), 1)
    return jnp.broadcast_to(-jnp.sum(policy[:b]) / tokens, (b,))
