"""What XLA makes of a network for an H100, without one: seconds to compile, and bytes moved.

    pip install 'jax[cuda13]'        # the compiler; no GPU is needed
    python -m benchmarks.accelerator.offline restormer step float32
    python -m benchmarks.accelerator.offline restormer step float32 --settings default_loops

Nothing is tried out on a card, so algorithms are XLA's first choice, and compiling takes less than
there. Bytes are those of the operands and results of every kernel, slices by their own size, loops
as often as they run: what memory would move if no cache held anything.
"""

import collections
import dataclasses
import importlib.util
import math
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import tyro
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, use_abstract_mesh
from tyro.conf import Positional

from benchmarks.accelerator import floors, networks
from benchmarks.accelerator.networks import NETWORKS, Dtype, Pass
from benchmarks.accelerator.ours import SETTINGS, configured, depthwise, program

CARD = "NVIDIA H100 80GB HBM3"
PROCESSORS = 132
TARGET = f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 registers_per_core_limit: 65536
  registers_per_block_limit: 65536 core_count: {PROCESSORS} fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 cuda_compute_capability {{ major: 9 }}
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 12 }} device_description_str: "{CARD}"
"""
SIZES = {"f64": 8, "s64": 8, "u64": 8, "c64": 8, "bf16": 2, "f16": 2, "pred": 1, "u8": 1, "s8": 1}
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "after-all"}


def compiled(fn: Any, args: Any, options: Any) -> Any:
    """Compile for the card."""
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise SystemExit("Expected the compiler for GPUs, found none: pip install 'jax[cuda13]'.")
    topology: Any = topologies.get_topology_desc("", "cuda", target_config=TARGET, topology="1x1x1")
    mesh = Mesh(np.array(topology.devices).reshape(-1)[:1], ("one",))
    there = NamedSharding(mesh, PartitionSpec())
    placed = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=there), args)
    with use_abstract_mesh(mesh.abstract_mesh):  # for the kernels, which ask what card it is
        lowered = jax.jit(fn, in_shardings=there).lower(*placed)
    return lowered.compile(compiler_options=options or None)


# --- reading XLA's program -----------------------------------------------------------------------

_Line = tuple[str, str, str, list[str], str]  # name, type, operation, operands, all of it
_LINE = re.compile(r"(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)")


def _parts(text: str) -> tuple[dict[str, list[_Line]], str]:
    found: dict[str, list[_Line]] = {}
    name = entry = ""
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            name = head.group(2)
            found[name] = []
            entry = name if head.group(1) else entry
        elif name and (match := _LINE.match(line.strip())):
            label, kind, operation, inside = match.groups()
            operands = re.findall(r"%([\w.\-]+)", inside)
            found[name].append((label, kind, operation, operands, line))
    return found, entry


def _size(kind: str) -> float:
    shapes = re.findall(r"(\w+)\[([\d,]*)\]", kind)
    return float(
        sum(
            SIZES.get(dtype, 4) * math.prod(int(n) for n in dims.split(",") if n)
            for dtype, dims in shapes
        )
    )


def _named(line: str, what: str) -> str:
    found = re.search(what + r'[":={n]*%?"?([\w.\-$]+)', line)
    return found.group(1) if found else ""


def _sliced(lines: list[_Line]) -> float:
    """Bytes of a fusion that reads or writes slices of arrays."""
    at = {line[0]: line for line in lines}
    total = 0.0
    for label, kind, operation, operands, line in lines:
        if operation == "parameter":
            users = [u for u in lines if label in u[3]]
            slices = [u for u in users if u[2] in ("dynamic-slice", "dynamic-update-slice")]
            if len(slices) < len(users) or any(u[3][0] != label for u in slices):
                total += _size(kind)
            total += sum(_size(u[1]) for u in slices if u[2] == "dynamic-slice")
        if "ROOT " in line:
            results = [at[o] for o in operands if o in at] if operation == "tuple" else [at[label]]
            for _, kind, operation, operands, _ in results:
                update = operation == "dynamic-update-slice" and operands[1] in at
                total += _size(at[operands[1]][1] if update else kind)
    return total


def kernels(text: str) -> Iterator[tuple[str, float, int]]:
    """Kind, bytes of one run, and runs of every kernel of an optimised program."""
    parts, entry = _parts(text)

    def walk(name: str, times: int) -> Iterator[tuple[str, float, int]]:
        kinds: dict[str, str] = {}
        for label, kind, operation, operands, line in parts[name]:
            kinds[label] = kind
            if operation in FREE or operation.endswith("-done"):
                continue
            inner = _named(line, "body=") or _named(line, "to_apply=")
            if operation == "while":
                yield from walk(inner, times * int(_named(line, "known_trip_count") or 1))
            elif operation == "call":
                yield from walk(inner, times)
            elif operation != "conditional":
                called = parts.get(_named(line, "calls="), [])
                size = _size(kind) + sum(_size(kinds.get(o, "")) for o in operands)
                if any(part[2].startswith("dynamic-") for part in called):
                    size = _sliced(called)
                what = _named(line, "custom_call_target=") or _named(line, "kind=")
                yield f"{operation} {what}".strip(), size, times

    yield from walk(entry, 1)


def main(
    network: Positional[str],
    which: Positional[Pass],
    dtype: Positional[Dtype] = "float32",
    settings: str = "ours",
) -> None:
    """Compile, and print what is moved by kind of kernel.

    Args:
      network: restormer, dea_net, rddm, sunet, llama or adair.
      which: forward pass, or loss and gradients.
      dtype: of activations.
      settings: of the part ``compile``.
    """
    for found, known in ((network, NETWORKS), (settings, SETTINGS)):
        if found not in known:
            raise SystemExit(f"Expected one of {', '.join(known)}; found {found!r}.")
    chosen, (options, form, cfg) = NETWORKS[network], configured(network, which, dtype, settings)
    if hasattr(cfg, "scan_blocks"):  # as on a GPU, where loops recompute
        loops = bool(cfg.scan_blocks)
        cfg = dataclasses.replace(cfg, scan_blocks=loops, remat=loops)
    arrays = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in chosen.arrays(which, False)]
    shapes = chosen.module.param_shapes(cfg)
    with depthwise("grouped"):
        counted = networks.forward if which == "forward" else networks.loss
        count = floors.forward if which == "forward" else floors.step
        floor = count(counted(chosen, cfg), shapes, *arrays)
    with depthwise(form or "kernel"):
        start = time.perf_counter()
        made = compiled(program(network, which, cfg), (shapes, *arrays), options)
        taken = time.perf_counter() - start
    total: collections.Counter[str] = collections.Counter()
    runs = 0
    for kind, size, times in kernels(made.as_text()):
        total[kind] += int(size * times)
        runs += times
    kept = made.memory_analysis().temp_size_in_bytes / 1e9
    print(f"traced and compiled in {taken:.1f} s; {runs} kernels; {kept:.2f} GB of maps")
    print(f"{sum(total.values()) / 1e9:8.2f} GB moved; the least is {floor['gbytes']:.2f} GB")
    for kind, size in sorted(total.items(), key=lambda pair: -pair[1])[:12]:
        print(f"{size / 1e9:8.2f} GB {kind}")


if __name__ == "__main__":
    tyro.cli(main)
