"""Official AdaIR and Restormer weights, in and out."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxcore.convert import (
    CONV,
    DEPTHWISE,
    POINTWISE,
    VECTOR,
    Rule,
    strip_prefix,
)
from jaxcore.errors import UserError
from jaxcore.models.adair.config import AdaIRConfig
from jaxcore.typing import Params

_STAGE = r"(encoder_level\d|latent|decoder_level\d|refinement)"


def _block_rules() -> list[Rule]:
    return [
        Rule(_STAGE + r"/(norm\d)/scale", r"\1.{i}.\2.body.weight", stacked=True),
        Rule(_STAGE + r"/(norm\d)/bias", r"\1.{i}.\2.body.bias", stacked=True),
        Rule(_STAGE + r"/attn/temperature", r"\1.{i}.attn.temperature", VECTOR, stacked=True),
        Rule(
            _STAGE + r"/(attn|ffn)/(qkv_dwconv|dwconv)/kernel",
            r"\1.{i}.\2.\3.weight",
            DEPTHWISE,
            stacked=True,
        ),
        Rule(_STAGE + r"/(attn|ffn)/(\w+)/kernel", r"\1.{i}.\2.\3.weight", POINTWISE, stacked=True),
        Rule(_STAGE + r"/(attn|ffn)/(\w+)/bias", r"\1.{i}.\2.\3.bias", stacked=True),
    ]


def _frequency_rules() -> list[Rule]:
    refine = r"(fre\d)/frequency_refine"
    cross = r"(fre\d)/(channel_cross_\w+)"
    return [
        Rule(r"(fre\d)/(para\d)", r"\1.\2", VECTOR),
        Rule(r"(fre\d)/(conv|score_gen)/kernel", r"\1.\2.weight", CONV),
        Rule(r"(fre\d)/score_gen/bias", r"\1.score_gen.bias"),
        Rule(r"(fre\d)/mining/conv1/kernel", r"\1.conv1.weight", CONV),
        Rule(r"(fre\d)/mining/rate_conv_(\d)/kernel", r"\1.rate_conv.\2.weight", POINTWISE),
        Rule(cross + r"/temperature", r"\1.\2.temperature", VECTOR),
        Rule(cross + r"/(\w+_dwconv)/kernel", r"\1.\2.\3.weight", DEPTHWISE),
        Rule(cross + r"/(\w+)/kernel", r"\1.\2.\3.weight", POINTWISE),
        Rule(cross + r"/(\w+)/bias", r"\1.\2.\3.bias"),
        Rule(
            refine + r"/spatial_gate/spatial/kernel",
            r"\1.frequency_refine.SpatialGate.spatial.weight",
            CONV,
        ),
        Rule(
            refine + r"/channel_gate/mlp_(\d)/kernel",
            r"\1.frequency_refine.ChannelGate.mlp.\2.weight",
            POINTWISE,
        ),
        Rule(refine + r"/proj/kernel", r"\1.frequency_refine.proj.weight", POINTWISE),
        Rule(refine + r"/proj/bias", r"\1.frequency_refine.proj.bias"),
    ]


RULES: tuple[Rule, ...] = (
    Rule(r"patch_embed/kernel", r"patch_embed.proj.weight", CONV),
    Rule(r"((?:down|up)\d_\d)/conv/kernel", r"\1.body.0.weight", CONV),
    Rule(r"(reduce_chan_level\d)/kernel", r"\1.weight", POINTWISE),
    Rule(r"output/kernel", r"output.weight", CONV),
    Rule(r"(reduce_chan_level\d|output)/bias", r"\1.bias"),
    *_block_rules(),
    *_frequency_rules(),
)
"""Our parameter path -> official key. Restormer's files have the same keys without ``fre*``."""


def trainable(params: Params, cfg: AdaIRConfig) -> Params:
    """Tree of bools: False where training must leave a weight alone.

    False for the weights that nothing uses and, unless ``mask_mode`` is "soft", for those of the
    window's threshold, which get no gradient through the truncation. PyTorch's optimisers skip
    weights without a gradient, while a decoupled weight decay here would shrink them.

    >>> from jaxcore.models import adair
    >>> cfg = AdaIRConfig.tiny()
    >>> mask = trainable(adair.param_shapes(cfg), cfg)
    >>> sum(not leaf for leaf in jax.tree.leaves(mask))
    15
    """
    fixed = r"fre\d/(conv|score_gen)/.*"
    if cfg.mask_mode != "soft":
        fixed += r"|fre\d/mining/rate_conv_\d/.*"
    pattern = re.compile(fixed)

    def learns(path: Any, _: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return pattern.fullmatch(name) is None

    return jax.tree_util.tree_map_with_path(learns, params)


def config_from_state_dict(state_dict: Mapping[str, Any], **options: Any) -> AdaIRConfig:
    """Sizes of the network that official weights belong to.

    Args:
      state_dict: official key -> array (only names and shapes are read). Released AdaIR and
        Restormer files both fit.
      **options: fields that weights cannot tell (mask, precision, memory), and overrides.

    Raises:
      UserError: the keys are not those of AdaIR or Restormer.

    >>> from jaxcore.models import adair
    >>> cfg = AdaIRConfig.tiny(bias=True)
    >>> params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), adair.param_shapes(cfg))
    >>> config_from_state_dict(adair.to_torch(params, cfg)) == cfg
    True
    """
    stages = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    needed = ["patch_embed.proj.weight", "output.weight"]
    weights = strip_prefix(state_dict, needed)
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    needed += [f"{stage}.0.attn.temperature" for stage in (*stages, "refinement")]
    needed += [f"{stage}.0.ffn.project_out.weight" for stage in stages]
    missing = [key for key in needed if key not in shapes]
    if missing:
        raise UserError(
            f"Weights of AdaIR or Restormer contain the key {missing[0]!r}, which these "
            f"{len(shapes)} keys do not."
        )
    dim, in_channels = shapes["patch_embed.proj.weight"][:2]
    feed_forward = [shapes[f"{stage}.0.ffn.project_out.weight"][:2] for stage in stages]
    fields = {
        "in_channels": in_channels,
        "out_channels": shapes["output.weight"][0],
        "dim": dim,
        "num_blocks": tuple(_count_blocks(shapes, stage) for stage in stages),
        "num_refinement_blocks": _count_blocks(shapes, "refinement"),
        "heads": tuple(shapes[f"{stage}.0.attn.temperature"][0] for stage in stages),
        "ffn_expansion": _expansion(feed_forward),
        "bias": "output.bias" in shapes,
        "norm_type": "WithBias" if "latent.0.norm1.body.bias" in shapes else "BiasFree",
        "decoder": any(key.startswith("fre1.") for key in shapes),
    }
    return AdaIRConfig(**{**fields, **options})


def _count_blocks(shapes: Mapping[str, Any], stage: str) -> int:
    pattern = re.compile(re.escape(stage) + r"\.(\d+)\.")
    return len({m[1] for key in shapes if (m := pattern.match(key))})


def _expansion(pairs: list[tuple[int, ...]]) -> float:
    """Shortest decimal ``e`` with ``int(width * e) == hidden`` for every level."""

    def fits(e: float) -> bool:
        return all(int(width * e) == hidden for width, hidden in pairs)

    if fits(published := AdaIRConfig().ffn_expansion):
        return published
    width, hidden = pairs[-1]
    for digits in range(1, 8):
        for step in (0, 1):
            e = round(np.floor(hidden / width * 10**digits + step) / 10**digits, digits)
            if fits(e):
                return float(e)
    raise UserError(
        f"No feed-forward expansion factor gives the hidden widths {[h for _, h in pairs]} for "
        f"{[w for w, _ in pairs]} channels."
    )
