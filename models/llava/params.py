"""Weights of LLaVA-1.5 under the names of three publications, in and out."""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from jaxcore.convert import (
    LINEAR,
    Rule,
    from_state_dict,
    nested,
    official_shapes,
    strip_prefix,
    to_state_dict,
)
from jaxcore.errors import UserError
from jaxcore.models import clip, llama
from jaxcore.models.base import shapes_of
from jaxcore.models.llava.config import LlavaConfig
from jaxcore.models.llava.model import draw
from jaxcore.typing import Params, StateDict, TensorLike

Layout: TypeAlias = Literal["released", "memory", "original"]
"""Hugging Face's files; the same in the memory of transformers from 4.52 on; the authors' files."""

_TOWER, _PROJECTOR, _LANGUAGE = "vision_tower.", "multi_modal_projector.", "language_model."
_INNER = "vision_model."  # a level that transformers 5.24 left out
_TOWER_ORIGINAL = "model.vision_tower.vision_tower."
_EMBED = _LANGUAGE + "model.embed_tokens.weight"
_KNOWN = (_EMBED, "model." + _LANGUAGE + "embed_tokens.weight", "model.embed_tokens.weight")
_TEXT = re.compile(r"text_model\.|text_projection\.|visual_projection\.|logit_scale")


def rules(cfg: LlavaConfig) -> tuple[Rule, ...]:
    """Our parameter path -> key of the released layout."""
    return (
        *nested(clip.rules(cfg.vision), "vision", _TOWER),
        Rule(r"projector/(linear_\d+)/kernel", _PROJECTOR + r"\1.weight", LINEAR),
        Rule(r"projector/(linear_\d+)/bias", _PROJECTOR + r"\1.bias"),
        *nested(llama.rules(cfg.language), "language", _LANGUAGE),
    )


def released(state_dict: StateDict, vision: StateDict | None = None) -> dict[str, TensorLike]:
    """Tensors of any layout under the names of the released one.

    Args:
      state_dict: official key -> tensor.
      vision: the tower, where it is in a file of its own: of OpenAI's CLIP, or its image part.

    >>> sorted(released({"model.mm_projector.0.bias": 0, "model.embed_tokens.weight": 1}))
    ['language_model.model.embed_tokens.weight', 'multi_modal_projector.linear_1.bias']
    """
    tensors = strip_prefix(state_dict, _KNOWN, ("module.", "_orig_mod."))
    out = {_name(key): value for key, value in tensors.items()}
    if vision is not None and not any(key.startswith(_TOWER) for key in out):
        tower = {k: v for k, v in vision.items() if not _TEXT.match(k)}
        out |= {_name(_TOWER + key): value for key, value in tower.items()}
    return out


def _name(key: str) -> str:
    if key.startswith(_TOWER_ORIGINAL):
        key = key.removeprefix("model.vision_tower.")
    for part in (_TOWER, _PROJECTOR):
        if key.startswith("model." + part):
            key = key.removeprefix("model.")
    if key.startswith(_TOWER):  # with the level that some lost
        return _TOWER + _INNER + key.removeprefix(_TOWER).removeprefix(_INNER)
    if found := re.fullmatch(r"model\.mm_projector\.(?:(\d+)\.)?(weight|bias)", key):
        return f"{_PROJECTOR}linear_{int(found[1] or 0) // 2 + 1}.{found[2]}"
    if key.startswith("model." + _LANGUAGE):
        return _LANGUAGE + "model." + key.removeprefix("model." + _LANGUAGE)
    if re.match(r"model\.(embed_tokens|layers|norm)\.|lm_head\.", key):
        return _LANGUAGE + key
    return key


def _renamed(key: str, layout: Layout, cfg: LlavaConfig) -> str:
    """A key of the released layout in another."""
    if layout == "released":
        return key
    inner, head = _LANGUAGE + "model.", _LANGUAGE + "lm_head."
    if key.startswith(head):
        return key.removeprefix(_LANGUAGE)
    if layout == "memory":
        if key.startswith(inner):
            return "model." + _LANGUAGE + key.removeprefix(inner)
        return "model." + key.replace(_TOWER + _INNER, _TOWER, 1)
    if key.startswith(inner):
        return key.removeprefix(_LANGUAGE)
    if key.startswith(_TOWER):
        return "model.vision_tower." + key
    number, kind = key.removeprefix(_PROJECTOR + "linear_").split(".")
    place = "" if cfg.projector == "linear" else f"{2 * (int(number) - 1)}."
    return f"model.mm_projector.{place}{kind}"


def from_torch(
    state_dict: StateDict, cfg: LlavaConfig, *, vision: StateDict | None = None
) -> Params:
    """Official weights of any layout as our parameters; strict, nothing is left out.

    Args:
      state_dict: official key -> array: files of Hugging Face, what transformers holds in memory,
        or the authors' files.
      cfg: configuration of the same sizes.
      vision: the tower, where the authors' files leave it to OpenAI's CLIP.

    Raises:
      UserError: missing, unexpected or mis-shaped keys; no tower anywhere.
    """
    tensors = released(state_dict, vision)
    if _EMBED in tensors and not any(key.startswith(_TOWER) for key in tensors):
        raise UserError(
            "Expected the weights of the tower too, found none: these files leave it to "
            "openai/clip-vit-large-patch14-336, whose tensors are to be given as vision."
        )
    return from_state_dict(tensors, rules(cfg), shapes_of(draw, cfg), ignore=llama.LEFTOVERS)


def to_torch(
    params: Params, cfg: LlavaConfig, *, layout: Layout = "released", vision: bool = True
) -> dict[str, np.ndarray]:
    """Exact inverse of :func:`from_torch`.

    Args:
      params: from ``init``, :func:`from_torch` or training.
      cfg: their configuration.
      layout: whose names.
      vision: with the tower; the authors' files may leave it out.

    Raises:
      UserError: the parameters do not belong to ``cfg``.
    """
    tensors = to_state_dict(params, rules(cfg), shapes_of(draw, cfg))
    return {
        _renamed(key, layout, cfg): value
        for key, value in tensors.items()
        if vision or not key.startswith(_TOWER)
    }


def official_keys(cfg: LlavaConfig, layout: Layout = "released") -> Mapping[str, tuple[int, ...]]:
    """Every official key of a layout with its shape; nothing is computed.

    >>> official_keys(LlavaConfig.tiny(), "original")["model.mm_projector.2.weight"]
    (8, 8)
    """
    shapes = official_shapes(shapes_of(draw, cfg), rules(cfg))
    return {_renamed(key, layout, cfg): shape for key, shape in shapes.items()}


def config_from_state_dict(
    state_dict: StateDict,
    *,
    vision: Mapping[str, Any] | None = None,
    language: Mapping[str, Any] | None = None,
    **options: Any,
) -> LlavaConfig:
    """Sizes of the network that official weights belong to.

    Args:
      state_dict: official key -> array (only names and shapes are read).
      vision: options of `clip.config_from_state_dict`.
      language: options of `llama.config_from_state_dict`.
      **options: fields that weights cannot tell, and overrides.

    Raises:
      UserError: the keys are not those of the network.

    >>> import jax
    >>> from jaxcore.models import llava
    >>> cfg = LlavaConfig.tiny()
    >>> weights = llava.to_torch(llava.init(jax.random.key(0), cfg), cfg)
    >>> sizes = {"language": {"head_dim": 4, "max_positions": 64}, "image_token": 10}
    >>> config_from_state_dict(weights, vision={"num_heads": 1}, **sizes) == cfg
    True
    """
    tensors = released(state_dict)
    parts = {
        name: {k.removeprefix(key): v for k, v in tensors.items() if k.startswith(key)}
        for name, key in (("vision", _TOWER), ("language", _LANGUAGE))
    }
    layers = sum(key.startswith(_PROJECTOR) and key.endswith(".weight") for key in tensors)
    if "projector" not in options:
        linear = layers == 1 and "model.mm_projector.weight" in state_dict
        kinds = {0: "identity", 1: "linear" if linear else "mlp1x_gelu"}
        options["projector"] = kinds.get(layers, f"mlp{layers}x_gelu")
    return LlavaConfig(
        vision=clip.config_from_state_dict(parts["vision"], projection=0, **(vision or {})),
        language=llama.config_from_state_dict(parts["language"], **(language or {})),
        **options,
    )
