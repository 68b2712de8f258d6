"""Weights are read when and where they are needed, and no more of them."""

import contextlib
import json
import tracemalloc

import jax
import numpy as np
import pytest

from jaxcore.convert import (
    LINEAR,
    LazyTensor,
    Rule,
    from_state_dict,
    lazy_state_dict,
    read_state_dict,
    write_safetensors,
    write_torch,
)
from jaxcore.errors import UserError

pytestmark = pytest.mark.newest

RULES = [Rule(r"(layer\d+)", r"\1.weight", LINEAR), Rule("stack", "stack.{i}.w", stacked=True)]
WRITERS = [write_safetensors, write_torch]


def weights(layers=4, size=64):
    rng = np.random.default_rng(0)
    names = [f"layer{i}.weight" for i in range(layers)] + [f"stack.{i}.w" for i in range(3)]
    return {name: rng.standard_normal((size, size)).astype("f4") for name in names}


def target_of(tensors, sharding=None):
    shape = tensors["layer0.weight"].shape
    layers = sum(key.startswith("layer") for key in tensors)
    tree = {
        f"layer{i}": jax.ShapeDtypeStruct(shape, "f4", sharding=sharding) for i in range(layers)
    }
    return tree | {"stack": jax.ShapeDtypeStruct((3, *shape), "f4", sharding=sharding)}


def counted(value, log):
    """A tensor that tells when it is read."""
    return LazyTensor(value.shape, value.dtype, lambda: log.append(value.shape) or value)


@contextlib.contextmanager
def passing_memory():
    """Bytes that were in use at one time, without those that stay (a device may keep an array)."""
    found = []
    tracemalloc.start()
    yield found
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found.append(peak - now)


def half(axis):
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec(*[None] * axis, "x")
    return jax.sharding.NamedSharding(mesh, spec)


@pytest.mark.parametrize("writer", WRITERS)
def test_opening_a_file_reads_no_values(tmp_path, writer):
    writer(tmp_path / "w", weights(size=512))
    tracemalloc.start()
    tensors = read_state_dict(tmp_path / "w").tensors
    known = {(tensor.shape, tensor.dtype.name, tensor.nbytes) for tensor in tensors.values()}
    assert tracemalloc.get_traced_memory()[1] < 512 * 512 * 4
    row = tensors["layer1.weight"][3]
    assert tracemalloc.get_traced_memory()[1] < 512 * 512 * 4
    tracemalloc.stop()
    assert known == {((512, 512), "float32", 2**20)}
    np.testing.assert_array_equal(row, weights(size=512)["layer1.weight"][3])


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("size", [256, pytest.param(2700, marks=pytest.mark.slow)])  # 200 MB
def test_conversion_takes_memory_for_one_leaf_at_a_time(tmp_path, writer, size):
    writer(tmp_path / "w", weights(size=size))
    leaf = 3 * size * size * 4  # that of the stack, the largest
    tensors = read_state_dict(tmp_path / "w").tensors
    with passing_memory() as reading:
        params = from_state_dict(tensors, RULES, target_of(tensors))
    with passing_memory() as writing:
        writer(tmp_path / "again", lazy_state_dict(params, RULES))
    assert reading[0] < 1.1 * leaf + 2**20
    assert writing[0] < 1.1 * size * size * 4 + 2**20
    again = read_state_dict(tmp_path / "again").tensors
    assert all((again[key].read() == tensors[key].read()).all() for key in tensors)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_sharded_leaf_is_read_shard_by_shard(tmp_path, axis):
    expected = weights()
    write_safetensors(tmp_path / "w", expected)
    tensors = read_state_dict(tmp_path / "w").tensors
    sharding = half(axis)
    target = {"layer0": jax.ShapeDtypeStruct((64, 64), "f4", sharding=sharding)}
    params = from_state_dict({"layer0.weight": tensors["layer0.weight"]}, RULES, target)
    assert params["layer0"].sharding == sharding
    np.testing.assert_array_equal(params["layer0"], expected["layer0.weight"].T)


def test_shards_take_memory_one_at_a_time(tmp_path):
    write_safetensors(tmp_path / "w", {"stack.0.w": np.ones((1024, 1024), "f4")})
    tensors = read_state_dict(tmp_path / "w").tensors
    target = {"stack": jax.ShapeDtypeStruct((1, 1024, 1024), "f4", sharding=half(2))}
    seen = []
    for _ in range(8):  # now and then a device lets go of the first shard only after the second
        with passing_memory() as reading:
            kept = from_state_dict(tensors, RULES, target)
        seen += reading
        del kept
    assert min(seen) < 0.6 * tensors["stack.0.w"].nbytes


def test_layers_of_other_devices_are_not_touched():
    log = []
    layers = {f"stack.{i}.w": counted(np.full((2, 2), i, "f4"), log) for i in range(4)}
    target = {"stack": jax.ShapeDtypeStruct((4, 2, 2), "f4", sharding=half(0))}
    params = from_state_dict(layers, RULES, target)
    assert len(log) == 4  # each layer once, by the device that has it
    assert [shard.data.shape for shard in params["stack"].addressable_shards] == [(2, 2, 2)] * 2
    np.testing.assert_array_equal(params["stack"][:, 0, 0], range(4))


def test_replicas_are_read_once():
    log = []
    mesh = half(0).mesh
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    target = {"layer0": jax.ShapeDtypeStruct((2, 3), "f4", sharding=everywhere)}
    value = np.arange(6, dtype="f4").reshape(3, 2)
    params = from_state_dict({"layer0.weight": counted(value, log)}, RULES, target)
    assert len(log) == 1 and len(params["layer0"].addressable_shards) == 2
    np.testing.assert_array_equal(params["layer0"], value.T)


def test_weights_that_do_not_fit_are_refused_unread():
    log = []
    tensors = {key: counted(value, log) for key, value in weights().items()}
    with pytest.raises(UserError, match=r"6 of 7 keys match, 1 missing: layer0\.weight, 1 unexp"):
        from_state_dict(
            {("x" if key == "layer0.weight" else key): value for key, value in tensors.items()},
            RULES,
            target_of(tensors),
        )
    assert log == []


def test_damage_is_found_by_the_reader_of_the_value(tmp_path):
    path = tmp_path / "w.pth"
    write_torch(path, {"a": np.ones(64, "f4"), "b": np.full(64, 7, "f4")})
    content = bytearray(path.read_bytes())
    content[content.index(np.full(64, 7, "f4").tobytes()) + 5] ^= 1
    path.write_bytes(content)
    tensors = read_state_dict(path).tensors
    assert tensors["a"].read().all()
    for _ in range(2):
        with pytest.raises(UserError, match=r"w\.pth was refused: the storage '1' is damaged"):
            tensors["b"].read()


def test_a_file_that_is_replaced_can_still_be_read(tmp_path):
    path = tmp_path / "w"
    write_safetensors(path, {"a": np.ones(3)})
    tensor = read_state_dict(path).tensors["a"]
    write_safetensors(path, {"a": tensor[...] * 2}, overwrite=True)
    assert tensor.read().tolist() == [1, 1, 1]
    assert read_state_dict(path).tensors["a"].read().tolist() == [2, 2, 2]


def write_shards(folder, ending=".safetensors", **changes):
    """Two files and their index, as Hugging Face's libraries write them."""
    parts = {f"model-1-of-2{ending}": {"a": 1.0, "b": 2.0}, f"model-2-of-2{ending}": {"c": 3.0}}
    writer = write_safetensors if ending == ".safetensors" else write_torch
    for name, values in parts.items():
        writer(folder / name, {key: np.full(2, value, "f4") for key, value in values.items()})
    shards = {key: name for name, values in parts.items() for key in values} | changes
    index = folder / f"model{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 24}, "weight_map": shards}))
    return index


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_shards_are_one_set_of_weights(tmp_path, ending):
    index = write_shards(tmp_path, ending)
    for path in (index, tmp_path):
        state = read_state_dict(path)
        assert {key: float(value[0]) for key, value in state.tensors.items()} == dict(a=1, b=2, c=3)
    assert read_state_dict(index, prefix="a").tensors.keys() == {""}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d": "model-3-of-2.safetensors"}, "3 shards, 1 of them missing: model-3-of-2"),
        ({"d": "model-2-of-2.safetensors"}, "4 tensors, 1 of them not in its shard: d"),
        ({"d": "../../etc/passwd"}, "outside its folder"),
        ({"d": "/etc/passwd"}, "outside its folder"),
        ({"d": "model.safetensors.index.json"}, "outside its folder"),
        ({"d": 3}, "1 of them missing: 3"),
    ],
)
def test_an_index_that_does_not_fit_its_shards(tmp_path, changes, message):
    index = write_shards(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        read_state_dict(index)


def test_a_folder_with_several_files_is_ambiguous(tmp_path):
    write_shards(tmp_path).unlink()
    with pytest.raises(UserError, match="2 files of weights without index: model-1-of-2"):
        read_state_dict(tmp_path)
    (tmp_path / "model-2-of-2.safetensors").unlink()
    assert read_state_dict(tmp_path).tensors.keys() == {"a", "b"}


def test_a_damaged_shard_is_named(tmp_path):
    index = write_shards(tmp_path)
    (tmp_path / "model-2-of-2.safetensors").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"model-2-of-2\.safetensors is not .* a web page"):
        read_state_dict(index)
