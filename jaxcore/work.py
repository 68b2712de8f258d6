"""How much a function has to do, counted on its traced program: operations, and bytes of maps."""

import math
from typing import Any, NamedTuple

import numpy as np


class Work(NamedTuple):
    """Of matrix products and convolutions: bytes of their results, and operations."""

    maps: float = 0
    flops: float = 0

    def plus(self, other: "Work", times: int = 1) -> "Work":
        """Sum, with the other one done several times."""
        return Work(self.maps + times * other.maps, self.flops + times * other.flops)


def work_of(jaxpr: Any) -> Work:
    """Of every matrix product and convolution in a program, loops as often as they run.

    A ``while`` counts once, because how often it runs is not known before.

    Args:
      jaxpr: ``jax.make_jaxpr(function)(*args).jaxpr``.

    >>> import jax, jax.numpy as jnp
    >>> work_of(jax.make_jaxpr(jnp.matmul)(jnp.ones((2, 3)), jnp.ones((3, 4))).jaxpr)
    Work(maps=32.0, flops=48)
    """
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
            total = total.plus(work_of(eqn.params["branches"][-1].jaxpr))
        else:
            times = eqn.params["length"] if name == "scan" else 1
            for inner in _inside(eqn):
                total = total.plus(work_of(inner), times)
    return total


def _size(array: Any) -> float:
    return float(math.prod(array.shape) * np.dtype(array.dtype).itemsize)


def _inside(eqn: Any) -> list[Any]:
    """Programs a call holds; of functions with written gradients the value alone."""
    found = []
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr", "body_jaxpr"):
        value = eqn.params.get(key)
        if value is not None:
            found.append(getattr(value, "jaxpr", value))
    return found
