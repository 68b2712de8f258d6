"""Weights under the names of the specification, in and out."""

from typing import Any

from jaxcore.convert import CONV, POINTWISE, VECTOR, Rule, strip_prefix
from jaxcore.models.convnet.config import ConvNetConfig
from jaxcore.models.regression_keys import SEQUENCE_RULES, count, sequence_fields, shapes_with
from jaxcore.typing import StateDict

_FIRST = "Spatial_d1.SeperableSpatial.weight"
_PLACE, _THERE = r"(?P<d>Spatial_d\d+)", r"\g<d>."

RULES: tuple[Rule, ...] = (
    Rule(f"{_PLACE}/separable/SeperableSpatial/kernel", _THERE + "SeperableSpatial.weight", CONV),
    Rule(
        f"{_PLACE}/separable/SeperableFeature/kernel",
        _THERE + "SeperableFeature.weight",
        POINTWISE,
    ),
    Rule(f"{_PLACE}/separable/SeperableFeature/bias", _THERE + "SeperableFeature.bias", VECTOR),
    Rule(
        rf"{_PLACE}/(?P<n>SeperableFeature\d|Residual\w+Path)/kernel",
        _THERE + r"\g<n>.weight",
        POINTWISE,
    ),
    Rule(f"{_PLACE}/RightWt1", _THERE + "RightWt1"),
    Rule(r"(?:batch_stats/)?(.+)/BN1/(mean|var)", r"\1.BN1.\2"),
    Rule("(.+)/BN1/scale", r"\1.BN1.rescaler"),
    Rule("batch_stats/FinalCNNBN/(mean|var)", r"FinalCNNBN.\1"),
    Rule("FinalCNNBN/scale", "FinalCNNBN.rescaler"),
    *SEQUENCE_RULES,
)
"""Our parameter path -> key."""


def config_from_state_dict(state_dict: StateDict, **options: Any) -> ConvNetConfig:
    """Sizes of the network that weights belong to.

    Args:
      state_dict: key -> array (only names and shapes are read).
      **options: fields that weights cannot tell, and overrides: stride, shrinking, bins, images of
        a sequence, and the number of covariates where there are sequences.

    Raises:
      UserError: the keys are not those of the network.

    >>> import jax
    >>> from jaxcore.models import convnet
    >>> cfg = ConvNetConfig.tiny()
    >>> weights = convnet.to_torch(convnet.init(jax.random.key(0), cfg), cfg)
    >>> config_from_state_dict(weights) == cfg
    True
    """
    tensors = strip_prefix(state_dict, [_FIRST])
    width_key = "Spatial_d1.SeperableFeature.weight"
    shapes = shapes_with(ConvNetConfig.title, tensors, (_FIRST, width_key, "Dense1.weight"))
    width = shapes[width_key][0]
    fields: dict[str, Any] = {
        "in_channels": shapes[_FIRST][0],
        "width": width,
        "depth": count(shapes, r"Spatial_d(\d+)\.SeperableSpatial\.weight"),
        "kernel_size": shapes[_FIRST][-1],
        "covariates": max(0, shapes["Dense1.weight"][1] - width),
        **sequence_fields(shapes),
    }
    return ConvNetConfig(**{**fields, **options})
