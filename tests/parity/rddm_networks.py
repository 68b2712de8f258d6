"""Checks of RDDM's golden files: networks, training steps, moving average, checkpoint keys."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.models import rddm
from jaxcore.models.rddm import RDDMConfig, UnetConfig
from jaxcore.models.rddm.network import blocks
from jaxcore.models.rddm.process.forward import to_signed
from jaxcore.models.rddm.process.losses import rddm_loss
from jaxcore.nn import capture
from jaxcore.train import (
    EMAConfig,
    Loss,
    Mean,
    OptimConfig,
    create_state,
    make_optimiser,
    make_train_step,
)
from jaxcore.train.ema import ema_decay, ema_update
from tests.parity.golden import Golden, close, nhwc, part_params, run

BLOCK = {"atol": 2e-5, "rtol": 0}
NETWORK = {"atol": 2e-4, "rtol": 0}


def _part(file: Golden, name: str, inside: str, module: Any, *inputs: Any) -> Any:
    """Output of a part whose weights go through the network's own key table.

    ``inside`` is where the part sits in the network: our path, and the official one.
    """
    path, key = inside.split(" ")
    weights = file.group(f"param/{name}")
    if not weights:
        prefix = f"param/{name}."
        weights = {
            k.removeprefix(prefix): v for k, v in file.arrays.items() if k.startswith(prefix)
        }
    params = part_params(module, rddm.RULES, weights, path, key, *inputs)
    return run(module, params, *inputs)


def check_blocks(path: Path) -> None:
    file = Golden(path)
    x, time = file.image("in/x"), file["in/time_emb"]
    film = tuple(file[f"in/block_{name}"][:, :, 0, 0] for name in ("scale", "shift"))
    wide, groups = file.config["C_out"], file.config["groups"]
    heads = {name: file.config[name] for name in ("heads", "dim_head")}
    net, unet = "unet0/", "model.unet0."
    mid, level = f"{net}mid_block1 {unet}mid_block1", f"{net}downs_0_attn {unet}downs.0.2"
    conv = blocks.StandardisedConv(features=wide, use_bias=True)
    inner = f"{net}mid_block1/block1 {unet}mid_block1.block1"
    core = f"{net}downs_0_attn/attention {unet}downs.0.2.fn.fn"
    full = f"{net}mid_attn {unet}mid_attn"
    full_core = f"{net}mid_attn/attention {unet}mid_attn.fn.fn"
    norm = f"{net}downs_0_attn/norm {unet}downs.0.2.fn.norm"
    up = f"{net}ups_0_resample {unet}ups.0.3"
    down = f"{net}downs_0_resample {unet}downs.0.3"
    block = blocks.Block(features=wide, groups=groups)
    linear = blocks.LinearAttention(**heads)
    res, same = (blocks.ResnetBlock(features=n, groups=groups) for n in (wide, x.shape[-1]))
    ours = {
        "ws_conv": _part(file, "ws_conv", f"{inner.replace(' ', '/proj ')}.proj", conv, x),
        "channel_layernorm": _part(file, "channel_layernorm", norm, blocks.LayerNorm(), x),
        "block": _part(file, "block", inner, block, x, film),
        "block_no_scale_shift": _part(file, "block", inner, block, x),
        "resnet_block": _part(file, "resnet_block", mid, res, x, time),
        "resnet_block_same": _part(file, "resnet_block_same", mid, same, x, time),
        "linear_attention": _part(file, "linear_attention", core, linear, x),
        "res_prenorm_linear_attention": _part(
            file, "res_prenorm_linear_attention", level, blocks.AttentionLayer(**heads), x
        ),
        "attention": _part(file, "attention", full_core, blocks.Attention(**heads), x),
        "res_prenorm_attention": _part(
            file, "res_prenorm_attention", full, blocks.AttentionLayer(full=True, **heads), x
        ),
        "upsample": _part(file, "upsample", up, blocks.Upsample(features=wide), x),
        "downsample": _part(file, "downsample", down, blocks.Downsample(features=wide), x),
    }
    for name, found in ours.items():
        close(found, nhwc(file[f"out/{name}"]), **BLOCK, what=name)
    for kind in ("int", "float"):
        t = file[f"in/t_{kind}"]
        for name, golden in file.group("out").items():
            if found := re.fullmatch(rf"sinusoidal_(\d+)_{kind}", name):
                embedded = jax.jit(blocks.sinusoidal, static_argnums=1)(t, int(found[1]))
                close(embedded, golden, **BLOCK, what=name)
    features = jax.jit(blocks.fourier_features)(
        file["in/t_float"], file["param/random_fourier.weights"]
    )
    close(features, file["out/random_fourier"], **BLOCK, what="random_fourier")


_apply = jax.jit(rddm.apply, static_argnames="cfg")
_captured = jax.jit(capture(rddm.apply), static_argnames="cfg")


def _config(file: Golden, **fields: Any) -> RDDMConfig:
    sizes = {name: file.config[name] for name in ("dim", "groups")}
    unet = UnetConfig(dim_mults=tuple(file.config["dim_mults"]), **sizes)
    return RDDMConfig(unet=unet).replace(**fields)


def check_unet(path: Path) -> None:
    file = Golden(path)
    cfg = _config(file, objective={"name": "pred_res"})
    params = rddm.from_torch(file.group("param"), cfg)
    assert rddm.config_from_state_dict(file.group("param"), unet={"groups": cfg.unet.groups}) == cfg
    x = file.image("in/x")
    # Times as fractions throughout, so that one program serves the whole file.
    outputs, seen = _captured(params, x, file["in/t"].astype(np.float32), cfg=cfg)
    close(outputs[0], nhwc(file["out/y"]), **NETWORK, what="y")
    for name, golden in file.group("mid").items():
        golden = nhwc(golden) if golden.ndim == 4 else golden
        close(seen[f"unet0/{name}"], golden, **NETWORK, what=name)
    for weights in (params, rddm.standardise(params, cfg)):
        (y,), _ = _captured(weights, x, file["in/t_float"], cfg=cfg)
        close(y, nhwc(file["out/y_float_t"]), **NETWORK, what="fractional time")


def check_shared_encoder(path: Path) -> None:
    file = Golden(path)
    cfg = _config(
        file,
        unet={"share_encoder": True},
        objective={"self_condition": file.config["self_condition"]},
    )
    params = rddm.from_torch({f"model.{k}": v for k, v in file.group("param").items()}, cfg)
    x = file.image("in/x")
    if file.config["self_condition"]:
        x = np.concatenate([file.image("in/x_self_cond"), x], axis=-1)
    outputs = _apply(params, x, file["in/t"], cfg=cfg)
    for name, ours in zip(("res", "second"), outputs, strict=True):
        close(ours, nhwc(file[f"out/{name}"]), **NETWORK, what=name)


def check_ema(path: Path) -> None:
    file = Golden(path)
    names = {"decay": "beta", "every": "update_every", "copy_until": "update_after_step"}
    given = {ours: file.config[theirs] for ours, theirs in names.items()}
    given |= {name: file.config[name] for name in ("inv_gamma", "power")}
    cfg = EMAConfig(warmup="power", **given)
    calls, biases = file["out/ema"], file["in/bias"]
    width = calls.shape[1] - biases.shape[1]
    update = jax.jit(lambda average, params, n: ema_update(cfg, average, params, n))
    average = {"weight": jnp.zeros(width), "bias": jnp.zeros(biases.shape[1])}
    rows = []
    for n, bias in enumerate(biases):
        online = {"weight": jnp.full(width, np.float32(np.sin(0.01 * n))), "bias": bias}
        average = update(average, online, n)
        rows.append(np.concatenate([average["weight"], average["bias"]]))
    close(np.stack(rows), calls, atol=1e-6, rtol=0, what="average")
    # The first call after the copies copies once more, whatever decay the released code prints.
    golden, late = file["out/decay_after_call"], np.arange(len(calls)) > cfg.copy_until
    decays = np.asarray(jax.vmap(lambda n: ema_decay(cfg, n))(np.arange(len(calls))))
    once_more = np.arange(len(calls)) <= cfg.copy_until + cfg.every
    ours = np.where(late & ~once_more, decays, golden)
    close(ours, golden, atol=1e-6, rtol=0, what="decay")
    assert not decays[once_more].any()


def _train(
    file: Golden, kind: str, cfg: RDDMConfig, optim: OptimConfig, accumulate: int
) -> tuple[list[dict[str, Any]], Mapping[str, np.ndarray]]:
    """Run the stored steps with our own train step; the metrics and the weights afterwards."""
    schedule, objective = cfg.schedule.make(), cfg.make_objective()

    def apply_fn(params: Any, x: Any, times: Any) -> tuple[Any, ...]:
        return rddm.apply(params, x, times, cfg)

    def loss(variables: Any, batch: Any, key: Any, frozen: None) -> Loss:
        images = {k: to_signed(batch[k]) for k in ("clean", "degraded") if k in batch}
        value, parts = rddm_loss(
            variables["params"],
            apply_fn,
            images,
            key,
            schedule=schedule,
            objective=objective,
            t=batch["t"],
            noise=batch["noise"],
        )
        return Loss(value, 1, {name: Mean(part, 1) for name, part in parts.items()})

    def stored(name: str) -> dict[str, np.ndarray]:
        start = f"{name}."
        return {k.removeprefix(start): v for k, v in file.arrays.items() if k.startswith(start)}

    tx = make_optimiser(optim, 1000)
    before = stored(f"param/{kind}_before")
    state = create_state(rddm.from_torch(before, cfg), tx, key=jax.random.key(0))
    step = jax.jit(make_train_step(loss, tx, accum_steps=accumulate))
    names = {"gt01": "clean", "input01": "degraded", "noise": "noise", "t": "t"}
    metrics = []
    for i in range(file.config["steps"]):
        micro = [file.group(f"in/{kind}/{accumulate * i + k}") for k in range(accumulate)]
        batch = {}
        for theirs, name in names.items():
            if theirs in micro[0]:
                # Micro-batch k is made of the rows k, k + accumulate, ...
                rows = np.stack([m[theirs] for m in micro], axis=1)
                rows = rows.reshape(-1, *rows.shape[2:])
                batch[name] = nhwc(rows) if rows.ndim == 4 else rows.astype(np.int32)
        state, found = step(state, batch)
        metrics.append(jax.device_get(found))
    after = rddm.to_torch(state.params, cfg)
    for key, golden in stored(f"out/{kind}_after").items():
        close(after[f"model.{key}"], golden, atol=5e-6, rtol=0, what=key)
    return metrics, after


def _schedule(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"timesteps": given["T"], "sum_scale": given.get("sum_scale", 1.0)}


def check_adam(path: Path) -> None:
    file = Golden(path)
    given = file.config
    objective = {"name": given["objective"], "loss": given["loss"]}
    cfg = _config(file, objective=objective, schedule=_schedule(given))
    optim = OptimConfig(
        name="adam",
        learning_rate=given["lr"],
        betas=tuple(given["betas"]),
        eps=given["eps"],
        clip_norm=given["clip"],
    )
    metrics, _ = _train(file, "adam", cfg, optim, given["accumulate"])
    losses, norms = ([m[k] for m in metrics] for k in ("loss", "grad_norm"))
    close(losses, file["out/adam_losses"], atol=1e-5, rtol=0, what="losses")
    close(norms, file["out/adam_grad_norms"], atol=1e-5, rtol=1e-5, what="gradient norms")


def check_radam(path: Path) -> None:
    file = Golden(path)
    given = file.config
    cfg = RDDMConfig.generation(
        unet=_config(file).unet, objective={"loss": given["loss"]}, schedule=_schedule(given)
    )
    assert cfg.num_unet == given["num_unet"]
    optim = OptimConfig(
        name="radam",
        learning_rate=given["lr"],
        betas=tuple(given["betas"]),
        eps=given["eps"],
        clip_norm=float(str(given["clip"]).split()[0]),  # a remark may follow
    )
    metrics, _ = _train(file, "radam", cfg, optim, given["accumulate"])
    losses = np.array([[m["loss0"], m["loss1"]] for m in metrics])
    close(losses, file["out/radam_losses"], atol=1e-5, rtol=0, what="losses")
    norms = [m["grad_norm"] for m in metrics]
    close(norms, file["out/radam_grad_norms"], atol=1e-5, rtol=1e-5, what="gradient norms")


_CONFIGURATIONS = {
    "exp2_restoration_two_unets": RDDMConfig.deraining(),
    "exp2_shadow_removal_with_mask_two_unets": RDDMConfig.deraining(condition_channels=3),
    "exp2_restoration_single_unet": RDDMConfig.low_light(),
    "exp2_shared_encoder": RDDMConfig.deraining(unet={"share_encoder": True}),
    "exp0_5_6_generation_two_unets": RDDMConfig.generation(),
    "exp3_aosa_single_unet": RDDMConfig.objective_search(),
}


def check_keys(path: Path) -> None:
    """Keys and shapes of whole checkpoints, and what we recognise in them."""
    from jaxcore.convert import official_shapes
    from jaxcore.models.rddm.process.schedule import official_buffers

    golden = json.loads(path.read_text())
    assert golden.keys() == _CONFIGURATIONS.keys()
    for name, cfg in _CONFIGURATIONS.items():
        shapes = {key: tuple(shape) for key, shape in golden[name].items()}
        ours = official_shapes(rddm.param_shapes(cfg), rddm.RULES)
        ours |= {k: v.shape for k, v in official_buffers(cfg.schedule.make()).items()}
        assert ours == shapes, name
        weights = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
        found = rddm.config_from_state_dict(weights, schedule=cfg.schedule)
        assert found == cfg, name


CHECKS: dict[str, Callable[[Path], None]] = {
    "blocks": check_blocks,
    "ema": check_ema,
    "state_dict": check_keys,
    "train_step_adam": check_adam,
    "train_step_radam": check_radam,
    "unet": check_unet,
    "unet_shared_encoder": check_shared_encoder,
}
