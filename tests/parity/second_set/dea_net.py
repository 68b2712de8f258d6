"""Other depths, widths and sizes for the files of DEA-Net."""

import functools
from typing import Any

import jax
import numpy as np

from jaxcore.models import dea_net
from jaxcore.models.dea_net import DEANetConfig
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

_CONFIG = DEANetConfig(base_dim=8, depths=(2, 1, 3, 1, 2))


@functools.cache
def _params() -> Any:
    params = dea_net.init(jax.random.key(1), _CONFIG)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: a + 0.02 * rng.standard_normal(a.shape, np.float32), params)


def _part(seed: int, **sides: tuple[int, int]) -> Change:
    """Other weights and inputs of a part of the network."""

    def change(arrays: Arrays, config: Config) -> None:
        reweigh(arrays, seed)
        resize(arrays, seed, **sides)

    return change


def _block(arrays: Arrays, config: Config) -> set[str]:
    """The merged weights are those of the public file's training form: both stay."""
    resize(arrays, 3, x=(10, 14))
    return {key for key in arrays if key.startswith("mid/deploy/")}


def net_train(arrays: Arrays, config: Config) -> None:
    config["base_dim"] = _CONFIG.base_dim
    put_weights(arrays, dea_net.to_torch(_params(), _CONFIG))
    resize(arrays, 4, x=(40, 24))
    rename(arrays, "down_level1_block4", "down_level1_block2")
    rename(arrays, "level3_block8", "level3_block3")


def net_deploy(arrays: Arrays, config: Config) -> None:
    config["base_dim"] = _CONFIG.base_dim
    put_weights(arrays, dea_net.to_torch(*dea_net.deploy(_params(), _CONFIG)))
    resize(arrays, 5, x=(40, 24))


def grads_train(arrays: Arrays, config: Config) -> None:
    config["base_dim"] = _CONFIG.base_dim
    resize(arrays, 6, batch=1, x=(32, 24), target=(32, 24))
    del config["grad_l2"]
    drop(arrays, "^out/grad/")
    weights = dea_net.to_torch(_params(), _CONFIG)
    arrays.update({f"out/grad/{k}": np.array(weights[k]) for k in sorted(weights)[::9]})


def inference_metrics(arrays: Arrays, config: Config) -> None:
    config["base_dim"] = _CONFIG.base_dim
    resize(arrays, 7, batch=1, x=(41, 30), target=(41, 30))


def contrast_loss(arrays: Arrays, config: Config) -> None:
    config["vgg_width_divisor"] = 16
    rng = np.random.default_rng(8)
    for key, value in arrays.items():
        if key.startswith("param/"):
            shape = [side if side == 3 else side // 2 for side in value.shape]
            arrays[key] = rng.normal(0, value.std(), shape).astype(np.float32)
    resize(arrays, 9, anchor=(48, 32), positive=(48, 32), negative=(48, 32))


VARIANTS: dict[str, Change] = {
    "cga": _part(10, x=(10, 14)),
    "contrast_loss": contrast_loss,
    "deab": _block,
    "deb": _block,
    "deconv": _part(11, x=(10, 14)),
    "fusion": _part(12, low=(10, 14), high=(10, 14)),
    "net_train": net_train,
    "net_deploy": net_deploy,
    "grads_train": grads_train,
    "inference_metrics": inference_metrics,
}
