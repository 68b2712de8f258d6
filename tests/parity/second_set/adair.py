"""Other networks, sizes, windows, noise and schedules for the files of AdaIR."""

from typing import Any

import jax
import numpy as np

from jaxcore.models import adair
from jaxcore.models.adair import AdaIRConfig
from tests.parity.second_set.change import (
    Arrays,
    Change,
    Config,
    put_weights,
    rename,
    resize,
    reweigh,
)


def _part(seed: int, **sides: tuple[int, int]) -> Change:
    """Other weights and inputs of a part of the network."""

    def change(arrays: Arrays, config: Config) -> None:
        reweigh(arrays, seed)
        resize(arrays, seed, **sides)

    return change


def aflb(arrays: Arrays, config: Config) -> None:
    _part(2, image=(48, 80), feat=(24, 40))(arrays, config)
    config |= {"mask_unit_for_y": 5, "mask_unit_for_y128": 100}


def spectral_split(arrays: Arrays, config: Config) -> None:
    _part(3, image=(24, 40))(arrays, config)
    config["mask_unit"] = 3


def _network(arrays: Arrays, config: Config, **options: Any) -> None:
    sizes: dict[str, Any] = {
        "dim": 12,
        "num_blocks": (2, 1, 1, 1),
        "num_refinement_blocks": 2,
        "heads": (1, 2, 2, 4),
        **options,
    }
    cfg = AdaIRConfig(**sizes)
    params = adair.init(jax.random.key(len(arrays)), cfg)
    rng = np.random.default_rng(len(arrays))
    params = jax.tree.map(lambda a: a + 0.02 * rng.standard_normal(a.shape, np.float32), params)
    put_weights(arrays, adair.to_torch(params, cfg))
    config |= {name: list(v) if isinstance(v, tuple) else v for name, v in sizes.items()}
    for name in ("mask_unit", "LayerNorm_type", "bias"):
        config.pop(name, None)
    config["mask_unit"] = cfg.mask_unit


def net_small(arrays: Arrays, config: Config) -> None:
    _network(arrays, config, bias=True)
    resize(arrays, 5, x=(40, 56))


def net_big_masked(arrays: Arrays, config: Config) -> None:
    _network(arrays, config, norm_type="BiasFree", mask_unit=32)
    del config["norm_type"], config["fre3_half"]
    resize(arrays, 6, batch=1, x=(128, 192))


def grads(arrays: Arrays, config: Config) -> None:
    _network(arrays, config)
    resize(arrays, 7, batch=1, x=(32, 24), target=(32, 24))
    del config["grad_l2"]
    for key in [k for k in arrays if k.startswith("out/grad/")]:
        del arrays[key]
    weights = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    named = sorted(weights.keys() - set(config["params_without_gradient"]))[::7]
    arrays.update({f"out/grad/{name}": np.array(weights[name]) for name in named})


def noise(arrays: Arrays, config: Config) -> set[str]:
    rng = np.random.default_rng(8)
    arrays["in/clean"] = rng.integers(0, 256, (17, 30, 3), np.uint8)
    config["order"] = [10, 25, 70]
    for old, new in ((15, 10), (50, 70)):
        rename(arrays, rf"out/nois(e|y){old}$", rf"out/nois\g<1>{new}")
    drawn = {f"out/noise{sigma}" for sigma in config["order"]}
    for key in drawn:
        arrays[key] = rng.normal(size=(17, 30, 3)).astype(arrays[key].dtype)
    return drawn


def lr_schedule(arrays: Arrays, config: Config) -> None:
    config |= {"base": 1e-3, "warmup_epochs": 10, "max_epochs": 120}
    arrays["out/lr"] = np.zeros(120)


def resample(arrays: Arrays, config: Config) -> None:
    _part(9, x=(10, 16))(arrays, config)


VARIANTS: dict[str, Change] = {
    "aflb": aflb,
    "block_biasfree": _part(10, x=(14, 10)),
    "block_withbias": _part(11, x=(14, 10)),
    "cross_attention": _part(12, q_src=(14, 10), kv_src=(14, 10)),
    "fmom": _part(13, low=(14, 10), high=(14, 10)),
    "grads": grads,
    "lr_schedule": lr_schedule,
    "metrics": _part(14, target=(33, 47), pred=(33, 47)),
    "net_big_masked": net_big_masked,
    "net_small": net_small,
    "noise": noise,
    "resample": resample,
    "spectral_split": spectral_split,
}
