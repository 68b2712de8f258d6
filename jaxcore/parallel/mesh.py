"""Device meshes with the axes dcn, data, fsdp, tensor, and where states and batches lie on them."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcore.errors import UserError

DCN_AXIS = "dcn"
DATA_AXIS = "data"
FSDP_AXIS = "fsdp"
TENSOR_AXIS = "tensor"
_AXES = (DCN_AXIS, DATA_AXIS, FSDP_AXIS, TENSOR_AXIS)
_ROW_AXES = (DCN_AXIS, DATA_AXIS, FSDP_AXIS)
# A leaf smaller than this stays whole on every device: gathering it would cost more than it saves.
_MIN_SHARDED_SIZE = 2**14


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    devices: Sequence[Any] | None = None,
    *,
    dcn: int = 1,
) -> Mesh:
    """A mesh with axes ``("dcn", "data", "fsdp", "tensor")`` of type Auto (the compiler shards).

    Args:
      data: devices over which rows are split and parameters copied; -1 takes what is left.
      fsdp: devices over which rows and parameters are split.
      tensor: devices over which single matrices are split.
      devices: default all devices of all processes.
      dcn: slices (of a multi-slice pod) over which rows are split and parameters copied, so that
        only gradients pass through the network between them. Devices are arranged by the slice they
        belong to; where they know of none, in their order.

    Raises:
      UserError: the sizes do not multiply to the number of devices, or do not fit their slices.

    >>> import jax
    >>> make_mesh(devices=jax.devices()[:1]).shape["data"]
    1
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [dcn, data, fsdp, tensor]
    asked = f"dcn={dcn}, data={data}, fsdp={fsdp}, tensor={tensor}"
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"Mesh axes must be positive, with at most one -1: found {asked}.")
    known = int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if int(np.prod(sizes)) != len(devices):
        raise UserError(f"The mesh {asked} does not fit {len(devices)} device(s).")
    types = (AxisType.Auto,) * len(_AXES)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if dcn == 1 or slices == 1:
        return jax.make_mesh(tuple(sizes), _AXES, axis_types=types, devices=devices)
    dcn, data, fsdp, tensor = sizes
    each = slices // dcn  # slices in a part of the axis dcn; the axis data runs over them too
    if slices % dcn or data % each:
        raise UserError(f"The mesh {asked} does not fit devices in {slices} slices.")
    arranged = mesh_utils.create_hybrid_device_mesh(
        (1, data // each, fsdp, tensor), (dcn, each, 1, 1), devices
    )
    return Mesh(arranged, _AXES, axis_types=types)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows split over dcn, data and fsdp together."""
    return NamedSharding(mesh, PartitionSpec(_ROW_AXES))


def row_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return int(np.prod([mesh.shape[axis] for axis in _ROW_AXES]))


def put_batch(batch: Any, mesh: Mesh | None) -> Any:
    """Move a batch of host arrays to the devices.

    Args:
      batch: tree of arrays with a leading row axis: on the host (with several processes, the rows
        of this one), or on the devices already.
      mesh: None leaves the batch on the default device.

    Raises:
      UserError: the rows do not divide over the mesh.
    """
    if mesh is None:
        return jax.device_put(batch)
    sharding = batch_sharding(mesh)
    shards = row_shards(mesh)

    def put(x: Any) -> jax.Array:
        alone = jax.process_count() == 1
        placed = isinstance(x, jax.Array) and (alone or not x.is_fully_addressable)
        x = x if placed else np.asarray(x)
        rows = x.shape[0] if placed else x.shape[0] * jax.process_count()
        if rows % shards:
            raise UserError(f"A batch of {rows} rows does not divide over {shards} devices.")
        if placed:
            return jax.device_put(x, sharding)
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(put, batch)


def leaf_spec(shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """The fsdp rule: a big leaf is split along its longest axis that divides.

    >>> import jax
    >>> leaf_spec((256, 512), make_mesh(devices=jax.devices()[:1]))  # one device: nothing to split
    P()
    """
    parts = mesh.shape[FSDP_AXIS]
    if parts == 1 or int(np.prod(shape)) < _MIN_SHARDED_SIZE:
        return PartitionSpec()
    divisible = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if not divisible:
        return PartitionSpec()
    longest = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*(FSDP_AXIS if axis == longest else None for axis in range(longest + 1)))


def state_shardings(tree: Any, mesh: Mesh, rules: Iterable[tuple[str, PartitionSpec]] = ()) -> Any:
    """A sharding for every leaf of a state or parameter tree.

    Args:
      tree: arrays or ``jax.ShapeDtypeStruct``.
      mesh: where the tree shall live.
      rules: ``(regular expression, spec)``: the first one found in the path of a leaf, such as
        ``"params/encoder/kernel"``, decides; otherwise `leaf_spec` does. The moments of an
        optimiser have the path of their parameter in their own, and so follow it.

    >>> import jax
    >>> mesh = make_mesh(devices=jax.devices()[:1])
    >>> state_shardings({"w": jax.numpy.ones(3)}, mesh)["w"].spec
    P()
    """
    rules = tuple(rules)

    def choose(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, spec in rules:
            if re.search(pattern, name):
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, leaf_spec(leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(choose, tree)
