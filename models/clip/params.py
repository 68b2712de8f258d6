"""Official weights of CLIP's image part and of vision transformers, in and out."""

from typing import Any

from jaxcore.convert import (
    CONV,
    LINEAR,
    Rule,
    Transform,
    channel_vector,
    from_state_dict,
    strip_prefix,
)
from jaxcore.models.base import shapes_of
from jaxcore.models.clip.config import CLIPConfig
from jaxcore.models.clip.model import draw
from jaxcore.models.regression_keys import count, shapes_with
from jaxcore.typing import Params, StateDict, TensorLike

_CLIP, _VIT = "vision_model.embeddings.patch_embedding.weight", "embeddings.cls_token"
# The part for texts, and places that are counted anew.
_OTHERS = (r"text_model\..*", r"text_projection\.weight", "logit_scale", r".*\.position_ids")
_LEADING = Transform("leading axis", lambda w: w[0], lambda w: w[None])


def _pair(path: str, key: str, *, stacked: bool = False) -> list[Rule]:
    """Rules of a dense layer or a norm."""
    return [
        Rule(path + "/kernel", key + ".weight", LINEAR, stacked=stacked),
        Rule(path + "/scale", key + ".weight", stacked=stacked),
        Rule(path + "/bias", key + ".bias", stacked=stacked),
    ]


def _layers(key: str, names: dict[str, str]) -> list[Rule]:
    rules = []
    for ours, theirs in names.items():
        rules += _pair(f"layers/{ours}", key + ".{i}." + theirs, stacked=True)
    return rules


def rules(cfg: CLIPConfig) -> tuple[Rule, ...]:
    """Our parameter path -> official key."""
    if cfg.family == "clip":
        names = {"norm1": "layer_norm1", "norm2": "layer_norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
        names |= {name: f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")}
        return (
            Rule("class_embedding", "vision_model.embeddings.class_embedding"),
            Rule("patch_embedding/kernel", _CLIP, CONV),
            Rule("position_embedding", "vision_model.embeddings.position_embedding.weight"),
            *_pair("pre_norm", "vision_model.pre_layrnorm"),
            *_layers("vision_model.encoder.layers", names),
            *_pair("post_norm", "vision_model.post_layernorm"),
            Rule("projection/kernel", "visual_projection.weight", LINEAR),
        )
    names = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
    names |= {"fc1": "intermediate.dense", "fc2": "output.dense"}
    names |= {k[0]: f"attention.attention.{k}" for k in ("query", "key", "value")}
    names["out"] = "attention.output.dense"
    patches = "embeddings.patch_embeddings.projection"
    return (
        Rule("class_embedding", _VIT, channel_vector(leading=2, trailing=0)),
        Rule("patch_embedding/kernel", patches + ".weight", CONV),
        Rule("patch_embedding/bias", patches + ".bias"),
        Rule("position_embedding", "embeddings.position_embeddings", _LEADING),
        *_layers("encoder.layer", names),
        *_pair("post_norm", "layernorm"),
        *_pair("projection", "pooler.dense"),
    )


def _unwrapped(state_dict: StateDict) -> dict[str, TensorLike]:
    """Keys as older files have them, whatever is before them."""
    short = _CLIP.removeprefix("vision_model.")
    tensors = strip_prefix(state_dict, [_CLIP, short, _VIT])
    if short in tensors:  # newer files of the image part alone
        return {
            key if key == "visual_projection.weight" else f"vision_model.{key}": value
            for key, value in tensors.items()
        }
    return strip_prefix(tensors, [_VIT], ("vit.",))


def from_torch(state_dict: StateDict, cfg: CLIPConfig) -> Params:
    """Official weights as our parameters; strict, but for the part of CLIP for texts.

    Args:
      state_dict: official key -> array: of a whole CLIP, its image part, or a vision transformer.
      cfg: configuration of the same sizes.

    Raises:
      UserError: missing, unexpected or mis-shaped keys.
    """
    ignore = (*_OTHERS, *(() if cfg.projection else (r"visual_projection\.weight",)))
    return from_state_dict(_unwrapped(state_dict), rules(cfg), shapes_of(draw, cfg), ignore=ignore)


def config_from_state_dict(state_dict: StateDict, **options: Any) -> CLIPConfig:
    """Sizes of the network that official weights belong to.

    Args:
      state_dict: official key -> array (only names and shapes are read).
      **options: fields that weights cannot tell, and overrides: the number of heads (of 64
        channels each, or one).

    Raises:
      UserError: the keys are not those of the network.

    >>> import jax
    >>> from jaxcore.models import clip
    >>> cfg = CLIPConfig.tiny()
    >>> weights = clip.to_torch(clip.init(jax.random.key(0), cfg), cfg)
    >>> config_from_state_dict(weights) == cfg
    True
    """
    tensors = _unwrapped(state_dict)
    vit = _VIT in tensors
    patches = "embeddings.patch_embeddings.projection.weight" if vit else _CLIP
    places = "embeddings.position_embeddings"
    places = places if vit else "vision_model.embeddings.position_embedding.weight"
    inner = "encoder.layer.0.intermediate.dense" if vit else "vision_model.encoder.layers.0.mlp.fc1"
    shapes = shapes_with(CLIPConfig.title, tensors, (patches, places, f"{inner}.weight"))
    width, channels, side = shapes[patches][:3]
    pattern = inner.replace(".", r"\.").replace("0", r"(\d+)", 1) + r"\.weight"
    projection = width if vit else shapes.get("visual_projection.weight", (0,))[0]
    fields: dict[str, Any] = {
        "family": "vit" if vit else "clip",
        "in_channels": channels,
        "image_size": side * round((shapes[places][-2] - 1) ** 0.5),
        "patch_size": side,
        "width": width,
        "depth": count(shapes, pattern),
        "num_heads": max(1, width // 64),
        "mlp_width": shapes[f"{inner}.weight"][0],
        "projection": projection,
        "epsilon": 1e-12 if vit else 1e-5,
        "activation": "gelu" if vit else "quick_gelu",
    }
    return CLIPConfig(**{**fields, **options})
