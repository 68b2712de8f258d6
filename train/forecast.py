"""What a long run takes, said before its program is compiled, which can take minutes by itself."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.memory import free_memory, peak_bytes
from jaxcore.work import work_of

LONG = 3600  # seconds of a run that is announced
_SIDE = 1024  # of the matrices that are multiplied to see what a processor does per second
_SLOW = 1e10  # operations per second that any processor exceeds


def forecast(step: Callable[..., Any], args: tuple[Any, ...], steps: int) -> str:
    """Memory of a step and the least time of a run, in one sentence; empty for a small one.

    The step is traced, which its first call does not do again, and not compiled. A processor takes
    at least as long as for matrix products alone; other devices are not asked, because there the
    first steps tell soon.

    Args:
      step: what `jax.jit` gives, not called yet.
      args: state, batch and frozen arrays, on one device.
      steps: of the run that are left.
    """
    parts = []
    seconds = _least_seconds(steps * work_of(_traced(step, args)).flops)
    if seconds >= LONG:
        parts.append(f"{steps:,} steps take at least {days(seconds)} on this processor")
    needed, free = step_bytes(step, args), free_memory()
    short = free is not None and needed - _held(args) > free
    if parts or short:
        there = "" if free is None else f", and {free / 1e9:.1f} GB are free"
        parts.append(f"a step takes about {needed / 1e9:.1f} GB of memory{there}")
    if not parts:
        return ""
    advice = "fewer rows or smaller crops take less" if short else "--dry-run measures both"
    return f"{'; '.join(parts)}: {advice}, and `jaxcore train --help` names recipes for a CPU."


def step_bytes(step: Callable[..., Any], args: tuple[Any, ...]) -> int:
    """About how many bytes a step takes: its arguments and what it computes from them.

    Args:
      step: what `jax.jit` gives; it is traced, not compiled.
      args: state, batch and frozen arrays.
    """
    return _held(args) + peak_bytes(_traced(step, args))


def _held(args: tuple[Any, ...]) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(args))


def _traced(step: Any, args: tuple[Any, ...]) -> Any:
    return step.trace(*args).jaxpr.jaxpr


def _least_seconds(operations: float) -> float:
    """Of a processor, from what it does per second in products of matrices; 0 of other devices."""
    if jax.default_backend() != "cpu" or operations < LONG * _SLOW:
        return 0.0
    a = jnp.asarray(np.random.default_rng(0).normal(size=(_SIDE, _SIDE)), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    took = []
    for _ in range(3):
        began = time.perf_counter()
        product(a, a).block_until_ready()
        took.append(time.perf_counter() - began)
    return operations * min(took) / (2 * _SIDE**3)


def days(seconds: float) -> str:
    """Roughly how long.

    >>> days(5400), days(200_000)
    ('1.5 hours', '2.3 days')
    """
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"
