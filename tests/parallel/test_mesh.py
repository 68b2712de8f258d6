import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxcore import parallel
from jaxcore.errors import UserError
from jaxcore.parallel import make_mesh


def test_axes_and_types():
    mesh = make_mesh(fsdp=2)
    assert dict(mesh.shape) == {"dcn": 1, "data": 1, "fsdp": 2, "tensor": 1}
    assert mesh.axis_types == (AxisType.Auto,) * 4
    assert dict(make_mesh(devices=jax.devices()[:1]).shape)["data"] == 1


@pytest.mark.parametrize("axes", [{"data": 3}, {"dcn": 3}, {"data": 0}, {"data": -1, "fsdp": -1}])
def test_sizes_that_do_not_fit_are_refused(axes):
    with pytest.raises(UserError, match=r"does not fit 2 device|must be positive"):
        make_mesh(**axes)


@dataclasses.dataclass(frozen=True)
class _Chip:
    """What a mesh asks of a device."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "gpu"
    device_kind: str = "chip"


def test_devices_are_arranged_by_their_slice():
    chips = [_Chip(id=i, slice_index=i % 2) for i in range(8)]
    mesh = make_mesh(dcn=2, fsdp=2, devices=chips)
    assert dict(mesh.shape) == {"dcn": 2, "data": 2, "fsdp": 2, "tensor": 1}
    assert [{chip.slice_index for chip in part.flat} for part in mesh.devices] == [{0}, {1}]
    chips = [_Chip(id=i, slice_index=i % 4) for i in range(8)]
    mesh = make_mesh(dcn=2, devices=chips)
    assert [{chip.slice_index for chip in part.flat} for part in mesh.devices] == [{0, 1}, {2, 3}]
    with pytest.raises(UserError, match=r"dcn=8.* does not fit devices in 4 slices"):
        make_mesh(dcn=8, devices=chips)


def test_parameters_are_copied_to_every_slice():
    mesh = make_mesh(dcn=2)
    places = parallel.state_shardings({"w": jnp.ones((128, 256))}, mesh)
    assert places["w"].spec == PartitionSpec()
    rows = parallel.put_batch(np.zeros((4, 2), np.float32), mesh)
    assert [s.data.shape for s in rows.addressable_shards] == [(2, 2), (2, 2)]


def test_rows_are_split_over_data_and_fsdp_together():
    mesh = make_mesh(fsdp=2)
    batch = parallel.put_batch({"x": np.arange(8.0, dtype=np.float32).reshape(4, 2)}, mesh)
    assert [s.data.shape for s in batch["x"].addressable_shards] == [(2, 2), (2, 2)]
    assert parallel.row_shards(mesh) == 2
    with pytest.raises(UserError, match="3 rows does not divide over 2"):
        parallel.put_batch(np.zeros((3, 1), np.float32), mesh)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((128, 512), PartitionSpec(None, "fsdp")),
        ((512, 128), PartitionSpec("fsdp")),
        ((3, 3, 64, 64), PartitionSpec(None, None, "fsdp")),
        ((4, 4), PartitionSpec()),  # small
        ((129, 129), PartitionSpec()),  # does not divide
        ((), PartitionSpec()),
    ],
)
def test_the_longest_axis_that_divides_is_split(shape, spec):
    assert parallel.leaf_spec(shape, make_mesh(fsdp=2)) == spec
    assert parallel.leaf_spec(shape, make_mesh(data=2)) == PartitionSpec()


def test_rules_come_first_and_reach_the_optimiser_state():
    mesh = make_mesh(tensor=2)
    tree = {
        "params": {"a": {"kernel": jnp.ones((4, 4))}},
        "opt": {"mu": {"a": {"kernel": jnp.ones((4, 4))}}},
    }
    found = parallel.state_shardings(tree, mesh, [("a/kernel$", PartitionSpec(None, "tensor"))])
    assert [s.spec for s in jax.tree.leaves(found)] == [PartitionSpec(None, "tensor")] * 2


def test_eight_devices_in_two_slices_train_as_one_device_does():
    script = Path(__file__).with_name("slices.py")
    env = {
        **os.environ,
        "PYTHONPATH": str(script.parents[2]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
    }
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "EQUAL", done.stderr[-3000:]
