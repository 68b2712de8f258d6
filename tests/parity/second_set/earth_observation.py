"""Other sizes, weights, rates and draws for the networks of earth_observation."""

from typing import Any

import jax
import numpy as np

from jaxcore.models import convnet, vit
from jaxcore.models.convnet import cnn2023
from tests.parity.second_set.change import Arrays, Change, Config, drop, put_weights


def _draw(arrays: Arrays, seed: int, **shapes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    for name, shape in shapes.items():
        old = arrays[f"in/{name}"].dtype
        arrays[f"in/{name}"] = rng.normal(0.2, 1.0, shape).astype(old)


def _weights(network: Any, cfg: Any, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    shapes = network.param_shapes(cfg)
    params = jax.tree.map(lambda a: 0.5 + 0.2 * rng.standard_normal(a.shape, np.float32), shapes)
    return network.to_torch(params, cfg)


def cnn_depthwise(arrays: Arrays, config: Config) -> None:
    config |= {"width": 8, "depth": 3, "kernel": 3, "stride": 1}
    cfg = convnet.ConvNetConfig(width=8, depth=3, kernel_size=3, stride=1)
    named = _weights(convnet, cfg, 1).items()
    put_weights(arrays, {k: v for k, v in named if not k.startswith("Dense")})
    _draw(arrays, 1, image=(2, 20, 24, 3))


def cnn_salience(arrays: Arrays, config: Config) -> None:
    config |= {"filters": 4, "hidden": 5, "low": 2, "depth": 2, "nx": 3}
    config["occlusion"] = {"window": 5, "stride": 3, "baseline": 0.5}
    cfg = cnn2023.CNN2023Config(filters=4, hidden=5, low=2, depth=2, covariates=3)
    named = _weights(cnn2023, cfg, 2).items()
    put_weights(arrays, {k: v.astype(np.float64) for k, v in named})
    _draw(arrays, 2, image=(5, 3, 20, 23), x=(5, 3))
    arrays["in/x_sd"] = np.array([0.5, 1.0, 2.0])


def vit_propensity(arrays: Arrays, config: Config) -> None:
    config |= {"width": 16, "depth": 1, "patch": 5, "nx": 3, "ff": 56}
    config |= {"dense_depth": 1, "dense_width": 64}
    cfg = vit.ViTConfig(width=16, depth=1, patch_size=5, covariates=3)
    put_weights(arrays, _weights(vit, cfg, 3))
    drop(arrays, "^mid/tokens_2")
    _draw(arrays, 3, image=(3, 17, 23, 3), x=(3, 3))
    arrays["in/treatment"] = np.float32([[1], [0], [1]])


def training_pieces(arrays: Arrays, config: Config) -> None:
    config |= {"n_sgd": 41, "lr_max": 2e-3, "agc": 0.1, "batch_sizes": [3, 4]}
    drop(arrays, "^in/moment_batch_[23]")
    rng = np.random.default_rng(4)
    for i, size in enumerate(config["batch_sizes"]):
        arrays[f"in/moment_batch_{i}"] = rng.integers(0, 256, (size, 6, 5, 3)).astype(np.uint8)
    for key in [key for key in arrays if key.startswith("out/lr_schedule")]:
        arrays[key] = np.zeros(42 if key == "out/lr_schedule" else 41)


def heterogeneity(arrays: Arrays, config: Config) -> None:
    n, k, m = 10, 3, 4
    config |= {"batch": n, "K": k, "draws": m, "temperature": 0.7}
    _draw(arrays, 5, ey0=(n, 1), cluster_logits=(n, k), outcome=(n, 1), gumbel=(m, n, k))
    _draw(arrays, 6, tau_mean=(k,), tau_sd_raw=(k,), normal=(m, k), sigma0=(k,), sigma1=(k,))
    arrays["in/treatment"] = (np.arange(n) % 2.0)[:, None]


VARIANTS: dict[str, Change] = {
    "cnn_depthwise": cnn_depthwise,
    "cnn_salience": cnn_salience,
    "heterogeneity": heterogeneity,
    "training_pieces": training_pieces,
    "vit_propensity": vit_propensity,
}
