"""Checks of DEA-Net's golden files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.convert import official_shapes
from jaxcore.metrics import METRICS
from jaxcore.models import dea_net
from jaxcore.nn import capture
from jaxcore.ops.padding import pad_to_multiple
from tests.parity.golden import (
    Golden,
    beside,
    close,
    close_gradients,
    equal,
    like_stored,
    nhwc,
    part_params,
    run,
)

TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


def _params(
    module: Any, weights: Mapping[str, np.ndarray], inside: str, *inputs: Any
) -> dict[str, Any]:
    """Weights of one part: the only layer of the stack ``level3``, or a part of ``mix1``."""
    stacked = inside.startswith("level3")
    key = {"level3": "level3_block1", "level3/conv1": "level3_block1.conv1"}.get(inside, "mix1")
    return part_params(module, dea_net.RULES, weights, inside, key, *inputs, stacked=stacked)


def _same_weights(ours: Any, golden: Any) -> None:
    jax.tree.map(
        lambda a, b: close(a, np.asarray(b), atol=1e-6, rtol=0, what="merged"), ours, golden
    )


def check_deconv(path: Path) -> None:
    file = Golden(path)
    x, module = file.image("in/x"), dea_net.DEConv()
    params = _params(module, file.group("param"), "level3/conv1", x)
    close(run(module, params, x), nhwc(file["out/y"]), **TOLERANCE, what="y")

    def official(kernel):
        return np.transpose(kernel, (3, 2, 0, 1))

    for kind, weights in params.items():
        ours = dea_net.effective_kernel(kind, weights["kernel"])
        close(official(ours), file[f"mid/kernel_{kind}"], **TOLERANCE, what=kind)
    merged = dea_net.merge(params)
    close(official(merged["kernel"]), file["mid/kernel_merged"], **TOLERANCE, what="merged")
    close(merged["bias"], file["mid/bias_merged"], **TOLERANCE, what="bias")


def check_attention(path: Path) -> None:
    file = Golden(path)
    x = file.image("in/x")
    attention = dea_net.ContentGuidedAttention(reduction=file.config["reduction"])
    params = _params(attention, file.group("param"), "mix1/cga", x)
    spatial = run(dea_net.SpatialAttention(), params["spatial"], x)
    channel = run(
        dea_net.ChannelAttention(reduction=file.config["reduction"]), params["channel"], x
    )
    close(spatial, nhwc(file["out/sa"]), **TOLERANCE, what="spatial")
    close(channel, nhwc(file["out/ca"]), **TOLERANCE, what="channel")
    close(run(attention, params, x), nhwc(file["out/pa"]), **TOLERANCE, what="pixel")


def check_fusion(path: Path) -> None:
    file = Golden(path)
    low, high = file.image("in/low"), file.image("in/high")
    fusion = dea_net.CGAFusion(reduction=file.config["reduction"])
    params = _params(fusion, file.group("param"), "mix1", low, high)
    close(run(fusion, params, low, high), nhwc(file["out/y"]), **TOLERANCE, what="y")
    attention = dea_net.ContentGuidedAttention(reduction=file.config["reduction"])
    once = run(attention, params["cga"], low + high)
    close(once, nhwc(file["mid/pa_once_sigmoid"]), **TOLERANCE, what="one sigmoid")
    close(jax.nn.sigmoid(once), nhwc(file["mid/weight_used"]), **TOLERANCE, what="two sigmoids")


def check_block(path: Path) -> None:
    file = Golden(path)
    x, golden = file.image("in/x"), nhwc(file["out/y"])
    options = {
        "reduction": file.config["reduction"],
        "attention": "sa.sa.bias" in file.group("param"),
    }
    block = dea_net.DEBlock(**options)
    params = _params(block, file.group("param"), "level3", x)
    close(run(block, params, x), golden, **TOLERANCE, what="training form")
    merged = dea_net.DEBlock(form="deploy", **options)
    theirs = _params(merged, file.group("mid/deploy"), "level3", x)
    ours = dea_net.reparameterize(params)
    jax.tree.map(
        lambda a, b: close(a, np.asarray(b), atol=1e-6, rtol=1e-6, what="merged"), ours, theirs
    )
    close(run(merged, theirs, x), golden, **TOLERANCE, what="merged form")


def _network(file: Golden) -> tuple[dea_net.DEANetConfig, Any]:
    weights = file.group("param")
    cfg = dea_net.config_from_state_dict(weights)
    assert cfg.base_dim == file.config["base_dim"]
    assert list(cfg.depths) == list(file.config.get("depths", cfg.depths))
    return cfg, dea_net.from_torch(weights, cfg)


_apply = jax.jit(dea_net.apply, static_argnames="cfg")
_captured = jax.jit(capture(dea_net.apply), static_argnames="cfg")


_LEVELS = ("down_level1", "down_level2", "level3", "up_level2", "up_level1")


def check_training_form(path: Path) -> None:
    file = Golden(path)
    cfg, params = _network(file)
    y, seen = _captured(params, file.image("in/x"), cfg=cfg)
    close(y, nhwc(file["out/y"]), **TOLERANCE, what="y")
    for name, golden in file.group("mid").items():
        level, _, block = name.partition("_block")
        depth = cfg.depths[_LEVELS.index(level)] if block else 0
        assert not block or int(block) == depth, f"{name} is not the last of {depth} blocks"
        close(like_stored(seen[level], nhwc(golden)), nhwc(golden), **TOLERANCE, what=name)


def check_deploy_form(path: Path) -> None:
    file = Golden(path)
    cfg, params = _network(file)
    assert cfg.form == "deploy"
    close(_apply(params, file.image("in/x"), cfg=cfg), nhwc(file["out/y"]), **TOLERANCE, what="y")
    train_cfg, train = _network(Golden(beside(path, "net_train.npz")))
    merged, merged_cfg = dea_net.deploy(train, train_cfg)
    assert merged_cfg == cfg
    _same_weights(merged, params)


def check_inference(path: Path) -> None:
    file = Golden(path)
    cfg, params = _network(Golden(beside(path, "net_deploy.npz")))
    image, target = file.image("in/x"), file.image("in/target")
    equal(pad_to_multiple(image, 4), nhwc(file["mid/padded"]), what="padded")
    ours = dea_net.dehaze(params, image, cfg)
    close(ours, nhwc(file["out/y"]), **TOLERANCE, what="y")
    for name, metric in (("psnr", "psnr_rgb"), ("ssim", "ssim_rgb_gaussian11_zero")):
        value = jax.jit(METRICS[metric])(ours, target)[0]
        close(value, file[f"out/{name}"], **TOLERANCE, what=name)


def check_gradients(path: Path) -> None:
    file = Golden(path)
    cfg, params = _network(Golden(beside(path, "net_train.npz")))
    target = file.image("in/target")

    def loss(params, x):
        return jnp.mean(jnp.abs(dea_net.apply(params, x, cfg) - target))

    value, gradients = jax.jit(jax.value_and_grad(loss))(params, file.image("in/x"))
    close(value, file["out/loss"], **TOLERANCE, what="loss")
    ours = dea_net.to_torch(gradients, cfg)
    close_gradients(ours, file)
    if "grad_l2" in file.config:
        assert file.config["grad_l2"].keys() == ours.keys()
    for name, gradient in ours.items():  # the centres of CDC and ADC cancel
        if name.endswith(("conv1_1.conv.weight", "conv1_4.conv.weight")):
            assert not gradient[:, :, 1, 1].any(), name


def check_keys(path: Path) -> None:
    for form, listing in json.loads(path.read_text()).items():
        golden = {key: tuple(shape) for key, shape in listing.items()}
        weights = {key: np.broadcast_to(np.float32(0), shape) for key, shape in golden.items()}
        cfg = dea_net.config_from_state_dict(weights)
        assert cfg.form == form
        assert official_shapes(dea_net.param_shapes(cfg), dea_net.RULES) == golden


CHECKS: dict[str, Callable[[Path], None]] = {
    "cga": check_attention,
    "deab": check_block,
    "deb": check_block,
    "deconv": check_deconv,
    "fusion": check_fusion,
    "grads_train": check_gradients,
    "inference_metrics": check_inference,
    "net_deploy": check_deploy_form,
    "net_train": check_training_form,
    "state_dict": check_keys,
}
