"""Other scenes, scales, windows, sizes and weights for the files of swin_deconv."""

from typing import Any

import jax
import numpy as np

from jaxcore.models import deconvolution, sunet
from jaxcore.models.sunet import SUNetConfig
from tests.parity.second_set.change import (
    Arrays,
    Change,
    Config,
    put_weights,
    resize,
    reweigh,
)


def starlet(arrays: Arrays, config: Config) -> None:
    config["n_scales"] = 3
    resize(arrays, 1, x=(40, 52))


def _scene(arrays: Arrays, seed: int, side: tuple[int, int]) -> None:
    """A few sources behind another PSF, and a smooth start for debiasing."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(side)
    truth = np.zeros(side)
    for row, col, flux, size in zip(
        *rng.uniform(10, 30, (2, 4)), rng.uniform(0.5, 2, 4), rng.uniform(1, 4, 4), strict=True
    ):
        truth += flux * np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / 2 / size**2)
    psf = deconvolution.gaussian_psf(side, 4.0)
    transfer = np.fft.rfft2(np.fft.ifftshift(psf))
    blurred = np.fft.irfft2(np.fft.rfft2(truth) * transfer, s=side)
    arrays |= {"in/truth": truth, "in/psf": psf, "in/y": blurred + 0.01 * rng.normal(size=side)}
    if "in/x0" in arrays:
        arrays["in/x0"] = 0.7 * blurred


def tikhonov_sim(arrays: Arrays, config: Config) -> None:
    config["lam"] = 0.02
    _scene(arrays, 2, (48, 36))


def tikhonov_vlt(arrays: Arrays, config: Config) -> None:
    config |= {"lam": 0.003, "sampling_factor": 2}
    _scene(arrays, 3, (48, 40))
    fine = arrays.pop("in/y")
    arrays["in/vlt"] = fine.reshape(24, 2, 20, 2).sum((1, 3))
    arrays["in/hst"] = arrays.pop("in/truth")


def debias(arrays: Arrays, config: Config) -> None:
    config |= {"n_scales": 3, "k": 3.5, "k_first": 5.0, "n_iter": 6, "step": 0.8, "lam": 0.01}
    config |= {"boundary": "symmetric", "generation": 2}
    _scene(arrays, 4, (48, 40))


def lr_schedule(arrays: Arrays, config: Config) -> None:
    config["warmup_epochs"] = 5
    for name in ("deconv_400", "denoise_500"):
        arrays[f"out/{name}"] = np.zeros(120)


def swin_block(arrays: Arrays, config: Config) -> None:
    config |= {"input_resolution": [8, 24], "shift_size": 3, "qk_scale": 2}
    reweigh(arrays, 5)
    rng = np.random.default_rng(5)
    arrays["in/x"] = rng.normal(size=(3, 8 * 24, config["dim"])).astype(np.float32)


def _layer(sides: list[int]) -> Change:
    def change(arrays: Arrays, config: Config) -> None:
        config["input_resolution"] = sides
        reweigh(arrays, 6)
        shape = (3, sides[0] * sides[1], arrays["in/x"].shape[-1])
        arrays["in/x"] = np.random.default_rng(6).normal(size=shape).astype(np.float32)

    return change


def _weights(arrays: Arrays, cfg: SUNetConfig, start: str = "") -> None:
    params = sunet.init(jax.random.key(7), cfg)
    rng = np.random.default_rng(7)
    params = jax.tree.map(lambda a: a + 0.02 * rng.standard_normal(a.shape, np.float32), params)
    named = sunet.to_torch(params, cfg).items()
    kept = [(k, v) for k, v in named if not k.endswith(("attn_mask", "relative_position_index"))]
    put_weights(arrays, {start + k.removeprefix(sunet.PREFIX): v for k, v in kept})


def _network(**sizes: Any) -> Change:
    def change(arrays: Arrays, config: Config) -> None:
        cfg = SUNetConfig(**sizes)
        _weights(arrays, cfg)
        for official, name in (
            ("img_size", "img_size"),
            ("embed_dim", "embed_dim"),
            ("depths", "depths"),
            ("num_heads", "num_heads"),
            ("window_size", "window_size"),
            ("qk_scale", "qk_scale"),
        ):
            value = getattr(cfg, name)
            config[official] = list(value) if isinstance(value, tuple) else value
        resize(arrays, 8, x=(cfg.multiple, 2 * cfg.multiple))

    return change


def pipeline_tiled(arrays: Arrays, config: Config) -> None:
    given = config["SWINUNET"]
    given |= {"IMG_SIZE": 32, "DEPTH_EN": [1, 2, 1, 1], "WIN_SIZE": 4, "QK_SCALE": 3}
    sizes = {"img_size": 32, "embed_dim": 4, "depths": (1, 2, 1, 1), "num_heads": (2, 2, 2, 2)}
    _weights(arrays, SUNetConfig(window_size=4, qk_scale=3.0, **sizes), sunet.PREFIX)
    config |= {"sampling_factor": 2, "lam": 0.02}
    scene: Arrays = {}
    _scene(scene, 9, (40, 48))
    arrays["in/psf"] = scene["in/psf"][None]
    arrays["in/noisy"] = scene["in/y"].reshape(20, 2, 24, 2).sum((1, 3))[None, None]


VARIANTS: dict[str, Change] = {
    "debias": debias,
    "dual_upsample_x2": _layer([5, 7]),
    "dual_upsample_x4": _layer([3, 5]),
    "lr_schedule": lr_schedule,
    "patch_merging": _layer([6, 10]),
    "pipeline_tiled": pipeline_tiled,
    "starlet": starlet,
    "sunet_ps1_bilinear": _network(
        img_size=32,
        embed_dim=6,
        depths=(1, 3, 1, 2),
        num_heads=(1, 2, 3, 2),
        window_size=4,
        qk_scale=3.0,
    ),
    "sunet_ps4_dual": _network(
        img_size=64,
        patch_size=4,
        in_channels=3,
        embed_dim=6,
        depths=(2, 1, 1, 1),
        num_heads=(2, 3, 2, 2),
        window_size=2,
        qk_scale=5.0,
        final_upsample="dual",
    ),
    "swin_block": swin_block,
    "tikhonov_sim": tikhonov_sim,
    "tikhonov_vlt": tikhonov_vlt,
}
