"""How fast, and how good, is deconvolution here, next to STARRED and scikit-image?

Batches of 1, 16 and 64 simulated galaxies of 64 and 128 pixels (`jaxcore.data.astro`) through our
methods, each one compiled program, against STARRED (`benchmarks.starred_rival`) and scikit-image's
Richardson-Lucy, which take stamps one by one. Beside each time stand the medians of the squared
error over the squared norm (NMSE) and of the flux error, and what the machine itself reaches in the
same run: matrix products, memory, Fourier transforms. ``sunet`` is the published network against
plain PyTorch.

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
from typing import Any, Literal, NamedTuple, TypeAlias

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
WHOLE = 16  # size of the batches that all methods take; of the others `FEW`
FEW = ("tikhonov", "richardson_lucy", "sparse", "three_steps")


class Plan(NamedTuple):
    """What is run."""

    batches: tuple[int, ...]
    repeats: int  # of the largest batch two fifths
    rivals: int  # stamps that rivals take, the first of every batch
    starred_steps: int
    network: SUNetConfig  # of the part ``sunet``
    smoke: bool


FULL = Plan((1, 16, 64), 5, 3, starred_rival.STEPS, SUNetConfig.deconv(), False)
SMOKE = Plan((1, 2), 1, 1, 5, SUNetConfig.tiny(), True)


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
    """All methods on batches of every size, rivals on the first stamps of them."""
    seen = stamps(side, max(plan.batches))
    loaded = network(run, plan.smoke)
    found: dict[str, Any] = {"side": side, "network": loaded[-1], "limits": harness.limits()}
    found["limits"]["network_gflop"] = _network_gflop(loaded, side)
    starred = _starred(plan, seen, side)
    if starred is not None:
        found["starred"] = starred.facts
    found["batches"] = {}
    for batch in plan.batches:
        some = Observed(*(a[:batch] for a in seen))
        times = _batch(plan, some, side, loaded)
        _compare(times, batch, some, starred, found["limits"])
        found["batches"][str(batch)] = {n: facts for n, (facts, _) in times.items()}
    return found


Timed: TypeAlias = dict[str, tuple[dict[str, Any], Any]]
"""Name of a method -> figures, and images where it makes some."""


def _batch(plan: Plan, seen: Observed, side: int, loaded: tuple[Any, ...]) -> Timed:
    """Every method on one batch, in turns; scikit-image on its first stamps."""
    batch, args = len(seen.observed), (seen.observed, seen.psf, seen.sigma)
    params, cfg, _ = loaded
    programs = {}
    for name, method in ours(params, cfg, side).items():
        if batch != WHOLE and name not in FEW:
            continue
        say(f"{name} at {side}, batch {batch}: compiling")
        programs[name] = harness.compiled(method, *args)
    calls = {name: program.call for name, program in programs.items()}
    # 200 steps of the sparse method blur and correlate once each.
    calls["fourier_400_pairs"] = transforms(seen.observed, 400).call
    few = min(batch, plan.rivals)
    calls |= _richardson_lucy([np.asarray(a[:few], float) for a in args], side)
    repeats = plan.repeats if batch <= WHOLE else max(1, plan.repeats * 2 // 5)
    out: Timed = {}
    for name, measured in harness.interleaved(calls, repeats).items():
        count = few if name.startswith("scikit") else batch
        measured["stamps_per_s"] = round(count / measured["median_s"], 3)
        images = None
        if name in programs:
            measured |= programs[name].facts
        if name != "fourier_400_pairs":
            images = np.asarray(calls[name]())
            measured |= quality(images, seen)
        out[name] = (measured, images)
    say("  " + ", ".join(f"{n} {m['stamps_per_s']:g}/s" for n, (m, _) in out.items()))
    return out


def _compare(
    times: Timed, batch: int, seen: Observed, starred: "Starred | None", limits: dict[str, float]
) -> None:
    """Ratios to rivals, which have a rate per stamp, and to what the machine reaches."""
    others = {n: m["stamps_per_s"] for n, (m, _) in times.items() if n.startswith("scikit")}
    if starred is not None:
        others["starred"] = starred.facts["stamps_per_s"]
    for name, (measured, images) in times.items():
        if images is None or name in others:
            continue
        for other, rate in others.items():
            measured[f"over_{other}"] = round(measured["stamps_per_s"] / rate, 1)
        if starred is not None:
            count = min(batch, len(starred.images))
            theirs = quality(starred.images[:count], seen)["nmse"]
            measured["nmse_over_starred"] = round(quality(images[:count], seen)["nmse"] / theirs, 3)
    turn = times["fourier_400_pairs"][0]["median_s"]
    sparse, three = times["sparse"][0], times["three_steps"][0]
    sparse["share_of_fourier_limit"] = round(turn / sparse["median_s"], 3)
    rate = limits["network_gflop"] * batch / three["median_s"]
    three["gflop_s"] = round(rate, 2)
    three["share_of_matrix_product"] = round(rate / limits["matrix_product_gflop_s"], 3)


def _network_gflop(loaded: tuple[Any, ...], side: int) -> float:
    """Work of the network on one stamp: nearly all of the three steps."""
    params, cfg, _ = loaded
    if cfg is None:
        return 0.0
    unrolled = dataclasses.replace(cfg, scan_blocks=False)
    x = jnp.zeros((1, side, side, 1))
    return harness.gflop(functools.partial(sunet.apply, cfg=unrolled), params, x)


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


class Starred(NamedTuple):
    """Its figures per stamp, and its images."""

    facts: dict[str, Any]
    images: np.ndarray


def _starred(plan: Plan, seen: Observed, side: int) -> Starred | None:
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
    facts = {
        "median_s": round(float(np.median(seconds)), 3),
        "min_s": round(min(seconds), 3),
        "stamps": len(seconds),
        "stamps_per_s": round(1 / max(float(np.median(seconds)), 1e-9), 4),
        "compile_s": round(float(np.median(compiling)), 2),
        "noise_propagation_s": round(float(np.median(noise)), 2),
        "steps": plan.starred_steps,
        **quality(np.stack(images), seen),
    }
    return Starred(facts, np.stack(images))


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
