import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.parallel import DATA_AXIS, compile_step, make_mesh, put_batch, replicated
from jaxcore.train import (
    EMAConfig,
    Loss,
    Mean,
    OptimConfig,
    create_state,
    make_optimiser,
    make_train_step,
)

_TX = make_optimiser(OptimConfig(learning_rate=1e-2, clip_norm=0.1, weight_decay=0.1), 5)


def _loss(variables, batch, key, frozen):
    error = jnp.tanh(batch["x"] @ variables["params"]["w"]) - batch["y"]
    if frozen is not None:
        error = error - frozen
    return Loss(*Mean.of(error**2), metrics={"mae": Mean.of(jnp.abs(error))})


def _run(mode, mesh, accum_steps=1, poison=False, frozen=None):
    rng = np.random.default_rng(0)
    step = compile_step(
        make_train_step(
            _loss,
            _TX,
            accum_steps=accum_steps,
            ema=EMAConfig(decay=0.5),
            axis_name=None if mode == "jit" else DATA_AXIS,
        ),
        mesh,
        mode=mode,
    )
    params = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)}
    state = create_state(params, _TX, key=jax.random.key(0), ema=True)
    if mesh is not None:
        state = jax.device_put(state, replicated(mesh))
    metrics = {}
    for i in range(3):
        batch = {k: rng.normal(size=(8, n)).astype(np.float32) for k, n in (("x", 4), ("y", 3))}
        if poison and i == 1:
            batch["x"][-1, 0] = np.nan  # seen by one device only
        state, metrics = step(state, put_batch(batch, mesh), frozen)
        jax.block_until_ready(state)  # never many collectives in flight on fake devices
    return state, metrics


@pytest.mark.parametrize(("accum_steps", "shift"), [(1, None), (2, None), (2, 0.5)])
def test_both_modes_give_equal_results_on_two_devices(accum_steps, shift):
    frozen = None if shift is None else np.full((1, 3), shift, np.float32)
    alone, alone_metrics = _run("jit", None, accum_steps, frozen=frozen)
    for mode in ("jit", "pmap"):
        state, metrics = _run(mode, make_mesh(), accum_steps, frozen=frozen)
        for name in ("params", "opt_state", "ema_params"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
                getattr(state, name),
                getattr(alone, name),
            )
        for name, value in alone_metrics.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5)


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_bad_row_on_one_device_skips_the_update_on_all(mode):
    state, metrics = _run(mode, make_mesh(), poison=True)
    assert int(metrics["skipped"]) == 1
    assert [float(s.data) for s in state.skipped.addressable_shards] == [1.0, 1.0]
    assert np.all(np.isfinite(state.params["w"]))


def test_devices_draw_different_numbers_where_they_are_programmed_one_by_one():
    def loss(variables, batch, key, frozen):
        draw = jax.random.uniform(key)
        zero = variables["params"]["w"].sum() * 0.0
        return Loss(zero + draw, 1, metrics={"square": Mean(draw**2, 1)})

    step = make_train_step(loss, _TX, axis_name=DATA_AXIS)
    mesh = make_mesh()
    state = create_state({"w": jnp.ones(2)}, _TX, key=jax.random.key(0))
    state = jax.device_put(state, replicated(mesh))
    batch = put_batch({"x": np.zeros((2, 1), np.float32)}, mesh)
    _, metrics = compile_step(step, mesh, mode="pmap")(state, batch)
    assert float(metrics["square"]) > float(metrics["loss"]) ** 2 + 1e-6


def test_mistakes_are_named():
    step = make_train_step(_loss, _TX)
    with pytest.raises(UserError, match="Unknown mode 'xla'"):
        compile_step(step, None, mode="xla")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(UserError, match="data axis only, found no mesh"):
        compile_step(step, None, mode="pmap")
    with pytest.raises(UserError, match="data axis only"):
        compile_step(step, make_mesh(fsdp=2), mode="pmap")
