"""Encoders of images by vision transformers: CLIP's, and the one of Dosovitskiy et al.

Radford et al. 2021, "Learning transferable visual models from natural language supervision";
Dosovitskiy et al. 2021, "An image is worth 16x16 words". Layout NHWC.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.errors import UserError
from jaxcore.models.base import check_images
from jaxcore.models.clip.config import CLIPConfig
from jaxcore.nn import ChannelNorm, Conv, Normal, PointwiseConv, Types, apply_stack, tap
from jaxcore.typing import Key, Params


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and added to its input.

    Taps: ``attention``, the weights (b, heads, t, t), and ``out``.

    Attributes:
      cfg: sizes and options.
    """

    cfg: CLIPConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Transform tokens."""
        cfg = self.cfg
        x = x + self._attention(self._norm("norm1", x))
        hidden = self._linear("fc1", cfg.mlp_width, self._norm("norm2", x))
        if cfg.activation == "gelu":
            hidden = jax.nn.gelu(hidden, approximate=False)
        else:
            hidden = hidden * jax.nn.sigmoid(1.702 * hidden)
        return tap(self, "out", x + self._linear("fc2", cfg.width, hidden))

    def _attention(self, x: Array) -> Array:
        cfg = self.cfg
        shape = (*x.shape[:2], cfg.num_heads, cfg.width // cfg.num_heads)
        q, k, v = (self._linear(name, cfg.width, x).reshape(shape) for name in "qkv")
        wide = ops.accumulation_dtype(x.dtype)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=wide)
        weights = jax.nn.softmax(scores * shape[-1] ** -0.5, axis=-1)
        weights = tap(self, "attention", weights).astype(x.dtype)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        return self._linear("out", cfg.width, y.reshape(x.shape))

    def _norm(self, name: str, x: Array) -> Array:
        return ChannelNorm(epsilon=self.cfg.epsilon, types=Types.of(self.cfg), name=name)(x)

    def _linear(self, name: str, features: int, x: Array) -> Array:
        types = Types.of(self.cfg)
        return PointwiseConv(features=features, use_bias=True, types=types, name=name)(x)


class CLIP(nn.Module):
    """The whole network.

    Taps: ``embeddings``, what enters the first block; those of `Block` below ``layers``.

    Attributes:
      cfg: sizes and options.
    """

    cfg: CLIPConfig

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b e"]:
        """Encode images; see :func:`apply`."""
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
        x, _ = apply_stack(Block(cfg, name="layers"), x, length=cfg.depth, scan=cfg.scan_blocks)
        pooled = self._norm("post_norm", x[:, 0])
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
    side = cfg.image_size
    check_images(cfg.title, x, channels=cfg.in_channels, multiple=side, values="normalised units")
    if x.shape[1:3] != (side, side):
        raise UserError(
            f"{cfg.title} expects a height and width of {side}, found {x.shape[1]} and "
            f"{x.shape[2]}."
        )
    out: Any = CLIP(cfg).apply({"params": params}, x)
    return out
