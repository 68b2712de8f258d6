"""Text from a decoder: knows a step function, parameters and a cache, no model."""

from jaxcore.generate.cache import Cache, bytes_per_token, init_cache, join_rows, repeat_rows
from jaxcore.generate.loop import Generated, generate, stream
from jaxcore.generate.prompts import pad_left
from jaxcore.generate.samplers import GREEDY, Sampler, shaped_logits

__all__ = [
    "GREEDY",
    "Cache",
    "Generated",
    "Sampler",
    "bytes_per_token",
    "generate",
    "init_cache",
    "join_rows",
    "pad_left",
    "repeat_rows",
    "shaped_logits",
    "stream",
]
