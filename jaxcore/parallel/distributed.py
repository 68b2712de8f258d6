"""Start several processes as one JAX program; nothing happens for a single process."""

import os

import jax

from jaxcore.errors import UserError
from jaxcore.parallel import watch

# Set these three to start by hand; clusters that JAX knows (TPU pods, SLURM, Open MPI, GKE) need
# only JAXCORE_DISTRIBUTED=auto.
COORDINATOR = "JAXCORE_COORDINATOR"  # host:port of process 0
PROCESSES = "JAXCORE_NUM_PROCESSES"
PROCESS = "JAXCORE_PROCESS_ID"
AUTO = "JAXCORE_DISTRIBUTED"
# Seconds. `jaxcore.parallel.watch` is the one to notice who is gone; JAX, which cannot tell a dead
# process from one that is paused, gets a long time.
_HEARTBEAT = 900


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

    From then on a process that is gone, whatever it died of, ends the others within seconds, with
    a sentence and the exit code `jaxcore.parallel.EXIT_PROCESS_GONE`; so does an exception that
    nobody catches in one of them.

    Returns:
      True when this process is one of several.

    Raises:
      UserError: a variable is missing or not a number, or the others have not come in time.

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
    elif os.environ.get(AUTO) == "auto":
        coordinator, count, index = _ask_the_cluster()
    else:
        return False
    where = watch.start(coordinator, index, count)
    jax.distributed.initialize(
        where,
        num_processes=count,
        process_id=index,
        coordinator_bind_address=watch.service_address(coordinator, where) if index == 0 else None,
        heartbeat_timeout_seconds=_HEARTBEAT,
    )
    return jax.process_count() > 1


def _ask_the_cluster() -> tuple[str, int, int]:
    """Address of the first process, number of processes and our own, from what JAX knows."""
    from jax._src.clusters import ClusterEnv  # no public way; `jax.distributed` does the same

    address, count, index, _ = ClusterEnv.auto_detect_unset_distributed_params(
        os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, 300
    )
    if address is None or count is None or index is None:
        raise UserError(
            f"Expected a cluster that JAX knows for {AUTO}=auto, found none: set {COORDINATOR}, "
            f"{PROCESSES} and {PROCESS}."
        )
    return address, count, index
