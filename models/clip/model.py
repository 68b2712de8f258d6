"""Encoders of images by vision transformers: CLIP's, and the one of Dosovitskiy et al.

Radford et al. 2021, "Learning transferable visual models from natural language supervision";
Dosovitskiy et al. 2021, "An image is worth 16x16 words". Layout NHWC.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.errors import UserError
from jaxcore.models.base import check_images
from jaxcore.models.clip.config import CLIPConfig
from jaxcore.nn import ChannelNorm, Conv, Normal, PointwiseConv, Types, apply_stack, tap
from jaxcore.typing import Key, Params


@flax.struct.dataclass
class Seen:
    """Tokens behind a block, and how it attended.

    Attributes:
      tokens: one for the whole image, then its patches row by row.
      attention: the weights of the block; None where they are not asked for.
    """

    tokens: Float[Array, "b t d"]
    attention: Float[Array, "b heads t t"] | None = None


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and added to its input.

    Taps: ``attention``, the weights (b, heads, t, t), and ``out``.

    Attributes:
      cfg: sizes and options.
    """

    cfg: CLIPConfig

    @nn.compact
    def __call__(self, seen: Seen) -> Seen:
        """Transform tokens; the attention of the block before is replaced by this one's."""
        cfg, x = self.cfg, seen.tokens
        mixed, weights = self._attention(self._norm("norm1", x))
        x = x + mixed
        hidden = self._linear("fc1", cfg.mlp_width, self._norm("norm2", x))
        if cfg.activation == "gelu":
            hidden = jax.nn.gelu(hidden, approximate=False)
        else:
            hidden = hidden * jax.nn.sigmoid(1.702 * hidden)
        x = tap(self, "out", x + self._linear("fc2", cfg.width, hidden))
        return Seen(x, None if seen.attention is None else weights)

    def _attention(self, x: Array) -> tuple[Array, Array]:
        cfg = self.cfg
        shape = (*x.shape[:2], cfg.num_heads, cfg.width // cfg.num_heads)
        q, k, v = (self._linear(name, cfg.width, x).reshape(shape) for name in "qkv")
        weights = tap(self, "attention", ops.attention_weights(q, k))
        y = ops.weighted_values(weights, v)
        return self._linear("out", cfg.width, y.reshape(x.shape)), weights

    def _norm(self, name: str, x: Array) -> Array:
        return ChannelNorm(epsilon=self.cfg.epsilon, types=Types.of(self.cfg), name=name)(x)

    def _linear(self, name: str, features: int, x: Array) -> Array:
        types = Types.of(self.cfg)
        return PointwiseConv(features=features, use_bias=True, types=types, name=name)(x)


class CLIP(nn.Module):
    """The whole network, or its blocks alone.

    Taps: ``embeddings``, what enters the first block; those of `Block` below ``layers``.

    Attributes:
      cfg: sizes and options.
      pooled: end with one vector per image; False: with the tokens behind the last block.
      attention: with ``pooled`` False, return also the attention of the last block.
    """

    cfg: CLIPConfig
    pooled: bool = True
    attention: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b e"] | Seen:
        """Encode images; see :func:`apply` and :func:`features`."""
        cfg, types = self.cfg, Types.of(self.cfg)
        clip, dtype = cfg.family == "clip", jnp.dtype(cfg.param_dtype)
        patches = Conv(
            features=cfg.width,
            kernel_size=cfg.patch_size,
            stride=cfg.patch_size,
            padding=0,
            use_bias=not clip,
            types=types,
            name="patch_embedding",
        )(images)
        first = self.param("class_embedding", Normal(cfg.width**-0.5), (cfg.width,), dtype)
        first = jnp.broadcast_to(first.astype(patches.dtype), (images.shape[0], 1, cfg.width))
        x = jnp.concatenate([first, patches.reshape(images.shape[0], -1, cfg.width)], axis=1)
        places = self.param("position_embedding", Normal(0.02), (cfg.tokens, cfg.width), dtype)
        x = x + places.astype(x.dtype)[None]
        if clip:
            x = self._norm("pre_norm", x)
        x = tap(self, "embeddings", x)
        weights = None
        if self.attention:  # of one block, not of all: each replaces that of the one before
            shape = (x.shape[0], cfg.num_heads, cfg.tokens, cfg.tokens)
            weights = jnp.zeros(shape, ops.accumulation_dtype(x.dtype))
        block, seen = Block(cfg, name="layers"), Seen(x, weights)
        seen, _ = apply_stack(block, seen, length=cfg.depth, scan=cfg.scan_blocks)
        if not self.pooled:
            return seen
        pooled = self._norm("post_norm", seen.tokens[:, 0])
        if cfg.projection:
            layer = PointwiseConv(
                features=cfg.projection, use_bias=not clip, types=types, name="projection"
            )
            pooled = layer(pooled) if clip else jnp.tanh(layer(pooled))
        return pooled.astype(ops.accumulation_dtype(cfg.dtype))

    def _norm(self, name: str, x: Array) -> Array:
        return ChannelNorm(epsilon=self.cfg.epsilon, types=Types.of(self.cfg), name=name)(x)


def draw(key: Key, cfg: CLIPConfig) -> Params:
    """Parameters by the initialisers of the modules."""
    shape = (1, cfg.image_size, cfg.image_size, cfg.in_channels)
    variables: Any = CLIP(cfg).init(key, jnp.zeros(shape, jnp.float32))
    return variables["params"]


def apply(params: Params, x: Float[Array, "b h w c"], cfg: CLIPConfig) -> Float[Array, "b e"]:
    """Features of images. Pure: can be jitted (``cfg`` static), mapped, differentiated, sharded.

    Args:
      params: from ``init`` or ``from_torch``.
      x: images of ``cfg.image_size`` pixels, normalised by the constants of the weights; see
        `jaxcore.weights.load_encoder` for images as they are.
      cfg: sizes and options.

    Returns:
      (b, ``cfg.features``), float32 (float64 if ``cfg.dtype`` is), not scaled to length one.

    Raises:
      UserError: shape or type of ``x`` do not fit.

    >>> from jaxcore.models import clip
    >>> cfg = CLIPConfig.tiny()
    >>> x = jnp.zeros((2, 4, 4, 3))
    >>> jax.eval_shape(lambda params: apply(params, x, cfg), clip.param_shapes(cfg)).shape
    (2, 3)
    """
    _check(x, cfg)
    out: Any = CLIP(cfg).apply({"params": params}, x)
    return out


def features(
    params: Params,
    x: Float[Array, "b h w c"],
    cfg: CLIPConfig,
    *,
    layer: int = -1,
    attention: bool = False,
) -> Seen:
    """Tokens behind one block, not normalised, as networks that build on CLIP take them.

    Blocks behind it are not computed, and their parameters may be left out.

    Args:
      params: from ``init`` or ``from_torch``.
      x: images, as of :func:`apply`.
      cfg: sizes and options.
      layer: number of the block, from 1; from the end if negative: -1 is the last one.
      attention: return the weights of that block's attention too. Only one block's are kept.

    Raises:
      UserError: there is no such block, or the images do not fit.

    >>> from jaxcore.models import clip
    >>> cfg = CLIPConfig.tiny()
    >>> x = jnp.zeros((2, 4, 4, 3))
    >>> look = lambda params: features(params, x, cfg, layer=-2, attention=True)
    >>> seen = jax.eval_shape(look, clip.param_shapes(cfg))
    >>> seen.tokens.shape, seen.attention.shape
    ((2, 5, 4), (2, 1, 5, 5))
    """
    _check(x, cfg)
    depth = layer + cfg.depth + 1 if layer < 0 else layer
    if not 1 <= depth <= cfg.depth:
        raise UserError(f"{cfg.title} expects a layer from 1 to {cfg.depth}, found {layer}.")
    used = {**params, "layers": jax.tree.map(lambda leaf: leaf[:depth], params["layers"])}
    network = CLIP(dataclasses.replace(cfg, depth=depth), pooled=False, attention=attention)
    seen: Any = network.apply({"params": used}, x)
    return seen


def _check(x: Array, cfg: CLIPConfig) -> None:
    side = cfg.image_size
    check_images(cfg.title, x, channels=cfg.in_channels, multiple=side, values="normalised units")
    if x.shape[1:3] != (side, side):
        raise UserError(
            f"{cfg.title} expects a height and width of {side}, found {x.shape[1]} and "
            f"{x.shape[2]}."
        )
