"""Many devices: meshes, starting several processes, and one way to compile a step."""

from jaxcore.parallel.compile import compile_step
from jaxcore.parallel.distributed import initialise
from jaxcore.parallel.mesh import (
    DATA_AXIS,
    DCN_AXIS,
    FSDP_AXIS,
    TENSOR_AXIS,
    batch_sharding,
    leaf_spec,
    make_mesh,
    put_batch,
    replicated,
    row_shards,
    state_shardings,
)
from jaxcore.parallel.share import dealt_back, local_copies, spread, together
from jaxcore.parallel.watch import EXIT_PROCESS_GONE, explained

__all__ = [
    "DATA_AXIS",
    "DCN_AXIS",
    "EXIT_PROCESS_GONE",
    "FSDP_AXIS",
    "TENSOR_AXIS",
    "batch_sharding",
    "compile_step",
    "dealt_back",
    "explained",
    "initialise",
    "leaf_spec",
    "local_copies",
    "make_mesh",
    "put_batch",
    "replicated",
    "row_shards",
    "spread",
    "state_shardings",
    "together",
]
