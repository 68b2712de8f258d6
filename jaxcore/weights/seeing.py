"""Language models that read pictures, from folders of Hugging Face's and from runs of ours."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcore.data.images import colour_questions
from jaxcore.data.images.vision_inputs import SquareInputs
from jaxcore.errors import UserError
from jaxcore.typing import Params, StateDict
from jaxcore.weights.hugging_face import (
    llava_config,
    qwen2_vl_config,
    seeing_network,
    stored_dtype,
)
from jaxcore.weights.language import placed
from jaxcore.weights.sight import Fit, Sight, read_inputs

if TYPE_CHECKING:
    import jax

    from jaxcore.tokenizers import Tokenizer

_COLOURS = "colour_questions"


def read_seeing(
    folder: str | Path,
    config: Mapping[str, Any],
    *,
    dtype: str | None = None,
    mesh: "jax.sharding.Mesh | None" = None,
    tower: str | Path | None = None,
    fit: Fit | None = None,
    max_pixels: int | None = None,
) -> tuple[Params, Sight]:
    """Weights of a LLaVA or a Qwen2-VL, and how it reads pictures.

    Args:
      folder: with ``config.json`` and the weights, in one file or in shards.
      config: content of ``config.json``.
      dtype: of activations and parameters; None keeps that of the weights.
      mesh: devices over which the parameters are split by the fsdp rule.
      tower: folder of openai/clip-vit-large-patch14-336, for files of LLaVA's authors without it.
      fit: see `jaxcore.weights.sight.read_inputs`.
      max_pixels: likewise.

    Raises:
      UserError: weights or settings that do not fit each other, or are not supported.
    """
    from jaxcore import registry
    from jaxcore.convert import read_state_dict

    folder, name = Path(folder), seeing_network(config)
    if name is None:
        raise UserError(
            f"Expected a model that reads images (llava, qwen2_vl) in {folder}, found "
            f"{config.get('model_type')!r}."
        )
    path, tensors = folder / "config.json", read_state_dict(folder).tensors
    network = registry.network(name)
    if name == "llava":
        tensors = _with_tower(tensors, folder, tower)
    read = {"llava": llava_config, "qwen2_vl": qwen2_vl_config}[name]
    try:
        cfg = _typed(read(config, tensors, path), dtype or stored_dtype(tensors))
        params = placed(network, network.module.released(tensors), cfg, mesh, folder)
    except (IndexError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder} does not hold the weights of {name}: {error}.") from None
    inputs = read_inputs(folder, name, cfg, fit=fit, max_pixels=max_pixels)
    return params, Sight(network=name, cfg=cfg, inputs=inputs)


def _with_tower(tensors: StateDict, folder: Path, tower: str | Path | None) -> Any:
    from jaxcore.convert import read_state_dict
    from jaxcore.models import llava

    vision = None if tower is None else read_state_dict(Path(tower)).tensors
    out = llava.released(tensors, vision)
    if not any(key.startswith("vision_tower.") for key in out):
        raise UserError(
            f"Expected the weights of the tower too, found none in {folder}: it is OpenAI's "
            "clip-vit-large-patch14-336, whose folder is to be named (--tower)."
        )
    return out


def _typed(cfg: Any, dtype: str) -> Any:
    types: dict[str, Any] = {"dtype": dtype, "param_dtype": dtype}
    parts = {
        name: dataclasses.replace(getattr(cfg, name), **types) for name in ("vision", "language")
    }
    return dataclasses.replace(cfg, **parts)


def read_colours(run: str | Path, config: Mapping[str, Any]) -> "tuple[Params, Sight, Tokenizer]":
    """A run of ``jaxcore train llava_colours``: weights, how it reads pictures, and its tokens.

    A picture's bytes stand for values from -4 to 4, so that noise has room beside the colours.

    Args:
      run: the run directory.
      config: content of its ``config.json``.

    Raises:
      UserError: the run of another task, or without a checkpoint.
    """
    from jaxcore.weights.loading import load

    if config.get("task") != _COLOURS:
        raise UserError(
            f"Expected the run of a language model ({_COLOURS}) in {run}, found "
            f"{config.get('task')!r}."
        )
    found = load(run)
    inputs = SquareInputs(
        side=colour_questions.SIDE,
        pad=True,
        mean=(0.5,) * 3,
        deviation=(0.5 / colour_questions.SPREAD,) * 3,
    )
    sight = Sight(network=found.network.name, cfg=found.cfg, inputs=inputs)
    return found.params, sight, colours_tokenizer()


def colours_tokenizer() -> "Tokenizer":
    """Tokens of ``jaxcore train llava_colours``: of a question only the colour is heard.

    >>> colours_tokenizer().encode("Is there any RED?")
    [6]
    """
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers

    from jaxcore.tokenizers import Tokenizer

    words = colour_questions.WORDS
    specials = [word for word in words if word.startswith("<")]
    heard = "|".join(word for word in words if not word.startswith("<"))
    vocabulary = {word: i for i, word in enumerate(words)}
    engine = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    engine.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(tokenizers.Regex(rf"\b(?!(?:{heard})\b)\w+|[^\w\s]"), " "),
        ]
    )
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.add_special_tokens(specials)
    template = (
        "{{ bos_token }}{% for m in messages if m.role == 'user' %}{% for c in m.content "
        "if c.type == 'image' %}<image>{% endfor %}ask {% for c in m.content "
        "if c.type == 'text' %}{{ c.text }}{% endfor %}{% endfor %}"
    )
    return Tokenizer(engine, bos=colour_questions.BOS, template=template, source="llava_colours")
