"""Official DEA-Net weights of both forms, in and out."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxcore.convert import (
    CONV,
    POINTWISE,
    Rule,
    Transform,
    strip_prefix,
)
from jaxcore.errors import UserError
from jaxcore.models.base import shapes_of
from jaxcore.models.config import computed_like
from jaxcore.models.dea_net.config import BRANCHES, DEANetConfig, Form
from jaxcore.models.dea_net.deconv import reparameterize
from jaxcore.models.dea_net.model import draw
from jaxcore.typing import Params


def _column(name: str, axis: int) -> Transform:
    """Three weights in a line, ``(O, I, 3)``, as a kernel with one of its sides 1."""
    return Transform(
        name,
        lambda w: np.expand_dims(w.transpose(2, 1, 0), axis),
        lambda w: w.squeeze(axis).transpose(2, 1, 0),
    )


_LEVELS = {
    r"((?:down|up)_level[12])": r"\1_block{i+1}",
    r"(level3)": r"\1_block{i+1}",
}
_OFFICIAL = {"cdc": 1, "hdc": 2, "vdc": 3, "adc": 4}  # number of the branch
_LINES = {"hdc": _column("horizontal", 1), "vdc": _column("vertical", 0)}


def _attention_rules(path: str, key: str, stacked: bool) -> list[Rule]:
    """Rules of a content-guided attention; ``path`` holds one group."""
    parts = (
        ("spatial/sa", "sa.sa", CONV),
        ("channel/reduce", "ca.ca.0", POINTWISE),
        ("channel/expand", "ca.ca.2", POINTWISE),
        ("pixel/pa", "pa.pa2", CONV),
    )
    rules = []
    for ours, theirs, layout in parts:
        place = f"{path}/cga/{ours}"
        rules += [
            Rule(f"{place}/kernel", f"{key}.{theirs}.weight", layout, stacked=stacked),
            Rule(f"{place}/bias", f"{key}.{theirs}.bias", stacked=stacked),
        ]
    return rules


def _block_rules(path: str, key: str) -> list[Rule]:
    rules = [
        Rule(path + r"/(conv[12])/kernel", key + r".\2.weight", CONV, stacked=True),
        Rule(path + r"/(conv[12])/bias", key + r".\2.bias", stacked=True),
        Rule(path + r"/conv1/vanilla/kernel", key + ".conv1.conv1_5.weight", CONV, stacked=True),
        Rule(path + r"/conv1/vanilla/bias", key + ".conv1.conv1_5.bias", stacked=True),
    ]
    for name, number in _OFFICIAL.items():
        ours, theirs = f"{path}/conv1/{name}", f"{key}.conv1.conv1_{number}.conv"
        layout = _LINES.get(name, CONV)
        rules += [
            Rule(f"{ours}/kernel", f"{theirs}.weight", layout, stacked=True),
            Rule(f"{ours}/bias", f"{theirs}.bias", stacked=True),
        ]
    return rules + _attention_rules(path, key, stacked=True)


RULES: tuple[Rule, ...] = (
    # A transposed convolution is stored as the convolution it transposes, so CONV fits it too.
    Rule(r"((?:down|up)[123])/kernel", r"\1.0.weight", CONV),
    Rule(r"((?:down|up)[123])/bias", r"\1.0.bias"),
    Rule(r"(fe_level_[23])/kernel", r"\1.weight", CONV),
    Rule(r"(fe_level_[23])/bias", r"\1.bias"),
    *[rule for path, key in _LEVELS.items() for rule in _block_rules(path, key)],
    Rule(r"(mix[12])/conv/kernel", r"\1.conv.weight", POINTWISE),
    Rule(r"(mix[12])/conv/bias", r"\1.conv.bias"),
    *_attention_rules(r"(mix[12])", r"\1", stacked=False),
)
"""Our parameter path -> official key, of both forms."""

_FORMS = {"train": "the five kernels of training", "deploy": "merged kernels"}
_WAY_OUT = {
    "train": "merge them (jaxcore convert --deploy, or `reparameterize`)",
    "deploy": "take them apart (jaxcore train --init does, and `NETWORK.apart`), or take the "
    "checkpoint of training",
}


def form_of(keys: Mapping[str, Any]) -> Form:
    """In which form official weights are, by their names."""
    return "train" if any(".conv1.conv1_5." in key for key in keys) else "deploy"


def check_form(found: Form, expected: Form) -> None:
    """Refuse weights of one form where the other is needed.

    Raises:
      UserError: the forms differ; the sentence says what to do.
    """
    if found != expected:
        raise UserError(
            f"Expected weights with {_FORMS[expected]} (form {expected!r}), found {_FORMS[found]} "
            f"(form {found!r}): {_WAY_OUT[found]}."
        )


_merge = jax.jit(reparameterize)


def deploy(params: Params, cfg: DEANetConfig) -> tuple[Params, DEANetConfig]:
    """The network with merged kernels; one that has them comes back as it is.

    >>> from jaxcore.models import dea_net
    >>> cfg = DEANetConfig.tiny()
    >>> deploy(dea_net.init(jax.random.key(0), cfg), cfg)[1].form
    'deploy'
    """
    return (params, cfg) if cfg.form == "deploy" else (_merge(params), cfg.deployed())


def apart(params: Params, cfg: DEANetConfig, wanted: DEANetConfig) -> tuple[Params, DEANetConfig]:
    """Merged kernels as the plain branch of each convolution, beside differences of zero.

    Exact: merged again they are what they were. Anything else comes back as it is.

    >>> from jaxcore.models import dea_net
    >>> cfg = DEANetConfig.tiny()
    >>> merged, small = deploy(dea_net.init(jax.random.key(0), cfg), cfg)
    >>> again, large = apart(merged, small, cfg)
    >>> large == cfg, jax.tree.all(jax.tree.map(np.array_equal, deploy(again, cfg)[0], merged))
    (True, True)
    """
    if cfg.form != "deploy" or wanted.form != "train":
        return params, cfg
    branches = {name: getattr(wanted, name) for name in BRANCHES}
    cfg = dataclasses.replace(cfg, form="train", **branches)

    def leaf(path: Any, shape: Any) -> Any:
        names = [step.key for step in path]
        if "conv1" not in names:
            return _at(params, names)
        if names[-2] == "vanilla":
            return _at(params, [*names[:-2], names[-1]])
        return np.zeros(shape.shape, shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes_of(draw, cfg)), cfg


def _at(tree: Any, names: Sequence[str]) -> Any:
    for name in names:
        tree = tree[name]
    return tree


def start(found: DEANetConfig, wanted: DEANetConfig) -> DEANetConfig:
    """Configuration of a training that starts from weights.

    Args:
      found: configuration of the weights.
      wanted: that of the training without them.

    Raises:
      UserError: the forms differ.
    """
    check_form(found.form, wanted.form)
    return computed_like(found, wanted)


def config_from_state_dict(state_dict: Mapping[str, Any], **options: Any) -> DEANetConfig:
    """Sizes and form of the network that official weights belong to.

    Args:
      state_dict: official key -> array (only names and shapes are read), with or without the
        prefix of data-parallel wrappers.
      **options: fields that weights cannot tell (double sigmoid, residual, precision, memory), and
        overrides.

    Raises:
      UserError: the keys are not those of DEA-Net.

    >>> from jaxcore.models import dea_net
    >>> cfg = DEANetConfig.small(form="deploy", base_dim=8)
    >>> weights = dea_net.to_torch(dea_net.init(jax.random.key(0), cfg), cfg)
    >>> config_from_state_dict(weights) == cfg
    True
    """
    levels = ("down_level1", "down_level2", "level3", "up_level2", "up_level1")
    needed = ["down1.0.weight", *(f"{level}_block1.conv2.weight" for level in levels)]
    weights = strip_prefix(state_dict, needed)
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    missing = [key for key in needed if key not in shapes]
    if missing:
        raise UserError(
            f"Weights of DEA-Net contain the key {missing[0]!r}, which these {len(shapes)} keys "
            "do not."
        )
    form = form_of(shapes)
    first = "down_level1_block1.conv1.conv1_{}.conv.weight"
    branches: dict[str, bool] = dict.fromkeys(BRANCHES, True)
    if form == "train":
        branches = {name: first.format(number) in shapes for name, number in _OFFICIAL.items()}
    fields: dict[str, Any] = {
        "base_dim": shapes["down1.0.weight"][0],
        "depths": tuple(_count_blocks(shapes, level) for level in levels),
        "form": form,
        **branches,
        "cga": "level3_block1.pa.pa2.weight" in shapes,
        "mixup": "mix1.pa.pa2.weight" in shapes,
    }
    return DEANetConfig(**{**fields, **options})


def _count_blocks(shapes: Mapping[str, Any], level: str) -> int:
    pattern = re.compile(rf"{level}_block(\d+)\.")
    return len({m[1] for key in shapes if (m := pattern.match(key))})
