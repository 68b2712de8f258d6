"""The small decoder of headlines: what it writes, how likely it finds a text, how it scores one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxcore.estimators.deconfound.simulate import BOS, EOS, LENGTH, PAD, TOPICS, WORDS
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.train.rollouts import Rollout, Sampling, sample
from jaxcore.typing import Key, Params

NETWORK = LlamaConfig(
    vocab_size=len(WORDS),
    width=96,
    depth=3,
    num_heads=4,
    num_kv_heads=4,
    head_dim=24,
    mlp_width=256,
    tied=True,
    max_positions=LENGTH,
    scan_blocks=False,
)
"""336,288 parameters."""
PROMPT = 2  # ids of a prompt: the beginning and a topic
FIRST_TOPIC = WORDS.index(TOPICS[0])


def write(
    params: Params, topics: Int[Array, " p"], group: int, key: Key, cfg: LlamaConfig
) -> Rollout:
    """Headlines on topics (places in ``TOPICS``), ``group`` on each, sampled at temperature 1."""
    prompts = jnp.stack([jnp.full_like(topics, BOS), topics + FIRST_TOPIC], axis=1)
    settings = Sampling(group=group, max_new_tokens=LENGTH - PROMPT, banned=(PAD, BOS))
    apart = llama.unstacked(jax.lax.stop_gradient(params))
    there = jnp.ones(prompts.shape, bool)
    return sample(apart, cfg, prompts, there, key, settings, eos=(EOS,), pad=PAD)


def written(tokens: Int[Array, "b t"]) -> Bool[Array, "b t"]:
    """Which tokens are no padding: those up to the end."""
    ends = (tokens == EOS).astype(jnp.int32)
    return jnp.cumsum(ends, axis=1, dtype=jnp.int32) == ends  # none before this token


def completion(tokens: Int[Array, "b t"]) -> Bool[Array, "b t"]:
    """Which tokens a policy chooses: those behind the topic, the end included."""
    return written(tokens).at[:, :PROMPT].set(False)


def log_probabilities(
    params: Params, tokens: Int[Array, "b t"], cfg: LlamaConfig
) -> Float[Array, "b t"]:
    """Of each token after those before it; 0 for the first one."""
    hidden = llama.apply(params, tokens, cfg, logits="none").hidden
    return llama.token_log_probs(params, hidden, tokens, cfg, chunk=1 << 20)


def last_states(params: Params, tokens: Int[Array, "b t"], cfg: LlamaConfig) -> Float[Array, "b d"]:
    """Hidden state of the last token of each text."""
    hidden = llama.apply(params, tokens, cfg, logits="none").hidden
    return llama.last_states(hidden, written(tokens))


def mean_states(params: Params, tokens: Int[Array, "b t"], cfg: LlamaConfig) -> Float[Array, "b d"]:
    """Mean of the hidden states of a text: features for the route plm."""
    hidden = llama.apply(params, tokens, cfg, logits="none").hidden
    weights = written(tokens).astype(hidden.dtype)[..., None]
    return jnp.sum(hidden * weights, axis=1) / jnp.sum(weights, axis=1)
