"""How fast are Restormer and AdaIR here, and next to PyTorch on the same processor?

Restormer of the published size against `deepinv.models.Restormer` with the same weights, after
checking that both give the same image: forward pass at 128 and 256 pixels, training step (L1 loss,
gradients of all weights, no optimiser) at 128, batch 1, float32. PyTorch runs as shipped and in
its channels_last layout. Then AdaIR of the published size by itself: time to compile, memory,
images per second.

    python -m benchmarks.restoration            # about 15 minutes on 2 quiet cores
    python -m benchmarks.restoration --smoke    # a small network, seconds

Without PyTorch and deepinv (benchmarks/README.md) the comparison is left out, and the JSON says so.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import harness, torch_rival
from benchmarks.harness import say
from benchmarks.torch_rival import TorchRival
from jaxcore.models import adair
from jaxcore.models.adair import AdaIRConfig
from jaxcore.typing import Params


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is run."""

    restormer: AdaIRConfig
    adair: AdaIRConfig
    forward_sizes: tuple[int, ...]
    step_size: int
    step_variants: tuple[str, ...]
    repeats: int


VARIANTS: dict[str, dict[str, bool]] = {
    "scan": {"scan_blocks": True},  # the default: one compiled body per level
    "scan_remat": {"scan_blocks": True, "remat": True},
    "unrolled": {"scan_blocks": False},
}
FULL = Plan(AdaIRConfig.restormer(), AdaIRConfig.five_task(), (128, 256), 128, tuple(VARIANTS), 10)
SMOKE = Plan(AdaIRConfig.tiny(decoder=False), AdaIRConfig.tiny(), (16,), 16, ("scan",), 2)


def loss(params: Params, x: jax.Array, y: jax.Array, cfg: AdaIRConfig) -> jax.Array:
    return jnp.mean(jnp.abs(adair.apply(params, x, cfg) - y))


def step(cfg: AdaIRConfig) -> Callable[..., Any]:
    """Loss and gradients."""
    return jax.value_and_grad(functools.partial(loss, cfg=cfg))


def forward(cfg: AdaIRConfig) -> Callable[..., Any]:
    return functools.partial(adair.apply, cfg=cfg)


def images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A degraded and a clean image, NHWC."""
    rng = np.random.default_rng(size)
    clean = rng.uniform(size=(1, size, size, 3)).astype(np.float32)
    noise = rng.normal(scale=0.1, size=clean.shape).astype(np.float32)
    return np.clip(clean + noise, 0, 1), clean


def torch_restormer(cfg: AdaIRConfig) -> TorchRival:
    """Deepinv's Restormer of the same size."""

    def make() -> Any:
        from deepinv.models import Restormer

        return Restormer(
            dim=cfg.dim,
            num_blocks=list(cfg.num_blocks),
            num_refinement_blocks=cfg.num_refinement_blocks,
            heads=list(cfg.heads),
            ffn_expansion_factor=cfg.ffn_expansion,
            bias=cfg.bias,
            LayerNorm_type=cfg.norm_type,
            pretrained=None,
        )

    return TorchRival(make, "deepinv.models.Restormer")


def steps(
    network: str, cfg: AdaIRConfig, plan: Plan, params: Params, batch: tuple[np.ndarray, np.ndarray]
) -> dict[str, harness.Program]:
    """The training step in each variant: loops, loops that recompute, and unrolled."""
    programs = {}
    for name in plan.step_variants:
        say(f"{network}, training step at {plan.step_size}, {name}: compiling")
        variant = dataclasses.replace(cfg, **VARIANTS[name])
        programs[name] = harness.compiled(step(variant), params, *batch)
        say(f"  {programs[name].facts}")
    return programs


def same_weights(plan: Plan, rival: "TorchRival | str") -> tuple[Params, dict[str, Any]]:
    """Parameters for both, after checking that the images agree."""
    cfg, found = plan.restormer, {}
    if isinstance(rival, str):
        params = adair.init(jax.random.key(0), cfg)
    else:
        params = adair.from_torch(rival.weights(), cfg)
        x, _ = images(plan.step_size)
        ours = jax.jit(forward(cfg))(params, x)
        found["largest_difference"] = torch_rival.largest_difference(rival.forwards(x), ours)
    return jax.device_put(params), found


def restormer_forward(plan: Plan, rival: "TorchRival | str") -> dict[str, Any]:
    """Forward passes, next to PyTorch where it is installed."""
    cfg = plan.restormer
    unrolled = dataclasses.replace(cfg, scan_blocks=False)
    params, found = same_weights(plan, rival)
    for size in plan.forward_sizes:
        say(f"Restormer, forward at {size}")
        x, _ = images(size)
        ours = {"scan": harness.compiled(forward(cfg), params, x)}
        theirs = {} if isinstance(rival, str) else rival.forwards(x)
        found[f"forward_{size}"] = harness.compare(ours, theirs, plan.repeats)
        found[f"forward_{size}"]["gflop"] = harness.gflop(forward(unrolled), params, x)
    return found


def restormer_step(plan: Plan, rival: "TorchRival | str") -> dict[str, Any]:
    """Training step, next to PyTorch where it is installed."""
    cfg, batch = plan.restormer, images(plan.step_size)
    unrolled = dataclasses.replace(cfg, scan_blocks=False)
    params, found = same_weights(plan, rival)
    ours = steps("Restormer", cfg, plan, params, batch)
    theirs = {} if isinstance(rival, str) else rival.steps(*batch)
    found[f"step_{plan.step_size}"] = harness.compare(ours, theirs, plan.repeats)
    found[f"step_{plan.step_size}"]["gflop"] = harness.gflop(step(unrolled), params, *batch)
    return found


def adair_alone(plan: Plan, _: Any) -> dict[str, Any]:
    """Compilation, memory and speed of AdaIR: loops, unrolled, and recomputing blocks."""
    params, batch = adair.init(jax.random.key(0), plan.adair), images(plan.step_size)
    found = {}
    say(f"AdaIR, forward at {plan.step_size}")
    program = harness.compiled(forward(plan.adair), params, batch[0])
    found[f"forward_{plan.step_size}"] = harness.compare({"scan": program}, {}, plan.repeats)
    programs = steps("AdaIR", plan.adair, plan, params, batch)
    found[f"step_{plan.step_size}"] = harness.compare(programs, {}, plan.repeats)
    for times in found.values():
        for each in times.values():
            each["images_per_s"] = round(1 / each["median_s"], 3)
    return found


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "restormer_forward": restormer_forward,
    "restormer_step": restormer_step,
    "adair": adair_alone,
}


def main(
    smoke: bool = False,
    output: Path = harness.RESULTS / "restoration.json",
    parts: tuple[Literal["restormer_forward", "restormer_step", "adair"], ...] = (
        "restormer_forward",
        "restormer_step",
        "adair",
    ),
) -> None:
    """Run everything and write JSON after each part.

    Args:
      smoke: a small network and two repeats, to see that the benchmark works.
      output: the file to write; parts that are not run stay as they are in it.
      parts: what to run.
    """
    plan = SMOKE if smoke else FULL
    rival = torch_rival.or_reason(lambda: torch_restormer(plan.restormer))
    absent = isinstance(rival, str)
    say(f"rival {rival}" if absent else "rival: PyTorch as shipped and channels_last")

    def run(part: str) -> dict[str, Any]:
        return {"smoke": smoke, **torch_rival.facts(rival), **PARTS[part](plan, rival)}

    harness.record_parts(output, parts, run, "torch", "deepinv")


if __name__ == "__main__":
    tyro.cli(main)
