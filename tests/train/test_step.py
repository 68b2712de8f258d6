from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcore.errors import UserError
from jaxcore.parallel import DATA_AXIS, compile_step, make_mesh
from jaxcore.train import (
    EMAConfig,
    Loss,
    Mean,
    OptimConfig,
    create_state,
    make_optimiser,
    make_train_step,
)
from jaxcore.train.step import split_micro_batches


def _error(params, batch):
    return jnp.tanh(batch["x"] @ params["w"]) @ params["v"] - batch["y"]


def _loss(variables, batch, key, frozen):
    error = _error(variables["params"], batch)
    return Loss(*Mean.of(error**2), metrics={"mae": Mean.of(jnp.abs(error))})


def _mean(params, batch):
    return jnp.mean(_error(params, batch) ** 2)


def _params():
    rng = np.random.default_rng(0)
    return {
        "w": jnp.asarray(rng.normal(size=(3, 5)), jnp.float32),
        "v": jnp.asarray(rng.normal(size=(5, 2)), jnp.float32),
    }


def _batch(seed=1):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=(8, n)), jnp.float32) for k, n in (("x", 3), ("y", 2))}


_TX = make_optimiser(OptimConfig(learning_rate=1e-2, weight_decay=0.1, clip_norm=0.5), 10)


def _state(ema=False):
    return create_state(_params(), _TX, key=jax.random.key(0), ema=ema)


def _close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), a, b)


@pytest.mark.parametrize("options", [{"accum_steps": 2}, {"accum_steps": 4}, {"remat": True}])
def test_accumulation_and_remat_change_nothing(options):
    plain, metrics = jax.jit(make_train_step(_loss, _TX))(_state(), _batch())
    other, same = jax.jit(make_train_step(_loss, _TX, **options))(_state(), _batch())
    _close(plain.params, other.params)
    _close(metrics, same)


def test_metrics_are_means_and_the_norm_is_that_before_clipping():
    grads = jax.grad(_mean)(_params(), _batch())
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
    _, metrics = jax.jit(make_train_step(_loss, _TX))(_state(), _batch())
    assert norm > 0.5
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], _mean(_params(), _batch()), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_left_out_and_counted(bad):
    step = jax.jit(make_train_step(_loss, _TX, ema=EMAConfig(decay=0.5)))
    before, _ = step(_state(ema=True), _batch())
    poisoned = _batch(2)
    poisoned["x"] = poisoned["x"].at[0, 0].set(bad)
    poisoned["y"] = poisoned["y"].at[0, 0].set(bad)
    after, metrics = step(before, poisoned)
    assert int(after.step) == 2
    assert int(after.skipped) == int(metrics["skipped"]) == 1
    for field in ("params", "opt_state", "ema_params"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before, field), getattr(after, field))
    healed, metrics = step(after, _batch(3))
    assert int(metrics["skipped"]) == 1
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(healed.params))


def test_without_skipping_the_update_goes_through():
    step = jax.jit(make_train_step(_loss, _TX, skip_nonfinite=False))
    batch = _batch()
    batch["x"] = batch["x"].at[0, 0].set(jnp.nan)
    after, _ = step(_state(), batch)
    assert np.isnan(np.asarray(after.params["w"])).any()


def test_every_step_and_every_micro_batch_draws_from_a_key_of_its_own():
    def loss(variables, batch, key, frozen):
        draw = jax.random.uniform(key)
        zero = variables["params"]["w"].sum() * 0.0
        return Loss(zero + draw, 1, metrics={"square": Mean(draw**2, 1)})

    step = jax.jit(make_train_step(loss, _TX, accum_steps=2))
    state, first = step(_state(), _batch())
    state, second = step(state, _batch())
    assert float(first["loss"]) != float(second["loss"])
    assert float(first["square"]) > float(first["loss"]) ** 2 + 1e-6  # two different draws
    assert jnp.all(jax.random.key_data(state.rng) == jax.random.key_data(jax.random.key(0)))


def test_ema_follows_the_updated_parameters():
    step = jax.jit(make_train_step(_loss, _TX, ema=EMAConfig(decay=0.75)))
    after, _ = step(_state(ema=True), _batch())
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, _params(), after.params)
    _close(after.ema_params, expected)


def test_no_gradient_is_computed_for_frozen_leaves():
    mask = {"w": False, "v": True}
    tx = make_optimiser(OptimConfig(weight_decay=0.1), 10, mask)
    state = create_state(_params(), tx, key=jax.random.key(0))
    after, metrics = jax.jit(make_train_step(_loss, tx, trainable=lambda params: mask))(
        state, _batch()
    )
    np.testing.assert_array_equal(after.params["w"], _params()["w"])
    assert not np.array_equal(after.params["v"], _params()["v"])
    grads = jax.grad(lambda v: _mean({**_params(), "v": v}, _batch()))(_params()["v"])
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(grads), rtol=1e-5)


def test_a_bfloat16_loss_trains_float32_parameters():
    def loss(variables, batch, key, frozen):
        low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (variables, batch))
        return _loss(*low, key, frozen)

    after, metrics = jax.jit(make_train_step(loss, _TX, accum_steps=2))(_state(), _batch())
    plain, _ = jax.jit(make_train_step(_loss, _TX))(_state(), _batch())
    assert metrics["loss"].dtype == metrics["mae"].dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(after.params))
    _close(after.params, plain.params, rtol=0.05)


@pytest.mark.parametrize("accum_steps", [1, 4])
def test_bfloat16_parameters_are_updated_in_float32_and_then_rounded(accum_steps):
    """Gradients of 1 and 2**-9, whose sum is 1 in bfloat16: micro-batches add up in float32."""

    def loss(variables, batch, key, frozen):
        return Loss(*Mean.of(variables["params"]["w"] * batch["x"]))

    tx = make_optimiser(OptimConfig(name="adam", learning_rate=0.01), 10)
    params = {"w": jnp.ones(1, jnp.bfloat16)}
    state = create_state(params, tx, key=jax.random.key(0), ema=True)
    batch = {"x": jnp.array([1, 2**-9, 2**-9, 2**-9], jnp.bfloat16)}
    step = make_train_step(loss, tx, accum_steps=accum_steps, ema=EMAConfig(decay=0.999))
    with jax.numpy_dtype_promotion("standard"):
        after, metrics = jax.jit(step)(state, batch)
    assert after.params["w"].dtype == jnp.bfloat16
    assert after.params["w"][0] == jnp.asarray(0.99, jnp.bfloat16)
    assert after.ema_params["w"].dtype == jnp.float32 and 0.9999 < after.ema_params["w"][0] < 1
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(after.opt_state) if x.ndim)
    if accum_steps > 1:  # the sum within one micro-batch is the loss function's own
        np.testing.assert_allclose(metrics["grad_norm"], (1 + 3 * 2**-9) / 4, rtol=1e-6)


def test_the_step_is_compiled_once():
    traces = 0

    def loss(variables, batch, key, frozen):
        nonlocal traces
        traces += 1
        return _loss(variables, batch, key, frozen)

    step = jax.jit(make_train_step(loss, _TX, ema=EMAConfig.rddm()), donate_argnums=0)
    state = _state(ema=True)
    for i in range(4):
        state, _ = step(state, _batch(i))
    assert traces == 1


def test_micro_batches_take_every_nth_row():
    assert split_micro_batches({"x": jnp.arange(6)}, 3)["x"].tolist() == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(UserError, match="8 rows does not divide into 3"):
        split_micro_batches(_batch(), 3)


def test_groups_of_rows_stay_whole():
    groups = jnp.arange(8) // 4
    split = split_micro_batches({"group": groups}, 2, rows_per_item=4)["group"]
    assert split.tolist() == [[0, 0, 0, 0], [1, 1, 1, 1]]
    with pytest.raises(UserError, match=r"8 rows does not divide into 2 .*whole groups of 3"):
        split_micro_batches({"group": groups}, 2, rows_per_item=3)


def _token_batch():
    """Rows of 1 to 5 tokens, so that micro-batches differ in their number."""
    rng = np.random.default_rng(5)
    lengths = np.array([1, 5, 2, 4, 1, 3, 5, 1])
    mask = (np.arange(5)[None] < lengths[:, None]).astype(np.float32)
    return {
        "x": rng.normal(size=(8, 5, 3)).astype(np.float32),
        "y": rng.normal(size=(8, 5, 2)).astype(np.float32),
        "mask": mask,
    }


def _token_loss(variables, batch, key, frozen):
    error = jnp.mean(_error(variables["params"], batch) ** 2, axis=-1)
    full = jnp.all(batch["mask"] > 0, axis=1)
    longest = Mean.of(jnp.sum(error, axis=1), full)
    return Loss(*Mean.of(error, batch["mask"]), metrics={"longest": longest})


@pytest.mark.parametrize("way", [1, 2, 4, "pmap", "pmap of 2"])
def test_a_mean_over_tokens_is_that_of_the_whole_batch(way):
    batch, tx = _token_batch(), optax.sgd(1.0)
    state = create_state(_params(), tx, key=jax.random.key(0))
    if isinstance(way, int):
        step = jax.jit(make_train_step(_token_loss, tx, accum_steps=way))
    else:
        accum = 2 if "of" in way else 1
        step = make_train_step(_token_loss, tx, accum_steps=accum, axis_name=DATA_AXIS)
        step = compile_step(step, make_mesh(), mode="pmap", donate=False)
    after, metrics = step(state, batch, None)

    def whole(params):
        loss = _token_loss({"params": params}, batch, None, None)
        return loss.total / loss.weight, loss.metrics["longest"].value()

    (value, longest), grads = jax.value_and_grad(whole, has_aux=True)(_params())
    _close(jax.tree.map(jnp.subtract, _params(), after.params), grads)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    np.testing.assert_allclose(metrics["longest"], longest, rtol=1e-6)


def test_a_metric_without_elements_is_a_gap():
    batch = _token_batch()
    batch["mask"][:, 4] = 0
    step = jax.jit(make_train_step(_token_loss, _TX, accum_steps=2))
    _, metrics = step(_state(), batch)
    assert np.isnan(metrics["longest"]) and np.isfinite(metrics["loss"])


@pytest.mark.parametrize("bad", [False, True])
def test_collections_pass_from_micro_batch_to_micro_batch_and_stay_when_an_update_is_left_out(bad):
    def loss(variables, batch, key, frozen):
        seen = variables.get("seen", 0.0) + jnp.sum(batch["x"] * 0 + 1)
        found = _loss(variables, batch, key, frozen)
        total = found.total * (jnp.nan if bad else 1.0)
        return found._replace(total=total, collections={"seen": seen})

    state = create_state(_params(), _TX, key=jax.random.key(0), collections={"seen": jnp.zeros(())})
    after, _ = jax.jit(make_train_step(loss, _TX, accum_steps=4))(state, _batch())
    assert float(after.collections["seen"]) == (0 if bad else 24)
    with pytest.raises(UserError, match="returns the collections seen, found none in the state"):
        jax.eval_shape(make_train_step(loss, _TX), _state(), _batch())


def test_what_is_no_loss_is_named():
    def wrong(*_) -> Any:
        return jnp.zeros(()), {}

    step = make_train_step(wrong, _TX)
    with pytest.raises(UserError, match=r"Expected a Loss\(total, weight, .*found tuple"):
        jax.eval_shape(step, _state(), _batch())


def test_inner_steps_are_updates_on_one_batch():
    tx = make_optimiser(OptimConfig(learning_rate=1e-2), 10)
    state = create_state(_params(), tx, key=jax.random.key(0), ema=True)
    ema = EMAConfig(decay=0.9, warmup="ratio")
    three, metrics = jax.jit(make_train_step(_loss, tx, inner_steps=3, ema=ema))(state, _batch())
    one = jax.jit(make_train_step(_loss, tx, ema=ema))
    losses = []
    for _ in range(3):
        state, found = one(state, _batch())
        losses.append(float(found["loss"]))
    _close(three.params, state.params)
    _close(three.ema_params, state.ema_params)
    assert int(three.step) == 1 and int(state.step) == 3
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)


def test_elements_of_weight_zero_count_for_nothing_even_if_they_are_not_finite():
    values, weights = jnp.array([1.0, jnp.nan, 3.0]), jnp.array([1, 0, 1])
    assert float(Mean.of(values, weights).value()) == 2.0
    assert np.array_equal(jax.grad(lambda v: Mean.of(v, weights).total)(values), [1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match=r"Expected weights \(3,\), found \(1,\)"):
        Mean.of(values, weights[:1])
