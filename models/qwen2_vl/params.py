"""Weights of Qwen2-VL as Hugging Face names them, in and out."""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from jaxcore.convert import (
    LINEAR,
    Rule,
    Transform,
    from_state_dict,
    nested,
    official_shapes,
    strip_prefix,
    to_state_dict,
)
from jaxcore.models import llama
from jaxcore.models.base import shapes_of
from jaxcore.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from jaxcore.models.qwen2_vl.model import draw
from jaxcore.models.regression_keys import count, shapes_with
from jaxcore.typing import Params, StateDict, TensorLike

Layout: TypeAlias = Literal["released", "memory"]
"""Hugging Face's files; the same in the memory of transformers 5."""

_TOWER, _PATCHES = "visual.", "visual.patch_embed.proj.weight"
_EMBED = "model.embed_tokens.weight"
_KNOWN = (_PATCHES, "model." + _PATCHES)


def rules(cfg: Qwen2VLConfig) -> tuple[Rule, ...]:
    """Our parameter path -> key of the released layout."""
    return (*nested(_tower_rules(cfg.vision), "vision", _TOWER), *_decoder_rules(cfg))


def _decoder_rules(cfg: Qwen2VLConfig) -> tuple[Rule, ...]:
    return nested(llama.rules(cfg.language), "language")


def _tower_rules(cfg: VisionConfig) -> list[Rule]:
    heads = (3, cfg.num_heads, cfg.head_dim)
    # A row of an image's patch holds band, moment, height and width, as the official kernel does.
    patch = (cfg.in_channels, cfg.frames, cfg.patch_size, cfg.patch_size)
    patches = Transform(
        "patches",
        lambda w: w.reshape(w.shape[0], -1).T,
        lambda w: w.T.reshape(w.shape[1], *patch),
    )
    qkv = Transform(
        "queries, keys, values",
        lambda w: w.T.reshape(w.shape[1], *heads),
        lambda w: w.reshape(w.shape[0], -1).T,
    )
    flat = Transform("heads", lambda w: w.reshape(heads), lambda w: w.reshape(-1))
    block = "blocks.{i}."
    out = [
        Rule("patch_embedding/kernel", "patch_embed.proj.weight", patches),
        Rule("layers/qkv/kernel", block + "attn.qkv.weight", qkv, stacked=True),
        Rule("layers/qkv/bias", block + "attn.qkv.bias", flat, stacked=True),
        Rule(r"layers/(norm\d)/scale", block + r"\1.weight", stacked=True),
        Rule(r"layers/(norm\d)/bias", block + r"\1.bias", stacked=True),
        Rule("merger/norm/scale", "merger.ln_q.weight"),
        Rule("merger/norm/bias", "merger.ln_q.bias"),
    ]
    names = {"out": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    dense = {f"layers/{ours}": (block + theirs, True) for ours, theirs in names.items()}
    dense |= {"merger/fc1": ("merger.mlp.0", False), "merger/fc2": ("merger.mlp.2", False)}
    for path, (key, stacked) in dense.items():
        out.append(Rule(path + "/kernel", key + ".weight", LINEAR, stacked=stacked))
        out.append(Rule(path + "/bias", key + ".bias", stacked=stacked))
    return out


def released(state_dict: StateDict) -> dict[str, TensorLike]:
    """Tensors of either layout under the names of the released one.

    >>> released({"model.language_model.norm.weight": 0, "model.visual.merger.ln_q.bias": 1})
    {'model.norm.weight': 0, 'visual.merger.ln_q.bias': 1}
    """
    tensors = strip_prefix(state_dict, _KNOWN, ("module.", "_orig_mod."))
    names = {"model.language_model.": "model.", "model.visual.": _TOWER}
    pattern = re.compile("|".join(map(re.escape, names)))
    out = {}
    for key, value in tensors.items():
        found = pattern.match(key)
        out[names[found[0]] + key[found.end() :] if found else key] = value
    return out


def _renamed(key: str, layout: Layout) -> str:
    if layout == "released" or key.startswith("lm_head."):
        return key
    if key.startswith(_TOWER):
        return "model." + key
    return "model.language_model." + key.removeprefix("model.")


def from_torch(state_dict: StateDict, cfg: Qwen2VLConfig) -> Params:
    """Official weights of either layout as our parameters; strict, nothing is left out.

    Args:
      state_dict: official key -> array.
      cfg: configuration of the same sizes.

    Raises:
      UserError: missing, unexpected or mis-shaped keys.
    """
    target = shapes_of(draw, cfg)
    return from_state_dict(released(state_dict), rules(cfg), target, ignore=llama.LEFTOVERS)


def to_torch(
    params: Params, cfg: Qwen2VLConfig, *, layout: Layout = "released"
) -> dict[str, np.ndarray]:
    """Exact inverse of :func:`from_torch`.

    Args:
      params: from ``init``, :func:`from_torch` or training.
      cfg: their configuration.
      layout: whose names.

    Raises:
      UserError: the parameters do not belong to ``cfg``.
    """
    tensors = to_state_dict(params, rules(cfg), shapes_of(draw, cfg))
    return {_renamed(key, layout): value for key, value in tensors.items()}


def official_keys(cfg: Qwen2VLConfig, layout: Layout = "released") -> Mapping[str, tuple[int, ...]]:
    """Every official key of a layout with its shape; nothing is computed.

    >>> official_keys(Qwen2VLConfig.tiny())["visual.patch_embed.proj.weight"]
    (4, 3, 1, 2, 2)
    """
    shapes = official_shapes(shapes_of(draw, cfg), rules(cfg))
    return {_renamed(key, layout): shape for key, shape in shapes.items()}


def config_from_state_dict(
    state_dict: StateDict,
    *,
    vision: Mapping[str, Any] | None = None,
    language: Mapping[str, Any] | None = None,
    **options: Any,
) -> Qwen2VLConfig:
    """Sizes of the network that official weights belong to.

    Args:
      state_dict: official key -> array (only names and shapes are read).
      vision: fields of the tower that weights cannot tell (heads of 80 channels each, or one), and
        overrides.
      language: options of `llama.config_from_state_dict`; heads have 128 channels by default, and
        the M-RoPE sections are 1/4, 3/8 and 3/8 of their pairs.
      **options: further fields.

    Raises:
      UserError: the keys are not those of the network.

    >>> import jax
    >>> from jaxcore.models import qwen2_vl
    >>> cfg = Qwen2VLConfig.tiny()
    >>> weights = qwen2_vl.to_torch(qwen2_vl.init(jax.random.key(0), cfg), cfg)
    >>> language = {"head_dim": 6, "mrope_sections": (1, 1, 1), "max_positions": 64}
    >>> numbers = {"epsilon": 1e-5, "theta": 10000.0}
    >>> sizes = {"language": language | numbers, "image_token": 10, "video_token": 9}
    >>> config_from_state_dict(weights, **sizes) == cfg
    True
    """
    tensors = released(state_dict)
    first, merger = "visual.blocks.0.mlp.fc1.weight", "visual.merger.mlp.2.weight"
    shapes = shapes_with(Qwen2VLConfig.title, tensors, (_PATCHES, first, merger, _EMBED))
    width, channels, frames, side = shapes[_PATCHES][:4]
    sizes: dict[str, Any] = {
        "in_channels": channels,
        "patch_size": side,
        "frames": frames,
        "merge": round((shapes[merger][1] / width) ** 0.5),
        "width": width,
        "depth": count(shapes, r"visual\.blocks\.(\d+)\.mlp\.fc1\.weight"),
        "num_heads": max(1, width // 80),
        "mlp_width": shapes[first][0],
        "out_width": shapes[merger][0],
    }
    decoder = {k: v for k, v in tensors.items() if not k.startswith(_TOWER)}
    numbers: dict[str, Any] = {"epsilon": 1e-6, "theta": 1e6, "head_dim": 128, **(language or {})}
    if "mrope_sections" not in numbers:
        pairs = numbers["head_dim"] // 2
        numbers["mrope_sections"] = (pairs - 2 * (3 * pairs // 8), *(3 * pairs // 8,) * 2)
    return Qwen2VLConfig(
        vision=VisionConfig(**{**sizes, **(vision or {})}),
        language=llama.config_from_state_dict(decoder, **numbers),
        **options,
    )
