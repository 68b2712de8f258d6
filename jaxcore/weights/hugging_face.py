"""From the ``config.json`` of Hugging Face's folders to configurations of ours.

Sizes are those of the weights themselves; read here is what weights cannot tell.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcore.errors import UserError
from jaxcore.typing import StateDict

if TYPE_CHECKING:
    from jaxcore.models.llama import RopeScaling
    from jaxcore.models.llava import LlavaConfig
    from jaxcore.models.qwen2_vl import Qwen2VLConfig

_LLAMA: dict[str, Any] = {"num_attention_heads": 32, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
_QWEN: dict[str, Any] = {"num_attention_heads": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e6}
_POSITIONS = {"llama": 2048, "qwen2_vl": 32768}
# Model type -> our network; the authors of LLaVA have used all of its three.
_SEEING = {
    "llava": "llava",
    "llava_llama": "llava",
    "LlavaLlamaForCausalLM": "llava",
    "qwen2_vl": "qwen2_vl",
}


_TYPES = ("float32", "bfloat16", "float16", "float64")


def stored_dtype(tensors: StateDict) -> str:
    """The type that most numbers of the weights have.

    >>> stored_dtype({"a": np.zeros(3, np.float16), "b": np.zeros(2, np.float32)})
    'float16'
    """
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[str(tensor.dtype)] = sizes.get(str(tensor.dtype), 0) + int(np.prod(tensor.shape))
    found = max(sizes, key=lambda name: sizes[name], default="float32")
    return found if found in _TYPES else "float32"


def seeing_network(config: Mapping[str, Any]) -> str | None:
    """Our name of a network that reads pictures; None for others.

    >>> seeing_network({"model_type": "qwen2_vl"})
    'qwen2_vl'
    """
    return _SEEING.get(str(config.get("model_type")))


def decoder_options(
    config: Mapping[str, Any], width: int, path: Path, *, family: str = "llama"
) -> dict[str, Any]:
    """What weights of a decoder cannot tell: options of `llama.config_from_state_dict`.

    Args:
      config: settings of the decoder; those that files leave out have the defaults of the family.
      width: of the decoder, which its weights tell.
      path: the file, for messages.
      family: "llama" or "qwen2_vl".

    Raises:
      UserError: settings that are not supported, or cannot be.
    """
    defaults = {**(_QWEN if family == "qwen2_vl" else _LLAMA)}
    defaults["max_position_embeddings"] = _POSITIONS[family]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise UserError(f"Expected the rotations in {path} as an object, found {rope!r}.")
    settings = {**defaults, **config}
    if "rope_theta" in rope:  # since transformers 5
        settings["rope_theta"] = rope["rope_theta"]
    heads = _whole(settings, "num_attention_heads", path)
    head_dim = config.get("head_dim") or width // heads
    if config.get("hidden_act", "silu") != "silu":
        raise UserError(f"Expected the activation silu in {path}, found {config['hidden_act']!r}.")
    if config.get("use_sliding_window") and config.get("sliding_window"):
        raise UserError(f"Expected attention without a sliding window, found one in {path}.")
    out: dict[str, Any] = {
        "head_dim": _whole({"head_dim": head_dim}, "head_dim", path),
        "epsilon": _number(settings, "rms_norm_eps", path),
        "theta": _number(settings, "rope_theta", path),
        "max_positions": _whole(settings, "max_position_embeddings", path),
        "rope": _scaling(rope, path),
    }
    if "mrope_section" in rope:
        sections = rope["mrope_section"]
        if not isinstance(sections, list) or any(type(s) is not int for s in sections):
            raise UserError(f"Expected whole numbers as mrope_section in {path}.")
        out["mrope_sections"] = tuple(sections)
    return out


def _scaling(rope: Mapping[str, Any], path: Path) -> "RopeScaling":
    from jaxcore.models.llama import RopeScaling

    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in ("default", "mrope"):
        return RopeScaling()
    names = {"factor": "factor"}
    if kind == "llama3":
        names |= {"low": "low_freq_factor", "high": "high_freq_factor"}
        names["length"] = "original_max_position_embeddings"
    elif kind != "linear":
        raise UserError(
            f"Expected rotations of the kind default, linear or llama3 in {path}, found {kind!r}."
        )
    read: dict[str, Any] = {ours: _number(rope, name, path) for ours, name in names.items()}
    if "length" in read:
        read["length"] = int(read["length"])
    return RopeScaling(kind=kind, **read)


def llava_config(config: Mapping[str, Any], tensors: StateDict, path: Path) -> "LlavaConfig":
    """LLaVA-1.5, in Hugging Face's form or its authors'.

    Args:
      config: content of ``config.json``.
      tensors: the weights, of which only names and shapes are read; with the tower.
      path: the file, for messages.

    Raises:
      UserError: settings that are not supported, or weights of another network.
    """
    from jaxcore.models import llava

    tensors = llava.released(tensors)
    table = tensors.get("language_model.model.embed_tokens.weight")
    if table is None or len(table.shape) != 2:
        raise UserError(f"Expected the weights of a LLaVA beside {path}, found others.")
    theirs = "text_config" not in config
    vision = _inner(config, "vision_config", path)
    heads = vision.get("num_attention_heads", 16 if theirs else 12)
    options: dict[str, Any] = {"num_heads": heads}
    if vision.get("model_type", "clip_vision_model") != "clip_vision_model":
        raise UserError(f"Expected the tower of CLIP in {path}, found {vision['model_type']!r}.")
    for ours, name in (("epsilon", "layer_norm_eps"), ("activation", "hidden_act")):
        if name in vision:
            options[ours] = vision[name]
    text = config if theirs else _inner(config, "text_config", path)
    fields: dict[str, Any] = {}
    if theirs:
        layer, choice = config.get("mm_vision_select_layer", -2), "mm_vision_select_feature"
        fields["image_token"] = -200
        fields["projector"] = config.get("mm_projector_type", "linear")
    else:
        layer, choice = config.get("vision_feature_layer", -2), "vision_feature_select_strategy"
        token = config.get("image_token_index", config.get("image_token_id", 32000))
        fields["image_token"] = token
        if config.get("projector_hidden_act", "gelu") != "gelu":
            raise UserError(f"Expected the activation gelu between the layers of {path}.")
    selects = {"default": "patches", "patch": "patches", "full": "all", "cls_patch": "all"}
    select = selects.get(config.get(choice, "default"))
    if type(layer) is not int or select is None:
        raise UserError(f"Expected one layer and a way to take its tokens in {path}.")
    return llava.config_from_state_dict(
        tensors,
        vision=options,
        language=decoder_options(text, table.shape[1], path),
        select_layer=layer,
        select=select,
        **fields,
    )


def qwen2_vl_config(config: Mapping[str, Any], tensors: StateDict, path: Path) -> "Qwen2VLConfig":
    """Qwen2-VL, from flat settings or those of transformers 5.

    Args:
      config: content of ``config.json``.
      tensors: the weights, of which only names and shapes are read.
      path: the file, for messages.

    Raises:
      UserError: settings that are not supported, or weights of another network.
    """
    from jaxcore.models import qwen2_vl

    table = qwen2_vl.released(tensors).get("model.embed_tokens.weight")
    if table is None or len(table.shape) != 2:
        raise UserError(f"Expected the weights of a Qwen2-VL beside {path}, found others.")
    vision = _inner(config, "vision_config", path)
    options: dict[str, Any] = {"num_heads": vision.get("num_heads", 16)}
    if "hidden_act" in vision:
        options["activation"] = vision["hidden_act"]
    text = _inner(config, "text_config", path) if "text_config" in config else config
    tokens = {"image_token": ("image_token_id", 151655), "video_token": ("video_token_id", 151656)}
    return qwen2_vl.config_from_state_dict(
        tensors,
        vision=options,
        language=decoder_options(text, table.shape[1], path, family="qwen2_vl"),
        **{ours: config.get(name, default) for ours, (name, default) in tokens.items()},
    )


def _inner(config: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    found = config.get(name, {})
    if not isinstance(found, Mapping):
        raise UserError(f"Expected {name} in {path} as an object, found {found!r}.")
    return found


def _whole(settings: Mapping[str, Any], name: str, path: Path) -> int:
    value = settings.get(name)
    if type(value) is not int or value < 1:
        raise UserError(
            f"Expected a whole number of at least 1 as {name} in {path}, found {value!r}."
        )
    return value


def _number(settings: Mapping[str, Any], name: str, path: Path) -> float:
    value: Any = settings.get(name)
    if type(value) not in (int, float) or not value > 0:
        raise UserError(f"Expected a number above 0 as {name} in {path}, found {value!r}.")
    return float(value)
