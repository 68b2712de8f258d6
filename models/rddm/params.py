"""Official RDDM checkpoints, in and out."""

import dataclasses
import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcore.convert import (
    CONV,
    LINEAR,
    POINTWISE,
    Rule,
    Transform,
    channel_vector,
    from_state_dict,
    select_prefix,
    strip_prefix,
    to_state_dict,
)
from jaxcore.errors import UserError
from jaxcore.models.base import shapes_of
from jaxcore.models.config import computed_like
from jaxcore.models.rddm.config import RDDMConfig, ScheduleConfig
from jaxcore.models.rddm.model import draw
from jaxcore.models.rddm.process.objectives import SEARCH
from jaxcore.models.rddm.process.schedule import official_buffers
from jaxcore.serial import to_json
from jaxcore.typing import Params, StateDict, TensorLike

_GAIN = channel_vector(leading=1)
_SCALAR = Transform("scalar", lambda w: w[0], lambda w: w[None])
_WEIGHT = "alpha_res"
# The first convolution, of the diffusion object, of the networks alone or of a single one.
_FIRST = [f"{start}init_conv.weight" for start in ("model.unet0.", "model.", "unet0.", "")]
_TOLERANCE = 1e-6  # of the buffers, which are float32 numbers up to 1
_LOG = "posterior_log_variance_clipped"


def _network_rules(path: str, key: str) -> list[Rule]:
    """Rules of one U-Net below a path and a key."""
    path = r"(?:network/)?" + path
    block = path + r"(?P<s>downs|ups|ups_no_skip)_(?P<i>\d+)_block_(?P<j>\d)/"
    outside = path + r"(?P<b>mid_block\d|final_res_block(?:_\d)?)/"
    level = path + r"(?P<s>downs|ups|ups_no_skip)_(?P<i>\d+)_"
    here = key + r"\g<s>.\g<i>."
    rules = [
        Rule(path + r"(?P<n>init_conv)/kernel", key + r"\g<n>.weight", CONV),
        Rule(path + r"(?P<n>final_conv(?:_\d)?)/kernel", key + r"\g<n>.weight", POINTWISE),
        Rule(path + r"(?P<n>init_conv|final_conv(?:_\d)?)/bias", key + r"\g<n>.bias"),
        Rule(path + r"time_mlp/frequencies", key + r"time_mlp.0.weights"),
        Rule(path + r"time_mlp/dense_(?P<n>\d)/kernel", key + r"time_mlp.\g<n>.weight", LINEAR),
        Rule(path + r"time_mlp/dense_(?P<n>\d)/bias", key + r"time_mlp.\g<n>.bias"),
        # An upsampling level has the convolution behind the repetition of pixels.
        Rule(path + r"downs_(?P<i>\d+)_resample/conv/kernel", key + r"downs.\g<i>.3.weight", CONV),
        Rule(path + r"downs_(?P<i>\d+)_resample/conv/bias", key + r"downs.\g<i>.3.bias"),
        Rule(level + r"resample/conv/kernel", here + r"3.1.weight", CONV),
        Rule(level + r"resample/conv/bias", here + r"3.1.bias"),
        Rule(level + r"conv/kernel", here + r"3.weight", CONV),
        Rule(level + r"conv/bias", here + r"3.bias"),
    ]
    for start, place in ((block, here + r"\g<j>."), (outside, key + r"\g<b>.")):
        rules += [
            Rule(start + r"mlp/kernel", place + "mlp.1.weight", LINEAR),
            Rule(start + r"mlp/bias", place + "mlp.1.bias"),
            Rule(start + r"(?P<k>block\d)/proj/kernel", place + r"\g<k>.proj.weight", CONV),
            Rule(start + r"(?P<k>block\d)/proj/bias", place + r"\g<k>.proj.bias"),
            Rule(start + r"(?P<k>block\d)/norm/scale", place + r"\g<k>.norm.weight"),
            Rule(start + r"(?P<k>block\d)/norm/bias", place + r"\g<k>.norm.bias"),
            Rule(start + r"res_conv/kernel", place + "res_conv.weight", POINTWISE),
            Rule(start + r"res_conv/bias", place + "res_conv.bias"),
        ]
    for start, place, out in (
        (level + "attn/", here + "2.", "to_out.0"),
        (path + "mid_attn/", key + "mid_attn.", "to_out"),
    ):
        rules += [
            Rule(start + r"norm/scale", place + "fn.norm.g", _GAIN),
            Rule(start + r"attention/to_qkv/kernel", place + "fn.fn.to_qkv.weight", POINTWISE),
            Rule(start + r"attention/to_out/kernel", place + f"fn.fn.{out}.weight", POINTWISE),
            Rule(start + r"attention/to_out/bias", place + f"fn.fn.{out}.bias"),
            Rule(start + r"attention/out_norm/scale", place + "fn.fn.to_out.1.g", _GAIN),
        ]
    return rules


RULES: tuple[Rule, ...] = (
    Rule("weight", _WEIGHT, _SCALAR),
    *_network_rules(r"unet(?P<u>\d)/", r"model.unet\g<u>."),
    *_network_rules(r"shared/", "model."),
)
"""Our parameter path -> key in the state dict of the official diffusion object."""


def from_torch(state_dict: StateDict, cfg: RDDMConfig) -> Params:
    """Official weights as our parameters; strict.

    Args:
      state_dict: what the official trainer saves below "ema" (of which the averaged copy is
        taken, as its evaluation does) or "model", or the weights of the networks alone.
      cfg: the configuration they were trained in.

    Raises:
      UserError: weights of another experiment, or missing, unexpected or mis-shaped keys.

    Warns:
      UserWarning: the stored schedule is not that of ``cfg``.
    """
    tensors = _unwrapped(state_dict)
    _check_experiment(tensors, cfg)
    buffers = {key: tensors.pop(key) for key in _buffer_names() if key in tensors}
    if not cfg.searching and _WEIGHT in tensors:
        _check_choice(float(np.ravel(tensors.pop(_WEIGHT))[0]), cfg)
    params = from_state_dict(tensors, RULES, shapes_of(draw, cfg))
    _check_schedule(buffers, cfg)
    return params


def to_torch(params: Params, cfg: RDDMConfig) -> dict[str, np.ndarray]:
    """Exact inverse of :func:`from_torch`: the state dict of the official diffusion object.

    It holds the schedule too, as the official code stores it.

    Args:
      params: from `init`, `from_torch` or training.
      cfg: their configuration.

    Raises:
      UserError: the parameters do not belong to ``cfg``.
    """
    return {
        **official_buffers(cfg.schedule.make()),
        **to_state_dict(params, RULES, shapes_of(draw, cfg)),
    }


def config_from_state_dict(state_dict: StateDict, **options: Any) -> RDDMConfig:
    """Configuration that official weights fit.

    Sizes and the schedule are read. What weights cannot tell is taken from the experiments that
    were published: two networks give residual and noise, one the residual; a network that sees
    one image only generates. Group norms have 8 groups and heads 32 channels.

    Args:
      state_dict: as for :func:`from_torch`.
      **options: fields that weights cannot tell, and overrides; dicts for fields of a part, such
        as ``unet={"groups": 4}``.

    Raises:
      UserError: the keys are not those of RDDM.

    >>> import jax
    >>> from jaxcore.models import rddm
    >>> cfg = RDDMConfig.tiny()
    >>> weights = rddm.to_torch(rddm.init(jax.random.key(0), cfg), cfg)
    >>> config_from_state_dict(weights) == cfg
    True
    """
    tensors = _unwrapped(state_dict)
    found = _found(tensors)
    channels = found.unet["channels"]
    fields: dict[str, Any] = {"unet": found.unet, "schedule": _schedule_fields(tensors)}
    if found.inputs == channels:
        fields |= {"kind": "generation", "objective": {"loss": "l2"}}
    else:
        fields |= {"condition_channels": found.inputs - 2 * channels, "objective": {}}
    if found.search:
        fields["objective"]["name"] = SEARCH
    elif found.networks == 1:
        fields["objective"]["name"] = "pred_res"
    for name, value in options.items():
        fields[name] = fields[name] | value if isinstance(value, Mapping) else to_json(value)
    return RDDMConfig.from_dict(fields)


def start(found: RDDMConfig, wanted: RDDMConfig) -> RDDMConfig:
    """Configuration of a training that starts from weights.

    Args:
      found: configuration of the weights, which decides the sizes.
      wanted: that of the training without them, which decides schedule and objective: weights do
        not tell these, or are to learn others.
    """
    unet = computed_like(found.unet, wanted.unet)
    return dataclasses.replace(wanted, unet=unet, condition_channels=found.condition_channels)


def _unwrapped(state_dict: StateDict) -> dict[str, TensorLike]:
    """The state dict of the diffusion object, whatever is around it or missing."""
    averages = [f"ema_model.{inside}{key}" for inside in ("", "module.") for key in _FIRST]
    tensors = strip_prefix(state_dict, [*_FIRST, *averages])
    averaged = select_prefix(tensors, "ema_model.")
    if averaged:
        tensors = strip_prefix(averaged, _FIRST)
    if "init_conv.weight" in tensors and "final_conv.weight" in tensors:  # a single U-Net
        return {f"model.unet0.{key}": value for key, value in tensors.items()}
    if any(key.startswith(("unet0.", "init_conv.")) for key in tensors):
        return {f"model.{key}": value for key, value in tensors.items()}
    return tensors


def _buffer_names() -> tuple[str, ...]:
    return tuple(official_buffers(ScheduleConfig(timesteps=2).make()))


class _Found(NamedTuple):
    """Configuration of the networks read from tensor shapes."""

    unet: dict[str, Any]  # fields of its configuration
    networks: int
    inputs: int  # channels
    search: bool  # whether there is a weight of objectives

    def describe(self) -> str:
        what = f"{self.networks} network(s)"
        if self.unet["share_encoder"]:
            what = "one encoder with two decoders"
        weight = " and a weight of objectives" if self.search else ""
        return f"{what} with {self.inputs} input channels{weight}"


def _found(tensors: Mapping[str, Any]) -> _Found:
    """Configuration read from tensor shapes."""
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    shared = "model.init_conv.weight" in shapes
    start = "model." if shared else "model.unet0."
    final = "final_conv_1" if shared else "final_conv"
    needed = (f"{start}init_conv.weight", f"{start}{final}.weight", f"{start}downs.0.3.weight")
    needed += (f"{start}mid_attn.fn.fn.to_qkv.weight", f"{start}time_mlp.1.weight")
    missing = [key for key in needed if key not in shapes]
    if missing:
        raise UserError(
            f"Weights of RDDM contain the key {missing[0]!r}, which these {len(shapes)} keys do "
            "not."
        )
    dim, inputs = shapes[needed[0]][:2]
    pattern = re.compile(re.escape(start) + r"downs\.(\d+)\.3\.weight")
    levels = sorted(int(m[1]) for key in shapes if (m := pattern.fullmatch(key)))
    widths = [shapes[f"{start}downs.{i}.3.weight"][0] for i in levels]
    unet = {
        "dim": dim,
        "dim_mults": tuple(width // dim for width in widths),
        "channels": shapes[needed[1]][0],
        "heads": max(1, shapes[needed[3]][0] // 3 // 32),
        "share_encoder": shared,
    }
    frequencies = f"{start}time_mlp.0.weights"
    if frequencies in shapes:
        unet |= {"time_embedding": "learned", "learned_frequencies": shapes[frequencies][0]}
    networks = 2 if shared or "model.unet1.init_conv.weight" in shapes else 1
    return _Found(unet, networks, inputs, _WEIGHT in shapes)


def _check_experiment(tensors: Mapping[str, Any], cfg: RDDMConfig) -> None:
    """One sentence for weights of other networks than the configuration has."""
    found = _found(tensors)
    unet = {"share_encoder": cfg.unet.share_encoder}
    wanted = _Found(unet, cfg.num_unet, cfg.input_channels, cfg.searching)
    shared = found.unet["share_encoder"] == cfg.unet.share_encoder
    if not shared or found[1:3] != wanted[1:3] or (wanted.search and not found.search):
        raise UserError(
            f"Expected weights of {wanted.describe()} ({cfg.input_description}), found those of "
            f"another experiment: {found.describe()}."
        )


def _check_choice(weight: float, cfg: RDDMConfig) -> None:
    chosen = "pred_res" if weight > 0.5 else "pred_noise"
    if cfg.objective.name != chosen:
        raise UserError(
            f"Expected weights trained for {cfg.objective.name}, found a search of objectives "
            f"whose weight {weight:.4f} stands for {chosen}."
        )


def _differences(stored: StateDict, schedule: ScheduleConfig) -> list[str]:
    """Names of stored buffers that are not those of a schedule."""
    ours = official_buffers(schedule.make())
    bad = []
    for name, value in stored.items():
        # The logarithm of a variance near nothing is no stable number.
        tolerance = 1e-2 if name == _LOG else _TOLERANCE
        same = value.shape == ours[name].shape and np.allclose(
            value, ours[name], rtol=1e-5, atol=tolerance
        )
        bad += [] if same else [name]
    return bad


def _check_schedule(stored: StateDict, cfg: RDDMConfig) -> None:
    bad = _differences(stored, cfg.schedule)
    if bad:
        warnings.warn(
            f"The checkpoint was trained with another schedule than the configuration: "
            f"{', '.join(bad[:3])}{' ...' if len(bad) > 3 else ''} differ; the configuration's is "
            "used.",
            stacklevel=3,
        )


_SCHEDULES: tuple[dict[str, Any], ...] = (
    {"version": "v1"},
    {"version": "v1", "sum_scale": 0.01},
    {"version": "v2"},
    {"version": "v2", "sum_scale": 0.01},
    {"ddpm": "linear"},
)


def _schedule_fields(tensors: StateDict) -> dict[str, Any]:
    """The published schedule that the buffers hold; nothing where there are none, or others."""
    names = ("alphas_cumsum", "betas_cumsum")
    stored = {name: np.asarray(tensors[name]) for name in names if name in tensors}
    if len(stored) < len(names):
        return {}
    steps = {"timesteps": stored["alphas_cumsum"].shape[0]}
    for fields in _SCHEDULES:
        if not _differences(stored, ScheduleConfig(**steps, **fields)):
            return {**steps, **fields}
    return steps
