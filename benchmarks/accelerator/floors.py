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
from typing import Any, NamedTuple

import jax
import numpy as np


class Work(NamedTuple):
    """Bytes of maps, each counted once, and operations."""

    maps: float = 0
    flops: float = 0

    def plus(self, other: "Work", times: int = 1) -> "Work":
        """Sum, with the other one done several times."""
        return Work(self.maps + times * other.maps, self.flops + times * other.flops)


def forward(fn: Callable[..., Any], *args: Any) -> dict[str, float]:
    """Floors of one call: ``gbytes`` and ``tflop``."""
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    work = _work(closed.jaxpr)
    return _facts(_size(args) + _size(out) + 2 * work.maps, work.flops)


def step(loss: Callable[..., Any], *args: Any) -> dict[str, float]:
    """Floors of the loss and its gradients by the first argument."""
    once = _work(jax.make_jaxpr(loss)(*args).jaxpr)
    closed, out = jax.make_jaxpr(jax.value_and_grad(loss), return_shape=True)(*args)
    work = _work(closed.jaxpr)
    total = _size(args) + _size(args[0]) + _size(out) + 2 * work.maps + once.maps
    return _facts(total, work.flops)


def _facts(size: float, flops: float) -> dict[str, float]:
    return {"gbytes": float(f"{size / 1e9:.5g}"), "tflop": float(f"{flops / 1e12:.5g}")}


def _size(tree: Any) -> float:
    return float(
        sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in jax.tree.leaves(tree))
    )


def _work(jaxpr: Any) -> Work:
    """Of every product and convolution inside, loops as often as they run."""
    total = Work()
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            (over, _), _ = eqn.params["dimension_numbers"]
            out = eqn.outvars[0].aval
            inner = math.prod(eqn.invars[0].aval.shape[i] for i in over)
            total = total.plus(Work(_size(out), 2 * math.prod(out.shape) * inner))
        elif name == "conv_general_dilated":
            out = eqn.outvars[0].aval
            kernel, numbers = eqn.invars[1].aval, eqn.params["dimension_numbers"]
            taps = math.prod(kernel.shape) // kernel.shape[numbers.rhs_spec[0]]
            taps /= math.prod(eqn.params["lhs_dilation"])  # zeros between pixels
            total = total.plus(Work(_size(out), 2 * math.prod(out.shape) * taps))
        elif name == "cond":  # the last branch is that of a device without a form of its own
            total = total.plus(_work(eqn.params["branches"][-1].jaxpr))
        else:
            times = eqn.params["length"] if name == "scan" else 1
            for inner in _inside(eqn):
                total = total.plus(_work(inner), times)
    return total


def _inside(eqn: Any) -> list[Any]:
    """Programs a call holds; of functions with written gradients the value alone."""
    found = []
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr", "body_jaxpr"):
        value = eqn.params.get(key)
        if value is not None:
            found.append(getattr(value, "jaxpr", value))
    return found
