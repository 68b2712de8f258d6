"""Trains, measures, writes; see the package."""

import concurrent.futures
import dataclasses
import functools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import jax
import tyro

from benchmarks import harness
from benchmarks.entangled_headlines import report
from benchmarks.entangled_headlines.report import publish
from benchmarks.entangled_headlines.study import GUARDED, MENDED, PROTOTYPE, Gradient, Sizes, World
from benchmarks.harness import say

NAME = "entangled_headlines"
BETAS = (0.2, 0.3, 0.5)

Part = Literal["core", "why", "strong", "sweep"]
Rows = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked.

    Attributes:
      output: folder for ``entangled_headlines.json``, ``.txt`` and ``.png``.
      run: folder of the trainings.
      seeds: worlds, one after the other or ``at_once``.
      parts: which; others stay as they are in the file.
      at_once: worlds that are trained side by side.
      smoke: everything once, tiny.
    """

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = harness.RESULTS
    run: Path = Path("runs") / NAME
    seeds: tuple[int, ...] = (1, 2, 3)
    parts: tuple[Part, ...] = get_args(Part)
    at_once: int = 2
    smoke: bool = False


def _told(world: World, names: tuple[str, ...]) -> Rows:
    """What routes and reward models found."""
    fits = {
        name: {"delta": float(fit.delta[0]), "se": float(fit.se[0])}
        for name, fit in world.fits.items()
    }
    return {"delta": fits, "effects": {name: world.effects(name) for name in names}}


def _followed(
    world: World, name: str, how: Gradient = MENDED, beta: float = 0.2
) -> dict[str, float]:
    return world.measured(world.followed(name, how, beta), world.scorer(name))


def _named(how: Gradient) -> str:
    told = how.algorithm.upper() + (", scaled" if how.scaled else "")
    return told + (", supported texts" if how.supported else "")


def core(world: World) -> Rows:
    """All rewards followed by policy gradient; imitation of the best, and DPO, with two of them."""
    names = ("naive", "iv", "ols_c", "odin", "oracle")
    policies = {"base": world.measured(world.base)}
    policies |= {f"{name} {_named(MENDED)}": _followed(world, name) for name in names}
    for name in ("naive", "iv"):
        policies[f"{name} best fifth"] = world.measured(world.imitated(name))
        policies[f"{name} DPO"] = world.measured(world.preferred(name))
    return {**_told(world, names), "policies": policies}


def why(world: World) -> Rows:
    """Where the divergence counts, and by what advantages are divided."""
    policies = {}
    for algorithm in ("grpo", "rloo"):
        for scaled in (True, False):
            how = Gradient(algorithm=algorithm, scaled=scaled)
            policies[f"iv {_named(how)}"] = _followed(world, "iv", how)
    policies[f"iv {_named(GUARDED)}"] = _followed(world, "iv", GUARDED)
    for name in ("naive", "oracle"):
        policies[f"{name} {_named(PROTOTYPE)}"] = _followed(world, name, PROTOTYPE)
    return {"policies": policies}


def sweep(world: World) -> Rows:
    """Strengths of the pull to the base."""
    return {
        "policies": {
            f"iv {_named(how)}, beta {beta:g}": _followed(world, "iv", how, beta)
            for how in (PROTOTYPE, MENDED)
            for beta in BETAS
        }
    }


def strong(world: World) -> Rows:
    """Confounding so strong that the route ols_c flips the signs of two effects."""
    world = dataclasses.replace(world, design="strong")
    names = ("naive", "ols_c", "iv")
    policies = {"base": world.measured(world.base)}
    policies |= {f"{name} {_named(MENDED)}": _followed(world, name) for name in names}
    return {**_told(world, names), "policies": policies}


PARTS: dict[str, Callable[[World], Rows]] = {
    "core": core,
    "why": why,
    "strong": strong,
    "sweep": sweep,
}


def main(options: Options) -> None:
    """Run the parts for all seeds, and write table and picture."""
    file = options.output / f"{NAME}.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    about = harness.environment()
    sizes = Sizes.smoke() if options.smoke else Sizes()
    record["about"] = record.get("about", {}) | about | {"sizes": dataclasses.asdict(sizes)}
    lock, begun, used = threading.Lock(), time.perf_counter(), time.process_time()

    def run(job: tuple[Part, int]) -> None:
        part, seed = job
        start = time.perf_counter()
        found = PARTS[part](World("entangled", seed, sizes, options.run))
        seconds = round(time.perf_counter() - start, 1)
        with lock:
            record.setdefault(part, {})[str(seed)] = found | {"seconds": seconds}
            took = {"wall": time.perf_counter() - begun, "processor": time.process_time() - used}
            seconds_of = record["about"].setdefault("seconds", {})
            seconds_of[" ".join(options.parts)] = {k: round(v, 1) for k, v in took.items()}
            harness.write(record, file)
        say(f"{part}, seed {seed}: {seconds} s")

    with concurrent.futures.ThreadPoolExecutor(options.at_once) as pool:
        list(pool.map(run, [(part, seed) for part in options.parts for seed in options.seeds]))
    draw = functools.partial(report.picture, record)
    publish(report.text(record), draw, options.output, NAME)


if __name__ == "__main__":
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # else all worlds share one queue
    main(tyro.cli(Options))
