"""Other ways to contrast, through the same loop: VCD, text alone, PAI, and layers (DoLa)."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from jaxcore.bounds import AtLeast, AtMost, Index
from jaxcore.errors import UserError
from jaxcore.estimators.causalmm.branches import Decoder, Prompt, Start, Text, stack, start
from jaxcore.nn import AttentionEdit, capture, layers_of
from jaxcore.serial import Serial
from jaxcore.typing import Key

_STEPS = 1000  # of the diffusion whose noise VCD takes


@dataclasses.dataclass(frozen=True, kw_only=True)
class VCDConfig(Serial):
    """Visual contrastive decoding (Leng et al. 2024): the other branch sees a noisy picture.

    Attributes:
      step: of 1000 steps of a diffusion, from which the noise is taken.
      gamma: strength of the contrast, alpha of the paper.
      epsilon: see `plausibility_mask`, beta of the paper.
    """

    step: Annotated[int, AtLeast(0), AtMost(_STEPS - 1)] = 500
    gamma: Annotated[float, AtLeast(0)] = 1.0
    epsilon: Annotated[float, AtLeast(0), AtMost(1)] = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextOnlyConfig(Serial):
    """Contrast with the same question without the picture (M3ID and others)."""

    gamma: Annotated[float, AtLeast(0)] = 1.0
    epsilon: Annotated[float, AtLeast(0), AtMost(1)] = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PAIConfig(Serial):
    """Pay attention to image (Liu et al. 2024): scores of the picture's tokens are raised.

    Before the softmax ``alpha |score|`` is added for the last query in the layers from ``first``
    on, and the result is contrasted with the question without the picture.

    Attributes:
      alpha: how much scores are raised; 0.5 for LLaVA-1.5, 0.2 in long texts.
      first: layer from which on they are.
      gamma: strength of the contrast; their guidance less one.
      epsilon: see `plausibility_mask`.
    """

    alpha: Annotated[float, AtLeast(0)] = 0.5
    first: Index = 2
    gamma: Annotated[float, AtLeast(0)] = 0.1
    epsilon: Annotated[float, AtLeast(0), AtMost(1)] = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoLaConfig(Serial):
    """Decoding by contrasting layers (Chuang et al. 2024): the network against its own beginning.

    Attributes:
      layers: numbers of blocks, from 0, whose outputs are candidates; none: every second one of the
        upper half. Each row takes that whose next token differs most from the last layer's, by the
        Jensen-Shannon divergence.
      epsilon: see `plausibility_mask`.
    """

    layers: tuple[Index, ...] = ()
    epsilon: Annotated[float, AtLeast(0), AtMost(1)] = 0.1


def regular(decoder: Decoder, factual: Prompt, *, room: int) -> Start:
    """Plain decoding: sampling, or greedy with a sampler of temperature 0."""
    return start(decoder, [factual], room=room)


def noised(images: Float[Array, "n h w c"], keys: Key, step: int = 500) -> Float[Array, "n h w c"]:
    """Pictures with the noise of a step of VCD's diffusion, after their normalisation.

    Args:
      images: normalised.
      keys: one per picture.
      step: of 1000, 0 is almost no noise.

    >>> images = jnp.ones((1, 2, 2, 3))
    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> bool(jnp.abs(noised(images, keys, 0) - images).max() < 0.1)
    True
    """
    rates = 1 / (1 + np.exp(-np.linspace(-6, 6, _STEPS))) * (0.5e-2 - 1e-5) + 1e-5
    kept = float(np.prod(1 - rates[: step + 1]))
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    return kept**0.5 * images + (1 - kept) ** 0.5 * noise


def contrast(
    decoder: Decoder,
    factual: Prompt,
    other: Prompt,
    config: VCDConfig | TextOnlyConfig,
    *,
    room: int,
) -> Start:
    """Contrast with any other prompt: of a noisy picture (`noised`), or without one."""
    options: dict[str, Any] = {"gammas": [config.gamma], "epsilon": config.epsilon}
    return start(decoder, [factual, other], room=room, **options)


def pai(
    decoder: Decoder,
    factual: Prompt,
    text: Prompt,
    pictures: Bool[Array, "b t"],
    config: PAIConfig,
    *,
    room: int,
) -> Start:
    """Raise the attention to pictures, and contrast with the question alone.

    Args:
      decoder: the network.
      factual: prompt with pictures.
      text: prompt without.
      pictures: which tokens of the factual prompt are those of pictures.
      config: strengths.
      room: tokens that will be generated at most.
    """
    depth = decoder.cfg.depth
    both = [factual, text]
    length = max(prompt.x.shape[1] for prompt in both)
    rows = factual.x.shape[0]
    front = length - pictures.shape[1]
    targets = jnp.pad(jnp.asarray(pictures), ((0, rows), (front, room)))
    edit = AttentionEdit(
        layers=layers_of(range(min(config.first, depth - 1), depth), depth),
        kind="amplify",
        rows=jnp.arange(2 * rows) < rows,
        targets=targets,
        strength=jnp.float32(config.alpha),
    )
    options: dict[str, Any] = {"gammas": [config.gamma], "epsilon": config.epsilon}
    return start(decoder, both, room=room, edit=edit, **options)


def dola(decoder: Decoder, factual: Prompt, config: DoLaConfig, *, room: int) -> Start:
    """Contrast the last layer with an earlier one, whose output is projected as it is.

    Raises:
      UserError: the network has no such layer.
    """
    depth = decoder.cfg.depth
    layers = config.layers or tuple(range(depth // 2, depth - 1, 2)) or tuple(range(depth - 1))
    if not layers or max(layers) >= depth - 1:
        raise UserError(
            f"Expected layers below the last one, {depth - 1}, to contrast it with, found "
            f"{config.layers}."
        )
    text = stack(decoder, [factual])
    slots = text.x.shape[1] + room
    epsilon = jnp.float32(config.epsilon)
    cache = decoder.network.init_cache(decoder.cfg, text.x.shape[0], slots)
    read = jax.jit(_layered(layers))
    logits, cache = read(decoder, epsilon, text.x, cache, text.valid, text.positions)
    return Start(Partial(_layered(layers), decoder, epsilon), cache, logits, None, 1, room)


@functools.cache
def _layered(layers: Sequence[int]) -> Callable[..., tuple[Array, Any]]:
    def one(
        decoder: Decoder,
        epsilon: Array,
        x: Array,
        cache: Any,
        valid: Array | None = None,
        positions: Array | None = None,
    ) -> tuple[Array, Any]:
        network, params, cfg = decoder.network, decoder.params, decoder.cfg
        look = capture(network.apply, "layers/out")
        options: dict[str, Any] = {"valid": valid, "positions": positions, "cache": cache}
        out, seen = look(params, x, cfg, **options, logits="last")
        early = seen["layers/out"][jnp.asarray(layers), :, -1]
        return layer_contrast(out.logits[:, 0], network.project(params, early, cfg), epsilon), (
            out.cache
        )

    return one


def layer_contrast(
    logits: Float[Array, "b v"], early: Float[Array, "l b v"], epsilon: Array | float
) -> Float[Array, "b v"]:
    """Log-probabilities of the last layer less those of the candidate that differs most from it.

    >>> logits = jnp.log(jnp.array([[0.7, 0.3]]))
    >>> early = jnp.log(jnp.array([[[0.7, 0.3]], [[0.5, 0.5]]]))
    >>> layer_contrast(logits, early, 0.1).round(3).tolist()
    [[0.336..., -0.511...]]
    """
    last = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    each = jax.nn.log_softmax(early.astype(jnp.float32), axis=-1)
    mean = jnp.logaddexp(last[None], each) - np.log(2)

    def divergence(p: Array) -> Array:
        return jnp.sum(jnp.exp(p) * (p - mean), axis=-1)

    chosen = jnp.argmax(divergence(last[None]) + divergence(each), axis=0)
    other = jnp.take_along_axis(each, chosen[None, :, None], axis=0)[0]
    cutoff = jnp.max(last, axis=-1, keepdims=True) + jnp.log(jnp.asarray(epsilon, jnp.float32))
    return jnp.where(last < cutoff, -jnp.inf, last - other)


def without_pictures(prompt: Any, image_tokens: Sequence[int], tokens: Array) -> Text:
    """The tokens of a prompt less those of pictures, one row; positions count anew.

    Args:
      prompt: one row.
      image_tokens: ids that stand for pictures.
      tokens: (1, t) of the prompt.

    >>> text = Text(jnp.zeros((1, 4, 2)), jnp.array([[False, True, True, True]]))
    >>> without_pictures(text, [9], jnp.array([[0, 5, 9, 6]])).x.tolist()
    [[5, 6]]
    """
    kept = np.asarray(prompt.valid)[0] & ~np.isin(np.asarray(tokens)[0], image_tokens)
    x = np.asarray(tokens)[:, kept].astype(np.int32)
    return Text(jnp.asarray(x), jnp.ones(x.shape, bool))
