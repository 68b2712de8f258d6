"""What generation needs of the network: prompts into a cache, and one token at a time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from jaxcore.errors import UserError
from jaxcore.generate import cache as caches
from jaxcore.generate.cache import Cache
from jaxcore.models.llama.config import LlamaConfig
from jaxcore.models.llama.model import apply
from jaxcore.nn.edits import AttentionEdit
from jaxcore.typing import Params


def init_cache(cfg: LlamaConfig, batch: int, length: int, dtype: str | None = None) -> Cache:
    """An empty cache for ``batch`` rows of at most ``length`` tokens.

    Args:
      cfg: sizes and options.
      batch: rows.
      length: tokens of the prompt, padding counted, and those to come.
      dtype: of keys and values; default that of activations.

    >>> init_cache(LlamaConfig.tiny(), 2, 16).keys.shape
    (2, 2, 2, 16, 4)
    """
    return caches.init_cache(**_sizes(cfg), batch=batch, length=length, dtype=dtype or cfg.dtype)


def cache_bytes(cfg: LlamaConfig, dtype: str | None = None) -> int:
    """Bytes of a cache for each token of each row.

    >>> cache_bytes(LlamaConfig.qwen2_7b(dtype="bfloat16"))
    57345
    """
    return caches.bytes_per_token(**_sizes(cfg), dtype=dtype or cfg.dtype)


def _sizes(cfg: LlamaConfig) -> dict[str, int]:
    return {
        "depth": cfg.depth,
        "num_kv_heads": cfg.num_kv_heads,
        "head_dim": cfg.head_dim,
    }


def step(params: Params, cfg: LlamaConfig, edit: AttentionEdit | None = None) -> Partial:
    """``step(tokens (b, 1), cache) -> (logits (b, v), cache)`` for `jaxcore.generate`.

    A pytree: handed to a compiled function, it carries the parameters (and the edit of `apply`) as
    arguments, and functions of one configuration share a program.

    >>> from jaxcore.models import llama
    >>> cfg = LlamaConfig.tiny()
    >>> one = step(llama.init(jax.random.key(0), cfg), cfg)
    >>> logits, cache = one(jax.numpy.zeros((3, 1), int), init_cache(cfg, 3, 8))
    >>> logits.shape, int(cache.length)
    ((3, 11), 1)
    """
    return Partial(_step(cfg), params, edit)


def unstacked(params: Params) -> Params:
    """The same parameters with a tree of its own for every layer, which `apply` takes as well.

    On a CPU a loop over stacked layers copies each one before it is used; this doubles the speed of
    one token at a time, for a longer compilation and, while both are held, twice the memory.

    >>> from jaxcore.models import llama
    >>> cfg = LlamaConfig.tiny()
    >>> apart = unstacked(llama.init(jax.random.key(0), cfg))
    >>> len(apart["layers"]), apart["layers"][1]["norm1"]["scale"].shape
    (2, (8,))
    """
    leaves = jax.tree.leaves(params["layers"])
    layers = [
        jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"]) for i in range(len(leaves[0]))
    ]
    return {**params, "layers": layers}


def prefill(
    params: Params,
    x: Int[Array, "b t"] | Float[Array, "b t d"],
    cfg: LlamaConfig,
    *,
    room: int,
    valid: Bool[Array, "b t"] | None = None,
    positions: Int[Array, "*k b t"] | None = None,
    edit: AttentionEdit | None = None,
) -> tuple[Float[Array, "b v"], Cache]:
    """Read prompts: logits of the token after them, and a cache to go on from. Compiled.

    Args:
      params: of the network.
      x: tokens, or embeddings.
      cfg: sizes and options.
      room: tokens that shall fit into the cache behind the prompts.
      valid: see `apply`.
      positions: see `apply`.
      edit: see `apply`.

    Raises:
      UserError: prompt and room are more than the network was made for, or a shape does not fit.

    >>> from jaxcore.models import llama
    >>> cfg = LlamaConfig.tiny()
    >>> params = llama.init(jax.random.key(0), cfg)
    >>> logits, cache = prefill(params, jax.numpy.ones((2, 5), int), cfg, room=3)
    >>> logits.shape, cache.slots
    ((2, 11), 8)
    """
    length = x.shape[1] + room
    if length > cfg.max_positions:
        raise UserError(
            f"{cfg.title} expects at most {cfg.max_positions} tokens, found a prompt of "
            f"{x.shape[1]}, padding counted, and room for {room} more."
        )
    return _prefill(params, x, valid, positions, edit, cfg=cfg, length=length)


@functools.partial(jax.jit, static_argnames=("cfg", "length"))
def _prefill(
    params: Params,
    x: Array,
    valid: Array | None,
    positions: Array | None,
    edit: AttentionEdit | None,
    *,
    cfg: LlamaConfig,
    length: int,
) -> tuple[Array, Cache]:
    cache = init_cache(cfg, x.shape[0], length)
    if isinstance(params["layers"], list):
        cache = cache.unstacked()
    options: dict[str, Any] = {"valid": valid, "positions": positions, "edit": edit}
    out = apply(params, x, cfg, cache=cache, fresh=True, **options, logits="last")
    assert out.logits is not None and out.cache is not None
    return out.logits[:, 0], out.cache


@functools.cache
def _step(cfg: LlamaConfig) -> Callable[..., tuple[Array, Cache]]:
    def one(
        params: Params, edit: AttentionEdit | None, tokens: Array, cache: Cache
    ) -> tuple[Array, Cache]:
        out = apply(params, tokens, cfg, cache=cache, edit=edit, logits="last")
        assert out.logits is not None and out.cache is not None
        return out.logits[:, 0], out.cache

    return one
