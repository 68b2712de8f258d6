"""Official SUNet checkpoints, in and out."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcore.convert import (
    CONV,
    LINEAR,
    POINTWISE,
    WRAPPERS,
    Rule,
    from_state_dict,
    strip_prefix,
    to_state_dict,
)
from jaxcore.errors import UserError
from jaxcore.models.base import shapes_of
from jaxcore.models.sunet.config import STAGES, SUNetConfig
from jaxcore.models.sunet.model import draw
from jaxcore.models.sunet.windows import relative_index, shift_mask
from jaxcore.typing import Params, StateDict

PREFIX = "swin_unet."
"""Before every key of an official file."""
_FIRST = "conv_first.weight"
_BUFFER = re.compile(r"layers.*\.(attn_mask|attn\.relative_position_index)")


def _block_rules(path: str, key: str, stacked: bool) -> list[Rule]:
    """Rules of one block; ``path`` may hold groups."""
    dense = r"/(?P<m>attn|mlp)/(?P<n>\w+)/"
    there = key + r".\g<m>.\g<n>."
    return [
        Rule(path + r"/(?P<n>norm\d)/scale", key + r".\g<n>.weight", stacked=stacked),
        Rule(path + r"/(?P<n>norm\d)/bias", key + r".\g<n>.bias", stacked=stacked),
        Rule(path + r"/attn/table", key + ".attn.relative_position_bias_table", stacked=stacked),
        Rule(path + dense + "kernel", there + "weight", LINEAR, stacked=stacked),
        Rule(path + dense + "bias", there + "bias", stacked=stacked),
    ]


def _up_rules(path: str, key: str) -> list[Rule]:
    """Rules of one dual up-sampling."""
    rules = [
        Rule(path + "/b_first/bias", key + "up_b.0.bias"),
        Rule(path + "/conv/kernel", key + "conv.weight", POINTWISE),
    ]
    for branch in "pb":
        rules += [
            Rule(f"{path}/{branch}_first/kernel", f"{key}up_{branch}.0.weight", POINTWISE),
            Rule(f"{path}/{branch}_prelu/slope", f"{key}up_{branch}.1.weight"),
            Rule(f"{path}/{branch}_last/kernel", f"{key}up_{branch}.3.weight", POINTWISE),
        ]
    return rules


def rules(cfg: SUNetConfig) -> tuple[Rule, ...]:
    """Our parameter path -> official key, without the prefix of all keys."""
    stage = r"(?P<s>layers|layers_up)_(?P<k>\d)"
    there = r"\g<s>.\g<k>."
    lasts = {f"layers_{level}": level for level in range(STAGES)}
    lasts |= {f"layers_up_{STAGES - 1 - level}": level for level in range(STAGES - 1)}
    return (
        Rule("prelu", "prelu.weight"),
        Rule("(conv_first|output)/kernel", r"\1.weight", CONV),
        Rule("conv_first/bias", "conv_first.bias"),
        Rule("patch_embed_proj/kernel", "patch_embed.proj.weight", CONV),
        Rule("patch_embed_proj/bias", "patch_embed.proj.bias"),
        Rule("patch_norm/scale", "patch_embed.norm.weight"),
        Rule("patch_norm/bias", "patch_embed.norm.bias"),
        Rule("(norm|norm_up)/scale", r"\1.weight"),
        Rule("(norm|norm_up)/bias", r"\1.bias"),
        *_block_rules(stage + "_pairs/plain", there + "blocks.{2i}", True),
        *_block_rules(stage + "_pairs/shifted", there + "blocks.{2i+1}", True),
        *[
            rule
            for name, level in lasts.items()
            for rule in _block_rules(
                f"{name}_last", _official(name) + f".blocks.{cfg.depths[level] - 1}", False
            )
        ],
        Rule(stage + "_downsample/norm/scale", there + "downsample.norm.weight"),
        Rule(stage + "_downsample/norm/bias", there + "downsample.norm.bias"),
        Rule(stage + "_downsample/reduction/kernel", there + "downsample.reduction.weight", LINEAR),
        *_up_rules("layers_up_0", "layers_up.0."),
        *_up_rules(r"layers_up_(?P<k>\d)_upsample", r"layers_up.\g<k>.upsample."),
        *_up_rules("up", "up."),
        Rule(r"concat_back_dim_(\d)/kernel", r"concat_back_dim.\1.weight", LINEAR),
        Rule(r"concat_back_dim_(\d)/bias", r"concat_back_dim.\1.bias"),
    )


def _official(stage: str) -> str:
    """``layers_up_1`` -> ``layers_up.1``."""
    return ".".join(stage.rsplit("_", 1))


def buffers(cfg: SUNetConfig) -> dict[str, np.ndarray]:
    """What official files hold beside weights: places in tables and masks, at ``cfg.img_size``.

    >>> sorted(key.split(".", 3)[3] for key in buffers(SUNetConfig.tiny()) if "s.0.blocks.1" in key)
    ['1.attn.relative_position_index', '1.attn_mask']
    """
    stages = [(f"layers.{level}", level) for level in range(STAGES)]
    stages += [(f"layers_up.{k}", STAGES - 1 - k) for k in range(1, STAGES)]
    out = {}
    for name, level in stages:
        window, shift, side = cfg.windows[level], cfg.shifts[level], cfg.resolutions[level]
        index = relative_index(window)
        mask = np.asarray(shift_mask(side, side, window, shift)) if shift else None
        for block in range(cfg.depths[level]):
            out[f"{name}.blocks.{block}.attn.relative_position_index"] = index
            if mask is not None and block % 2:
                out[f"{name}.blocks.{block}.attn_mask"] = mask
    return out


def _unwrapped(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The network's own keys, without what wrappers put before them."""
    return strip_prefix(state_dict, [_FIRST], (*WRAPPERS, PREFIX))


def from_torch(state_dict: StateDict, cfg: SUNetConfig) -> Params:
    """Official weights as our parameters; strict. Places and masks are left out.

    Args:
      state_dict: official key -> array, with or without ``swin_unet.`` and ``module.``.
      cfg: configuration of the same sizes.

    Raises:
      UserError: missing, unexpected or mis-shaped keys.
    """
    weights = {k: v for k, v in _unwrapped(state_dict).items() if not _BUFFER.fullmatch(k)}
    return from_state_dict(weights, rules(cfg), shapes_of(draw, cfg))


def to_torch(params: Params, cfg: SUNetConfig) -> dict[str, np.ndarray]:
    """Exact inverse of :func:`from_torch`, with the places and masks of official files.

    Args:
      params: from `init`, `from_torch` or training.
      cfg: their configuration.

    Raises:
      UserError: the parameters do not belong to ``cfg``.
    """
    weights = to_state_dict(params, rules(cfg), shapes_of(draw, cfg))
    return {PREFIX + key: value for key, value in (weights | buffers(cfg)).items()}


def config_from_state_dict(state_dict: StateDict, **options: Any) -> SUNetConfig:
    """Sizes of the network that official weights belong to.

    The side of the images of the training is read from masks; where a file has none it is that of
    the published network with as many pixels per token.

    Args:
      state_dict: official key -> array (only names and shapes are read).
      **options: fields that weights cannot tell (factor of the queries, rate of leaving blocks
        out, precision, memory), and overrides.

    Raises:
      UserError: the keys are not those of SUNet.

    >>> from jaxcore.models import sunet
    >>> import jax
    >>> cfg = SUNetConfig.tiny()
    >>> weights = sunet.to_torch(sunet.init(jax.random.key(0), cfg), cfg)
    >>> config_from_state_dict(weights) == cfg
    True
    """
    shapes = {key: tuple(value.shape) for key, value in _unwrapped(state_dict).items()}
    table = "layers.{}.blocks.0.attn.relative_position_bias_table"
    needed = [_FIRST, "patch_embed.proj.weight", "layers.0.blocks.0.mlp.fc1.weight"]
    needed += [table.format(level) for level in range(STAGES)]
    missing = [key for key in needed if key not in shapes]
    if missing:
        raise UserError(
            f"Weights of SUNet contain the key {missing[0]!r}, which these {len(shapes)} keys do "
            "not."
        )
    width, channels = shapes[_FIRST][:2]
    tables = [shapes[table.format(level)] for level in range(STAGES)]
    windows = [(round(rows**0.5) + 1) // 2 for rows, _ in tables]
    patch = shapes["patch_embed.proj.weight"][-1]
    fields: dict[str, Any] = {
        "img_size": _trained_side(shapes, windows, patch),
        "patch_size": patch,
        "in_channels": channels,
        "embed_dim": width,
        "depths": tuple(_count_blocks(shapes, level) for level in range(STAGES)),
        "num_heads": tuple(heads for _, heads in tables),
        "window_size": windows[0],
        "mlp_ratio": shapes["layers.0.blocks.0.mlp.fc1.weight"][0] / width,
        "final_upsample": "dual" if "up.conv.weight" in shapes else "bilinear",
    }
    return SUNetConfig(**{**fields, **options})


def _count_blocks(shapes: Mapping[str, Any], level: int) -> int:
    pattern = re.compile(rf"layers\.{level}\.blocks\.(\d+)\.norm1\.weight")
    return len({m[1] for key in shapes if (m := pattern.fullmatch(key))})


def _trained_side(shapes: Mapping[str, Any], windows: list[int], patch: int) -> int:
    """Side of the images of the training: from a mask, or a window smaller than the first."""
    for level, window in enumerate(windows):
        mask = shapes.get(f"layers.{level}.blocks.1.attn_mask")
        if mask is not None:
            return round(mask[0] ** 0.5) * window * 2**level * patch
        if window < windows[0]:
            return window * 2**level * patch
    published = (SUNetConfig.deconv(), SUNetConfig.denoise_rgb())
    sides = {cfg.patch_size: cfg.img_size for cfg in published}
    return sides.get(patch, patch * windows[0] * 2**STAGES)
