"""Small networks by the kernels for GPUs against XLA's own convolutions, in full precision."""

import dataclasses
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator import networks
from benchmarks.accelerator.measure import Record
from benchmarks.accelerator.networks import NETWORKS
from benchmarks.accelerator.ours import depthwise
from jaxcore.compiling import compiler_options
from jaxcore.ops.depthwise import Form

SIZES: dict[str, dict[str, Any]] = {"adair": {"dim": 16}, "dea_net": {"base_dim": 8}}


def parity(record: Record) -> None:
    """How far values are apart, and gradients by the length of each tensor."""
    for name, sizes in SIZES.items():
        cfg = dataclasses.replace(NETWORKS[name].tiny, **sizes)
        with record.compiling(name):
            (a, by_a), (b, by_b) = _run(name, cfg, "kernel"), _run(name, cfg, "grouped")
        pairs = zip(jax.tree.leaves(by_a), jax.tree.leaves(by_b), strict=True)
        apart = max(_apart(p, q) for p, q in pairs)
        record.add(name, value_apart=float(np.abs(a - b).max()), gradients_apart=apart)


def _run(name: str, cfg: Any, form: Form) -> tuple[np.ndarray, Any]:
    """The images, and the gradients of a loss."""
    chosen, rng = NETWORKS[name], np.random.default_rng(0)
    x, y = (rng.uniform(size=(2, 64, 64, 3)).astype(np.float32) for _ in range(2))
    forward, step = networks.forward(chosen, cfg), jax.grad(networks.loss(chosen, cfg))
    with depthwise(form), jax.default_matmul_precision("highest"):
        both = jax.jit(
            lambda params: (forward(params, x), step(params, x, y)),
            compiler_options=compiler_options(),
        )
        images, slopes = both(networks.params(chosen, cfg))
    return np.asarray(images), jax.tree.map(np.asarray, slopes)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-12))
