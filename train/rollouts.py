"""Completions that a decoder writes itself: prompts to tokens, masks and log-probabilities.

Prompts are read once, and all completions of a prompt go on from what was read. What a completion
says depends on its prompt's place, its own number and the key, not on how many others there are.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxcore.bounds import Above, AtMost, Count, Index
from jaxcore.errors import UserError
from jaxcore.generate import Sampler, generate, repeat_rows
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.serial import Serial
from jaxcore.train.policy import Policy
from jaxcore.train.step import Frozen
from jaxcore.typing import Key, Params


@flax.struct.dataclass
class Rollout:
    """Completions, and what is known of them; those of one prompt follow each other.

    Attributes:
      prompts: padded on the left; ``group`` rows each.
      prompts_valid: False at that padding.
      tokens: of the completions; behind an end, ``pad``.
      mask: tokens of the completion, its end token included.
      logps: log-probability of each token by the network, at temperature 1; 0 where masked out.
      drawn_logps: by what the sampler drew from: temperature, top_k, top_p and banned tokens. Both
        None where they were not asked for.
      ended: False where a completion was cut short at the largest number of tokens.
    """

    prompts: Int[Array, "b t"]
    prompts_valid: Bool[Array, "b t"]
    tokens: Int[Array, "b n"]
    mask: Bool[Array, "b n"]
    logps: Float[Array, "b n"] | None
    drawn_logps: Float[Array, "b n"] | None
    ended: Bool[Array, " b"]

    @property
    def lengths(self) -> Int[Array, " b"]:
        """Tokens of each completion."""
        return jnp.sum(self.mask, axis=1, dtype=jnp.int32)

    @property
    def texts(self) -> Int[Array, "b tn"]:
        """Prompts and completions in one row each."""
        return jnp.concatenate([self.prompts, self.tokens], axis=1)

    @property
    def valid(self) -> Bool[Array, "b tn"]:
        """Tokens of ``texts`` that are no padding."""
        return jnp.concatenate([self.prompts_valid, self.mask], axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Serial):
    """How completions are drawn.

    >>> Sampling(group=4, banned=(0,)).sampler.banned
    (0,)
    """

    group: Count = 8  # completions of each prompt
    max_new_tokens: Count = 64  # of each
    temperature: Annotated[float, Above(0)] = 1.0
    top_k: Index = 0  # 0: all tokens
    top_p: Annotated[float, Above(0), AtMost(1)] = 1.0
    banned: tuple[Index, ...] = ()  # tokens that are never drawn, such as padding

    @property
    def sampler(self) -> Sampler:
        """Draws the tokens."""
        return Sampler(
            temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, banned=self.banned
        )


def sample(
    params: Params,
    cfg: LlamaConfig,
    prompts: Int[Array, "p t"],
    valid: Bool[Array, "p t"],
    key: Key,
    settings: Sampling,
    *,
    eos: Sequence[int],
    pad: int = 0,
    logps: bool = True,
) -> Rollout:
    """Let a decoder go on from prompts, ``settings.group`` times from each. Compiled.

    Args:
      params: of the policy, adapters merged; a tree per layer (`llama.unstacked`) is faster on a
        CPU.
      cfg: sizes and options.
      prompts: padded on the left (`jaxcore.generate.pad_left`).
      valid: False for padding.
      key: of the draws.
      settings: how many, how long, how varied.
      eos: tokens that end a completion.
      pad: token behind the end; no other token sees it.
      logps: whether log-probabilities are kept. Take those of a training graph instead where they
        are compared with others of it: in low precision the two differ.

    Raises:
      UserError: prompts and completions are longer than the network allows; all ends are banned.

    >>> cfg = LlamaConfig.tiny()
    >>> params, prompts = llama.init(jax.random.key(0), cfg), jnp.array([[0, 3], [5, 4]])
    >>> sampling = Sampling(group=3, max_new_tokens=5, banned=(0,))
    >>> found = sample(params, cfg, prompts, prompts > 0, jax.random.key(1), sampling, eos=[2])
    >>> found.tokens.shape, bool(jnp.all(found.ended == jnp.any(found.tokens == 2, axis=1)))
    ((6, 5), True)
    """
    check_ends(eos, settings)
    options: dict[str, Any] = {"cfg": cfg, "settings": settings, "eos": tuple(eos), "pad": pad}
    return _sample(params, prompts, valid, key, logps=logps, **options)


@functools.partial(jax.jit, static_argnames=("cfg", "settings", "eos", "pad", "logps"))
def _sample(
    params: Params,
    prompts: Array,
    valid: Array,
    key: Key,
    *,
    cfg: LlamaConfig,
    settings: Sampling,
    eos: tuple[int, ...],
    pad: int,
    logps: bool,
) -> Rollout:
    count, group, new = len(prompts), settings.group, settings.max_new_tokens
    logits, cache = llama.prefill(params, prompts, cfg, room=new, valid=valid)
    found = generate(
        llama.step(params, cfg),
        repeat_rows(cache, group),
        jnp.tile(logits, (group, 1)),
        keys=_keys(key, count, group),
        sampler=settings.sampler,
        max_new_tokens=new,
        eos=eos,
        keep=("logps", "drawn_logps") if logps else (),
    )

    def together(x: Array) -> Array:  # copy after copy of the prompts -> groups
        return jnp.swapaxes(x.reshape(group, count, *x.shape[1:]), 0, 1).reshape(x.shape)

    lengths, tokens = together(found.lengths), together(found.tokens)
    mask = jnp.arange(new, dtype=jnp.int32)[None] < lengths[:, None]
    ends = jnp.asarray(eos, jnp.int32)
    last = jnp.take_along_axis(tokens, lengths[:, None] - 1, axis=1)
    return Rollout(
        prompts=jnp.repeat(prompts, group, axis=0),
        prompts_valid=jnp.repeat(valid, group, axis=0),
        tokens=jnp.where(mask, tokens, pad).astype(jnp.int32),
        mask=mask,
        logps=together(found.kept["logps"].T) if logps else None,
        drawn_logps=together(found.kept["drawn_logps"].T) if logps else None,
        ended=jnp.any(last == ends[None], axis=1),
    )


def weights_for_sampling(params: Params, frozen: Frozen, policy: Policy) -> Params:
    """Weights of a policy, on one CPU apart for every layer, which is faster token by token.

    Args:
      params: what is trained of it.
      frozen: what stays.
      policy: which is which.
    """
    arrays = [x for x in jax.tree.leaves((params, frozen)) if isinstance(x, jax.Array)]
    alone = all(len(x.devices()) == 1 for x in arrays)
    return _merged(params, frozen, policy=policy, apart=alone and jax.default_backend() == "cpu")


@functools.partial(jax.jit, static_argnames=("policy", "apart"))
def _merged(params: Params, frozen: Frozen, *, policy: Policy, apart: bool) -> Params:
    weights = policy.weights(params, frozen)
    return llama.unstacked(weights) if apart else weights


def check_ends(eos: Sequence[int], settings: Sampling) -> None:
    """Refuse to ban all tokens that end a completion.

    Raises:
      UserError: all are banned.
    """
    if eos and set(eos) <= set(settings.banned):
        raise UserError(f"Expected a token that may end a completion, found {sorted(eos)} banned.")


def _keys(key: Key, count: int, group: int) -> Key:
    """One for each completion, of its prompt's place and its own number alone."""
    by_prompt = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
    by_copy = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))
    return by_copy(by_prompt, jnp.arange(group)).reshape(-1)
