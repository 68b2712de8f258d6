"""A training step on meshes of eight devices, with and without slices, and on one device."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.parallel import compile_step, make_mesh, put_batch, state_shardings
from jaxcore.train import Loss, Mean, OptimConfig, create_state, make_optimiser, make_train_step

MESHES = {"alone": None, "flat": {}, "slices": {"dcn": 2}, "split": {"dcn": 2, "fsdp": 2}}


def loss(variables, batch, key, frozen):
    """A mean that the rows weigh differently, so that each device has another part of it."""
    hidden = jnp.tanh(batch["x"] @ variables["params"]["first"])
    error = (hidden @ variables["params"]["second"] - batch["y"]) ** 2
    return Loss(*Mean.of(error, jnp.broadcast_to(batch["weight"], error.shape)))


def trained(axes, optimiser):
    """Parameters after three steps."""
    mesh = None if axes is None else make_mesh(**axes)
    step = make_train_step(loss, optimiser, accum_steps=2)
    rng = np.random.default_rng(0)
    params = {"first": rng.normal(size=(16, 1024)), "second": rng.normal(size=(1024, 2)) / 32}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    state, places = create_state(params, optimiser, key=jax.random.key(0)), None
    if mesh is not None:
        places = state_shardings(state, mesh)
        state = jax.device_put(state, places)
    compiled = compile_step(step, mesh, state_sharding=places)
    for _ in range(3):
        batch = {"x": rng.normal(size=(16, 16)), "y": rng.normal(size=(16, 2))}
        batch["weight"] = rng.uniform(size=(16, 1))
        batch = {name: value.astype(np.float32) for name, value in batch.items()}
        state, _ = jax.block_until_ready(compiled(state, put_batch(batch, mesh), None))
    if axes and "fsdp" in axes:  # whole in each slice, half on each device of it
        (half,) = {shard.data.shape for shard in state.params["first"].addressable_shards}
        assert half == (16, 512)
    return state.params


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    assert jax.device_count() == 8
    tx = make_optimiser(OptimConfig(learning_rate=1e-2, clip_norm=0.1), 5)
    found = {name: jax.device_get(trained(axes, tx)) for name, axes in MESHES.items()}
    for name in MESHES:
        for one, other in zip(*map(jax.tree.leaves, (found[name], found["alone"])), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=3e-5, err_msg=name)
    print("EQUAL")
