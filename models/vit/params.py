"""Weights under the names of the specification, in and out."""

import math
from typing import Any

from jaxcore.convert import CONV, LINEAR, VECTOR, Rule, from_state_dict, strip_prefix
from jaxcore.models.base import shapes_of
from jaxcore.models.regression_keys import (
    SEQUENCE_RULES,
    count,
    encoder_rules,
    sequence_fields,
    shapes_with,
)
from jaxcore.models.vit.config import ViTConfig
from jaxcore.models.vit.model import draw
from jaxcore.typing import Params, StateDict

_FIRST = "PatchEmbedder.weight"
_DEAD = r"(unused/)?(MixCLSPool|PoolQuery|FinalProj)\.(weight|bias)"  # that nothing reads

RULES: tuple[Rule, ...] = (
    Rule("PatchEmbedder/kernel", _FIRST, CONV),
    Rule("PatchEmbedder/bias", "PatchEmbedder.bias", VECTOR),
    Rule("XProj/kernel", "XProj.weight", LINEAR),
    *encoder_rules("encoder", ""),
    *SEQUENCE_RULES,
)
"""Our parameter path -> key."""


def from_torch(state_dict: StateDict, cfg: ViTConfig) -> Params:
    """Weights as our parameters; strict, but for those that the published package never reads.

    Args:
      state_dict: key -> array.
      cfg: configuration of the same sizes.

    Raises:
      UserError: missing, unexpected or mis-shaped keys.
    """
    return from_state_dict(state_dict, RULES, shapes_of(draw, cfg), ignore=(_DEAD,))


def config_from_state_dict(state_dict: StateDict, **options: Any) -> ViTConfig:
    """Sizes of the network that weights belong to.

    Args:
      state_dict: key -> array (only names and shapes are read).
      **options: fields that weights cannot tell, and overrides: the number of heads (8, or as
        many as divide the width), images of a sequence, rates.

    Raises:
      UserError: the keys are not those of the network.

    >>> import jax
    >>> from jaxcore.models import vit
    >>> cfg = ViTConfig.tiny()
    >>> weights = vit.to_torch(vit.init(jax.random.key(0), cfg), cfg)
    >>> config_from_state_dict(weights, num_heads=2) == cfg
    True
    """
    tensors = strip_prefix(state_dict, [_FIRST])
    shapes = shapes_with(ViTConfig.title, tensors, (_FIRST, "layer.0.W_q", "Dense1.weight"))
    width, channels, side = shapes[_FIRST][:3]
    fields: dict[str, Any] = {
        "in_channels": channels,
        "width": width,
        "patch_size": side,
        "depth": count(shapes, r"layer\.(\d+)\.W_q"),
        "num_heads": math.gcd(width, 8),
        **sequence_fields(shapes),
    }
    if "XProj.weight" in shapes:
        fields["covariates"] = shapes["XProj.weight"][1]
    return ViTConfig(**{**fields, **options})
