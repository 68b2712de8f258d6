"""The least a network must do: bytes through the card's memory, and floating-point operations.

Counted on the traced program. The rule: the result of every matrix product and convolution
(depthwise ones included) is a map that is written once and read once, at its own type; everything
between them, norms, activations, gates, sums, shuffles, costs nothing, as if fused into them;
inputs and parameters are read once and results written once. In a training step the maps of the
forward pass are read once more by the backward pass. It is a floor for programs that compute one
product after another; a kernel that chains two products without writing between them could go
below it.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcore.work import work_of


def forward(fn: Callable[..., Any], *args: Any) -> dict[str, float]:
    """Floors of one call: ``gbytes`` and ``tflop``."""
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    work = work_of(closed.jaxpr)
    return _facts(_size(args) + _size(out) + 2 * work.maps, work.flops)


def step(loss: Callable[..., Any], *args: Any) -> dict[str, float]:
    """Floors of the loss and its gradients by the first argument."""
    once = work_of(jax.make_jaxpr(loss)(*args).jaxpr)
    closed, out = jax.make_jaxpr(jax.value_and_grad(loss), return_shape=True)(*args)
    work = work_of(closed.jaxpr)
    total = _size(args) + _size(args[0]) + _size(out) + 2 * work.maps + once.maps
    return _facts(total, work.flops)


def _facts(size: float, flops: float) -> dict[str, float]:
    return {"gbytes": float(f"{size / 1e9:.5g}"), "tflop": float(f"{flops / 1e12:.5g}")}


def _size(tree: Any) -> float:
    return float(
        sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in jax.tree.leaves(tree))
    )
