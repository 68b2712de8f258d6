"""What is timed of this library; every function writes what it finds as soon as it knows it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator import floors, networks
from benchmarks.accelerator.measure import LOOP, SHORT, Record, timed
from benchmarks.accelerator.networks import NETWORKS, Dtype, Pass
from jaxcore import ops
from jaxcore.compiling import compiler_options
from jaxcore.models.adair.blocks import TransformerBlock
from jaxcore.nn import Types
from jaxcore.ops.depthwise import Form

_HITS: list[str] = []
_OURS = "ours"  # compiler options


def _seen(event: str, **_: Any) -> None:
    if event == "/jax/compilation_cache/cache_hits":
        _HITS.append(event)


jax.monitoring.register_event_listener(_seen)


@contextlib.contextmanager
def depthwise(form: Form | None) -> Iterator[None]:
    """Networks compute their depthwise convolutions in that form; None as they are."""
    before = ops.depthwise_conv, ops.joining_pays
    if form is not None:
        ops.depthwise_conv = partial(ops.depthwise_conv, form=form)
        ops.joining_pays = lambda width, dtype: form == "kernel"
    try:
        yield
    finally:
        ops.depthwise_conv, ops.joining_pays = before


def compiled(
    record: Record, row: str, fn: Callable[..., Any], *args: Any, options: Any = _OURS
) -> Callable[[], Any]:
    """Compile for these arguments; its cost is recorded."""
    with record.compiling(row):
        hits, start = len(_HITS), time.perf_counter()
        lowered = jax.jit(fn).lower(*args)
        traced = time.perf_counter()
        program = lowered.compile(
            compiler_options=compiler_options() if options == _OURS else options
        )
        done = time.perf_counter()
    memory: Any = program.memory_analysis()
    sizes = (memory.argument_size_in_bytes, memory.output_size_in_bytes)
    record.add(
        row,
        trace_s=round(traced - start, 2),
        compile_s=round(done - traced, 2),
        from_cache=len(_HITS) > hits,
        memory_gb=round((sum(sizes) + memory.temp_size_in_bytes) / 1e9, 3),
    )
    return lambda: program(*args)


def time_it(
    record: Record, row: str, call: Callable[[], Any], loop: float = LOOP, **facts: Any
) -> None:
    """Alone on the card."""
    with record.timing(row):
        times = timed(call, jax.block_until_ready, loop)
    record.add(row, **times, **facts, **_peak())


def _peak() -> dict[str, float]:
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return {} if peak is None else {"process_peak_gb": round(peak / 1e9, 3)}


def row_of(dtype: Dtype, form: Form | None) -> str:
    """Name of our row."""
    name = {"float32": "jaxcore f32", "bfloat16": "jaxcore bf16"}[dtype]
    return name if form is None else f"{name} {form}"


def network(
    record: Record, name: str, which: Pass, dtype: Dtype, smoke: bool, form: Form | None
) -> None:
    """Forward pass, or loss and gradients."""
    chosen, row = NETWORKS[name], row_of(dtype, form)
    cfg = chosen.config(which, dtype, smoke)
    arrays = chosen.arrays(which, smoke)
    record.add(row, batch=list(arrays[0].shape), dtype=dtype, depthwise=form or "default")
    with depthwise("grouped"):
        count = floors.forward if which == "forward" else floors.step
        counted = networks.forward if which == "forward" else networks.loss
        record.add(row, floor=count(counted(chosen, cfg), chosen.module.param_shapes(cfg), *arrays))
    with depthwise(form):
        run = program(name, which, cfg)
        call = compiled(record, row, run, networks.params(chosen, cfg), *jax.device_put(arrays))
    time_it(record, row, call)


def program(name: str, which: Pass, cfg: Any) -> Callable[..., Any]:
    """``fn(params, ...)``."""
    if which == "forward":
        return networks.forward(NETWORKS[name], cfg)
    return jax.value_and_grad(networks.loss(NETWORKS[name], cfg))


def limits(record: Record, smoke: bool) -> None:
    """What the card can do: large matrix products, and adding one to a large array."""
    side, numbers = (256, 1 << 16) if smoke else (8192, 1 << 29)
    for dtype in get_args(Dtype):
        a, b = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in (0, 1))
        row = f"product {dtype}"
        call = compiled(record, row, jnp.matmul, a, b)
        time_it(record, row, call, side=side)
        rate = 2 * side**3 / record.found[row]["ms"] / 1e9
        record.add(row, tflop_s=round(rate, 1))
    x = jnp.ones((numbers,), jnp.float32)
    call = compiled(record, "copy", lambda x: x + 1, x)
    time_it(record, "copy", call, gbytes=8 * numbers / 1e9)
    record.add("copy", gb_s=round(8 * numbers / record.found["copy"]["ms"] / 1e6, 1))


# --- the parts a Restormer block is made of ------------------------------------------------------


class Pieces:
    """Small programs that are compiled one after another, and then timed one after another."""

    def __init__(self, record: Record):
        self.record = record
        self.calls: dict[str, tuple[Callable[[], Any], float]] = {}

    def add(
        self, row: str, size: float, form: Form | None, fn: Callable[..., Any], *args: Any
    ) -> None:
        """Compile; ``size`` bytes have to be read and written."""

        def run() -> None:
            with depthwise(form):
                self.calls[row] = compiled(self.record, row, fn, *args), size

        self.record.attempt(row, run)

    def time(self) -> None:
        """All that could be compiled."""
        for row, (call, size) in self.calls.items():
            floor = {"gbytes": size / 1e9, "tflop": 0.0}
            self.record.attempt(row, partial(time_it, self.record, row, call, SHORT, floor=floor))


def pieces(record: Record, smoke: bool) -> None:
    """Depthwise filters and their gradients in each form, at widths of Restormer's first level.

    On eight batches at once: one would be over before the next call is under way.
    """
    rng, small = np.random.default_rng(0), Pieces(record)
    shape, widths = ((1, 8, 8), (4,)) if smoke else ((64, 128, 128), (48, 127))
    for dtype in get_args(Dtype):
        for width in widths:
            x, g = (jnp.asarray(rng.normal(size=(*shape, width)), dtype) for _ in range(2))
            kernel = jnp.asarray(rng.normal(size=(3, 3, 1, width)), jnp.float32)
            for form in get_args(Form):
                one = partial(ops.depthwise_conv, form=form)
                row = f"3x3, {width} channels, {dtype}, {form}"
                small.add(row, 2 * x.nbytes, None, one, x, kernel)
                slopes = partial(gradients, one)
                small.add(f"{row}, gradients", 3 * x.nbytes, None, slopes, x, kernel, g)
    small.time()


def gradients(one: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, g: jax.Array) -> Any:
    """Of both arguments; the value itself is not needed."""
    return jax.vjp(one, x, kernel)[1](g)


def blocks(record: Record, dtype: Dtype, smoke: bool) -> None:
    """Gradients of one transformer block of Restormer's first level.

    The gated part has 127 channels as published; 128 shows what an even number would bring.
    """
    shape, width = ((1, 8, 8), 8) if smoke else ((8, 128, 128), 48)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(*shape, width)), dtype)
    small = Pieces(record)
    for expansion in (2.66, 2.67):
        module = TransformerBlock(num_heads=1, expansion=expansion, types=Types(dtype=dtype))
        shapes = jax.eval_shape(module.init, jax.random.key(0), x)
        weights = jax.tree.map(lambda a: jnp.full(a.shape, 0.1, a.dtype), shapes)

        def loss(weights: Any, x: jax.Array, module: Any = module) -> jax.Array:
            return jnp.mean(jnp.square(module.apply(weights, x).astype(jnp.float32)))

        with depthwise("grouped"):
            size = 1e9 * floors.step(loss, weights, x)["gbytes"]
        for form in get_args(Form):
            row = f"block, gate of {int(width * expansion)}, {dtype}, {form}"
            small.add(row, size, form, jax.value_and_grad(loss, (0, 1)), weights, x)
    small.time()


# --- what compiling costs -------------------------------------------------------------------------

_NO_FUSION_TUNING = {"xla_gpu_experimental_enable_fusion_autotuner": False}
_NO_TRITON = {"xla_gpu_enable_triton_gemm": False}
_NO_NORMS = {"xla_disable_hlo_passes": "triton-softmax-rewriter"}
_LOOPS = {"scan_blocks": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "ours": _NO_FUSION_TUNING | _NO_TRITON | _NO_NORMS,
    "default": {},
    "ours_loops": _NO_FUSION_TUNING | _NO_TRITON | _NO_NORMS | _LOOPS,
    "default_loops": _LOOPS,
    "tuned_products": _NO_FUSION_TUNING | _NO_NORMS,
    "tuned_fusions": _NO_TRITON | _NO_NORMS,
    "triton_norms": _NO_FUSION_TUNING | _NO_TRITON,
    "grouped": _NO_FUSION_TUNING | _NO_TRITON | _NO_NORMS | {"form": "grouped"},
    "autotune_0": {"xla_gpu_autotune_level": 0},
}
"""Compiler options, the form of depthwise convolutions, and fields of the configuration."""

_OWN = ("form", "scan_blocks")


def configured(
    name: str, which: Pass, dtype: Dtype, setting: str, smoke: bool = False
) -> tuple[dict[str, Any], Form | None, Any]:
    """Compiler options, form of depthwise convolutions and configuration under a setting."""
    found = SETTINGS[setting]
    cfg = NETWORKS[name].config(which, dtype, smoke)
    loops = (
        {"scan_blocks": found.get("scan_blocks", cfg.scan_blocks)}
        if hasattr(cfg, "scan_blocks")
        else {}
    )
    options = {key: value for key, value in found.items() if key not in _OWN}
    return options, found.get("form"), dataclasses.replace(cfg, **loops)


def compiling(record: Record, name: str, dtype: Dtype, setting: str, smoke: bool) -> None:
    """A training step under one setting: how long it compiles, and how fast it is then."""
    chosen, (options, form, cfg) = NETWORKS[name], configured(name, "step", dtype, setting, smoke)
    row = f"{name} {dtype} {setting}"

    def run() -> None:
        with depthwise(form):
            arrays = jax.device_put(chosen.arrays("step", smoke))
            step, weights = program(name, "step", cfg), networks.params(chosen, cfg)
            call = compiled(record, row, step, weights, *arrays, options=options)
        time_it(record, row, call)

    record.attempt(row, run)


def monte_carlo(record: Record, smoke: bool) -> None:
    """Replications of the partially linear model per second, in float64."""
    from benchmarks import estimators
    from jaxcore.estimators.nuisance import Logistic, Ridge

    count, n = (20, 200) if smoke else (1000, 1000)
    data, ids = estimators.simulated(count, n), estimators.folds_of(n)
    learners = Ridge(alpha=0.0), Logistic(alpha=0.0, max_steps=50)
    fit = estimators.our_fit("plr", estimators.FOLDS, *learners)
    for at_once in (count // 10, count):
        row = f"{at_once} replications at once"
        with jax.enable_x64(True):
            args = [jnp.asarray(a) for a in data]
            call = compiled(record, row, estimators.replications(fit, ids, at_once, 1), *args)
            time_it(record, row, call, n=n, replications=count)
        record.add(row, replications_s=round(1e3 * count / record.found[row]["ms"], 1))
