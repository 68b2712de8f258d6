"""Qwen2-VL: a decoder that reads images of any size through a tower of its own.

Wang et al. 2024, "Qwen2-VL: enhancing vision-language model's perception of the world at any
resolution". The decoder is `jaxcore.models.llama`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore import ops
from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.models.clip import Seen
from jaxcore.models.llama import LlamaOutput
from jaxcore.models.llama.model import draw as draw_decoder
from jaxcore.models.llava import checked_prompt, merge
from jaxcore.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from jaxcore.models.qwen2_vl.positions import Patches
from jaxcore.nn import ChannelNorm, Linear, Types, apply_stack, tap
from jaxcore.typing import Key, Params

_QUERIES = 1024  # whose scores with all patches are in memory at once


class Block(nn.Module):
    """Attention inside each image and an MLP, each behind a norm and added to its input.

    Taps: ``attention``, the weights (1, heads, n, n), where they are asked for; ``out``.

    Attributes:
      cfg: sizes and options.
    """

    cfg: VisionConfig

    @nn.compact
    def __call__(self, seen: Seen, turns: ops.Turns, segments: Int[Array, " n"]) -> Seen:
        """Transform patches (1, n, d)."""
        cfg, x = self.cfg, seen.tokens
        shape = (3, cfg.num_heads, cfg.head_dim)
        mixed = self._linear("qkv", shape, self._norm("norm1", x))
        q, k, v = (mixed[:, :, i] for i in range(3))
        q, k = ops.rotary(q, turns), ops.rotary(k, turns)
        if seen.attention is None:
            weights, y = None, _attend(q, k, v, segments)
        else:
            weights = ops.attention_weights(q, k, _same(segments, segments))
            weights = tap(self, "attention", weights)
            y = ops.weighted_values(weights, v)
        x = x + self._linear("out", (cfg.width,), y.reshape(x.shape))
        hidden = self._linear("fc1", (cfg.mlp_width,), self._norm("norm2", x))
        if cfg.activation == "gelu":
            hidden = jax.nn.gelu(hidden, approximate=False)
        else:
            hidden = hidden * jax.nn.sigmoid(1.702 * hidden)
        x = tap(self, "out", x + self._linear("fc2", (cfg.width,), hidden))
        return Seen(x, weights)

    def _norm(self, name: str, x: Array) -> Array:
        return ChannelNorm(epsilon=self.cfg.epsilon, types=Types.of(self.cfg), name=name)(x)

    def _linear(self, name: str, features: tuple[int, ...], x: Array) -> Array:
        return Linear(features=features, use_bias=True, types=Types.of(self.cfg), name=name)(x)


def _same(one: Array, other: Array) -> Array:
    return one[None, :, None] == other[None, None]


def _attend(q: Array, k: Array, v: Array, segments: Array) -> Array:
    """Attention inside segments; of many patches some queries at a time, to bound memory."""
    count = q.shape[1]
    if count <= _QUERIES:
        return ops.token_attention(q, k, v, _same(segments, segments))
    missing = -count % _QUERIES
    parts = jnp.pad(q, ((0, 0), (0, missing), (0, 0), (0, 0)))
    parts = parts.reshape(-1, 1, _QUERIES, *q.shape[2:])
    own = jnp.pad(segments, (0, missing), constant_values=-1).reshape(-1, _QUERIES)

    def some(part: tuple[Array, Array]) -> Array:
        return ops.token_attention(part[0], k, v, _same(part[1], segments))

    out = jax.lax.map(some, (parts, own))
    return out.reshape(1, -1, *q.shape[2:])[:, :count]


class Tower(nn.Module):
    """Patches through the blocks, before cells are merged.

    Taps: ``embeddings``, what enters the first block; those of `Block` below ``layers``.

    Attributes:
      cfg: sizes and options.
      attention: return also the attention of the last block.
    """

    cfg: VisionConfig
    attention: bool = False

    @nn.compact
    def __call__(self, patches: Patches) -> Seen:
        """See :func:`tower`."""
        cfg = self.cfg
        values = jnp.asarray(patches.values)[None]
        layer = Linear(features=(cfg.width,), types=Types.of(cfg), name="patch_embedding")
        x = tap(self, "embeddings", layer(values))
        rates = ops.rotary_rates(cfg.head_dim // 2, cfg.theta)
        places = jnp.asarray(patches.places).T
        turns = ops.rotary_turns(places, np.tile(rates, 2), (len(rates),) * 2)
        turns = tuple(turn[None, :, None] for turn in turns)
        segments = jnp.asarray(patches.segments)
        weights = None
        if self.attention:
            shape = (1, cfg.num_heads, x.shape[1], x.shape[1])
            weights = jnp.zeros(shape, ops.accumulation_dtype(x.dtype))
        seen, _ = apply_stack(
            Block(cfg, name="layers"),
            Seen(x, weights),
            length=cfg.depth,
            broadcast=(turns, segments),
            scan=cfg.scan_blocks,
        )
        return seen


class Merger(nn.Module):
    """Each cell of patches becomes one vector of the decoder's width.

    Attributes:
      cfg: sizes and options.
    """

    cfg: VisionConfig

    @nn.compact
    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "m e"]:
        """Merge patches that lie cell after cell."""
        cfg, types = self.cfg, Types.of(self.cfg)
        x = ChannelNorm(epsilon=1e-6, types=types, name="norm")(x)
        x = x.reshape(-1, cfg.cell * cfg.width)
        x = Linear(features=(x.shape[-1],), use_bias=True, types=types, name="fc1")(x)
        x = jax.nn.gelu(x, approximate=False)
        return Linear(features=(cfg.out_width,), use_bias=True, types=types, name="fc2")(x)


def draw(key: Key, cfg: Qwen2VLConfig) -> Params:
    """Parameters by the initialisers of the modules."""
    keys = [jax.random.fold_in(key, i) for i in range(3)]
    vision = cfg.vision
    zeros = jnp.zeros((vision.cell, vision.patch_values), vision.dtype)
    places = jnp.zeros((vision.cell, 2), jnp.int32)
    tower: Any = Tower(vision).init(keys[0], Patches(zeros, places, places[:, 0]))
    merger: Any = Merger(vision).init(keys[1], jnp.zeros((vision.cell, vision.width)))
    return {
        "vision": {**tower["params"], "merger": merger["params"]},
        "language": draw_decoder(keys[2], cfg.language),
    }


def tower(params: Params, patches: Patches, cfg: Qwen2VLConfig, *, attention: bool = False) -> Seen:
    """What the tower tells of images: one vector per patch, before cells are merged.

    Args:
      params: from ``init`` or ``from_torch``.
      patches: of :func:`join_patches`.
      cfg: sizes and options.
      attention: return the weights of the last block's attention too, (1, heads, n, n): of many
        patches they need much memory.

    Returns:
      Tokens (1, n, d), cell after cell.

    Raises:
      UserError: the patches do not fit.

    >>> from jaxcore.models import qwen2_vl
    >>> cfg = Qwen2VLConfig.tiny()
    >>> patches = qwen2_vl.join_patches([np.zeros((8, 12))], [(1, 2, 4)], cfg.vision)
    >>> look = lambda params: tower(params, patches, cfg, attention=True)
    >>> seen = jax.eval_shape(look, qwen2_vl.param_shapes(cfg))
    >>> seen.tokens.shape, seen.attention.shape
    ((1, 8, 4), (1, 1, 8, 8))
    """
    shape = tuple(patches.values.shape)
    if len(shape) != 2 or shape[1] != cfg.vision.patch_values or shape[0] % cfg.vision.cell:
        raise UserError(
            f"{cfg.title} expects patches of {cfg.vision.patch_values} values in cells of "
            f"{cfg.vision.cell}, found {shape}."
        )
    used = {name: part for name, part in params["vision"].items() if name != "merger"}
    seen: Any = Tower(cfg.vision, attention).apply({"params": used}, patches)
    return seen


def project(
    params: Params, tokens: Float[Array, "1 n d"], cfg: Qwen2VLConfig
) -> Float[Array, "m e"]:
    """Embeddings of what the tower tells: one per cell.

    >>> from jaxcore.models import qwen2_vl
    >>> cfg = Qwen2VLConfig.tiny()
    >>> project(qwen2_vl.init(jax.random.key(0), cfg), jnp.zeros((1, 8, 4)), cfg).shape
    (2, 8)
    """
    out: Any = Merger(cfg.vision).apply({"params": params["vision"]["merger"]}, tokens[0])
    return out


def image_features(params: Params, patches: Patches, cfg: Qwen2VLConfig) -> Float[Array, "m e"]:
    """Embeddings of images, one after the other: :func:`project` of :func:`tower`.

    >>> from jaxcore.models import qwen2_vl
    >>> cfg = Qwen2VLConfig.tiny()
    >>> patches = qwen2_vl.join_patches([np.zeros((8, 12))], [(1, 2, 4)], cfg.vision)
    >>> image_features(qwen2_vl.init(jax.random.key(0), cfg), patches, cfg).shape
    (2, 8)
    """
    return project(params, tower(params, patches, cfg).tokens, cfg)


def embed(
    params: Params,
    tokens: Int[Array, "b t"],
    cfg: Qwen2VLConfig,
    features: Float[Array, "m e"] | None = None,
) -> Float[Array, "b t e"]:
    """Embeddings of prompts with their images in place, which `llama.prefill` takes.

    Args:
      params: from ``init`` or ``from_torch``.
      tokens: with ``cfg.image_token`` once for each vector of an image.
      cfg: sizes and options.
      features: of :func:`image_features`, in the order of the prompts, without those of rows that
        only fill up; None: no images.

    Raises:
      UserError: the numbers of places and vectors differ (not seen inside ``jit``).

    >>> from jaxcore.models import qwen2_vl
    >>> cfg = Qwen2VLConfig.tiny()
    >>> params = qwen2_vl.init(jax.random.key(0), cfg)
    >>> embed(params, jnp.array([[1, 10, 10, 2]]), cfg, jnp.zeros((2, 8))).shape
    (1, 4, 8)
    """
    embeddings = llama.embed(params["language"], tokens, cfg.language)
    features = jnp.zeros((0, cfg.language.width)) if features is None else features
    # A video token stands for an image likewise.
    places = jnp.where(tokens == cfg.video_token, cfg.image_token, tokens)
    return merge(embeddings, places, features, cfg.image_token)


def apply(
    params: Params,
    x: Int[Array, "b t"],
    cfg: Qwen2VLConfig,
    *,
    images: Patches | None = None,
    features: Float[Array, "m e"] | None = None,
    positions: Int[Array, "3 b t"] | None = None,
    **options: Any,
) -> LlamaOutput:
    """Read prompts with images. Pure: can be jitted (``cfg`` static), mapped, differentiated.

    To generate, hand :func:`embed` and the positions to `llama.prefill`, and go on with
    `llama.step`.

    Args:
      params: from ``init`` or ``from_torch``.
      x: tokens, with ``cfg.image_token`` once for each vector of an image.
      cfg: sizes and options.
      images: of :func:`join_patches`, in the order of the prompts; rows may have none, or several.
      features: in the place of ``images``: embeddings of them, of :func:`image_features` or edited.
      positions: of :func:`position_ids`; needed where there are images.
      **options: of `llama.apply`: padding, cache, edits, which logits.

    Returns:
      As `llama.apply`.

    Raises:
      UserError: shapes, or the numbers of images and of places for them, do not fit.

    >>> from jaxcore.models import qwen2_vl
    >>> cfg = Qwen2VLConfig.tiny()
    >>> tokens, grids = np.array([[1, 10, 10, 2]]), [(1, 2, 4)]
    >>> patches = qwen2_vl.join_patches([np.zeros((8, 12))], grids, cfg.vision)
    >>> places, _ = qwen2_vl.position_ids(tokens, grids, cfg)
    >>> read = lambda params: apply(params, tokens, cfg, images=patches, positions=places).logits
    >>> jax.eval_shape(read, qwen2_vl.param_shapes(cfg)).shape
    (1, 4, 11)
    """
    x = checked_prompt(cfg.title, x, images, features)
    if images is not None:
        features = image_features(params, images, cfg)
    if features is not None and positions is None:
        raise UserError(f"{cfg.title} expects positions where there are images, found none.")
    embeddings = embed(params, x, cfg, features)
    return llama.apply(params["language"], embeddings, cfg.language, positions=positions, **options)
