"""Decoders of the LLaMA family; see README.md beside this file."""

from jaxcore.models.llama.config import LlamaConfig, RopeScaling
from jaxcore.models.llama.decode import cache_bytes, init_cache, prefill, step, unstacked
from jaxcore.models.llama.entry import NETWORK, from_torch, init, param_shapes, to_torch
from jaxcore.models.llama.loss import next_token_loss, next_tokens, token_log_probs
from jaxcore.models.llama.model import (
    Block,
    Llama,
    LlamaOutput,
    apply,
    embed,
    project,
    vocabulary,
)
from jaxcore.models.llama.params import LEFTOVERS, config_from_state_dict, rules
from jaxcore.models.llama.score import last_states, score
from jaxcore.models.llama.sharding import cache_sharding, sharding_rules

__all__ = [
    "LEFTOVERS",
    "NETWORK",
    "Block",
    "Llama",
    "LlamaConfig",
    "LlamaOutput",
    "RopeScaling",
    "apply",
    "cache_bytes",
    "cache_sharding",
    "config_from_state_dict",
    "embed",
    "from_torch",
    "init",
    "init_cache",
    "last_states",
    "next_token_loss",
    "next_tokens",
    "param_shapes",
    "prefill",
    "project",
    "rules",
    "score",
    "sharding_rules",
    "step",
    "to_torch",
    "token_log_probs",
    "unstacked",
    "vocabulary",
]
