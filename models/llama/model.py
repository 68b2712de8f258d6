"""Decoders of the LLaMA family: from tokens, or their embeddings, to logits of the next token.

Touvron et al. 2023, "Llama 2"; with grouped keys and values, biases and the positions of Qwen2-VL
as options.
"""

import functools
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxcore import ops
from jaxcore.errors import UserError
from jaxcore.generate.cache import Cache, write
from jaxcore.models.llama.config import LlamaConfig
from jaxcore.models.llama.inputs import (
    allowed_keys,
    check_inputs,
    default_positions,
    next_position,
)
from jaxcore.nn import Linear, Normal, RMSNorm, SwiGLU, Types, apply_stack, tap, taps
from jaxcore.nn.edits import AttentionEdit, edit_scores, edit_weights, edited_attention
from jaxcore.typing import Key, Params

Logits: TypeAlias = Literal["all", "last", "none"]
"""For which tokens logits are computed."""


@flax.struct.dataclass
class LlamaOutput:
    """What comes out of the network.

    Attributes:
      logits: of the token after each, at least float32; those of the last token alone (b, 1, v),
        or None, as asked for.
      hidden: after the last norm.
      cache: with the new tokens, if one was given.
    """

    logits: Float[Array, "b _ v"] | None
    hidden: Float[Array, "b t d"]
    cache: Cache | None


@flax.struct.dataclass
class _Shared:
    """What every layer gets."""

    turns: ops.Turns
    allowed: Bool[Array, "_ t s"]
    start: Int[Array, ""] | None  # first slot of the new tokens in a cache
    # Whether token i is in slot i, as without a cache, so that keys behind it need no look.
    in_order: bool = flax.struct.field(pytree_node=False, default=False)


@flax.struct.dataclass
class _Carried:
    """What goes from layer to layer, and is changed in place."""

    x: Float[Array, "b t d"]
    keys: Any = None  # those of `Cache`, if there is one
    values: Any = None


class Block(nn.Module):
    """Attention and a gated MLP, each behind a norm and added to its input.

    Taps: ``attention``, the weights (b, heads, t, s) after any edit, and ``out``.

    Attributes:
      cfg: sizes and options.
    """

    cfg: LlamaConfig

    @nn.compact
    def __call__(
        self,
        carried: _Carried,
        shared: _Shared,
        layer: Int[Array, ""],
        edit: AttentionEdit | None,
    ) -> tuple[_Carried, None]:
        """Transform tokens."""
        cfg, types = self.cfg, Types.of(self.cfg)
        x = carried.x
        mixed, carried = self._attention(self._norm("norm1", x), carried, shared, layer, edit)
        x = x + mixed
        x = x + SwiGLU(width=cfg.mlp_width, types=types, name="mlp")(self._norm("norm2", x))
        return carried.replace(x=tap(self, "out", x)), None  # pyright: ignore[reportAttributeAccessIssue]

    def _attention(
        self,
        x: Array,
        carried: _Carried,
        shared: _Shared,
        layer: Array,
        edit: AttentionEdit | None,
    ) -> tuple[Array, _Carried]:
        cfg, types = self.cfg, Types.of(self.cfg)
        # Per head of keys and values: its queries, its key, its value.
        shape = (cfg.num_kv_heads, cfg.groups + 2, cfg.head_dim)
        mixed = Linear(features=shape, use_bias=cfg.qkv_bias, types=types, name="qkv")(x)
        # Split, not sliced: the gradient of slices is a sum of maps that are mostly zeros.
        turned, v = jnp.split(mixed, [cfg.groups + 1], axis=-2)
        q, k = jnp.split(ops.rotary(turned, shared.turns), [cfg.groups], axis=-2)
        q = q.reshape(*x.shape[:2], cfg.num_heads, cfg.head_dim)
        k, v = k[..., 0, :], v[..., 0, :]
        if shared.start is not None and carried.keys is not None and carried.values is not None:
            keys = write(carried.keys, k, layer, shared.start)
            values = write(carried.values, v, layer, shared.start)
            carried = carried.replace(keys=keys, values=values)  # pyright: ignore[reportAttributeAccessIssue]
            own = (jax.lax.dynamic_index_in_dim(a, layer, 0, False) for a in (keys, values))
            k, v = (jnp.swapaxes(a, 1, 2).astype(q.dtype) for a in own)
        y = self._mixed(q, k, v, shared, edit)
        y = y.reshape(*x.shape[:2], cfg.num_heads * cfg.head_dim)
        out = Linear(features=(cfg.width,), use_bias=cfg.out_bias, types=types, name="out_proj")
        return out(y), carried

    def _mixed(
        self, q: Array, k: Array, v: Array, shared: _Shared, edit: AttentionEdit | None
    ) -> Array:
        allowed = shared.allowed
        if not taps.active():
            plain = functools.partial(ops.token_attention, causal=shared.in_order)
            if edit is None:
                return plain(q, k, v, allowed)
            edited = functools.partial(edited_attention, edit=edit)
            return jax.lax.cond(edit.layers, edited, plain, q, k, v, allowed)
        scores = ops.attention_scores(q, k)
        if edit is not None:
            scores = jnp.where(edit.layers, edit_scores(scores, allowed, edit), scores)
        weights = ops.masked_softmax(scores, allowed[:, None])
        if edit is not None:
            weights = jnp.where(edit.layers, edit_weights(weights, allowed, edit), weights)
        return ops.weighted_values(tap(self, "attention", weights), v)

    def _norm(self, name: str, x: Array) -> Array:
        return RMSNorm(epsilon=self.cfg.epsilon, types=Types.of(self.cfg), name=name)(x)


class Llama(nn.Module):
    """The whole network but its embeddings and the projection to logits.

    Taps: ``embeddings``, what enters the first block; those of `Block` below ``layers``.

    Attributes:
      cfg: sizes and options.
    """

    cfg: LlamaConfig

    @nn.compact
    def __call__(
        self, carried: _Carried, shared: _Shared, edit: AttentionEdit | None = None
    ) -> tuple[Array, _Carried]:
        """Hidden states after the last norm, and the keys and values of all layers."""
        cfg = self.cfg
        carried = carried.replace(x=tap(self, "embeddings", carried.x))  # pyright: ignore[reportAttributeAccessIssue]
        carried, _ = apply_stack(
            Block(cfg, name="layers"),
            carried,
            length=cfg.depth,
            broadcast=(shared,),
            scanned=(jnp.arange(cfg.depth), None if edit is None else edit.stacked(cfg.depth)),
            scan=cfg.scan_blocks,
            remat=cfg.remat,
        )
        norm = RMSNorm(epsilon=cfg.epsilon, types=Types.of(cfg), name="norm")
        return norm(carried.x), carried


def draw(key: Key, cfg: LlamaConfig) -> Params:
    """Parameters by the initialisers of the modules; tables of the vocabulary likewise."""
    x = jnp.zeros((1, 1, cfg.width), cfg.dtype)
    positions = jnp.zeros((1, 1), jnp.int32)
    shared = _Shared(_turns(positions, cfg), jnp.ones((1, 1, 1), bool), None)
    variables: Any = Llama(cfg).init(key, _Carried(x), shared)
    params, names = variables["params"], ("embed",) if cfg.tied else ("embed", "head")
    for i, name in enumerate(names):
        shape, dtype = (cfg.vocab_size, cfg.width), jnp.dtype(cfg.param_dtype)
        params[name] = Normal(0.02)(jax.random.fold_in(key, i), shape, dtype)
    return params


def embed(params: Params, tokens: Int[Array, "b t"], cfg: LlamaConfig) -> Float[Array, "b t d"]:
    """Embeddings of tokens, to be mixed with those of images before :func:`apply`.

    >>> from jaxcore.models import llama
    >>> cfg = LlamaConfig.tiny()
    >>> embed(llama.init(jax.random.key(0), cfg), jnp.zeros((2, 3), jnp.int32), cfg).shape
    (2, 3, 8)
    """
    return jnp.take(params["embed"], tokens, axis=0, mode="clip").astype(cfg.dtype)


def vocabulary(params: Params, cfg: LlamaConfig) -> Float[Array, "v d"]:
    """One row per token, whose product with a hidden state is the token's logit."""
    return params["embed"] if cfg.tied else params["head"]


def project(params: Params, hidden: Float[Array, "*b d"], cfg: LlamaConfig) -> Float[Array, "*b v"]:
    """Logits of hidden states, at least float32.

    >>> from jaxcore.models import llama
    >>> cfg = LlamaConfig.tiny()
    >>> project(llama.init(jax.random.key(0), cfg), jnp.ones((2, 8)), cfg).shape
    (2, 11)
    """
    return ops.project_rows(hidden, vocabulary(params, cfg))


def apply(
    params: Params,
    x: Int[Array, "b t"] | Float[Array, "b t d"],
    cfg: LlamaConfig,
    *,
    positions: Int[Array, "*k b t"] | None = None,
    valid: Bool[Array, "b t"] | None = None,
    segments: Int[Array, "b t"] | None = None,
    cache: Cache | None = None,
    fresh: bool = False,
    edit: AttentionEdit | None = None,
    logits: Logits = "all",
) -> LlamaOutput:
    """Read tokens. Pure: can be jitted, mapped, differentiated.

    Args:
      params: from ``init`` or ``from_torch``.
      x: tokens, or embeddings (see :func:`embed`).
      cfg: sizes and options; static under ``jit``, as ``fresh`` and ``logits`` are.
      positions: of the tokens, (b, t), or (3, b, t) with ``cfg.mrope_sections``. By default they
        count the tokens of a row, padding left out, from those in the cache on.
      valid: False for padding, which no token sees; rows that are generated from are padded on the
        left. None: no padding.
      segments: number of the text that a token belongs to, where several are packed into a row:
        tokens see those of their own text only, and positions begin anew.
      cache: of `init_cache`; the new tokens are written behind those that it holds (prompts in
        pieces, or one token at a time), and see them.
      fresh: nothing is in the cache yet, which saves a third of the attention.
      edit: of the attention weights of some layers, heads and rows, for counterfactuals.
      logits: for "all" tokens, for the "last" one, or "none".

    Returns:
      Logits, hidden states and, if one was given, the new cache. More tokens than a cache has room
      for cannot be noticed inside ``jit``: they overwrite its last slots.

    Raises:
      UserError: a shape or type does not fit.

    >>> from jaxcore.models import llama
    >>> cfg = LlamaConfig.tiny()
    >>> tokens = jnp.array([[3, 1, 4]])
    >>> shapes = llama.param_shapes(cfg)
    >>> jax.eval_shape(lambda params: apply(params, tokens, cfg).logits, shapes).shape
    (1, 3, 11)
    """
    x = jnp.asarray(x)
    check_inputs(x, cfg, positions, valid, segments, cache)
    if edit is not None and edit.layers.shape != (cfg.depth,):
        raise UserError(
            f"{cfg.title} expects an edit of {cfg.depth} layers, found {edit.layers.shape}."
        )
    tokens = jnp.issubdtype(x.dtype, jnp.integer)
    x = embed(params, x, cfg) if tokens else x.astype(cfg.dtype)
    there = jnp.ones(x.shape[:2], bool) if valid is None else valid
    places = default_positions(there, segments, cache) if positions is None else positions
    turns = _turns(places, cfg)
    # Order in the row, not position: tokens of an image share positions and see each other's past.
    if cache is None:
        shared, carried = _Shared(turns, allowed_keys(there, segments), None, True), _Carried(x)
        hidden, _ = _layers(params, carried, shared, edit, cfg)
    else:
        start, new = cache.length, x.shape[1]
        at = (jnp.zeros((), start.dtype), start)
        written = jax.lax.dynamic_update_slice(cache.valid, there, at)
        order = start + jnp.arange(new, dtype=start.dtype)
        seen = jnp.arange(cache.slots, dtype=start.dtype)[None] <= order[:, None]
        shared = _Shared(turns, seen[None] & written[:, None], start, fresh)
        carried = _Carried(x, cache.keys, cache.values)
        hidden, carried = _layers(params, carried, shared, edit, cfg)
        cache = cache.replace(  # pyright: ignore[reportAttributeAccessIssue]
            keys=carried.keys,
            values=carried.values,
            valid=written,
            position=next_position(places, there, cache.position),
            length=start + new,
        )
    wanted = {"all": hidden, "last": hidden[:, -1:], "none": None}[logits]
    return LlamaOutput(None if wanted is None else project(params, wanted, cfg), hidden, cache)


class _Layer(nn.Module):
    """One block under the name of all of them."""

    cfg: LlamaConfig

    @nn.compact
    def __call__(self, *inputs: Any) -> tuple[_Carried, None]:
        return Block(self.cfg, name="layers")(*inputs)


def _layers(
    params: Params,
    carried: _Carried,
    shared: _Shared,
    edit: AttentionEdit | None,
    cfg: LlamaConfig,
) -> tuple[Array, _Carried]:
    module = {name: part for name, part in params.items() if name not in ("embed", "head")}
    if not isinstance(params["layers"], list):
        out: Any = Llama(cfg).apply({"params": module}, carried, shared, edit)
        return out
    edits = None if edit is None else edit.stacked(cfg.depth)
    seen, caches = [], _caches(carried)
    for i, layer in enumerate(params["layers"]):
        one, at = jax.tree.map(lambda leaf, i=i: leaf[i], edits), i
        if caches:  # that of the layer alone, as a stack of one
            at, (keys, values) = 0, caches[i]
            carried = carried.replace(keys=keys[None], values=values[None])  # pyright: ignore[reportAttributeAccessIssue]
        with taps.nested(jnp.int32(i)) as seen_here:
            variables = {"params": {"layers": layer}}
            found: Any = _Layer(cfg).apply(variables, carried, shared, jnp.int32(at), one)
            carried, _ = found
        if caches:
            caches[i] = carried.keys[0], carried.values[0]
        seen.append(seen_here)
    taps.add({name: jnp.stack([values[name] for values in seen]) for name in seen[0]})
    if caches:
        keys, values = zip(*caches, strict=True)
        carried = carried.replace(keys=keys, values=values)  # pyright: ignore[reportAttributeAccessIssue]
    return ops.rms_norm(carried.x, params["norm"]["scale"], cfg.epsilon), carried


def _caches(carried: _Carried) -> list[tuple[Array, Array]]:
    """Keys and values of each layer, where they are not stacked."""
    if not isinstance(carried.keys, tuple) or not isinstance(carried.values, tuple):
        return []
    return list(zip(carried.keys, carried.values, strict=True))


def _turns(positions: Array, cfg: LlamaConfig) -> ops.Turns:
    """For arrays (b, t, kv, groups + 1, d)."""
    sections = cfg.mrope_sections if positions.ndim == 3 else ()
    cos, sin = ops.rotary_turns(positions, cfg.rates, sections)
    return cos[:, :, None, None], sin[:, :, None, None]
