"""Other networks, lengths, experiments, samplers and training steps for the files of RDDM."""

from typing import Any

import jax
import numpy as np

from jaxcore.models import rddm
from jaxcore.models.rddm import RDDMConfig, UnetConfig
from jaxcore.models.rddm.process import forward
from tests.parity.rddm_diffusion import SCHEDULES
from tests.parity.second_set.change import (
    Arrays,
    Change,
    Config,
    drop,
    put_weights,
    rename,
    resize,
    reweigh,
)

_SIZES: dict[str, Any] = {"dim": 12, "dim_mults": [1, 3], "groups": 6}


def _network(
    arrays: Arrays, config: Config, *, under: str = "param/", inside: str = "", **options: Any
) -> None:
    """Random weights of other sizes, named as in the file: ``under`` + what is ``inside``."""
    config |= _SIZES
    cfg = RDDMConfig(unet=UnetConfig(**{**_SIZES, "dim_mults": tuple(_SIZES["dim_mults"])}))
    cfg = cfg.replace(**options)
    params = rddm.init(jax.random.key(len(arrays)), cfg)
    rng = np.random.default_rng(len(arrays))
    params = jax.tree.map(lambda a: a + 0.02 * rng.standard_normal(a.shape, np.float32), params)
    start = f"model.{inside}"
    weights = rddm.to_torch(params, cfg)
    own = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
    put_weights(arrays, own, under)


def blocks(arrays: Arrays, config: Config) -> None:
    reweigh(arrays, 1)
    resize(arrays, 2, x=(6, 10))
    rng = np.random.default_rng(3)
    for name in ("time_emb", "block_scale", "block_shift"):
        shape = (3, *arrays[f"in/{name}"].shape[1:])
        arrays[f"in/{name}"] = rng.normal(size=shape).astype(np.float32)
    config |= {"heads": 2, "dim_head": 64, "groups": 4}
    rename(arrays, "sinusoidal_8_", "sinusoidal_12_")
    rename(arrays, "sinusoidal_64_", "sinusoidal_40_")
    arrays["in/t_int"] = np.array([0, 3, 77], np.int64)
    arrays["in/t_float"] = np.array([0.0, 2.5, 400.25], np.float32)


def unet(arrays: Arrays, config: Config) -> None:
    _network(arrays, config, inside="unet0.", objective={"name": "pred_res"})
    resize(arrays, 4, x=(6, 10))
    arrays["in/t"] = np.array([0, 41, 999], np.int64)
    arrays["in/t_float"] = np.array([0.5, 41.25, 900.0], np.float32)
    drop(arrays, r"mid/(downs|ups)\.2\.")


def unet_shared_encoder(arrays: Arrays, config: Config) -> None:
    config["self_condition"] = False
    _network(arrays, config, unet={"share_encoder": True})
    resize(arrays, 5, batch=2, x=(8, 12))
    arrays["in/t"] = np.array([3, 500], np.int64)
    del arrays["in/x_self_cond"]


def ema(arrays: Arrays, config: Config) -> set[str]:
    config |= {"beta": 0.99, "update_every": 5, "update_after_step": 40}
    n = np.arange(230)
    arrays["in/bias"] = np.stack([0.02 * n, -0.01 * n, 0.03 * n], axis=1).astype(np.float32)
    arrays["out/ema"] = np.zeros((230, 4 + 3), np.float32)
    rising = 1 - (1 + np.maximum(n - 40, 0) / config["inv_gamma"]) ** -config["power"]
    arrays["out/decay_after_call"] = np.where(n <= 40, 0, np.minimum(rising, 0.99))
    return {"out/decay_after_call"}


def forward_posterior(arrays: Arrays, config: Config) -> set[str]:
    config |= {"exp": 6, "T": 40, "sum_scale": 0.5}
    resize(arrays, 6, batch=5, x0=(6, 4), x_input=(6, 4), noise=(6, 4))
    arrays["in/t"] = np.array([0, 1, 17, 38, 39], np.int64)
    level = forward.level_at(SCHEDULES["exp6"](40, 0.5), arrays["in/t"].astype(np.int32))
    clean, degraded, noise = (arrays[f"in/{name}"] for name in ("x0", "x_input", "noise"))
    x = forward.q_sample(clean, degraded - clean, noise, level)
    arrays["out/q_sample"] = np.asarray(x, np.float32)
    return {"out/q_sample"}


def losses_predictions(arrays: Arrays, config: Config) -> None:
    config |= {"T": 40, "sum_scale": 0.25}
    sides = dict.fromkeys(("gt01", "input01", "noise", "model_out0", "model_out1"), (6, 4))
    resize(arrays, 7, batch=5, **sides)
    arrays["in/t"] = np.array([0, 1, 17, 38, 39], np.int64)
    rename(arrays, "aosa/0.52/", "aosa/0.57/")
    drop(arrays, "out/exp2/pred_x0_noise/")


def schedules(arrays: Arrays, config: Config) -> None:
    for old, new in ((r"T5\b", "T7"), (r"T10\b", "T13"), (r"T1000\b", "T300")):
        rename(arrays, old, new)
    rename(arrays, "sum_scale0.01", "sum_scale0.2")
    rename(arrays, "ratio0.3", "ratio0.6")


def timesteps(arrays: Arrays, config: Config) -> None:
    config["T"] = 300
    drop(arrays, r"out/S(500|666|999)$")
    rename(arrays, "S26$", "S27")


def samplers(arrays: Arrays, config: Config) -> None:
    config["S"] = 5
    _network(arrays, config, under="param/restore2.")
    _network(arrays, config, under="param/gen2.", kind="generation")
    for old, new in (("T1000_S4", "T400_S5"), ("ancestral_T6", "ancestral_T7")):
        rename(arrays, old, new)
    rename(arrays, "eta0.5", "eta0.3")
    rename(arrays, "sumscale0.01", "sumscale0.05")
    rng = np.random.default_rng(8)
    for key in [k for k in arrays if k.endswith("/noise")]:
        steps = {5: 5, 6: 7, 4: 5, 1: 1}[len(arrays[key])]
        arrays[key] = rng.normal(size=(steps, 2, 3, 12, 8)).astype(np.float32)
    resize(arrays, 9, batch=2, input01=(12, 8))


def path_independence(arrays: Arrays, config: Config) -> None:
    config |= {"S": 3, "T": 400}
    _network(
        arrays,
        config,
        under="param/gen2.",
        kind="generation",
        objective={"time_conditioning": "cumulative"},
    )
    rename(arrays, "decreased0.3", "decreased0.7")
    rng = np.random.default_rng(10)
    for key in [k for k in arrays if k.startswith("in/")]:
        shape = (1, 2, 3, 12, 8) if key.endswith("/noise") else (2, 3, 12, 8)
        arrays[key] = rng.uniform(0, 1, size=shape).astype(np.float32)


def ddim_conversion(arrays: Arrays, config: Config) -> set[str]:
    config |= {"steps": 5, "num_train_timesteps": 500}
    _network(arrays, config, inside="unet0.", kind="generation", objective={"name": "pred_noise"})
    rng = np.random.default_rng(11)
    arrays["in/x_T"] = rng.normal(size=(1, 3, 12, 8)).astype(np.float32)
    arrays["in/variance_noise"] = rng.normal(size=(5, 1, 3, 12, 8)).astype(np.float32)
    resize(arrays, 12, step_sample=(6, 4), step_model_output=(6, 4))
    for old, new in (("t900", "t450"), ("t500", "t250"), ("eta1.0", "eta0.6")):
        rename(arrays, old, new)
    betas = np.linspace(1e-4, 0.02, 500, dtype=np.float64)
    arrays["out/alphas_cumprod"] = np.cumprod(1 - betas).astype(np.float32)
    return {"out/alphas_cumprod"}


def _steps(arrays: Arrays, kind: str, count: int, total: int) -> None:
    """Inputs of ``count`` micro-batches."""
    rng = np.random.default_rng(13)
    first = {k.rpartition("/")[2] for k in arrays if k.startswith(f"in/{kind}/0/")}
    drop(arrays, f"^in/{kind}/")
    for i, name in ((i, name) for i in range(count) for name in sorted(first)):
        key = f"in/{kind}/{i}/{name}"
        if name == "t":
            arrays[key] = rng.integers(0, total, 3)
        else:
            draw = rng.normal if name == "noise" else rng.uniform
            arrays[key] = draw(size=(3, 3, 12, 8)).astype(np.float32)


def train_step_adam(arrays: Arrays, config: Config) -> None:
    config |= {"lr": 3e-4, "accumulate": 3, "clip": 0.5, "steps": 2, "T": 400, "loss": "l2"}
    _network(arrays, config, under="param/adam_before.", objective={"name": config["objective"]})
    _trained(arrays, "adam")
    _steps(arrays, "adam", 6, 400)


def train_step_radam(arrays: Arrays, config: Config) -> None:
    config |= {"lr": 3e-4, "clip": 0.5, "steps": 7, "T": 400, "betas": [0.8, 0.99]}
    _network(arrays, config, under="param/radam_before.", kind="generation")
    _trained(arrays, "radam")
    _steps(arrays, "radam", 7, 400)


def _trained(arrays: Arrays, kind: str) -> None:
    """Results of other sizes for the weights after training."""
    drop(arrays, f"^out/{kind}_after")
    before = f"param/{kind}_before"
    new = {k.replace(before, f"out/{kind}_after"): k for k in arrays if k.startswith(before)}
    arrays.update({after: np.array(arrays[key]) for after, key in new.items()})


VARIANTS: dict[str, Change] = {
    "blocks": blocks,
    "ddim_conversion": ddim_conversion,
    "ema": ema,
    "forward_posterior": forward_posterior,
    "losses_predictions": losses_predictions,
    "path_independence": path_independence,
    "samplers": samplers,
    "schedules": schedules,
    "timesteps": timesteps,
    "train_step_adam": train_step_adam,
    "train_step_radam": train_step_radam,
    "unet": unet,
    "unet_shared_encoder": unet_shared_encoder,
}
