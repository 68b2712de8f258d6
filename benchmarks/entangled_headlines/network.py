"""The small decoder of headlines: what it writes, how likely it finds a text, how it scores one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from jaxcore import generate
from jaxcore.estimators.deconfound.simulate import BOS, EOS, LENGTH, PAD, TOPICS, WORDS
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
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
FIRST_TOPIC = WORDS.index(TOPICS[0])


class Written(NamedTuple):
    """Headlines, ``LENGTH`` ids each."""

    tokens: Int[Array, "b t"]
    ended: Bool[Array, " b"]  # within the length


def completion(tokens: Int[Array, "b t"]) -> Bool[Array, "b t1"]:
    """Which of ``tokens[:, 1:]`` the policy chose: behind the topic, the end included."""
    after = jnp.cumsum(tokens == EOS, axis=1, dtype=jnp.int32)[:, :-1] > 0
    return ~after.at[:, 0].set(True)


def log_probabilities(
    params: Params, tokens: Int[Array, "b t"], cfg: LlamaConfig
) -> Float[Array, "b t1"]:
    """Of each of ``tokens[:, 1:]`` after those before it."""
    logits = llama.apply(params, tokens[:, :-1], cfg).logits
    assert logits is not None
    told = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(told, tokens[:, 1:, None], axis=2)[..., 0]


def last_states(params: Params, tokens: Int[Array, "b t"], cfg: LlamaConfig) -> Float[Array, "b d"]:
    """Hidden state of the end of each text, or of its last token where it has none."""
    hidden = llama.apply(params, tokens, cfg, logits="none").hidden
    ends = tokens == EOS
    at = jnp.where(jnp.any(ends, axis=1), jnp.argmax(ends, axis=1), tokens.shape[1] - 1)
    return jnp.take_along_axis(hidden, at[:, None, None], axis=1)[:, 0]


def mean_states(params: Params, tokens: Int[Array, "b t"], cfg: LlamaConfig) -> Float[Array, "b d"]:
    """Mean of the hidden states of a text: features for the route plm."""
    hidden = llama.apply(params, tokens, cfg, logits="none").hidden
    weights = (tokens != PAD).astype(hidden.dtype)[..., None]
    return jnp.sum(hidden * weights, axis=1) / jnp.sum(weights, axis=1)


def _draw(logits: Float[Array, "b v"], keys: Key) -> Int[Array, " b"]:
    """Never padding nor a beginning."""
    allowed = logits.at[:, jnp.array([PAD, BOS])].set(-1e9)
    return generate.Sampler()(allowed, keys)


def write(params: Params, topics: Int[Array, " b"], key: Key, cfg: LlamaConfig) -> Written:
    """One headline on each topic (its place in ``TOPICS``), sampled at temperature 1."""
    params = jax.lax.stop_gradient(params)
    begin = jnp.full_like(topics, BOS)
    prompts = jnp.stack([begin, topics + FIRST_TOPIC], axis=1)
    new = LENGTH - prompts.shape[1]
    logits, cache = llama.prefill(params, prompts, cfg, room=new)
    found = generate.generate(
        llama.step(params, cfg),
        cache,
        logits,
        keys=jax.random.split(key, len(topics)),
        sampler=Partial(_draw),
        max_new_tokens=new,
        eos=[EOS],
    )
    there = jnp.arange(new, dtype=jnp.int32)[None] < found.lengths[:, None]
    tokens = jnp.concatenate([prompts, jnp.where(there, found.tokens, PAD)], axis=1)
    return Written(tokens, jnp.any(tokens == EOS, axis=1))
