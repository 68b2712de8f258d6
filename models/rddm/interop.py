"""Weights of `denoising-diffusion-pytorch` in RDDM's samplers.

    cfg = config_from_ddpm_torch(weights)
    params = from_ddpm_torch(weights, cfg)
    sample(ddpm_network(cfg), params, shape=(4, 64, 64, 3), key=key,
           table=ddim(schedule_from_ddpm_torch(weights), 20),
           objective=DDIMNetwork(prediction="v"))

That is the package's own DDIM sampler, if also ``rederive_noise=True``. The key table is in the
form of `jaxcore.convert`; both a state dict of the U-Net and one of its
``GaussianDiffusion`` (keys ``model.*`` and the schedule) are read.
"""

import functools
import re
from typing import Any

import numpy as np
from jaxtyping import Array

from jaxcore.convert import (
    CONV,
    LINEAR,
    POINTWISE,
    Rule,
    channel_vector,
    from_state_dict,
    to_state_dict,
)
from jaxcore.errors import UserError
from jaxcore.models.rddm.network import ddpm_unet
from jaxcore.models.rddm.network.ddpm_unet import DDPMUnetConfig
from jaxcore.models.rddm.process.losses import ApplyFn
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.typing import Params, StateDict, TensorLike

_GAIN = channel_vector(leading=1)
_LEVEL = r"(?P<s>downs|ups)_(?P<i>\d+)_"
_BLOCKS = (
    (_LEVEL + r"block_(?P<j>\d)/", r"\g<s>.\g<i>.\g<j>."),
    (r"(?P<b>mid_block\d|final_res_block)/", r"\g<b>."),
)


def _rules() -> list[Rule]:
    rules = [
        Rule("init_conv/kernel", "init_conv.weight", CONV),
        Rule("final_conv/kernel", "final_conv.weight", POINTWISE),
        Rule("(?P<n>init_conv|final_conv)/bias", r"\g<n>.bias"),
        Rule("time_mlp/frequencies", "time_mlp.0.weights"),
        Rule(r"time_mlp/dense_(?P<n>\d)/kernel", r"time_mlp.\g<n>.weight", LINEAR),
        Rule(r"time_mlp/dense_(?P<n>\d)/bias", r"time_mlp.\g<n>.bias"),
        Rule(_LEVEL + "conv/kernel", r"\g<s>.\g<i>.3.weight", CONV),
        Rule(_LEVEL + "conv/bias", r"\g<s>.\g<i>.3.bias"),
        Rule(_LEVEL + "down/kernel", r"\g<s>.\g<i>.3.1.weight", POINTWISE),
        Rule(_LEVEL + "down/bias", r"\g<s>.\g<i>.3.1.bias"),
        Rule(_LEVEL + "up/conv/kernel", r"\g<s>.\g<i>.3.1.weight", CONV),
        Rule(_LEVEL + "up/conv/bias", r"\g<s>.\g<i>.3.1.bias"),
    ]
    for path, key in _BLOCKS:
        rules += [
            Rule(path + "mlp/kernel", key + "mlp.1.weight", LINEAR),
            Rule(path + "mlp/bias", key + "mlp.1.bias"),
            Rule(path + r"block(?P<k>\d)_proj/kernel", key + r"block\g<k>.proj.weight", CONV),
            Rule(path + r"block(?P<k>\d)_proj/bias", key + r"block\g<k>.proj.bias"),
            Rule(path + r"block(?P<k>\d)_norm/scale", key + r"block\g<k>.norm.g", _GAIN),
            Rule(path + "res_conv/kernel", key + "res_conv.weight", POINTWISE),
            Rule(path + "res_conv/bias", key + "res_conv.bias"),
        ]
    for path, key in ((_LEVEL + "attn/", r"\g<s>.\g<i>.2."), ("mid_attn/", "mid_attn.")):
        rules += [
            Rule(path + "norm/scale", key + "norm.g", _GAIN),
            Rule(path + "memory", key + "mem_kv"),
            Rule(path + "to_qkv/kernel", key + "to_qkv.weight", POINTWISE),
            Rule(path + "out_norm/scale", key + "to_out.1.g", _GAIN),
        ]
    return rules


def _rules_for(cfg: DDPMUnetConfig) -> list[Rule]:
    """The projection of a linear attention is the first of two layers, of a full one the only."""
    rules = _rules()
    for side in ("downs", "ups"):
        order = cfg.attends if side == "downs" else cfg.attends[::-1]
        for i, full in enumerate(order):
            rules += _out(rf"{side}_{i}_attn", f"{side}.{i}.2", full)
    return rules + _out("mid_attn", "mid_attn", True)


def _out(path: str, key: str, full: bool) -> list[Rule]:
    place = f"{key}.to_out" + ("" if full else ".0")
    return [
        Rule(f"{path}/to_out/kernel", f"{place}.weight", POINTWISE),
        Rule(f"{path}/to_out/bias", f"{place}.bias"),
    ]


def _network(state_dict: StateDict) -> StateDict:
    """Weights of the U-Net alone."""
    for prefix in ("ema_model.model.", "model.", ""):
        found = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        if "init_conv.weight" in found:
            return found if prefix else {k: v for k, v in found.items() if "." in k}
    raise UserError("Expected weights of denoising-diffusion-pytorch's U-Net, found others.")


def from_ddpm_torch(state_dict: StateDict, cfg: DDPMUnetConfig) -> Params:
    """The package's weights as our parameters; strict.

    Raises:
      UserError: missing, unexpected or mis-shaped keys.
    """
    tensors = _network(state_dict)
    return from_state_dict(tensors, _rules_for(cfg), ddpm_unet.param_shapes(cfg))


def to_ddpm_torch(params: Params, cfg: DDPMUnetConfig) -> dict[str, np.ndarray]:
    """Exact inverse of :func:`from_ddpm_torch`: a state dict of the package's U-Net."""
    return to_state_dict(params, _rules_for(cfg))


def config_from_ddpm_torch(
    state_dict: StateDict, *, dim_head: int | None = None, **changes: Any
) -> DDPMUnetConfig:
    """Sizes that weights of the package fit.

    Args:
      state_dict: of the U-Net or of ``GaussianDiffusion``.
      dim_head: not needed; checked if given.
      **changes: what is not in the weights, such as ``channels`` of an image with learnt
        variance.

    Raises:
      UserError: the keys are not those of the package.
    """
    tensors = _network(state_dict)
    try:
        sizes = _sizes(tensors)
    except KeyError as error:
        raise UserError(
            f"Expected weights of denoising-diffusion-pytorch's U-Net, found no {error}."
        ) from None
    if dim_head not in (None, sizes["dim_head"]):
        raise UserError(f"Expected heads of {dim_head} channels, found {sizes['dim_head']}.")
    return DDPMUnetConfig(**{**sizes, **changes})


def _sizes(tensors: StateDict) -> dict[str, Any]:
    start, seen = tensors["init_conv.weight"].shape[:2]
    out = tensors["final_conv.weight"].shape[0]
    dim = tensors["time_mlp.3.weight"].shape[0] // 4
    learnt = tensors.get("time_mlp.0.weights")
    levels = 1 + max(int(m[1]) for k in tensors if (m := re.match(r"downs\.(\d+)\.", k)))
    widths = [_resampled(tensors, i).shape[0] for i in range(levels)]
    memory = tensors["mid_attn.mem_kv"]
    full = tuple(f"downs.{i}.2.to_out.weight" in tensors for i in range(levels))
    return {
        "dim": dim,
        "init_dim": None if start == dim else start,
        "dim_mults": tuple(w // dim for w in widths),
        # An input twice as wide as the output is self conditioned.
        "channels": seen if seen in (out, out // 2) else out,
        "out_channels": out,
        "self_condition": seen == 2 * out,
        "full_attention": full,
        "heads": memory.shape[1],
        "dim_head": memory.shape[3],
        "learned_frequencies": None if learnt is None else learnt.shape[0],
    }


def _resampled(tensors: StateDict, level: int) -> TensorLike:
    key = f"downs.{level}.3.1.weight"
    return tensors[key] if key in tensors else tensors[f"downs.{level}.3.weight"]


def schedule_from_ddpm_torch(state_dict: StateDict) -> RDDMSchedule:
    """The schedule that ``GaussianDiffusion`` stores beside its network.

    Raises:
      UserError: there is none.
    """
    for key in ("ema_model.betas", "betas"):
        if key in state_dict:
            return RDDMSchedule.from_ddpm(np.asarray(state_dict[key]))
    raise UserError("Expected the schedule 'betas' of a GaussianDiffusion, found none.")


@functools.lru_cache(maxsize=16)
def ddpm_network(cfg: DDPMUnetConfig) -> ApplyFn:
    """The network as the samplers call it; the same function object for the same sizes."""

    def apply_fn(params: Any, x: Array, time: tuple[Array, ...]) -> tuple[Array, ...]:
        return (ddpm_unet.apply(params, x, time[0], cfg)[..., : cfg.channels],)

    return apply_fn
