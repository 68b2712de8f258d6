"""Checks of AdaIR's golden files; sizes are read from the weights and the file's own config."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.convert import official_shapes
from jaxcore.data.images.degradations import gaussian_noise
from jaxcore.metrics import METRICS
from jaxcore.models import adair
from jaxcore.models.adair import AdaIRConfig
from jaxcore.nn import ChannelNorm, Conv, capture
from jaxcore.ops import resize_bilinear
from jaxcore.train.recipes.adair_schedule import adair_official
from tests.parity.golden import (
    Golden,
    close,
    close_gradients,
    equal,
    like_stored,
    nhwc,
    part_params,
    run,
)

MODULE = {"atol": 2e-5, "rtol": 1e-4}
NETWORK = {"atol": 1e-4, "rtol": 1e-3}


def _params(
    module: Any, weights: Mapping[str, np.ndarray], inside: str, *inputs: Any
) -> dict[str, Any]:
    """Weights of one part, which sits for example in ``fre1.channel_cross_h``."""
    stacked = inside.endswith(".0")  # one block of a stack
    path = inside.removesuffix(".0").replace(".", "/")
    return part_params(module, adair.RULES, weights, path, inside, *inputs, stacked=stacked)


def check_block(path: Path) -> None:
    file = Golden(path)
    weights, x = file.group("param"), file.image("in/x")
    width, hidden = weights["ffn.project_out.weight"].shape[:2]
    expansion = file.config.get("ffn", file.config.get("ffn_expansion_factor"))
    block = adair.TransformerBlock(
        num_heads=weights["attn.temperature"].shape[0],
        expansion=(hidden + 0.5) / width if expansion is None else expansion,
        use_bias="attn.qkv.bias" in weights,
        norm_bias="norm1.body.bias" in weights,
    )
    params = _params(block, weights, "latent.0", x)

    def parts(x):
        # The sub-modules exist only inside the block's own call, so they are built here.
        norm = ChannelNorm(use_bias=block.norm_bias)
        n1 = norm.apply({"params": params["norm1"]}, x)
        attn = adair.MDTA(num_heads=block.num_heads, use_bias=block.use_bias)
        ffn = adair.GDFN(expansion=block.expansion, use_bias=block.use_bias)
        return {
            "norm1": n1,
            "attn": attn.apply({"params": params["attn"]}, n1),
            "ffn_of_x": ffn.apply({"params": params["ffn"]}, x),
        }

    ours = jax.jit(parts)(x)
    for name, golden in file.group("mid").items():
        close(ours[name], nhwc(golden), **MODULE, what=name)
    close(run(block, params, x), nhwc(file["out/y"]), **MODULE, what="y")


def check_resample(path: Path) -> None:
    file = Golden(path)
    weights, x = file.group("param"), file.image("in/x")
    for kind, module, name in (
        ("down", adair.Downsample(), "down1_2"),
        ("up", adair.Upsample(), "up2_1"),
    ):
        own = {k.removeprefix(kind + "."): v for k, v in weights.items() if k.startswith(kind)}
        params = _params(module, own, name, x)
        close(run(module, params, x), nhwc(file[f"out/{kind}"]), **MODULE, what=kind)


def check_cross_attention(path: Path) -> None:
    file = Golden(path)
    weights = file.group("param")
    query, source = file.image("in/q_src"), file.image("in/kv_src")
    use_bias = "q.bias" in weights
    heads = weights["temperature"].shape[0]
    module = adair.ChannelCrossAttention(num_heads=heads, use_bias=use_bias)
    params = _params(module, weights, "fre1.channel_cross_h", query, source)
    close(run(module, params, query, source), nhwc(file["out/y"]), **MODULE, what="y")
    if "out/y_zero_query" in file:
        golden = nhwc(file["out/y_zero_query"])
        zero = np.zeros_like(query)
        close(run(module, params, zero, source), golden, **MODULE, what="zero query")
        if not use_bias:
            close(run(module, params, None, source), golden, **MODULE, what="no query")


def check_modulation(path: Path) -> None:
    file = Golden(path)
    low, high = file.image("in/low"), file.image("in/high")
    module = adair.FrequencyModulation()
    params = _params(module, file.group("param"), "fre1.frequency_refine", low, high)
    close(run(module, params, low, high), nhwc(file["out/y"]), **MODULE, what="y")
    gates = {
        "spatial_gate": run(adair.SpatialGate(), params["spatial_gate"], high),
        "channel_gate": run(adair.ChannelGate(), params["channel_gate"], low),
    }
    for name, golden in file.group("mid").items():
        close(gates[name], nhwc(golden), **MODULE, what=name)


def _aflb_config(file: Golden, unit: int, **options: Any) -> AdaIRConfig:
    """A configuration whose AFLBs fit the file's weights; only the third head count matters."""
    weights = file.group("param")
    heads = weights["channel_cross_h.temperature"].shape[0]
    return AdaIRConfig(
        dim=8 * heads,
        heads=(1, 1, heads, 1),
        bias="channel_cross_h.q.bias" in weights,
        in_channels=weights["conv1.weight"].shape[1],
        out_channels=weights["conv1.weight"].shape[1],
        mask_unit=unit,
        **options,
    )


def check_spectral_split(path: Path) -> None:
    file = Golden(path)
    weights, image = file.group("param"), file.image("in/image")
    width = weights["conv1.weight"].shape[0]
    features = jnp.zeros((*image.shape[:3], width))
    for spectral in ("fft", "matrix"):
        cfg = _aflb_config(file, file.config.get("mask_unit", 128), spectral=spectral)
        block = adair.AFLB(cfg=cfg)
        params = _params(block, weights, "fre1", image, features)["mining"]
        mining = adair.FrequencyMining(features=width, cfg=cfg)
        (low, high), info = jax.jit(capture(mining.apply))({"params": params}, image)
        low = jnp.zeros_like(high) if low is None else low
        close(low, nhwc(file["out/low"]), **MODULE, what=f"low ({spectral})")
        close(high, nhwc(file["out/high"]), **MODULE, what=f"high ({spectral})")
        if "mid/threshold" in file:
            close(info["threshold"], file["mid/threshold"], **MODULE, what="threshold")
        if "mid/half" in file:
            equal(info["half_width"], file["mid/half"], what="half width")
        if "mid/feat" in file:
            conv = {"kernel": params["conv1"]["kernel"]}
            features = run(Conv(features=width), conv, image)
            close(features, nhwc(file["mid/feat"]), **MODULE, what="features")


def check_aflb(path: Path) -> None:
    file = Golden(path)
    image, features = file.image("in/image"), file.image("in/feat")
    for name, golden in file.group("out").items():
        unit = file.config.get(f"mask_unit_for_{name}", file.config.get("mask_unit", 128))
        for skip in (True, False):
            block = adair.AFLB(cfg=_aflb_config(file, unit, skip_empty_mask=skip))
            params = _params(block, file.group("param"), "fre1", image, features)
            ours = run(block, params, image, features)
            close(ours, nhwc(golden), **MODULE, what=f"{name} (skip_empty_mask={skip})")
    if "mid/image_resized" in file:
        golden = nhwc(file["mid/image_resized"])
        ours = jax.jit(resize_bilinear, static_argnums=1)(image, golden.shape[1:3])
        close(ours, golden, **MODULE, what="resized image")


def _network(file: Golden) -> tuple[AdaIRConfig, Any]:
    """Configuration and parameters; the sizes found in the weights must be those of the file."""
    weights = file.group("param")
    given = file.config
    cfg = adair.config_from_state_dict(weights, mask_unit=given.get("mask_unit", 128))
    stated = {
        "inp_channels": cfg.in_channels,
        "out_channels": cfg.out_channels,
        "dim": cfg.dim,
        "num_blocks": list(cfg.num_blocks),
        "num_refinement_blocks": cfg.num_refinement_blocks,
        "heads": list(cfg.heads),
        "bias": cfg.bias,
        "LayerNorm_type": cfg.norm_type,
        "decoder": cfg.decoder,
    }
    for name, value in stated.items():
        assert given.get(name, value) == value, f"{name}: {value}, expected {given[name]}"
    return cfg, adair.from_torch(weights, cfg)


def check_network(path: Path) -> None:
    file = Golden(path)
    cfg, params = _network(file)
    run = jax.jit(capture(adair.apply), static_argnames="cfg")
    y, seen = run(params, file.image("in/x"), cfg=cfg)
    golden = nhwc(file["out/y"])
    close(like_stored(y, golden), golden, **NETWORK, what="y")
    if "out/mean" in file:
        close(np.mean(y, axis=(1, 2)), file["out/mean"], **NETWORK, what="mean")
    if "out/std" in file:
        close(np.std(y, axis=(1, 2)), file["out/std"], **NETWORK, what="std")
    for name, golden in file.group("mid").items():
        ours = seen[name.replace("_threshold", "/mining/threshold")]
        if golden.ndim == 4:
            golden = nhwc(golden)
            ours = like_stored(ours, golden)
        close(ours, golden, **NETWORK, what=name)
    for name in ("fre1", "fre2", "fre3"):
        if f"{name}_half" in file.config:
            half = np.broadcast_to(file.config[f"{name}_half"], (y.shape[0], 2))
            equal(seen[f"{name}/mining/half_width"], half, what=f"half width of {name}")


def check_gradients(path: Path) -> None:
    file = Golden(path)
    cfg, params = _network(file)
    target = file.image("in/target")

    def loss(params, x):
        return jnp.mean(jnp.abs(adair.apply(params, x, cfg) - target))

    value, gradients = jax.jit(jax.value_and_grad(loss))(params, file.image("in/x"))
    close(value, file["out/loss"], **NETWORK, what="loss")
    ours = adair.to_torch(gradients, cfg)
    close_gradients(ours, file)
    for name in file.config.get("params_without_gradient", []):
        assert not ours[name].any(), f"{name} has a gradient"


def check_keys(path: Path) -> None:
    golden = {key: tuple(shape) for key, shape in json.loads(path.read_text()).items()}
    weights = {key: np.broadcast_to(np.float32(0), shape) for key, shape in golden.items()}
    cfg = adair.config_from_state_dict(weights)
    assert official_shapes(adair.param_shapes(cfg), adair.RULES) == golden


def check_metrics(path: Path) -> None:
    """The protocol's own metrics; DEA-Net's file of the same kind is checked with that network."""
    file = Golden(path)
    image, target = file.image("in/pred"), file.image("in/target")
    for metric in ("psnr", "ssim"):
        ours = jax.jit(METRICS[f"{metric}_rgb"])(image, target)
        close(ours, file[f"out/{metric}"], **MODULE, what=metric)


def check_noise(path: Path) -> None:
    file = Golden(path)
    for sigma in file.config["order"]:
        ours = gaussian_noise(file["in/clean"], sigma, file[f"out/noise{sigma}"])
        equal(ours, file[f"out/noisy{sigma}"], what=f"noise {sigma}")


def check_schedule(path: Path) -> None:
    file = Golden(path)
    epochs = {name: file.config[name] for name in ("warmup_epochs", "max_epochs")}
    rate = jax.vmap(adair_official(file.config["base"], steps_per_epoch=7, **epochs))
    for step in (0, 6):  # constant inside an epoch
        ours = rate(np.arange(len(file["out/lr"])) * 7 + step)
        close(ours, file["out/lr"], rtol=1e-5, atol=1e-11, what="learning rate")


CHECKS: dict[str, Callable[[Path], None]] = {
    "aflb": check_aflb,
    "block": check_block,
    "cross_attention": check_cross_attention,
    "fmom": check_modulation,
    "grads": check_gradients,
    "lr_schedule": check_schedule,
    "metrics": check_metrics,
    "net": check_network,
    "noise": check_noise,
    "resample": check_resample,
    "spectral_split": check_spectral_split,
    "state_dict": check_keys,
}
