"""Start several processes as one JAX program; nothing happens for a single process."""

import os

import jax

from jaxcore.errors import UserError

# Set these three to start by hand; clusters that JAX knows (TPU pods, SLURM, Open MPI, GKE) need
# only JAXCORE_DISTRIBUTED=auto.
COORDINATOR = "JAXCORE_COORDINATOR"  # host:port of process 0
PROCESSES = "JAXCORE_NUM_PROCESSES"
PROCESS = "JAXCORE_PROCESS_ID"
AUTO = "JAXCORE_DISTRIBUTED"


def _integer(name: str, low: int) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal() or int(text) < low:
        raise UserError(f"{name} must be an integer of at least {low}, found {text!r}.")
    return int(text)


def initialise() -> bool:
    """Join the other processes of this run; call it before anything touches a device.

    With ``JAXCORE_COORDINATOR`` set, ``JAXCORE_NUM_PROCESSES`` and ``JAXCORE_PROCESS_ID`` say who
    we are; with ``JAXCORE_DISTRIBUTED=auto`` JAX asks the cluster; with neither this is a single
    process. A second call does nothing.

    Returns:
      True when this process is one of several.

    Raises:
      UserError: a variable is missing or not a number.

    >>> initialise()
    False
    """
    if jax.distributed.is_initialized():
        return jax.process_count() > 1
    coordinator = os.environ.get(COORDINATOR)
    if coordinator:
        count = _integer(PROCESSES, 1)
        index = _integer(PROCESS, 0)
        if index >= count:
            raise UserError(f"{PROCESS} must be below {PROCESSES}={count}, found {index}.")
        jax.distributed.initialize(coordinator, num_processes=count, process_id=index)
    elif os.environ.get(AUTO) == "auto":
        jax.distributed.initialize()
    else:
        return False
    return jax.process_count() > 1
