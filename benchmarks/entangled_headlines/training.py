"""The stages of fine-tuning: imitation, reward models, policy gradient, preferences.

Each is a loss ``(params, data, key) -> scalar`` that draws its own batch, descended by
`descend`; losses and advantages are those of `jaxcore.train.losses`.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from benchmarks.entangled_headlines.network import (
    completion,
    last_states,
    log_probabilities,
    write,
    written,
)
from jaxcore.estimators.deconfound.simulate import TOPICS
from jaxcore.models.llama import LlamaConfig
from jaxcore.train import OptimConfig
from jaxcore.train.losses import advantages, policy, preference, reward
from jaxcore.train.optim import make_optimiser
from jaxcore.train.schedules import ScheduleConfig
from jaxcore.typing import Key, Params

Data = dict[str, Any]
Stage = Callable[[Params, Data, Key], Float[Array, ""]]


_COMPILING = threading.Lock()
"""Worlds side by side share programs: the first one compiles, the others wait for it."""


@functools.cache
def _step(loss: Stage, optim: OptimConfig, steps: int) -> tuple[Any, Any]:
    tx = make_optimiser(optim, steps)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, state: Any, data: Data, key: Key, at: Array) -> Any:
        value, gradient = jax.value_and_grad(loss)(params, data, jax.random.fold_in(key, at))
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    return jax.jit(tx.init), step


def descend(
    loss: Stage, params: Params, data: Data, key: Key, optim: OptimConfig, steps: int
) -> Params:
    """Parameters after so many updates; programs are compiled once for each kind of stage."""
    init, step = _step(loss, optim, steps)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes floats and integer counts
        params = jax.tree.map(jnp.copy, params)  # the step gives its arguments away
        state = init(params)
        with _COMPILING:
            params, state, _ = step(params, state, data, key, jnp.int32(0))
        for at in range(1, steps):
            params, state, _ = step(params, state, data, key, jnp.int32(at))
    return jax.block_until_ready(params)


def optimiser(rate: float, *, decay: float = 0.0, warm: bool = False) -> OptimConfig:
    """AdamW with clipping; with ``warm`` 20 steps of warm-up and a cosine."""
    schedule = ScheduleConfig(name="warmup_cosine", warmup_steps=20) if warm else ScheduleConfig()
    return OptimConfig(
        learning_rate=rate, weight_decay=decay, clip_norm=1.0, schedule=schedule, decay_all=True
    )


# --- imitation ----------------------------------------------------------------------------------


@functools.cache
def imitation(batch: int, cfg: LlamaConfig) -> Stage:
    """Likelihood of texts ``data["tokens"]``."""

    def loss(params: Params, data: Data, key: Key) -> Array:
        rows = jax.random.randint(key, (batch,), 0, data["tokens"].shape[0])
        tokens = data["tokens"][rows]
        keep = written(tokens).at[:, 0].set(False).astype(jnp.float32)
        return -jnp.sum(keep * log_probabilities(params, tokens, cfg)) / jnp.sum(keep)

    return loss


# --- reward models ------------------------------------------------------------------------------


def scored(params: Params, tokens: Array, cfg: LlamaConfig) -> Float[Array, " b"]:
    """Reward of texts in units of the standardised target; of two heads the first."""
    return last_states(params["body"], tokens, cfg) @ params["heads"][0]


@functools.cache
def regression(batch: int, cfg: LlamaConfig) -> Stage:
    """Squared error of the score against ``data["target"]``, which is standardised."""

    def loss(params: Params, data: Data, key: Key) -> Array:
        rows = jax.random.randint(key, (batch,), 0, data["tokens"].shape[0])
        found = scored(params, data["tokens"][rows], cfg)
        return jnp.asarray(reward.reward_regression(found, data["target"][rows]).value())

    return loss


@functools.cache
def two_heads(batch: int, cfg: LlamaConfig) -> Stage:
    """Head 0 for what does not go with the confounder ``data["C"]``, head 1 for what does."""

    def loss(params: Params, data: Data, key: Key) -> Array:
        rows = jax.random.randint(key, (batch,), 0, data["tokens"].shape[0])
        states = last_states(params["body"], data["tokens"][rows], cfg)
        return reward.odin(
            states, params["heads"], data["C"][rows], scores=data["target"][rows], form="plain"
        )

    return loss


# --- policies -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradient:
    """How a policy follows a reward model, and what keeps it near the base.

    Attributes:
      algorithm: "grpo" compares a text with those of its group and adds the estimate k3 of the
        divergence of every token to the loss; "rloo" takes the log-ratio of a whole text to the
        base from its reward, and compares with the other texts of the group.
      scaled: divide what is left by the standard deviation: of the group with "grpo", of the batch
        with "rloo".
      supported: a text with a token that the base finds less likely than ``data["floor"]`` is no
        better than one without an end: nothing is known of texts that nobody wrote.
    """

    algorithm: Literal["grpo", "rloo"]
    scaled: bool
    supported: bool = False
    prompts: int = 16
    group: int = 8


@functools.cache
def policy_gradient(how: Gradient, cfg: LlamaConfig) -> Stage:
    """Texts are sampled, scored by ``data["scorer"]``, and those above their group made likelier.

    ``data["base"]`` is the reference and ``data["beta"]`` the weight of the divergence from it.
    """

    def loss(params: Params, data: Data, key: Key) -> Array:
        draw, choose = jax.random.split(key)
        topics = jax.random.randint(choose, (how.prompts,), 0, len(TOPICS))
        found = write(params, topics, how.group, draw, cfg)
        tokens, mask = found.texts, completion(found.texts)
        score = scored(data["scorer"], tokens, cfg)
        logps = log_probabilities(params, tokens, cfg)
        base = log_probabilities(data["base"], tokens, cfg)
        known = found.ended
        if how.supported:
            known = known & (jnp.min(jnp.where(mask, base, 0), axis=1) >= data["floor"])
        score = jnp.where(known, score, jnp.min(score) - 1)
        old = jax.lax.stop_gradient(logps)
        if how.algorithm == "rloo":
            score = policy.kl_in_reward(score, old, base, mask, data["beta"])
            apart = advantages.rloo(score.reshape(-1, how.group), normalize=how.scaled)
            return jnp.asarray(policy.rloo_loss(logps, old, apart.reshape(-1), mask).value())
        scale = "group" if how.scaled else "none"
        apart = advantages.group(score.reshape(-1, how.group), scale=scale)
        settings = policy.Surrogate(beta=data["beta"])
        told = policy.policy_loss(logps, old, apart.reshape(-1), mask, settings, reference=base)
        return jnp.asarray(told.mean.value())

    return loss


@functools.cache
def preferences(pairs: int, beta: float, cfg: LlamaConfig) -> Stage:
    """DPO on random pairs of one topic (``data["order"]`` and ``data["starts"]``) by the target."""
    settings = preference.Preference(beta=beta)

    def loss(params: Params, data: Data, key: Key) -> Array:
        which, one, two = jax.random.split(key, 3)
        topics = jax.random.randint(which, (pairs,), 0, len(TOPICS))
        low, count = data["starts"][topics], data["counts"][topics]
        places = [
            low + (jax.random.uniform(k, (pairs,)) * count.astype(jnp.float32)).astype(jnp.int32)
            for k in (one, two)
        ]
        first, second = (data["order"][place] for place in places)
        better = data["target"][first] >= data["target"][second]
        rows = jnp.concatenate([jnp.where(better, first, second), jnp.where(better, second, first)])
        tokens = data["tokens"][rows]
        logps = log_probabilities(params, tokens, cfg)
        base = log_probabilities(data["base"], tokens, cfg)
        told = preference.preference_loss(logps, base, completion(tokens), settings)
        return jnp.asarray(told.mean.value())

    return loss
