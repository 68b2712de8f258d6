"""How fast, and how good, is deconvolution here, next to STARRED and scikit-image?

Batches of simulated galaxies of 64 and 128 pixels (`jaxcore.data.astro`) through our methods, each
one compiled program, against STARRED (`benchmarks.starred_rival`) and scikit-image's
Richardson-Lucy, which take stamps one by one. Beside each time stand the medians of the squared
error over the squared norm (NMSE) and of the flux error, and what the machine itself takes for the
Fourier transforms of the method. ``sunet`` is the published network against plain PyTorch.

    python -m benchmarks.deconvolution --parts stamps_64 stamps_128 --run runs/small
    python -m benchmarks.deconvolution --parts sunet      # wants PyTorch
    python -m benchmarks.deconvolution --smoke            # one small batch, seconds

Rivals that are not installed (benchmarks/README.md) are left out, and the JSON says so.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import harness, starred_rival, torch_rival
from benchmarks.harness import say
from benchmarks.torch_rival import TorchRival
from jaxcore import weights
from jaxcore.data.astro.galaxies import Population, draw_galaxies, render
from jaxcore.data.astro.telescopes import Observed, Telescope, observe, seeing
from jaxcore.metrics.galaxies import flux_error, nmse
from jaxcore.models import deconvolution, sunet
from jaxcore.models.sunet import SUNetConfig
from jaxcore.ops.starlet import Starlet
from jaxcore.typing import Params

Part = Literal["stamps_64", "stamps_128", "sunet"]
SEED, APERTURE = 7, 14 / 64  # of the galaxies; radius over the side
RL_STEPS = 30


class Plan(NamedTuple):
    """What is run."""

    batch: int
    repeats: int
    rivals: int  # stamps that STARRED takes
    starred_steps: int
    network: SUNetConfig  # of the part ``sunet``
    smoke: bool


FULL = Plan(16, 5, 3, starred_rival.STEPS, SUNetConfig.deconv(), False)
SMOKE = Plan(2, 1, 1, 5, SUNetConfig.tiny(), True)


def stamps(side: int, count: int) -> Observed:
    """Galaxies behind seeing of 6 pixels; those of 128 pixels are twice as large."""
    wide = side / 64
    galaxies = Population(
        radius=(1.5 * wide, 5.8 * wide, 8.0 * wide), clump_sigma=(0.7 * wide, 1.3 * wide)
    )
    keys = jax.random.split(jax.random.key(SEED), count)
    truth = render(draw_galaxies(keys, galaxies), side)
    return observe(jax.random.split(jax.random.key(SEED + 1), count), truth, Telescope())


def ours(params: Params, cfg: SUNetConfig, side: int) -> dict[str, Callable[..., jax.Array]]:
    """Name -> ``method(y, psf, sigma)``."""
    target = jnp.asarray(seeing((side, side), 2.0, profile="gaussian"))
    scales = {"dictionary": Starlet(4 if side <= 64 else 5)}

    def tikhonov(y: jax.Array, psf: jax.Array, sigma: jax.Array) -> jax.Array:
        return deconvolution.restore_tikhonov(y, psf)

    def classical(y: jax.Array, psf: jax.Array, sigma: jax.Array) -> jax.Array:
        return deconvolution.debias(tikhonov(y, psf, sigma), y, psf, sigma=sigma, **scales).image

    def three_steps(y: jax.Array, psf: jax.Array, sigma: jax.Array) -> jax.Array:
        options = {"sigma": sigma[:, None], **scales}
        return sunet.deconvolve(y[:, None], psf[:, None], params, cfg, **options).image[:, 0]

    def named(name: str) -> Callable[..., jax.Array]:
        def method(y: jax.Array, psf: jax.Array, sigma: jax.Array) -> jax.Array:
            return deconvolution.METHODS[name](y, psf, sigma=sigma, target_psf=target)

        return method

    return {
        "tikhonov": tikhonov,
        "tikhonov_debias": classical,
        **{name: named(name) for name in ("wiener", "richardson_lucy", "sparse", "two_channel")},
        "three_steps": three_steps,
    }


def quality(images: Any, seen: Observed) -> dict[str, float]:
    """Medians over stamps."""
    images, target = jnp.asarray(images, jnp.float32), seen.target[: len(images)]
    flux = np.abs(flux_error(images, target, APERTURE * target.shape[-1]))
    return {
        "nmse": round(float(np.median(nmse(images, target))), 5),
        "flux_error": round(float(np.median(flux)), 5),
    }


def network(run: Path | None, smoke: bool) -> tuple[Params, SUNetConfig, str]:
    """Weights of a run, or fresh ones, whose time is the same and whose images are noise."""
    if run is not None:
        loaded = weights.load(run, model="sunet")
        return loaded.params, loaded.cfg, "trained"
    cfg = SUNetConfig.tiny() if smoke else SUNetConfig.small(qk_scale=None)
    return sunet.init(jax.random.key(0), cfg), cfg, "not trained"


def transforms(y: jax.Array, pairs: int) -> harness.Program:
    """Fourier transforms there and back, so often as the costliest method takes them."""

    def there_and_back(y: jax.Array) -> jax.Array:
        def turn(_: int, y: jax.Array) -> jax.Array:
            return jnp.fft.irfft2(jnp.fft.rfft2(y), s=y.shape[-2:])

        return jax.lax.fori_loop(0, pairs, turn, y)

    return harness.compiled(there_and_back, y)


def run_stamps(plan: Plan, side: int, run: Path | None) -> dict[str, Any]:
    """All methods on one batch."""
    seen = stamps(side, plan.batch)
    args = (seen.observed, seen.psf, seen.sigma)
    params, cfg, state = network(run, plan.smoke)
    found: dict[str, Any] = {"side": side, "batch": plan.batch, "network": state}
    programs = {}
    for name, method in ours(params, cfg, side).items():
        say(f"{name} at {side}: compiling")
        programs[name] = harness.compiled(method, *args)
    calls = {name: program.call for name, program in programs.items()}
    # 200 steps of the sparse method blur and correlate once each.
    calls["fourier_400_pairs"] = transforms(seen.observed, 400).call
    host = [np.asarray(a, float) for a in args]
    calls |= _richardson_lucy(host, side)
    times = harness.interleaved(calls, plan.repeats)
    for name, measured in times.items():
        measured["stamps_per_s"] = round(plan.batch / measured["median_s"], 2)
        if name in programs:
            measured |= programs[name].facts
        if name != "fourier_400_pairs":
            measured |= quality(calls[name](), seen)
    found["methods"] = times
    if (starred := _starred(plan, seen, side)) is not None:
        found["methods"]["starred"] = starred
        count = plan.rivals
        for name in programs:
            measured = times[name]
            same = quality(np.asarray(calls[name]())[:count], seen)
            measured["nmse_on_those_of_starred"] = same["nmse"]
            measured["over_starred"] = round(measured["stamps_per_s"] / starred["stamps_per_s"], 1)
            measured["nmse_over_starred"] = round(same["nmse"] / starred["nmse"], 3)
    limit = times["fourier_400_pairs"]["median_s"]
    times["sparse"]["share_of_fourier_limit"] = round(limit / times["sparse"]["median_s"], 3)
    return found


def _richardson_lucy(host: list[np.ndarray], side: int) -> dict[str, Callable[[], Any]]:
    """scikit-image, with the same number of steps as ours and the same constant added."""
    try:
        from skimage.restoration import richardson_lucy
    except ImportError:
        return {}
    observed, psfs, sigmas = host
    target = np.asarray(seeing((side, side), 2.0, profile="gaussian"), float)
    transfer = np.fft.rfft2(np.fft.ifftshift(target))

    def call() -> np.ndarray:
        out = []
        for y, psf, sigma in zip(observed, psfs, sigmas, strict=True):
            floor = 3 * sigma
            # With an odd number of pixels the middle of its convolution is that of the PSF.
            kernel = psf[1:, 1:]
            x = richardson_lucy(np.maximum(y + floor, 0), kernel, num_iter=RL_STEPS, clip=False)
            out.append(np.fft.irfft2(np.fft.rfft2(x - floor) * transfer, s=x.shape))
        return np.stack(out)

    return {"scikit_image_richardson_lucy": call}


def _starred(plan: Plan, seen: Observed, side: int) -> dict[str, Any] | None:
    target = np.asarray(seeing((side, side), 2.0, profile="gaussian"), float)
    images, seconds, compiling, noise = [], [], [], []
    for i in range(plan.rivals):
        say(f"STARRED at {side}: stamp {i + 1} of {plan.rivals}")
        y, psf = (np.asarray(a[i], float) for a in (seen.observed, seen.psf))
        try:
            found = starred_rival.restore(y, psf, target, float(seen.sigma[i]), plan.starred_steps)
        except ImportError:
            return None
        images.append(found.image)
        seconds.append(found.seconds)
        compiling.append(found.compile_seconds)
        noise.append(found.noise_seconds)
    return {
        "median_s": round(float(np.median(seconds)), 3),
        "min_s": round(min(seconds), 3),
        "repeats": len(seconds),
        "stamps_per_s": round(1 / max(float(np.median(seconds)), 1e-9), 4),
        "compile_s": round(float(np.median(compiling)), 2),
        "noise_propagation_s": round(float(np.median(noise)), 2),
        "steps": plan.starred_steps,
        **quality(np.stack(images), seen),
    }


def run_sunet(plan: Plan) -> dict[str, Any]:
    """Forward pass of the network, batch 1, next to PyTorch."""
    cfg = plan.network
    side = cfg.img_size
    params = sunet.init(jax.random.key(0), cfg)
    x = np.random.default_rng(0).normal(size=(1, side, side, 1)).astype(np.float32)

    def make() -> Any:
        from benchmarks.sunet_torch import SUNet

        return SUNet(cfg)

    def rival() -> TorchRival:
        made = TorchRival(make, "benchmarks.sunet_torch.SUNet")
        official = sunet.to_torch(params, cfg)
        names = made.weights().keys()
        bare = {key.removeprefix(sunet.PREFIX): value for key, value in official.items()}
        made.load({name: bare[name] for name in names})
        return made

    found_rival = torch_rival.or_reason(rival)
    found: dict[str, Any] = {"side": side, **torch_rival.facts(found_rival)}
    unrolled = dataclasses.replace(cfg, scan_blocks=False)
    say(f"sunet at {side}: compiling")
    programs = {"scan": harness.compiled(functools.partial(sunet.apply, cfg=cfg), params, x)}
    theirs = {}
    if not isinstance(found_rival, str):
        theirs = found_rival.forwards(x)
        found["largest_difference"] = torch_rival.largest_difference(
            theirs, programs["scan"].call()
        )
    times = harness.compare(programs, theirs, plan.repeats)
    work = harness.gflop(functools.partial(sunet.apply, cfg=unrolled), params, x)
    return found | harness.with_rates(times, work)


def main(
    smoke: bool = False,
    output: Path = harness.RESULTS / "deconvolution.json",
    parts: tuple[Part, ...] = ("stamps_64", "stamps_128", "sunet"),
    run: Path | None = None,
) -> None:
    """Run everything and write JSON after each part.

    Args:
      smoke: one small batch, to see that the benchmark works.
      output: the file to write; parts that are not run stay as they are in it.
      parts: what to run.
      run: a run of swin_deconv_small, whose network is used; without it one that is not trained.
    """
    plan = SMOKE if smoke else FULL
    sides = {"stamps_64": 16, "stamps_128": 32} if smoke else {"stamps_64": 64, "stamps_128": 128}

    def measure(part: str) -> dict[str, Any]:
        start = time.perf_counter()
        found = run_sunet(plan) if part == "sunet" else run_stamps(plan, sides[part], run)
        return {"smoke": smoke, **found, "seconds": round(time.perf_counter() - start, 1)}

    packages = ("starred-astro", "scikit-image", "torch")
    harness.record_parts(output, parts, measure, *packages)


if __name__ == "__main__":
    tyro.cli(main)
