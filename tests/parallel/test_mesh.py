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
    assert dict(mesh.shape) == {"data": 1, "fsdp": 2, "tensor": 1}
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert dict(make_mesh(devices=jax.devices()[:1]).shape)["data"] == 1


@pytest.mark.parametrize("axes", [{"data": 3}, {"fsdp": 4}, {"data": 0}, {"data": -1, "fsdp": -1}])
def test_sizes_that_do_not_fit_are_refused(axes):
    with pytest.raises(UserError, match=r"does not fit 2 device|must be positive"):
        make_mesh(**axes)


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
