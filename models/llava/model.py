"""LLaVA-1.5: a decoder that reads images through CLIP's image part and a small network.

Liu et al. 2023, "Visual instruction tuning", and 2024, "Improved baselines with visual
instruction tuning". The tower is `jaxcore.models.clip`, the decoder `jaxcore.models.llama`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.models import clip, llama
from jaxcore.models.clip import Seen
from jaxcore.models.clip.model import draw as draw_tower
from jaxcore.models.llama import LlamaOutput
from jaxcore.models.llama.model import draw as draw_decoder
from jaxcore.models.llava.config import LlavaConfig
from jaxcore.nn import Linear, Types
from jaxcore.typing import Key, Params


class Projector(nn.Module):
    """From features of images to embeddings: layers with GELUs (by erf) between them.

    Attributes:
      cfg: sizes and options.
    """

    cfg: LlavaConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b e"]:
        """Transform every vector."""
        types = Types.of(self.cfg.language)
        for i, width in enumerate(self.cfg.projector_widths[1:], 1):
            x = x if i == 1 else jax.nn.gelu(x, approximate=False)
            x = Linear(features=(width,), use_bias=True, types=types, name=f"linear_{i}")(x)
        return x


def draw(key: Key, cfg: LlavaConfig) -> Params:
    """Parameters by the initialisers of the modules."""
    keys = [jax.random.fold_in(key, i) for i in range(3)]
    params = {
        "vision": draw_tower(keys[0], cfg.vision),
        "language": draw_decoder(keys[1], cfg.language),
    }
    if cfg.projector != "identity":
        x = jnp.zeros((1, cfg.vision.width), cfg.language.dtype)
        projector: Any = Projector(cfg).init(keys[2], x)
        params["projector"] = projector["params"]
    return params


def tower(
    params: Params, images: Float[Array, "n h w c"], cfg: LlavaConfig, *, attention: bool = False
) -> Seen:
    """What the tower tells of images: tokens of the selected block, and how it attended.

    Blocks behind it are not computed. The attention still has the token for the whole image first.

    Args:
      params: from ``init`` or ``from_torch``.
      images: normalised squares, of `jaxcore.data.images.vision_inputs.SquareInputs`.
      cfg: sizes and options.
      attention: return the weights of the selected block's attention too.

    Raises:
      UserError: the images do not fit.

    >>> from jaxcore.models import llava
    >>> cfg = LlavaConfig.tiny()
    >>> look = lambda params: tower(params, jnp.zeros((2, 4, 4, 3)), cfg, attention=True)
    >>> seen = jax.eval_shape(look, llava.param_shapes(cfg))
    >>> seen.tokens.shape, seen.attention.shape
    ((2, 4, 4), (2, 1, 5, 5))
    """
    seen = clip.features(
        params["vision"], images, cfg.vision, layer=cfg.select_layer, attention=attention
    )
    return Seen(seen.tokens[:, 1:] if cfg.select == "patches" else seen.tokens, seen.attention)


def project(
    params: Params, tokens: Float[Array, "n k d"], cfg: LlavaConfig
) -> Float[Array, "n k e"]:
    """Embeddings of what the tower tells.

    >>> from jaxcore.models import llava
    >>> cfg = LlavaConfig.tiny()
    >>> params = llava.init(jax.random.key(0), cfg)
    >>> project(params, jnp.zeros((2, 4, 4)), cfg).shape
    (2, 4, 8)
    """
    tokens = tokens.astype(cfg.language.dtype)
    if cfg.projector == "identity":
        return tokens
    out: Any = Projector(cfg).apply({"params": params["projector"]}, tokens)
    return out


def image_features(
    params: Params, images: Float[Array, "n h w c"], cfg: LlavaConfig
) -> Float[Array, "n k e"]:
    """Embeddings of images: :func:`project` of :func:`tower`.

    >>> from jaxcore.models import llava
    >>> cfg = LlavaConfig.tiny()
    >>> params = llava.init(jax.random.key(0), cfg)
    >>> image_features(params, jnp.zeros((2, 4, 4, 3)), cfg).shape
    (2, 4, 8)
    """
    return project(params, tower(params, images, cfg).tokens, cfg)


def merge(
    embeddings: Float[Array, "b t e"],
    tokens: Int[Array, "b t"],
    features: Float[Array, "*n e"],
    image_token: int,
) -> Float[Array, "b t e"]:
    """Put features of images in the places that wait for them, in order, row after row.

    Args:
      embeddings: of the tokens; those at ``image_token`` do not count.
      tokens: of prompts.
      features: as many vectors as there are places; rows without images have no place.
      image_token: what stands in a place.

    Raises:
      UserError: the numbers of places and vectors differ. That cannot be seen inside ``jit``,
        where vectors are left over or the last one is repeated: see :func:`check_places`.

    >>> tokens = jnp.array([[5, 9, 9], [9, 7, 9]])
    >>> merge(jnp.zeros((2, 3, 1)), tokens, jnp.arange(1.0, 5)[:, None], 9)[..., 0].tolist()
    [[0.0, 1.0, 2.0], [3.0, 0.0, 4.0]]
    """
    features = features.reshape(-1, features.shape[-1])
    if not isinstance(tokens, Tracer):
        check_places(np.asarray(tokens), features.shape[0], image_token)
    if not features.shape[0]:
        return embeddings
    here = tokens == image_token
    which = jnp.cumsum(here.reshape(-1), dtype=jnp.int32).reshape(here.shape) - 1
    found = jnp.take(features, which, axis=0, mode="clip").astype(embeddings.dtype)
    return jnp.where(here[..., None], found, embeddings)


def check_places(tokens: Int[np.ndarray, "*b"], vectors: int, image_token: int) -> None:
    """See that prompts have one place for each vector of their images.

    Raises:
      UserError: they have not.

    >>> check_places(np.array([[1, 9, 9]]), 4, 9)
    Traceback (most recent call last):
    jaxcore.errors.UserError: Expected as many places for images in the prompts as there are \
vectors of images, 4, found 2.
    """
    places = int(np.sum(np.asarray(tokens) == image_token))
    if places != vectors:
        raise UserError(
            "Expected as many places for images in the prompts as there are vectors of images, "
            f"{vectors}, found {places}."
        )


def checked_prompt(title: str, tokens: Any, images: Any, features: Any) -> Int[Array, "b t"]:
    """Tokens of prompts, of which images come once at most.

    Args:
      title: the network's name in messages.
      tokens: of the prompts.
      images: None if there are none.
      features: the same.

    Raises:
      UserError: tokens of another shape or type; both images and features.

    >>> checked_prompt("LLaVA", [[1, 2]], None, None).shape
    (1, 2)
    """
    tokens = jnp.asarray(tokens)
    if tokens.ndim != 2 or not tokens.size or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise UserError(
            f"{title} expects tokens (batch, length) of a whole-number type, found "
            f"{tuple(tokens.shape)} of {tokens.dtype}."
        )
    if images is not None and features is not None:
        raise UserError(f"{title} expects either images or their features, found both.")
    return tokens


def embed(
    params: Params,
    tokens: Int[Array, "b t"],
    cfg: LlavaConfig,
    features: Float[Array, "n k e"] | None = None,
) -> Float[Array, "b t e"]:
    """Embeddings of prompts with their images in place, which `llama.prefill` takes.

    Args:
      params: from ``init`` or ``from_torch``.
      tokens: with ``cfg.image_token`` once for each vector of an image.
      cfg: sizes and options.
      features: of :func:`image_features`, in the order of the prompts; None: no images.

    Raises:
      UserError: see :func:`merge`.

    >>> from jaxcore.models import llava
    >>> cfg = LlavaConfig.tiny()
    >>> params = llava.init(jax.random.key(0), cfg)
    >>> embed(params, jnp.array([[1, 10, 10, 10, 10, 2]]), cfg, jnp.zeros((1, 4, 8))).shape
    (1, 6, 8)
    """
    embeddings = llama.embed(params["language"], tokens, cfg.language)
    features = jnp.zeros((0, cfg.language.width)) if features is None else features
    return merge(embeddings, tokens, features, cfg.image_token)


def apply(
    params: Params,
    x: Int[Array, "b t"],
    cfg: LlavaConfig,
    *,
    images: Float[Array, "n h w c"] | None = None,
    features: Float[Array, "n k e"] | None = None,
    **options: Any,
) -> LlamaOutput:
    """Read prompts with images. Pure: can be jitted (``cfg`` static), mapped, differentiated.

    To generate, hand :func:`embed` to `llama.prefill`, and go on with `llama.step`.

    Args:
      params: from ``init`` or ``from_torch``.
      x: tokens, with ``cfg.image_token`` once for each vector of an image.
      cfg: sizes and options.
      images: normalised squares, in the order of the prompts; rows may have none, or several.
      features: in the place of ``images``: embeddings of them, of :func:`image_features` or edited.
      **options: of `llama.apply`: padding, cache, edits, which logits.

    Returns:
      As `llama.apply`.

    Raises:
      UserError: shapes, or the numbers of images and of places for them, do not fit.

    >>> from jaxcore.models import llava
    >>> cfg = LlavaConfig.tiny()
    >>> tokens = jnp.array([[1, 10, 10, 10, 10, 2]])
    >>> read = lambda params: apply(params, tokens, cfg, images=jnp.zeros((1, 4, 4, 3))).logits
    >>> jax.eval_shape(read, llava.param_shapes(cfg)).shape
    (1, 6, 11)
    """
    x = checked_prompt(cfg.title, x, images, features)
    if images is not None:
        features = image_features(params, images, cfg)
    embeddings = embed(params, x, cfg, features)
    return llama.apply(params["language"], embeddings, cfg.language, **options)
