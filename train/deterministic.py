"""Bit for bit the same run twice on a GPU, at the price of speed.

On a CPU and on a TPU a run is repeated exactly as it is. On a GPU the fastest kernels of sums and
convolutions add up in an order that changes, and the compiler chooses among kernels by timing them;
a flag of XLA leaves both out. It is read once, when JAX first touches the devices. Another number
or kind of devices, another version of JAX, and another order of the data give other last bits
everywhere.
"""

import os

import jax

from jaxcore.errors import UserError

FLAGS = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")


def ask_for_determinism() -> None:
    """Set the flags in the environment of this process, before JAX touches the devices."""
    words = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join([*words, *(flag for flag in FLAGS if flag not in words)])


def check_determinism() -> None:
    """See that a run on a GPU was asked to be repeatable in time.

    Raises:
      UserError: this process has a GPU and its environment has not the flags.
    """
    missing = [flag for flag in FLAGS if flag not in os.environ.get("XLA_FLAGS", "").split()]
    if missing and jax.default_backend() == "gpu":
        raise UserError(
            f"Expected XLA_FLAGS={' '.join(FLAGS)!r} in the environment before JAX starts, which "
            "a deterministic run on a GPU needs, found it without."
        )
