"""Depthwise convolution and its written gradients against XLA's own convolution."""

import functools
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from jaxcore.errors import UserError
from jaxcore.nn import DepthwiseConv, DepthwiseSplit
from jaxcore.ops import depthwise_conv
from jaxcore.ops.depthwise import Form

TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "bfloat16": 2e-2, "float16": 3e-3}


def xla(x, kernel, padding=None):
    """The definition: XLA's grouped convolution, differentiated by JAX."""
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (1, 1),
        [(k // 2, k // 2) if padding is None else (padding, padding) for k in kernel.shape[:2]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def draw(shape, sides, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x, g = (jnp.asarray(rng.normal(size=shape), dtype) for _ in range(2))
    return x, jnp.asarray(rng.normal(size=(*sides, 1, shape[-1])), dtype), g


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(f, x, kernel, g):
    y, vjp = jax.vjp(f, x, kernel)
    return (y, *vjp(g))


def check(found, expected, dtype):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == jnp.dtype(dtype)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = max(1.0, np.abs(b).max(initial=0.0))
        np.testing.assert_allclose(a / scale, b / scale, atol=TOLERANCE[dtype], rtol=0)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (3, 7, 7, 5))),
    sides=st.tuples(*[st.sampled_from([1, 3, 5, 7])] * 2),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_equals_xla(shape, sides, dtype):
    with jax.enable_x64(dtype == "float64"):
        inputs = draw(shape, sides, dtype)
        found = value_and_gradients(depthwise_conv, *inputs)
        check(found, value_and_gradients(xla, *inputs), dtype)


@pytest.mark.parametrize(("sides", "padding"), [((7, 7), 0), ((3, 5), 1), ((3, 1), 4)])
def test_other_paddings_equal_xla(sides, padding):
    x, kernel, _ = draw((2, 9, 8, 3), sides, "float32")
    shape = [9 + 2 * padding - sides[0] + 1, 8 + 2 * padding - sides[1] + 1]
    g = draw((2, *shape, 3), sides, "float32")[2]
    found, expected = (
        value_and_gradients(functools.partial(f, padding=padding), x, kernel, g)
        for f in (depthwise_conv, xla)
    )
    check(found, expected, "float32")


@pytest.mark.parametrize("padding", [None, 0, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", get_args(Form))
def test_every_form_equals_xla(form, dtype, padding):
    x, kernel, _ = draw((2, 6, 7, 3), (3, 5), dtype)
    exact = functools.partial(xla, padding=padding)
    y = exact(x, kernel)
    g = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), dtype)
    ours = functools.partial(depthwise_conv, padding=padding, form=form)
    found = value_and_gradients(ours, x, kernel, g)
    wide = [a.astype(jnp.float32) for a in (x, kernel, g)]
    expected = [a.astype(dtype) for a in value_and_gradients(exact, *wide)]
    check(found, expected, dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_sums_in_float32(dtype):
    inputs = draw((2, 24, 24, 3), (3, 3), dtype)
    found = value_and_gradients(depthwise_conv, *inputs)
    exact = value_and_gradients(xla, *(a.astype(jnp.float32) for a in inputs))
    check(found, exact, dtype)


def test_a_wider_kernel_keeps_its_type_in_the_gradient():
    x, kernel, g = draw((2, 16, 16, 4), (3, 3), "bfloat16")
    wide = kernel.astype(jnp.float32)
    y, dx, dk = value_and_gradients(depthwise_conv, x, wide, g)
    assert (y.dtype, dx.dtype, dk.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    exact = value_and_gradients(xla, x.astype(jnp.float32), wide, g.astype(jnp.float32))[2]
    np.testing.assert_allclose(dk, exact, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (1, 0, 4, 3), (1, 4, 0, 3)])
def test_nothing_in_nothing_out(shape):
    y, dx, dk = value_and_gradients(depthwise_conv, *draw(shape, (3, 3), "float32"))
    assert y.shape == dx.shape == shape
    np.testing.assert_array_equal(dk, np.zeros((3, 3, 1, shape[-1]), np.float32))


def test_one_pixel_meets_only_the_middle_tap():
    x, kernel, g = draw((2, 1, 1, 4), (5, 3), "float32")
    y, dx, dk = value_and_gradients(depthwise_conv, x, kernel, g)
    np.testing.assert_allclose(y, x * kernel[2, 1, 0][None, None, None], rtol=1e-6)
    np.testing.assert_allclose(dx, g * kernel[2, 1, 0][None, None, None], rtol=1e-6)
    assert np.count_nonzero(dk) == 4 and np.all(dk[2, 1, 0] != 0)


def loss(f, x, kernel):
    return jnp.sum(jnp.sin(f(x, kernel)))


@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0), (-1, 1)])
def test_gradients_inside_and_around_vmap(in_axes):
    shape, sides = (1, 5, 6, 3), (3, 5)
    xs, kernels, _ = draw((4, *shape), (4, *sides), "float32")
    x, kernel, _ = draw(shape, sides, "float32")
    x = x if in_axes[0] is None else jnp.moveaxis(xs, 0, in_axes[0])
    kernel = kernel if in_axes[1] is None else jnp.moveaxis(kernels, 0, in_axes[1])
    found = ()
    for f in (depthwise_conv, xla):
        each = functools.partial(loss, f)
        inside = jax.vmap(jax.grad(each, argnums=(0, 1)), in_axes)(x, kernel)
        around = jax.grad(lambda a, b, e=each: jax.vmap(e, in_axes)(a, b).sum(), (0, 1))(x, kernel)
        if f is depthwise_conv:
            found = (*inside, *around)
        else:
            check(found, (*inside, *around), "float32")


def test_in_a_scan_with_recomputation():
    x, kernel, _ = draw((2, 6, 5, 3), (3, 3), "float32")
    kernels = jnp.stack([kernel, -kernel, kernel[::-1]])

    def through(f, x, kernels):
        def body(x, kernel):
            return jnp.tanh(f(x, kernel)), None

        return jnp.sum(jax.lax.scan(jax.checkpoint(body), x, kernels)[0])

    found, expected = (
        jax.jit(jax.grad(functools.partial(through, f), (0, 1)))(x, kernels)
        for f in (depthwise_conv, xla)
    )
    check(found, expected, "float32")


@pytest.mark.parametrize("outer", ["reverse over reverse", "forward over reverse"])
def test_second_derivatives(outer):
    x, kernel, g = draw((1, 4, 5, 2), (3, 3), "float32")
    direction = (g, kernel[::-1])

    def product(f):
        gradient = jax.grad(functools.partial(loss, f), (0, 1))
        if outer == "forward over reverse":
            return jax.jvp(gradient, (x, kernel), direction)[1]
        return jax.vjp(gradient, x, kernel)[1](direction)

    check(product(depthwise_conv), product(xla), "float32")


@pytest.mark.parametrize("spec", [PartitionSpec("d"), PartitionSpec(None, "d")])
def test_sharded_equals_unsharded(spec):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    x, kernel, g = draw((2, 6, 4, 3), (3, 3), "float32")
    run = jax.jit(functools.partial(value_and_gradients, depthwise_conv))
    put = functools.partial(jax.device_put, device=NamedSharding(mesh, spec))
    check(run(put(x), kernel, put(g)), run(x, kernel, g), "float32")


def test_per_device_code():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    x, kernel, _ = draw((2, 6, 4, 3), (3, 3), "float32")

    def body(x, kernel):
        gradient = jax.grad(functools.partial(loss, depthwise_conv), argnums=1)(x, kernel)
        return jax.lax.psum(gradient, "d")

    specs = {"in_specs": (PartitionSpec("d"), PartitionSpec()), "out_specs": PartitionSpec()}
    found = jax.jit(jax.shard_map(body, mesh=mesh, check_vma=False, **specs))(x, kernel)
    expected = jax.grad(functools.partial(loss, xla), argnums=1)(x, kernel)
    check([found], [expected], "float32")


@pytest.mark.parametrize(
    ("platform", "convolutions"), [("cpu", 0), ("tpu", 3), ("cuda", 3)], ids=lambda v: str(v)
)
def test_platform_decides(platform, convolutions):
    inputs = draw((1, 8, 8, 4), (3, 3), "float32")
    run = jax.jit(functools.partial(value_and_gradients, depthwise_conv))
    text = run.trace(*inputs).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == convolutions


def test_the_layer_uses_it():
    x = draw((1, 5, 5, 3), (3, 3), "float32")[0]
    layer = DepthwiseConv(use_bias=True)
    params = {"kernel": draw((1, 1, 1, 3), (3, 3), "float32")[1], "bias": jnp.arange(3.0)}
    expected = xla(x, params["kernel"]) + params["bias"].reshape(1, 1, 1, 3)
    found: Any = layer.apply({"params": params}, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    split = DepthwiseSplit(use_bias=True)
    parts: Any = split.apply({"params": params}, x[..., :2], x[..., 2:])
    np.testing.assert_allclose(jnp.concatenate(parts, axis=-1), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "kernel", "words"),
    [
        ((1, 4, 4, 3), (2, 3, 1, 3), "odd sides, found (2, 3)"),
        ((1, 4, 4, 3), (3, 3, 1, 4), "found (1, 4, 4, 3) and (3, 3, 1, 4)"),
        ((1, 4, 4, 3), (3, 3, 3, 3), "found (1, 4, 4, 3) and (3, 3, 3, 3)"),
        ((4, 4, 3), (3, 3, 1, 3), "found (4, 4, 3) and (3, 3, 1, 3)"),
    ],
)
def test_bad_shapes(x, kernel, words):
    with pytest.raises(UserError) as error:
        depthwise_conv(jnp.ones(x), jnp.ones(kernel))
    assert words in str(error.value)


def test_a_kernel_that_does_not_fit_into_the_image():
    with pytest.raises(UserError, match=r"at least the kernel's size, found \(6, 9\)"):
        depthwise_conv(jnp.zeros((1, 6, 9, 2)), jnp.zeros((7, 7, 1, 2)), padding=0)
