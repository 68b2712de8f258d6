"""Weights under the names of the specification, in and out."""

from typing import Any

from jaxcore.convert import CONV, LINEAR, POINTWISE, Rule, strip_prefix
from jaxcore.models.convnet.cnn2023.config import CNN2023Config
from jaxcore.models.regression_keys import count, shapes_with
from jaxcore.typing import StateDict

_FIRST = "conv.0.weight"

RULES: tuple[Rule, ...] = (
    Rule(r"conv_(\d+)/kernel", r"conv.\1.weight", CONV),
    Rule(r"proj_(\d+)/kernel", r"proj.\1.weight", POINTWISE),
    Rule(r"(conv|proj|bni|bn)_(\d+)/bias", r"\1.\2.bias"),
    Rule(r"(bni|bn)_(\d+)/scale", r"\1.\2.weight"),
    Rule(r"batch_stats/(bni|bn)_(\d+)/(mean|var)", r"\1.\2.running_\3"),
    Rule("batch_stats/bnd/(mean|var)", r"bnd.running_\1"),
    Rule("(hid|out)/kernel", r"\1.weight", LINEAR),
    Rule("(hid|out)/bias", r"\1.bias"),
)
"""Our parameter path -> key."""


def config_from_state_dict(state_dict: StateDict, **options: Any) -> CNN2023Config:
    """Sizes of the network that weights belong to.

    Args:
      state_dict: key -> array (only names and shapes are read).
      **options: fields that weights cannot tell, and overrides.

    Raises:
      UserError: the keys are not those of the network.

    >>> import jax
    >>> from jaxcore.models.convnet import cnn2023
    >>> cfg = CNN2023Config.tiny()
    >>> weights = cnn2023.to_torch(cnn2023.init(jax.random.key(0), cfg), cfg)
    >>> config_from_state_dict(weights) == cfg
    True
    """
    tensors = strip_prefix(state_dict, [_FIRST])
    shapes = shapes_with(CNN2023Config.title, tensors, (_FIRST, "hid.weight", "out.weight"))
    filters, channels, side = shapes[_FIRST][:3]
    hidden, joined = shapes["hid.weight"]
    fields: dict[str, Any] = {
        "in_channels": channels,
        "filters": filters,
        "kernel_size": side,
        "depth": count(shapes, r"conv\.(\d+)\.weight"),
        "hidden": hidden,
        "covariates": joined - 2 * filters,
        "outputs": shapes["out.weight"][0],
    }
    if "proj.0.weight" in shapes:
        fields["low"] = shapes["proj.0.weight"][0]
    return CNN2023Config(**{**fields, **options})
