import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.atomic import write_json
from jaxcore.errors import UserError
from jaxcore.parallel import make_mesh, state_shardings
from jaxcore.train import (
    Checkpointer,
    OptimConfig,
    create_state,
    load_params,
    make_optimiser,
)
from jaxcore.train.checksums import checksums, verify
from jaxcore.train.steps import clear_left_overs, complete_steps

_TX = make_optimiser(OptimConfig(clip_norm=1.0), 5, {"a": True, "frozen": False})


def _state(step=3, value=1.0):
    params = {"a": jnp.full((256, 128), value), "frozen": jnp.ones((2,), jnp.bfloat16)}
    done = jnp.arange(4) < 2
    state = create_state(
        params, _TX, key=jax.random.key(7), ema=True, collections={"replications": done}
    )
    return dataclasses.replace(state, step=jnp.array(step, jnp.int32))


def _abstract(state, shardings=None):
    shardings = shardings or jax.tree.map(lambda x: x.sharding, state)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings
    )


def test_round_trip_of_everything_a_state_may_hold(tmp_path):
    state = _state()
    loop = {"next_index": 3}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(state, config={"a": 1}, data_iter=loop, metrics={"psnr": 30.5})
        checkpointer.wait()
        found, record = checkpointer.restore(_abstract(state))
    assert record["data_iter"] == loop and record["metrics"] == {"psnr": 30.5}
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert found.rng.dtype == state.rng.dtype  # a typed key
    assert float(jax.random.uniform(found.rng)) == float(jax.random.uniform(state.rng))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)


def test_an_average_in_half_precision_goes_on_in_single(tmp_path):
    state = _state()
    older = dataclasses.replace(
        state, ema_params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params)
    )
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(older, config={})
        checkpointer.wait()
        found, _ = checkpointer.restore(_abstract(state))
    assert found.ema_params is not None and found.ema_params["a"].dtype == jnp.float32
    np.testing.assert_array_equal(found.ema_params["a"], 1.0)


def test_restore_onto_other_meshes(tmp_path):
    state = _state()
    split = state_shardings(state, make_mesh(fsdp=2))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(jax.device_put(state, split), config={})
        checkpointer.wait()
        whole, _ = checkpointer.restore(_abstract(state))
        again, _ = checkpointer.restore(_abstract(state, split))
    np.testing.assert_array_equal(whole.params["a"], state.params["a"])
    assert len(whole.params["a"].sharding.device_set) == 1
    assert [s.data.shape for s in again.params["a"].addressable_shards] == [(128, 128)] * 2


def test_the_last_and_the_best_stay_even_over_a_restart(tmp_path):
    for step, score in ((1, 2.0), (2, 5.0), (3, float("nan")), (4, 3.0), (5, None)):
        with Checkpointer(tmp_path, keep_last=1, best_metric="psnr") as checkpointer:
            metrics = None if score is None else {"psnr": score}
            checkpointer.save(_state(step), config={}, metrics=metrics)
    assert complete_steps(tmp_path) == [2, 5]
    with Checkpointer(tmp_path, keep_last=1, best_metric="psnr") as checkpointer:
        assert checkpointer.best_step == 2
        assert checkpointer.is_better(5.5) and not checkpointer.is_better(4.0)
    with Checkpointer(tmp_path, best_metric="psnr", best_mode="min") as checkpointer:
        assert checkpointer.is_better(4.0)


def test_an_empty_folder_and_an_unknown_step(tmp_path):
    state = _state()
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(UserError, match=r"Expected a whole checkpoint in .*, found none"):
            checkpointer.restore(_abstract(state))


def test_the_saved_state_may_be_overwritten_at_once(tmp_path):
    """The save runs in the background while the next step takes the memory of the state."""
    step = jax.jit(
        lambda s: dataclasses.replace(s, params={**s.params, "a": s.params["a"] * 0.0}),
        donate_argnums=0,
    )
    state = _state(value=2.0)
    template = _abstract(state)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(state, config={})
        state = jax.block_until_ready(step(state))
        checkpointer.wait()
        found, _ = checkpointer.restore(template)
    assert float(state.params["a"].max()) == 0.0
    np.testing.assert_array_equal(found.params["a"], 2.0)


@pytest.mark.parametrize(
    "record", ["[1]", "[" * 100_000, '{"metrics": [1]}', '{"window": 3}', '{"crc32": "x"}']
)
def test_a_record_that_no_loop_has_written_counts_as_damage(tmp_path, record):
    state, warnings = _state(), []
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(state, config={})
        checkpointer.save(_state(4), config={})
        checkpointer.wait()
    (tmp_path / "4" / "loop" / "metadata").write_text(record)
    with Checkpointer(tmp_path, best_metric="psnr", warn=warnings.append) as checkpointer:
        found, _ = checkpointer.restore(_abstract(state))
    assert int(found.step) == 3 and len(warnings) == 1


def test_left_overs_of_a_broken_save_are_gone_when_the_folder_is_open(tmp_path, monkeypatch):
    half = tmp_path / "16.orbax-checkpoint-tmp-3"
    (half / "params").mkdir(parents=True)
    with Checkpointer(tmp_path):  # nobody waits for a thread
        assert not half.exists()
    half.mkdir()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    clear_left_overs(tmp_path)
    assert half.exists()  # one process tidies up for all


def test_parts_have_checksums_of_their_own_that_hold_on_any_mesh():
    state = _state()
    params = {**state.params, "a": jnp.arange(256 * 128.0).reshape(256, 128)}
    state = dataclasses.replace(state, params=params)
    split = state_shardings(state, make_mesh(fsdp=2))
    sums = checksums(jax.device_put(state.params, split.params))
    assert sums["a"].keys() == {"0:128,0:128", "128:256,0:128"} and isinstance(sums["frozen"], int)
    verify(state.params, sums)
    verify(jax.device_put(state.params, split.params), checksums(state.params))
    moved = {**state.params, "a": params["a"].at[200, 3].add(1.0)}
    for tree in (moved, jax.device_put(moved, split.params)):
        with pytest.raises(ValueError, match="the bytes of a have changed"):
            verify(tree, sums)


def test_parameters_are_read_onto_a_tree_of_shardings(tmp_path):
    state = _state()
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        checkpointer.save(state, config={})
    write_json(tmp_path / "config.json", {})
    places = state_shardings(state.params, make_mesh(fsdp=2))
    found = load_params(tmp_path, "last", ema=False, sharding=places)
    assert [s.data.shape for s in found["a"].addressable_shards] == [(128, 128)] * 2
    assert found["frozen"].sharding.is_fully_replicated
    with pytest.raises(UserError, match="Expected a sharding for every parameter"):
        load_params(tmp_path, "last", sharding={"a": places["a"]})


def test_checksums_notice_one_bit():
    tree = {"w": np.arange(5.0, dtype=np.float32), "key": jax.random.key(0)}
    stored = checksums(tree)
    verify(tree, stored)
    tree["w"][3] = np.nextafter(tree["w"][3], np.float32(9))
    with pytest.raises(ValueError, match="the bytes of w have changed"):
        verify(tree, stored)
