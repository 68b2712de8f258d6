"""How fast is a diffusion U-Net here, and what does the sampler add to its calls?

The U-Net of `denoising-diffusion-pytorch` of the size of RDDM's networks (35.7 M parameters)
against that package on the same processor, with the same weights and after checking that outputs
agree: one call, and a five-step DDIM sampler (the package's own loop), at 128 and 256 pixels,
batch 1, float32. PyTorch runs as shipped and in its channels_last layout. Then the sampler by
itself: its time next to that of as many calls, and how often it is compiled while schedules, fresh
noise, solver and order change.

    python -m benchmarks.rddm --parts forward    # minutes on 2 quiet cores, each
    python -m benchmarks.rddm --parts sampler
    python -m benchmarks.rddm --parts overhead
    python -m benchmarks.rddm --smoke            # a small network, seconds

Run it with the allocator settings of benchmarks/README.md, which both sides get: at 256 pixels each
call has hundreds of megabytes of temporary maps.

Without PyTorch and the package (benchmarks/README.md) the comparison is left out, and the JSON
says so.
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
from benchmarks.torch_rival import LAYOUTS, TorchRival
from jaxcore.models.rddm.interop import ddpm_network, from_ddpm_torch
from jaxcore.models.rddm.network import ddpm_unet
from jaxcore.models.rddm.network.ddpm_unet import DDPMUnetConfig
from jaxcore.models.rddm.process.forward import to_unit
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.models.rddm.sampling.ddim import DDIMNetwork, ddim
from jaxcore.models.rddm.sampling.released import residual_then_noise, sampling_table
from jaxcore.models.rddm.sampling.sampler import sample
from jaxcore.models.rddm.sampling.second_order import dpm_solver

STEPS = 5
OBJECTIVE = DDIMNetwork(prediction="v", rederive_noise=True)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is run."""

    network: DDPMUnetConfig
    sizes: tuple[int, ...]
    repeats: int


FULL = Plan(DDPMUnetConfig(dim=64), (128, 256), 7)
SMOKE = Plan(DDPMUnetConfig(dim=8, dim_mults=(1, 2), heads=2, dim_head=4), (16,), 2)


class Rival(TorchRival):
    """The package's U-Net and sampler in both memory layouts."""

    def __init__(self, cfg: DDPMUnetConfig):
        def make() -> Any:
            from denoising_diffusion_pytorch import Unet

            sizes = {"attn_heads": cfg.heads, "attn_dim_head": cfg.dim_head}
            return Unet(dim=cfg.dim, dim_mults=cfg.dim_mults, **sizes)

        super().__init__(make, "denoising_diffusion_pytorch.Unet")

    def sampler(self, layout: str, start: np.ndarray) -> Callable[[], np.ndarray]:
        """The package's DDIM loop from a given start; its progress bar is silenced."""
        import denoising_diffusion_pytorch.denoising_diffusion_pytorch as package

        package.tqdm = lambda items, **_: items
        net, side = self.nets[layout], start.shape[1]
        diffusion = package.GaussianDiffusion(net, image_size=side, sampling_timesteps=STEPS)
        tensor = self.tensor(start, layout)

        def call() -> np.ndarray:
            draw, self._torch.randn = self._torch.randn, lambda *_, **__: tensor
            try:
                with self._torch.inference_mode():
                    made = diffusion.ddim_sample(tuple(tensor.shape))
            finally:
                self._torch.randn = draw
            return made.permute(0, 2, 3, 1).numpy()

        self.betas = diffusion.betas.numpy()
        return call


def image(size: int) -> np.ndarray:
    return np.random.default_rng(size).normal(size=(1, size, size, 3)).astype(np.float32)


def weights(plan: Plan, rival: Rival | str) -> Any:
    cfg = plan.network
    if isinstance(rival, str):
        return ddpm_unet.init(jax.random.key(0), cfg)
    return jax.device_put(from_ddpm_torch(rival.weights(), cfg))


def compare(
    ours: harness.Program, theirs: dict[str, harness.Call], repeats: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """How far the results are apart, and then the times of all."""
    agree: dict[str, Any] = {}
    if theirs:
        agree["largest_difference"] = torch_rival.largest_difference(theirs, ours.call())
    return agree, harness.compare({"jaxcore": ours}, theirs, repeats)


def forward(plan: Plan, rival: Rival | str) -> dict[str, Any]:
    """One call of the network."""
    params, found = weights(plan, rival), {}
    apply_fn = functools.partial(ddpm_unet.apply, cfg=plan.network)
    for size in plan.sizes:
        say(f"one call at {size}")
        x, t = image(size), np.full((1,), 500, np.float32)
        ours = harness.compiled(apply_fn, params, x, t)
        theirs = {} if isinstance(rival, str) else rival.forwards(x, t)
        agree, times = compare(ours, theirs, plan.repeats)
        rates = harness.with_rates(times, harness.gflop(apply_fn, params, x, t))
        found[f"forward_{size}"] = {**agree, **rates}
    return found


def sampling(plan: Plan, rival: Rival | str) -> dict[str, Any]:
    """Five steps of DDIM."""
    params, found = weights(plan, rival), {}
    for size in plan.sizes:
        say(f"{STEPS} steps at {size}")
        start, theirs = image(size), {}
        schedule = RDDMSchedule.from_ddpm("cosine")
        if isinstance(rival, Rival):
            theirs = {name: rival.sampler(name, start) for name in LAYOUTS}
            schedule = RDDMSchedule.from_ddpm(rival.betas)
        table = ddim(schedule, STEPS)

        def run(params: Any, noise: Any, table: Any, shape: tuple[int, ...] = start.shape) -> Any:
            return to_unit(
                sample(
                    ddpm_network(plan.network),
                    params,
                    shape=shape,
                    table=table,
                    objective=OBJECTIVE,
                    noise=noise,
                )
            )

        ours = harness.compiled(run, params, start[None], table)
        agree, times = compare(ours, theirs, min(plan.repeats, 3))
        found[f"sampler_{size}"] = {**agree, **times}
    return found


def overhead(plan: Plan, rival: Rival | str) -> dict[str, Any]:
    """The sampler next to as many calls of the network, and compilations."""
    params = weights(plan, rival)
    size, fn = plan.sizes[0], ddpm_network(plan.network)
    x, levels = image(size), (jnp.full((1,), 500.0),)
    schedule = RDDMSchedule.from_ddpm("linear")
    call = harness.compiled(lambda p, x: fn(p, x, levels)[0], params, x)

    def calls() -> Any:
        for _ in range(STEPS):
            jax.block_until_ready(call.call())

    def sampled(table: Any) -> Any:
        noise = jnp.asarray(x[None])
        return sample(fn, params, shape=x.shape, table=table, objective=OBJECTIVE, noise=noise)

    table = sampling_table(schedule, STEPS)
    jax.block_until_ready(sampled(table))
    times = harness.interleaved(
        {"calls": calls, "sampler": lambda: sampled(table)}, 2 * plan.repeats
    )
    ratio = times["sampler"]["median_s"] / times["calls"]["median_s"]
    say(f"  sampler over {STEPS} calls: {100 * (ratio - 1):+.1f} %")
    return {
        f"overhead_{size}": {**times, "percent": round(100 * (ratio - 1), 2)},
        "compilations": compilations(fn, params, x, schedule),
    }


def compilations(fn: Any, params: Any, x: np.ndarray, schedule: RDDMSchedule) -> dict[str, int]:
    """How many programs tables of equal length need."""
    traces: list[int] = []

    def counted(params: Any, x: Any, time: Any) -> Any:  # runs in Python only while compiling
        traces.append(tried)
        return fn(params, x, time)

    tried = 0
    half = STEPS - STEPS % 2
    tables = [
        *(sampling_table(schedule, half, eta=eta) for eta in (0.0, 0.5, 1.0)),
        dpm_solver(schedule, half),
        residual_then_noise(schedule, half // 2),
        sampling_table(schedule.reschedule(alpha="average", beta="average"), half),
        sampling_table(RDDMSchedule.polynomial(500, sum_scale=0.01), half),
    ]
    for table in tables:
        key = jax.random.key(tried)
        sample(counted, params, shape=x.shape, table=table, objective=OBJECTIVE, key=key)
        tried += 1
    found = {"tables": tried, "programs": len(set(traces))}
    say(f"  {found['tables']} tables of {half} rows: {found['programs']} program(s)")
    return found


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "forward": forward,
    "sampler": sampling,
    "overhead": overhead,
}


def main(
    smoke: bool = False,
    output: Path = harness.RESULTS / "rddm.json",
    parts: tuple[Literal["forward", "sampler", "overhead"], ...] = (
        "forward",
        "sampler",
        "overhead",
    ),
) -> None:
    """Run everything and write JSON after each part.

    Args:
      smoke: a small network and two repeats, to see that the benchmark works.
      output: the file to write; parts that are not run stay as they are in it.
      parts: what to run.
    """
    plan = SMOKE if smoke else FULL
    rival = torch_rival.or_reason(lambda: Rival(plan.network))
    say(f"rival {rival}" if isinstance(rival, str) else f"rival: {rival.facts}")

    def run(part: str) -> dict[str, Any]:
        return {"smoke": smoke, **torch_rival.facts(rival), **PARTS[part](plan, rival)}

    harness.record_parts(output, parts, run, "torch", "denoising-diffusion-pytorch")


if __name__ == "__main__":
    tyro.cli(main)
