"""How fast is DEA-Net here, and next to PyTorch on the same processor?

DEA-Net of the published size with merged kernels against the same network in plain PyTorch
(`benchmarks.dea_net_torch`) with the same weights, after checking that both give the same image:
forward pass at 256 and 512 pixels, batch 1, float32. PyTorch runs as shipped and in its
channels_last layout. Then the training step (L1 loss, gradients of all weights, no optimiser) at
256: kernels merged in the step, as here and in the official code, against five convolutions in
place of one.

    python -m benchmarks.dea_net --parts forward_256    # two minutes on 2 quiet cores, each
    python -m benchmarks.dea_net --parts forward_512
    python -m benchmarks.dea_net --parts step
    python -m benchmarks.dea_net --smoke                # a small network, seconds

Without PyTorch (benchmarks/README.md) the comparison is left out, and the JSON says so.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import harness, torch_rival
from benchmarks.harness import say
from benchmarks.torch_rival import TorchRival
from jaxcore import ops
from jaxcore.models import dea_net
from jaxcore.models.dea_net import DEANetConfig, DEConv, effective_kernel
from jaxcore.typing import Params

TOLERANCE = 1e-3
EXACT = 1e-9  # of gradients in float64, by their largest entry
PUBLISHED_GMAC = 32.225  # measured on the official network, 256 pixels

Part = Literal["forward_256", "forward_512", "step"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is run."""

    network: DEANetConfig
    sizes: dict[str, int]  # side of the images in each part
    repeats: int


FULL = Plan(DEANetConfig(), {"forward_256": 256, "forward_512": 512, "step": 256}, 9)
SMOKE = Plan(
    DEANetConfig(base_dim=4, depths=(1, 1, 1, 1, 1)),
    {"forward_256": 16, "forward_512": 24, "step": 16},
    2,
)


def torch_dea_net(cfg: DEANetConfig, params: Params) -> TorchRival:
    """The network in PyTorch, with our weights."""

    def make() -> Any:
        from benchmarks.dea_net_torch import DEANet

        return DEANet(cfg.base_dim, cfg.depths)

    rival = TorchRival(make, "benchmarks.dea_net_torch.DEANet, merged kernels")
    rival.load(dea_net.to_torch(params, cfg))
    return rival


def images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A hazy and a clear image, NHWC."""
    clear = np.random.default_rng(size).uniform(size=(1, size, size, 3)).astype(np.float32)
    return 0.6 * clear + np.float32(0.35), clear


def forward(cfg: DEANetConfig) -> Callable[..., Any]:
    return functools.partial(dea_net.apply, cfg=cfg)


def step(cfg: DEANetConfig) -> Callable[..., Any]:
    """Loss and gradients."""

    def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean(jnp.abs(dea_net.apply(params, x, cfg) - y))

    return jax.value_and_grad(loss)


def five_convolutions(run: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, with each detail-enhanced convolution as a sum of five."""

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if not isinstance(context.module, DEConv):
            return call(*args, **kwargs)
        (x,), weights = args, context.module.variables["params"]
        branches = [
            ops.conv2d(x, effective_kernel(kind, w["kernel"])) + w["bias"][None, None, None, :]
            for kind, w in weights.items()
        ]
        return sum(branches[1:], branches[0])

    def apart(*args: Any) -> Any:
        with nn.intercept_methods(intercept):
            return run(*args)

    return apart


def run_forward(plan: Plan, size: int) -> dict[str, Any]:
    """Restoring one image with merged kernels: loops over equal blocks, and unrolled."""
    cfg = plan.network.deployed()
    unrolled = dataclasses.replace(cfg, scan_blocks=False)
    params, (x, _) = dea_net.init(jax.random.key(0), cfg), images(size)
    rival = torch_rival.or_reason(lambda: torch_dea_net(cfg, params))
    say(f"forward at {size}: compiling")
    ours = {
        "scan": harness.compiled(forward(cfg), params, x),
        "unrolled": harness.compiled(forward(unrolled), params, x),
    }
    found: dict[str, Any] = {"size": size, **torch_rival.facts(rival)}
    theirs = {}
    if not isinstance(rival, str):
        theirs = rival.forwards(x)
        found["largest_difference"] = max(
            torch_rival.largest_difference(theirs, program.call()) for program in ours.values()
        )
    times = harness.compare(ours, theirs, max(plan.repeats * 256 // max(size, 256), 1))
    found |= harness.with_rates(times, harness.gflop(forward(unrolled), params, x))
    if plan is FULL:  # XLA leaves products with padding out and counts elementwise operations
        found["published_gflop"] = round(2 * PUBLISHED_GMAC * (size / 256) ** 2, 3)
    return found


def run_step(plan: Plan, size: int) -> dict[str, Any]:
    """Loss and gradients: merged kernels, five convolutions, and kernels that are one already."""
    cfg, batch = plan.network, images(size)
    params = dea_net.init(jax.random.key(0), cfg)
    merged = dea_net.reparameterize(params)
    deployed = dataclasses.replace(cfg.deployed(), scan_blocks=False)
    unrolled = dataclasses.replace(cfg, scan_blocks=False)
    say(f"step at {size}: compiling")
    programs = {
        "merged_scan": harness.compiled(step(cfg), params, *batch),
        "merged": harness.compiled(step(unrolled), params, *batch),
        "five_convolutions": harness.compiled(five_convolutions(step(unrolled)), params, *batch),
        "deploy": harness.compiled(step(deployed), merged, *batch),
    }
    found: dict[str, Any] = {"size": size, "gradients": same_gradients(cfg, params, programs)}
    rival = torch_rival.or_reason(lambda: torch_dea_net(deployed, merged))
    theirs = {} if isinstance(rival, str) else rival.steps(*batch)
    found |= torch_rival.facts(rival)
    found |= harness.compare(programs, theirs, max(plan.repeats // 2, 1))
    ratio = found["five_convolutions"]["median_s"] / found["merged"]["median_s"]
    found["merged"]["over_five_convolutions"] = round(ratio, 2)
    return found


def same_gradients(
    cfg: DEANetConfig, params: Params, programs: dict[str, harness.Program]
) -> dict[str, float]:
    """How far the gradients of one and of five convolutions are apart.

    Tensor by tensor only float64 can tell. The gradient of a difference kernel is the difference of
    those of neighbouring taps, which at level 3 are nearly equal: it is 15 times smaller than that
    of the plain kernel and off by as much, 1.5e-2 of its largest entry in float32. The programs
    that are timed are compared as a whole.
    """
    (_, one), (_, five) = (programs[name].call() for name in ("merged", "five_convolutions"))
    found = {
        "float64_by_tensor": exact_difference(cfg, params),
        "float32_as_a_whole": _length(jax.tree.map(jnp.subtract, one, five)) / _length(one),
    }
    for (name, off), most in zip(found.items(), (EXACT, TOLERANCE), strict=True):
        if not off <= most:
            raise SystemExit(f"The gradients ({name}) differ by {off:.2e}, more than {most}.")
    return found


def exact_difference(cfg: DEANetConfig, params: Params, size: int = 32) -> float:
    """Largest difference of any gradient in float64, in units of the largest of its tensor."""
    wide = dataclasses.replace(cfg, dtype="float64", param_dtype="float64")
    with jax.enable_x64(True):
        arrays = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), "float64"), params)
        batch = [jnp.asarray(image, "float64") for image in images(size)]
        (_, one), (_, five) = (
            jax.jit(run)(arrays, *batch) for run in (step(wide), five_convolutions(step(wide)))
        )
        worst = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), one, five)
        return float(max(jax.tree.leaves(worst)))


def _length(tree: Any) -> float:
    return sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(tree)) ** 0.5


def main(
    smoke: bool = False,
    output: Path = harness.RESULTS / "dea_net.json",
    parts: tuple[Part, ...] = ("forward_256", "forward_512", "step"),
) -> None:
    """Run everything and write JSON after each part.

    Args:
      smoke: a small network and two repeats, to see that the benchmark works.
      output: the file to write; parts that are not run stay as they are in it.
      parts: what to run.
    """
    plan = SMOKE if smoke else FULL

    def run(part: str) -> dict[str, Any]:
        measure = run_step if part == "step" else run_forward
        return {"smoke": smoke, **measure(plan, plan.sizes[part])}

    harness.record_parts(output, parts, run, "torch")


if __name__ == "__main__":
    tyro.cli(main)
