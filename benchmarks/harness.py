"""What every benchmark needs: compile apart, time interleaved, describe, write.

Rivals take turns in one process, so that whatever slows the machine down slows all of them. The
order turns too, and a short pause lets the threads of one library fall asleep before another
starts.
"""

import dataclasses
import datetime
import functools
import gc
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.atomic import write_json

RESULTS = Path(__file__).parent / "results"
PAUSE = 0.05  # seconds between two calls; OpenMP threads spin for some milliseconds

Call = Callable[[], Any]
"""Does the work once; returns when it is done, or JAX arrays that can be waited for."""


def say(text: str) -> None:
    """One progress line, with the time of day."""
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", flush=True)


@dataclasses.dataclass(frozen=True)
class Program:
    """A function compiled for its arguments."""

    call: Call
    facts: dict[str, Any]  # compile_s and memory, ready for JSON


def compiled(fn: Callable[..., Any], *args: Any) -> Program:
    """Compile ``fn`` ahead of time, without the compilation cache.

    The facts hold ``compile_s`` (tracing, lowering and XLA), ``memory_mb`` (arguments, results
    and temporary buffers) and ``temporary_mb``.
    """
    start = time.perf_counter()
    program = jax.jit(fn).lower(*args).compile()
    seconds = time.perf_counter() - start
    memory: Any = program.memory_analysis()
    sizes = (memory.argument_size_in_bytes, memory.output_size_in_bytes)
    facts = {
        "compile_s": round(seconds, 2),
        "memory_mb": round((sum(sizes) + memory.temp_size_in_bytes) / 1e6, 1),
        "temporary_mb": round(memory.temp_size_in_bytes / 1e6, 1),
    }
    return Program(lambda: program(*args), facts)


def gflop(fn: Callable[..., Any], *args: Any) -> float:
    """XLA's count of floating-point operations, in units of 10**9.

    A loop body counts once however often it runs: pass a function without loops.
    """
    cost: Any = jax.jit(fn).lower(*args).cost_analysis()
    return round(cost["flops"] / 1e9, 3)


def interleaved(calls: Mapping[str, Call], repeats: int, *, warm_up: int = 1) -> dict[str, Any]:
    """Time every call ``repeats`` times in turns.

    Returns:
      Per name ``median_s``, ``quartiles_s``, ``min_s`` and ``repeats``.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(-warm_up, repeats):
        for name in names:
            time.sleep(PAUSE)
            start = time.perf_counter()
            jax.block_until_ready(calls[name]())
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
        names = names[1:] + names[:1]
    return {name: _summary(values) for name, values in seconds.items()}


def _summary(seconds: list[float]) -> dict[str, Any]:
    low, median, high = np.percentile(seconds, [25, 50, 75])
    return {
        "median_s": round(float(median), 5),
        "quartiles_s": [round(float(low), 5), round(float(high), 5)],
        "min_s": round(min(seconds), 5),
        "repeats": len(seconds),
    }


def ratios(times: Mapping[str, Any], ours: str, rivals: tuple[str, ...]) -> dict[str, float]:
    """How many times faster ``ours`` is than each rival and than the fastest, by medians."""
    slower = {name: times[name]["median_s"] / times[ours]["median_s"] for name in rivals}
    found = {f"over_{name}": round(value, 2) for name, value in slower.items()}
    return {**found, "over_fastest": round(min(slower.values()), 2)}


def compare(
    ours: Mapping[str, Program], theirs: Mapping[str, Call], repeats: int
) -> dict[str, Any]:
    """Times of all, what each of our programs cost to compile, and how many times faster it is."""
    calls = {**{name: program.call for name, program in ours.items()}, **theirs}
    times = interleaved(calls, repeats)
    for name, program in ours.items():
        times[name] |= program.facts
        if theirs:
            times[name] |= ratios(times, name, tuple(theirs))
    say("  " + ", ".join(f"{name} {t['median_s']:.3f} s" for name, t in times.items()))
    return times


def with_rates(times: dict[str, Any], gflop: float) -> dict[str, Any]:
    """Work per second of each, beside that of a large matrix product: what is left to gain.

    Convolutions by direct summation are matrix products, so nobody gets beyond the rate of one.
    """
    for found in times.values():
        found["gflop_s"] = round(gflop / found["median_s"], 1)
    return {**times, "gflop": gflop, **limits("matrix_product_gflop_s")}


def limits(*names: str) -> dict[str, float]:
    """What the machine itself reaches now: the best of 10 turns, of all or of some by name.

    ``matrix_product_gflop_s`` multiplies matrices of 2048 rows, ``bfloat16_product_gflop_s`` such
    of 16 bits with sums of 32; ``memory_gb_s`` reads a quarter of a gigabyte and writes as much
    into memory that is fresh, as results of programs are; ``exponentials_per_ns`` are of numbers
    that the caches hold.
    """
    a = jax.random.normal(jax.random.key(0), (2048, 2048))
    half, wide = (
        a.astype(jnp.bfloat16),
        functools.partial(jnp.matmul, preferred_element_type=jnp.float32),
    )
    long, short = jnp.ones(2**26), jnp.ones((64, 2**14))
    programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...], float]] = {
        "matrix_product_gflop_s": (jnp.matmul, (a, a), 2 * 2048**3 / 1e9),
        "bfloat16_product_gflop_s": (wide, (half, half), 2 * 2048**3 / 1e9),
        "memory_gb_s": (lambda x: x + 1, (long,), 2 * long.nbytes / 1e9),
        "exponentials_per_ns": (jnp.exp, (short,), short.size / 1e9),
    }
    chosen = {name: programs[name] for name in names or programs}
    calls = {name: compiled(fn, *args).call for name, (fn, args, _) in chosen.items()}
    best = interleaved(calls, 10)
    return {name: round(work / best[name]["min_s"], 2) for name, (*_, work) in chosen.items()}


def record_parts(
    output: Path, parts: Iterable[str], run: Callable[[str], dict[str, Any]], *packages: str
) -> None:
    """Run each part and write JSON after it; parts that are not run stay as they are.

    Args:
      output: the file.
      parts: names below which the findings are kept.
      run: name -> findings.
      *packages: of the rivals, whose versions are recorded.
    """
    record: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}
    for part in parts:
        described = environment(*packages)  # the load before the start
        record[part] = {"environment": described, **run(part)}
        write(record, output)
        gc.collect()
    say(f"wrote {output}")


def cores() -> int:
    """Processors this process may use: what JAX takes, and what rivals are given."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(*packages: str) -> dict[str, Any]:
    """Date, device, processor, load before the start, and versions of what is installed."""
    versions = {}
    for package in ("jax", "jaxlib", "flax", "numpy", *packages):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": cores(),
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "allocator": {k: v for k, v in sorted(os.environ.items()) if k.startswith("MALLOC_")},
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write(record: Mapping[str, Any], path: Path) -> None:
    """Replace ``path`` by ``record`` as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
