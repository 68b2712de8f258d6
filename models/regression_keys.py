"""What the key tables of the networks from images to numbers share."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jaxcore.convert import LINEAR, Rule
from jaxcore.errors import UserError


def encoder_rules(path: str, key: str) -> list[Rule]:
    """Rules of a `jaxcore.nn.Encoder` below a path and a key."""
    layer, there = path + "/layer", key + "layer.{i}."
    return [
        Rule(path + "/(StartEmbed|StopEmbed)", key + r"\1"),
        Rule(layer + "/attention/(W_[qkvo])", there + r"\1", stacked=True),
        Rule(layer + r"/norm(\d)/scale", there + r"NormScaler\1", stacked=True),
        Rule(layer + r"/(RightWt\d)", there + r"\1", stacked=True),
        Rule(layer + r"/(FF[A-Za-z]+\d?)/kernel", there + r"\1.weight", LINEAR, stacked=True),
        Rule(path + "/Pool/(W_[qkvo])", key + r"Pool.\1"),
        Rule(path + "/PoolProject/kernel", key + "PoolProject.weight", LINEAR),
        Rule(path + "/PoolProject/bias", key + "PoolProject.bias"),
        Rule(path + "/FinalNorm/scale", key + "FinalNormScaler"),
    ]


SEQUENCE_RULES: tuple[Rule, ...] = (
    *encoder_rules("over_time/encoder", "Temporal."),
    Rule(r"head/(Dense\d+)/kernel", r"\1.weight", LINEAR),
    Rule(r"head/(Dense\d+)/bias", r"\1.bias"),
)
"""Those of the parts behind the features of single images."""


def shapes_with(
    title: str, tensors: Mapping[str, Any], needed: Iterable[str]
) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor.

    Raises:
      UserError: a key that is needed is not there.
    """
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    for key in needed:
        if key not in shapes:
            raise UserError(
                f"Weights of {title} contain the key {key!r}, which these {len(shapes)} keys do "
                "not."
            )
    return shapes


def count(shapes: Mapping[str, Any], pattern: str) -> int:
    """Different numbers at the group of a pattern that whole keys match."""
    return len({m[1] for key in shapes if (m := re.fullmatch(pattern, key))})


def sequence_fields(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Fields of the parts behind the features of single images, as far as weights tell them."""
    depth = count(shapes, r"Dense(\d+)\.weight")
    fields: dict[str, Any] = {"head_depth": depth, "outputs": shapes[f"Dense{depth}.weight"][0]}
    if depth > 1:
        fields["head_width"] = shapes["Dense1.weight"][0]
    if blocks := count(shapes, r"Temporal\.layer\.(\d+)\.W_q"):
        fields |= {"temporal": "transformer", "temporal_depth": blocks}
    return fields
