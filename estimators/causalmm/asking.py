"""A language model, or one that sees, asked with any way to decode."""

import functools
from collections.abc import Iterator, Sequence
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
from jaxcore.estimators.causalmm.branches import Decoder, Start
from jaxcore.estimators.causalmm.config import CausalMMConfig, VisionEdit
from jaxcore.estimators.causalmm.decoding import branch_keys, causalmm, language_edit
from jaxcore.estimators.causalmm.maps import (
    attention_maps,
    attention_picture,
    last_token,
    on_picture,
    text_picture,
)
from jaxcore.estimators.causalmm.vision import llava_features, qwen2_vl_features
from jaxcore.generate import GREEDY, Sampler
from jaxcore.models import llama, llava, qwen2_vl
from jaxcore.typing import Key, Params

if TYPE_CHECKING:
    from jaxcore.weights import LanguageModel
    from jaxcore.weights.sight import Prompt

Way: TypeAlias = CausalMMConfig | VCDConfig | TextOnlyConfig | PAIConfig | DoLaConfig
"""How to decode; None is as the model says."""

_NAMES = {VCDConfig: "vcd", TextOnlyConfig: "text-only", PAIConfig: "pai"}


def begin(
    model: "LanguageModel",
    ids: Sequence[int],
    images: Sequence[np.ndarray] = (),
    way: Way | None = None,
    *,
    keys: Key,
    room: int,
    factual: "Prompt | None" = None,
) -> Start:
    """Let a model and its counterfactual branches read one prompt.

    Args:
      model: of `jaxcore.weights.load_language`.
      ids: of the prompt, with one image token for each picture.
      images: pictures of 8 bits.
      way: how to decode.
      keys: one, also for drawing tokens.
      room: tokens that will be generated at most.
      factual: what ``model.read`` makes of ids and images, where it is known.

    Raises:
      UserError: no picture for a way that needs one; a prompt that is too long.
    """
    params, cfg = model.decoder
    decoder = Decoder(params, cfg, llama)
    prompt = functools.partial(model.read, ids, images, room=room)
    factual = prompt() if factual is None else factual
    room = factual.room
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
        raise UserError(f"Expected pictures for {_NAMES[type(way)]}, found none.")
    if isinstance(way, VCDConfig):
        drawn = branch_keys(keys, 0)
        look = functools.partial(_noised, cfg=model.cfg, keys=drawn, step=way.step)
        other = prompt(look=look)
        return contrast(decoder, factual, other, way, room=room)
    pictures = _pictures(model.cfg)
    other = without_pictures(factual, pictures, jnp.asarray(factual.tokens))
    if isinstance(way, TextOnlyConfig):
        return contrast(decoder, factual, other, way, room=room)
    here = jnp.asarray(np.isin(factual.tokens, pictures))
    return pai(decoder, factual, other, here, way, room=room)


def answer(
    model: "LanguageModel",
    ids: Sequence[int],
    images: Sequence[np.ndarray] = (),
    way: Way | None = None,
    *,
    max_new_tokens: int = 256,
    sampler: Sampler = GREEDY,
    key: Key | None = None,
    chunk: int = 4,
    factual: "Prompt | None" = None,
) -> Iterator[list[int]]:
    """Ids of an answer as they come, as of `LanguageModel.answer`.

    Args:
      model: see :func:`begin`, like all that follow.
      ids: likewise.
      images: likewise.
      way: likewise.
      max_new_tokens: at most; fewer where the context ends.
      sampler: default: greedy.
      key: of all draws.
      chunk: ids at a time; the first comes alone.
      factual: see :func:`begin`.
    """
    keys = (jax.random.key(0) if key is None else key)[None]
    told: dict[str, Any] = {"keys": keys, "room": max_new_tokens, "factual": factual}
    started = begin(model, ids, images, way, **told)
    options: dict[str, Any] = {"sampler": sampler, "eos": model.tokenizer.eos, "chunk": chunk}
    for part in started.stream(keys=keys, max_new_tokens=started.room, **options):
        said = [int(i) for i in part[0]]
        end = next((place for place, i in enumerate(said) if i in model.tokenizer.eos), None)
        yield said[:end]
        if end is not None:
            return


def attention_figure(
    model: "LanguageModel",
    ids: Sequence[int],
    images: Sequence[np.ndarray] = (),
    config: CausalMMConfig | None = None,
    *,
    key: Key | None = None,
) -> Any:
    """What the last token of a prompt attends to: on the (first) picture, or word by word.

    Args:
      model: see :func:`begin`.
      ids: likewise.
      images: likewise.
      config: whose edited attention is drawn below that of the model as it is.
      key: of random kinds.

    Returns:
      A figure of Matplotlib.
    """
    params, cfg = model.decoder
    decoder = Decoder(params, cfg, llama)
    keys = (jax.random.key(0) if key is None else key)[None]
    prompt = functools.partial(model.read, ids, images, room=1)
    factual = prompt()
    read: dict[str, tuple[Any, Any]] = {"as it is": (factual, None)}
    for number, kind in enumerate(config.branches if config else ()):
        edited, edit = factual, None
        if config and kind != "language" and images:
            drawn = branch_keys(keys, number)
            edited = _edited(prompt, model.cfg, config.vision, len(images), drawn)
        if config and kind != "vision":
            drawn = branch_keys(keys, number)
            edit = language_edit(config.language, cfg.depth, cfg.num_heads, keys=drawn)
        read.setdefault(f"edited: {kind}", (edited, edit))
    maps = {name: attention_maps(decoder, text, edit) for name, (text, edit) in read.items()}
    if not images or model.sight is None:
        words = [model.tokenizer.decode([int(i)]) for i in factual.tokens[0][factual.valid[0]]]
        return text_picture(words, {n: last_token(m, factual.valid) for n, m in maps.items()})
    grid = _grid(model, images[0])
    places = np.flatnonzero(np.isin(factual.tokens[0], _pictures(model.cfg)))
    places = places[: grid[0] * grid[1]]
    found = {name: on_picture(one, places.tolist(), grid) for name, one in maps.items()}
    return attention_picture(images[0] / 255, found)


def _grid(model: Any, image: np.ndarray) -> tuple[int, int]:
    """Rows and columns of the tokens of a picture."""
    if isinstance(model.cfg, qwen2_vl.Qwen2VLConfig):
        _, (_, rows, columns) = model.sight.inputs(image)
        merge = model.cfg.vision.merge
        return rows // merge, columns // merge
    side = int(model.cfg.image_tokens**0.5)
    return side, side


def _pictures(cfg: Any) -> list[int]:
    """Ids that stand for pictures."""
    return [cfg.image_token, *([cfg.video_token] if hasattr(cfg, "video_token") else [])]


def _edited(prompt: Any, cfg: Any, edit: VisionEdit, images: int, keys: Key) -> Any:
    # One row may have several pictures, each with a key of its own.
    each = jax.vmap(jax.random.fold_in, (None, 0))(keys[0], jnp.arange(images))
    return prompt(look=functools.partial(_look, cfg=cfg, edit=edit, keys=each))


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
