"""A language model, or one that sees, asked with any way to decode."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm.baselines import (
    DoLaConfig,
    PAIConfig,
    TextOnlyConfig,
    VCDConfig,
    contrast,
    dola,
    noised,
    pai,
    regular,
    without_pictures,
)
from jaxcore.estimators.causalmm.branches import Decoder, Start, Text
from jaxcore.estimators.causalmm.config import CausalMMConfig, VisionEdit
from jaxcore.estimators.causalmm.decoding import branch_keys, causalmm
from jaxcore.estimators.causalmm.vision import llava_features, qwen2_vl_features
from jaxcore.generate import GREEDY, Sampler, pad_left
from jaxcore.models import llama, llava, qwen2_vl
from jaxcore.typing import Key, Params

if TYPE_CHECKING:
    from jaxcore.weights import LanguageModel

Way: TypeAlias = CausalMMConfig | VCDConfig | TextOnlyConfig | PAIConfig | DoLaConfig
"""How to decode; None is as the model says."""

_BUCKET = 64  # prompts are padded to multiples of this, so that few programs are compiled


def begin(
    model: "LanguageModel",
    ids: Sequence[int],
    images: Sequence[np.ndarray] = (),
    way: Way | None = None,
    *,
    keys: Key,
    room: int,
) -> Start:
    """Let a model and its counterfactual branches read one prompt.

    Args:
      model: of `jaxcore.weights.load_language`.
      ids: of the prompt, with one image token for each picture.
      images: pictures of 8 bits.
      way: how to decode.
      keys: one, also for drawing tokens.
      room: tokens that will be generated at most.

    Raises:
      UserError: no picture for a way that needs one; a prompt that is too long.
    """
    params, cfg = model.decoder
    decoder = Decoder(params, cfg, llama)
    bucket = _BUCKET if -(-len(ids) // _BUCKET) * _BUCKET + room <= cfg.max_positions else 1

    def prompt(look: Callable[..., Any] | None = None) -> Any:
        if model.sight is None:
            tokens, valid = pad_left([ids], bucket=bucket, pad=model.tokenizer.pad)
            return Text(jnp.asarray(tokens), jnp.asarray(valid))
        options: dict[str, Any] = {"bucket": bucket, "pad": model.tokenizer.pad, "look": look}
        return model.sight.prompt(model.params, ids, images, **options)

    factual = prompt()
    if way is None:
        return regular(decoder, factual, room=room)
    if isinstance(way, DoLaConfig):
        return dola(decoder, factual, way, room=room)
    if isinstance(way, CausalMMConfig):
        edited = None
        if images:
            edited = functools.partial(_edited, prompt, model.cfg, way.vision, len(images))
        return causalmm(decoder, factual, way, keys=keys, room=room, counterfactual=edited)
    if not images or model.sight is None:
        raise UserError(f"Expected pictures for {type(way).__name__}, found none.")
    if isinstance(way, VCDConfig):
        drawn = branch_keys(keys, 0)
        other = prompt(functools.partial(_noised, cfg=model.cfg, keys=drawn, step=way.step))
        return contrast(decoder, factual, other, way, room=room)
    pictures = _pictures(model.cfg)
    other = without_pictures(factual, pictures, factual.tokens)
    if isinstance(way, TextOnlyConfig):
        return contrast(decoder, factual, other, way, room=room)
    here = jnp.asarray(np.isin(factual.tokens, pictures))
    return pai(decoder, factual, other, here, way, room=room)


def prompt_ids(model: "LanguageModel", question: str, images: int = 0) -> list[int]:
    """Ids of a question by the model's template of chats, with places for pictures before it."""
    if model.sight is None:
        return model.prompt(question)
    from jaxcore.weights.sight import chat

    return chat(model.tokenizer, model.sight.network, question, images)


def answer(
    model: "LanguageModel",
    ids: Sequence[int],
    images: Sequence[np.ndarray] = (),
    way: Way | None = None,
    *,
    max_new_tokens: int = 16,
    sampler: Sampler = GREEDY,
    key: Key | None = None,
) -> str:
    """The whole answer to one prompt, as text.

    Args:
      model: see :func:`begin`, like all that follow.
      ids: likewise.
      images: likewise.
      way: likewise.
      max_new_tokens: at most.
      sampler: default: greedy.
      key: of all draws.
    """
    keys = (jax.random.key(0) if key is None else key)[None]
    started = begin(model, ids, images, way, keys=keys, room=max_new_tokens)
    ends = model.tokenizer.eos
    options: dict[str, Any] = {"sampler": sampler, "max_new_tokens": max_new_tokens, "eos": ends}
    found = started.generate(keys=keys, **options)
    said = [int(i) for i in np.asarray(found.tokens[0])[: int(found.lengths[0])]]
    return model.tokenizer.decode([i for i in said if i not in ends]).strip()


def _pictures(cfg: Any) -> list[int]:
    """Ids that stand for pictures."""
    return [cfg.image_token, *([cfg.video_token] if hasattr(cfg, "video_token") else [])]


def _edited(prompt: Any, cfg: Any, edit: VisionEdit, images: int, keys: Key) -> Any:
    # One row may have several pictures, each with a key of its own.
    each = jax.vmap(jax.random.fold_in, (None, 0))(keys[0], jnp.arange(images))
    return prompt(functools.partial(_look, cfg=cfg, edit=edit, keys=each))


def _look(params: Params, seen: Any, grids: Any, *, cfg: Any, edit: VisionEdit, keys: Key) -> Any:
    """What an edited tower tells of pictures."""
    if isinstance(cfg, qwen2_vl.Qwen2VLConfig):
        return _patched(params, seen, keys, grids=tuple(grids), cfg=cfg, edit=edit)
    return _squared(params, seen, keys, cfg=cfg, edit=edit)


@functools.partial(jax.jit, static_argnames=("cfg", "edit"))
def _squared(params: Params, seen: Any, keys: Key, *, cfg: Any, edit: VisionEdit) -> Any:
    return llava_features(params, seen, cfg, edit, keys=keys)


@functools.partial(jax.jit, static_argnames=("grids", "cfg", "edit"))
def _patched(
    params: Params, seen: Any, keys: Key, *, grids: Any, cfg: Any, edit: VisionEdit
) -> Any:
    return qwen2_vl_features(params, seen, grids, cfg, edit, keys=keys)


def _noised(params: Params, seen: Any, grids: Any, *, cfg: Any, keys: Key, step: int) -> Any:
    """What the tower tells of noisy pictures; of Qwen2-VL the noise is drawn by patch."""
    if isinstance(cfg, qwen2_vl.Qwen2VLConfig):
        values = noised(jnp.asarray(seen.values)[None], keys[:1], step)[0]
        return qwen2_vl.image_features(params, seen.replace(values=values), cfg)
    images = jnp.asarray(seen)
    return llava.image_features(
        params, noised(images, jnp.repeat(keys[:1], len(images)), step), cfg
    )
