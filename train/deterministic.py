"""The same run twice on a GPU, to the last bit; slower.

On a CPU and on a TPU the same run on the same devices gives the same numbers as it is. On a GPU
the fastest kernels add up in an order that changes, and the compiler chooses among kernels by
timing them. A flag of XLA, which is read when JAX first touches the devices, leaves both out, and
refuses what cannot be computed in a fixed order. In no case are the last bits the same on another
kind or number of devices, or with other versions of JAX and of the drivers.
"""

import os

import jax

from jaxcore.errors import UserError

FLAG = "--xla_gpu_deterministic_ops=true"


def ask_for_determinism() -> None:
    """Set the flag in the environment of this process, before JAX touches the devices."""
    words = os.environ.get("XLA_FLAGS", "").split()
    if FLAG not in words:
        os.environ["XLA_FLAGS"] = " ".join([*words, FLAG])


def check_determinism() -> None:
    """See that a run on a GPU was asked to be repeatable in time.

    Raises:
      UserError: this process has a GPU, and its environment has not the flag.
    """
    if FLAG not in os.environ.get("XLA_FLAGS", "").split() and jax.default_backend() == "gpu":
        raise UserError(
            f"Expected {FLAG} in XLA_FLAGS before JAX starts, which a deterministic run on a GPU "
            "needs, found an environment without it."
        )
