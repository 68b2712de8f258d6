"""Checks of the golden files of swin_deconv: astronomical deconvolution and its network.

float32 files within 1e-4 of the result's standard deviation; float64 files within 1e-9 of it in
float64, and again within 1e-4 in plain float32.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.models import deconvolution, sunet
from jaxcore.models.sunet import SUNetConfig
from jaxcore.nn import capture
from jaxcore.ops.starlet import (
    Starlet,
    inverse_starlet,
    mad_sigma,
    starlet,
    starlet_noise_norms,
)
from jaxcore.train.recipes.sunet_schedule import sunet_official
from tests.parity.golden import Golden, close, equal, nhwc, part_params, run

SINGLE, DOUBLE = 1e-4, 1e-9  # of the standard deviation of what is compared


def _near(ours: Any, golden: np.ndarray, *, share: float, what: str) -> None:
    scale = float(np.std(golden)) or max(float(np.max(np.abs(golden))), 1.0)
    close(ours, golden, atol=share * scale, rtol=0, what=what)


class _Check:
    """One golden file in one precision."""

    def __init__(self, path: Path, double: bool):
        self.file, self.double = Golden(path), double
        self.config, self.share = self.file.config, DOUBLE if double else SINGLE

    def __getitem__(self, key: str) -> jax.Array:
        return jnp.asarray(self.file[key], float)

    def near(self, what: str, ours: Any, share: float | None = None) -> None:
        _near(ours, self.file[what], share=share or self.share, what=what)


def _both(path: Path) -> Iterator[_Check]:
    for double in (True, False):
        with jax.enable_x64(True) if double else contextlib.nullcontext():
            yield _Check(path, double)


def check_starlet(path: Path) -> None:
    for c in _both(path):
        x, scales = c["in/x"], c.config["n_scales"]
        for name in c.file.group("out"):
            generation, boundary = int(name[3]), name.split("_")[1]
            planes = starlet(x, scales, generation, boundary)
            c.near(f"out/{name}", planes)
            again = inverse_starlet(planes, generation, boundary)
            bound = 1e-12 if c.double else 1e-5
            close(again, np.asarray(x), atol=bound, rtol=0, what=f"inverse of {name}")
        for generation in (1, 2):
            golden = c.file[f"mid/norms_gen{generation}"]
            norms = starlet_noise_norms(scales, generation)
            close(norms, golden, atol=0, rtol=1e-9, what=f"norms of generation {generation}")


def check_tikhonov_sim(path: Path) -> None:
    for c in _both(path):
        y, psf, lam = c["in/y"], c["in/psf"], c.config["lam"]
        x = deconvolution.tikhonov(y, psf, lam)
        c.near("out/laplacian", x)
        c.near("out/laplacian_official", x, SINGLE)
        identity = deconvolution.tikhonov(y, psf, lam, regularizer="identity")
        c.near("out/identity_official", identity, SINGLE)
        close(x.sum(), np.asarray(y.sum() / psf.sum()), rtol=1e-5, atol=0, what="flux")


def check_tikhonov_vlt(path: Path) -> None:
    """The official example, whose arrays are not to be committed."""
    for c in _both(path):
        y, psf, lam = c["in/vlt"], c["in/psf"], c.config["lam"]
        factor = deconvolution.factor_between(y.shape, psf.shape)
        assert factor == c.config["sampling_factor"]
        c.near("mid/resized", deconvolution.upsample_flux(y, factor))
        laplacian = np.abs(deconvolution.laplacian_tf(psf.shape))
        close(laplacian, c.file["mid/laplacian_tf_abs"], atol=1e-12, rtol=0, what="laplacian")
        x = deconvolution.restore_tikhonov(y, psf, lam)
        c.near("mid/float64", x)
        c.near("out/official", x, SINGLE)
        scaled = sunet.normalise(x)
        c.near("out/net_input", scaled.images)
        close(scaled.mean.ravel()[0], c.file["mid/mean"], atol=0, rtol=c.share, what="mean")
        close(scaled.peak.ravel()[0], c.file["mid/peak"], atol=0, rtol=c.share, what="peak")


def check_debias(path: Path) -> None:
    for c in _both(path):
        x0, y, psf, cfg = c["in/x0"], c["in/y"], c["in/psf"], c.config
        transform = Starlet(cfg["n_scales"], cfg["generation"], cfg["boundary"])
        sigma = mad_sigma(y, cfg["boundary"])
        close(sigma, c.file["mid/sigma"], atol=0, rtol=c.share, what="sigma")
        options: dict[str, Any] = {name: cfg[name] for name in ("k", "k_first", "n_iter", "step")}
        options |= {"dictionary": transform, "sigma": sigma, "lam": cfg["lam"]}

        def debias(**more: Any) -> deconvolution.Debiased:
            return deconvolution.debias(x0, y, psf, **options, **more)  # noqa: B023  # called in the same turn

        plain = debias()
        c.near("out/x", plain.image)
        equal(plain.support, c.file["mid/support"], what="support")
        c.near("mid/residual_norms", plain.residual_norms)
        c.near("out/x_positivity", debias(positivity=True).image)
        c.near("out/x_nocoarse", debias(coarse="drop").image)
        scales = deconvolution.tikhonov_noise_scales(
            transform, deconvolution.psf_to_tf(psf), sigma, y.shape, cfg["lam"]
        )
        c.near("mid/sigma_scales_tikhonov", scales)
        image = debias(domain="image")
        c.near("out/x_image_domain", image.image)
        equal(image.support, c.file["mid/support_image_domain"], what="support in the image")


def _tokens(maps: Any) -> Any:
    """Maps as the official code has them: all tokens of an image, row by row."""
    return maps.reshape(maps.shape[0], -1, maps.shape[-1])


_RULES = sunet.rules(SUNetConfig.tiny(depths=(2, 2, 2, 2)))


def check_swin_block(path: Path) -> None:
    file = Golden(path)
    cfg, weights, size = file.config, file.group("param"), file.config["window_size"]
    rows, cols = cfg["input_resolution"]
    x = file["in/x"].reshape(-1, rows, cols, cfg["dim"])
    shared = {"num_heads": cfg["num_heads"], "window": size}
    block = sunet.SwinBlock(
        shift=cfg["shift_size"], mlp_ratio=cfg["mlp_ratio"], qk_scale=cfg["qk_scale"], **shared
    )
    place = ("layers_0_pairs/plain", "layers.0.blocks.0")
    params = part_params(block, _RULES, weights, *place, x, stacked=True)
    _near(_tokens(run(block, params, x)), file["out/y"], share=SINGLE, what="y")
    index = sunet.relative_index(size)
    equal(index, file["mid/relative_position_index"], what="index")
    mask = sunet.shift_mask(rows, cols, size, cfg["shift_size"])
    equal(mask, file["mid/attn_mask"], what="mask")

    def windows(x: Any) -> jax.Array:
        y = sunet.blocks.ChannelNorm().apply({"params": params["norm1"]}, x)
        return sunet.partition(y, size)

    cut = jax.jit(windows)(x)
    shape = (-1, *cut.shape[2:])
    _near(cut.reshape(shape), file["mid/windows"], share=SINGLE, what="windows")
    attention = sunet.WindowAttention(scale=cfg["qk_scale"], **shared)
    for name, added in (("attn_nomask", None), ("attn_masked", mask)):
        ours = run(attention, params["attn"], cut, added).reshape(shape)
        _near(ours, file[f"mid/{name}"], share=SINGLE, what=name)
    mlp = sunet.MLP(hidden=int(cfg["dim"] * cfg["mlp_ratio"]))
    ours = run(mlp, params["mlp"], file["in/x"])
    _near(ours, file["mid/mlp"], share=SINGLE, what="mlp")


def check_patch_merging(path: Path) -> None:
    file = Golden(path)
    rows, cols = file.config["input_resolution"]
    x, module = file["in/x"].reshape(-1, rows, cols, file.config["dim"]), sunet.PatchMerging()
    place = ("layers_0_downsample", "layers.0.downsample")
    params = part_params(module, _RULES, file.group("param"), *place, x)
    _near(_tokens(run(module, params, x)), file["out/y"], share=SINGLE, what="y")


def check_dual_upsample(path: Path) -> None:
    file = Golden(path)
    rows, cols = file.config["input_resolution"]
    x = file["in/x"].reshape(-1, rows, cols, file["in/x"].shape[-1])
    module = sunet.DualUp(factor=file.config["scale_factor"])
    params = part_params(module, _RULES, file.group("param"), "layers_up_0", "layers_up.0", x)
    y, seen = jax.jit(capture(module.apply))({"params": params}, x)
    golden = file["out/y"]
    _near(_tokens(y) if golden.ndim == 3 else y, golden, share=SINGLE, what="y")
    for name, branch in file.group("mid").items():
        _near(seen[name], nhwc(branch), share=SINGLE, what=name)


_FIELDS = {
    "img_size": "img_size",
    "patch_size": "patch_size",
    "in_chans": "in_channels",
    "embed_dim": "embed_dim",
    "depths": "depths",
    "num_heads": "num_heads",
    "window_size": "window_size",
    "mlp_ratio": "mlp_ratio",
}


def check_network(path: Path) -> None:
    file = Golden(path)
    given, weights = file.config, file.group("param")
    cfg = sunet.config_from_state_dict(
        weights, img_size=given["img_size"], qk_scale=given["qk_scale"]
    )
    for official, name in _FIELDS.items():
        ours = getattr(cfg, name)
        assert given[official] == (list(ours) if isinstance(ours, tuple) else ours), name
    assert (given["final_upsample"] == "bilinear") == (cfg.final_upsample == "bilinear")
    params = sunet.from_torch(weights, cfg)
    forward = jax.jit(capture(sunet.apply), static_argnames="cfg")
    y, seen = forward(params, file.image("in/x"), cfg=cfg)
    _near(y, nhwc(file["out/y"]), share=SINGLE, what="y")
    for name, golden in file.group("mid").items():
        if golden.ndim == 4:
            _near(seen[name], nhwc(golden), share=SINGLE, what=name)
        else:
            _near(_tokens(seen[name]), golden, share=SINGLE, what=name)


def check_pipeline(path: Path) -> None:
    """The official function from end to end; ``pipeline_vlt`` is not to be committed."""
    file = Golden(path)
    given = file.config["SWINUNET"]
    cfg = sunet.config_from_state_dict(
        file.group("param"), img_size=given["IMG_SIZE"], qk_scale=given["QK_SCALE"]
    )
    assert list(cfg.depths) == given["DEPTH_EN"] and cfg.window_size == given["WIN_SIZE"]
    params = sunet.from_torch(file.group("param"), cfg)
    images, psf = (jnp.asarray(file[f"in/{name}"], float) for name in ("noisy", "psf"))
    options = {"steps": ("tikhonov", "sunet"), "lam": file.config["lam"], "tile": cfg.img_size}
    out = sunet.deconvolve(images, psf, params, cfg, **options)
    _near(out.tikhonov, file["out/tikhonov"], share=SINGLE, what="tikhonov")
    _near(out.image, file["out/sunet"], share=SINGLE, what="sunet")


def check_keys(path: Path) -> None:
    golden = {key: tuple(shape) for key, shape in json.loads(path.read_text()).items()}
    weights = {key: np.broadcast_to(np.float32(0), shape) for key, shape in golden.items()}
    cfg = sunet.config_from_state_dict(weights)
    published = {1: (SUNetConfig.deconv(), 38_365_111), 4: (SUNetConfig.denoise_rgb(), 99_683_721)}
    expected, count = published[cfg.patch_size]
    shapes = sunet.param_shapes(cfg)
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    ours = {key: value.shape for key, value in sunet.to_torch(zeros, cfg).items()}
    start = sunet.PREFIX if all(key.startswith(sunet.PREFIX) for key in golden) else ""
    assert {start + key.removeprefix(sunet.PREFIX): v for key, v in ours.items()} == golden
    if cfg == expected:
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


_RATES = {"deconv": (1e-3, 1e-5), "denoise": (2e-4, 1e-6)}  # highest and last


def check_schedule(path: Path) -> None:
    for c in _both(path):
        for name, golden in c.file.group("out").items():
            peak, floor = _RATES[name.split("_")[0]]
            epochs = {"epochs": len(golden), "warmup_epochs": c.config["warmup_epochs"]}
            rate = jax.vmap(sunet_official(peak, 7, floor=floor, **epochs))
            for step in (0, 6):  # constant inside an epoch
                c.near(f"out/{name}", rate(np.arange(len(golden)) * 7 + step))


CHECKS: dict[str, Callable[[Path], None]] = {
    "debias": check_debias,
    "dual_upsample": check_dual_upsample,
    "lr_schedule": check_schedule,
    "patch_merging": check_patch_merging,
    "pipeline": check_pipeline,
    "starlet": check_starlet,
    "state_dict": check_keys,
    "sunet": check_network,
    "swin_block": check_swin_block,
    "tikhonov_sim": check_tikhonov_sim,
    "tikhonov_vlt": check_tikhonov_vlt,
}
