"""Products over pixels, and the written gradients that are built on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.ops import accumulation_dtype, channel_norm, conv2d, gelu_gate, pointwise, silu_gate
from jaxcore.ops.products import product_over_pixels, stacked_products


def normal(*shape, seed=0, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize("lead", [(), (1,), (3,), (1, 1), (2, 3)])
def test_sums_over_pixels_and_keeps_the_batch(lead):
    a, b = normal(*lead, 4, 5, 3), normal(*lead, 4, 5, 2, seed=1)
    found = product_over_pixels(a, b, batch=len(lead), dtype="float32")
    np.testing.assert_allclose(found, np.einsum("...hwi,...hwo->...io", a, b), rtol=1e-5, atol=1e-5)


def test_the_batch_may_be_unknown():
    (batch,) = jax.export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, 2, 2, 3), jnp.float32)
    product = functools.partial(product_over_pixels, batch=1, dtype="float32")
    exported = jax.export.export(jax.jit(product))(shape, shape)
    for size in (1, 3):
        x = normal(size, 2, 2, 3)
        np.testing.assert_allclose(exported.call(x, x), product(x, x), rtol=1e-6)


def plain_pointwise(x, kernel):
    return jnp.einsum("...i,io->...o", x, kernel)


def plain_gate(a, b):
    return jax.nn.gelu(a, approximate=False) * b


def plain_norm(x, scale, bias=None, epsilon=1e-5):
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=-1, keepdims=True)
    unit = (x if bias is None else x - mean) / jnp.sqrt(variance + epsilon)
    rows = [a.reshape((1,) * (x.ndim - 1) + a.shape) for a in (scale, bias) if a is not None]
    return unit * rows[0] if bias is None else unit * rows[0] + rows[1]


def convolutions(stride, padding):
    """That of the library, and XLA's with its own gradients."""
    order = ("NHWC", "HWIO", "NHWC")

    def plain(x, kernel):
        steps, pads = (stride, stride), [(padding, padding)] * 2
        return jax.lax.conv_general_dilated(x, kernel, steps, pads, dimension_numbers=order)

    return functools.partial(conv2d, stride=stride, padding=padding), plain


def stacked(a, b):
    return stacked_products(a, b, accumulation_dtype(a.dtype))


def plain_silu(both):
    return jax.nn.silu(both[..., 0, :]) * both[..., 1, :]


IMAGE, VECTOR = (2, 5, 3, 4), (4,)
CASES = {
    "pointwise": (pointwise, plain_pointwise, [IMAGE, (4, 6)]),
    "pointwise narrowing": (pointwise, plain_pointwise, [(3, 4), (4, 2)]),
    "convolution": (*convolutions(1, 1), [IMAGE, (3, 3, 4, 2)]),
    "patches": (*convolutions(4, 0), [(2, 11, 9, 3), (4, 4, 3, 5)]),
    "every second pixel": (*convolutions(2, 1), [(2, 8, 7, 3), (3, 3, 3, 5)]),
    "a pixel between patches": (*convolutions(3, 0), [(1, 8, 9, 2), (2, 2, 2, 3)]),
    "stacks": (stacked, jnp.matmul, [(3, 2, 4, 5), (3, 2, 5, 4)]),
    "gated unit": (silu_gate, plain_silu, [(3, 2, 4)]),
    "gate": (gelu_gate, plain_gate, [IMAGE, IMAGE]),
    "norm": (channel_norm, plain_norm, [IMAGE, VECTOR, VECTOR]),
    "norm without bias": (channel_norm, plain_norm, [IMAGE, VECTOR]),
}


@pytest.mark.parametrize("case", list(CASES))
def test_written_gradients(case):
    written, plain, shapes = CASES[case]
    with jax.enable_x64(True):
        inputs = [normal(*s, seed=i, dtype="float64") for i, s in enumerate(shapes)]
        direction = [normal(*s, seed=9 + i, dtype="float64") for i, s in enumerate(shapes)]
        numbers = tuple(range(len(inputs)))
        found, expected = [], []
        for f, results in ((written, found), (plain, expected)):
            gradient = jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), numbers)
            results += [f(*inputs), *gradient(*inputs)]
            results += jax.jvp(gradient, inputs, direction)[1]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("case", list(CASES))
def test_half_precision_is_summed_in_float32(case):
    written, plain, shapes = CASES[case]
    inputs = [normal(*s, seed=i, dtype="bfloat16") for i, s in enumerate(shapes)]
    wide = [a.astype(jnp.float32) for a in inputs]
    # Parameters stay in float32, as in training.
    mixed = [
        inputs[0],
        *(b if b.ndim < 3 else a for a, b in zip(inputs[1:], wide[1:], strict=True)),
    ]
    found = jax.grad(lambda *a: written(*a).astype(jnp.float32).sum(), range(len(mixed)))(*mixed)
    expected = jax.grad(lambda *a: plain(*a).sum(), range(len(wide)))(*wide)
    assert [a.dtype for a in found] == [a.dtype for a in mixed]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.05 * float(jnp.abs(b).max()))


def test_the_gate_far_out():
    a = jnp.array([-40.0, -5.0, 0.0, 5.0, 40.0])
    values, slopes = jax.vmap(jax.value_and_grad(gelu_gate))(a, jnp.ones(5))
    np.testing.assert_allclose(values, [0, -1.4e-6, 0, 5, 40], atol=1e-6)
    np.testing.assert_allclose(slopes, [0, 0, 0.5, 1, 1], atol=1e-5)
