"""Values inside a network, looked at and changed, under every transformation of JAX."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.nn import apply_block, capture, intervene, tap


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return tap(self, "square", x * x)


class Net(nn.Module):
    remat: bool = False

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, ())
        x = tap(self, "scaled", scale * x)
        y = apply_block(Inner(name="inner"), x, remat=self.remat)
        tap(self, "seen", y, editable=False)
        return jnp.sum(y)


PARAMS = {"params": {"scale": jnp.float32(3.0)}}
X = jnp.arange(4.0)


def double(value, layer):
    return 2 * value


@pytest.mark.parametrize("remat", [False, True])
def test_named_values_come_out_compiled_or_not(remat):
    for transform in (lambda f: f, jax.jit):
        y, values = transform(capture(Net(remat).apply, "scaled", "inner/*"))(PARAMS, X)
        assert set(values) == {"scaled", "inner/square"}
        np.testing.assert_allclose(values["scaled"], 3 * X)
        np.testing.assert_allclose(values["inner/square"], 9 * X * X)
        assert y == 9 * 14
    assert set(capture(Net(remat).apply)(PARAMS, X)[1]) == {"scaled", "inner/square", "seen"}


@pytest.mark.parametrize("remat", [False, True])
def test_edits_change_what_follows_and_what_is_captured(remat):
    apply = Net(remat).apply
    edited = intervene(apply, {"scaled": double})
    assert jax.jit(edited)(PARAMS, X) == 4 * 9 * 14
    for both in (
        capture(edited, "scaled"),
        intervene(capture(apply, "scaled"), {"scaled": double}),
    ):
        y, values = jax.jit(both)(PARAMS, X)
        assert y == 4 * 9 * 14
        np.testing.assert_allclose(values["scaled"], 6 * X)
    twice = intervene(intervene(apply, {"scaled": double}), {"scaled": lambda v, layer: v + 1})
    assert twice(PARAMS, X) == jnp.sum((6 * X + 1) ** 2)


def test_a_function_compiled_before_is_not_left_as_it_was():
    compiled = jax.jit(Net().apply)
    plain = compiled(PARAMS, X)
    assert intervene(compiled, {"scaled": double})(PARAMS, X) == 4 * plain
    assert intervene(compiled, {"scaled": lambda v, layer: 0 * v})(PARAMS, X) == 0
    again = intervene(compiled, {"scaled": double})
    assert again(PARAMS, X) == again(PARAMS, X) == 4 * plain
    by_layer = intervene(compiled, {"scaled": lambda v, layer: jnp.where(layer == 0, 2 * v, v)})
    for enclosing in (
        jax.jit(lambda x: by_layer(PARAMS, x)),
        jax.jit(lambda x: by_layer(PARAMS, x)),
    ):
        assert enclosing(X) == 4 * plain
    assert compiled(PARAMS, X) == plain
    with pytest.raises(UserError, match="'scaled' is computed inside a function"):
        capture(compiled, "scaled")(PARAMS, X)
    with pytest.raises(UserError, match="named 'other'; there are: inner/square, scaled"):
        intervene(compiled, {"other": double})(PARAMS, X)


def test_gradients_reach_captured_values_and_edits():
    def loss(params, push):
        shifted = intervene(Net().apply, {"inner/square": lambda v, layer: v + push})
        y, values = capture(shifted, "scaled")(params, X)
        return y, values["scaled"]

    (y, scaled), (params, push) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
        PARAMS, jnp.ones(4)
    )
    assert y == 9 * 14 + 4
    np.testing.assert_allclose(scaled, 3 * X)
    assert params["params"]["scale"] == 2 * 3 * 14
    np.testing.assert_allclose(push, 1)
    with pytest.raises(UserError, match="Put capture inside"):
        capture(jax.grad(Net().apply), "scaled")(PARAMS, X)
    doubled = intervene(jax.grad(Net().apply), {"scaled": double})(PARAMS, X)
    assert doubled["params"]["scale"] == 4 * 2 * 3 * 14


def test_mapped_calls():
    batch = jnp.stack([X, X + 1])
    run = jax.vmap(capture(Net().apply, "scaled"), in_axes=(None, 0))
    y, values = jax.jit(run)(PARAMS, batch)
    assert y.shape == (2,)
    np.testing.assert_allclose(values["scaled"], 3 * batch)
    mapped = intervene(jax.vmap(Net().apply, in_axes=(None, 0)), {"scaled": double})
    np.testing.assert_allclose(mapped(PARAMS, batch), 4 * y)


def test_one_capture_within_another():
    inner = capture(Net().apply, "scaled")
    ((y, values), outer) = jax.jit(capture(inner, "inner/square", "scaled"))(PARAMS, X)
    assert y == 9 * 14
    assert set(values) == {"scaled"} and set(outer) == {"scaled", "inner/square"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: capture(f, "scald"), "named 'scald'; there are: inner/square, scaled, seen"),
        (lambda f: intervene(f, {"in*": double, "x": double}), "named 'x'; there are"),
        (lambda f: intervene(f, {"seen": double}), "'seen' can be captured but not edited"),
        (
            lambda f: intervene(f, {"scaled": lambda v, layer: v[:2]}),
            r"shape \(4,\) .* found \(2,\)",
        ),
        (lambda f: capture(lambda p, x: f(p, x) + f(p, x)), "'scaled' is computed more than once"),
        (lambda f: capture(lambda p, x: x), "there are: none at all"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make(Net().apply)(PARAMS, X)


def test_initialising_and_unused_taps_add_nothing():
    shapes = jax.eval_shape(Net().init, jax.random.key(0), X)
    assert set(shapes) == {"params"}
    assert "square" not in jax.jit(Net().apply).lower(PARAMS, X).as_text()
