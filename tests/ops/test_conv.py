"""Convolutions against what they are, or are the gradient of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.nn import ConvTranspose
from jaxcore.ops import conv2d, conv_transpose2d


@pytest.mark.parametrize(
    ("side", "stride", "padding", "output_padding"), [(3, 2, 1, 1), (3, 1, 1, 0), (5, 3, 0, 2)]
)
def test_it_is_the_gradient_of_the_convolution(side, stride, padding, output_padding):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 4, 5, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(side, side, 2, 3)), jnp.float32)
    options = {"stride": stride, "padding": padding}

    @jax.jit
    def both(x, kernel):
        ours = conv_transpose2d(x, kernel, output_padding=output_padding, **options)
        forward = lambda images: conv2d(images, kernel, **options)  # noqa: E731  # one call
        return ours, jax.vjp(forward, jnp.zeros_like(ours))[1](x)[0]

    ours, expected = both(x, kernel)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_its_gradients_are_those_of_the_dilated_convolution(dtype):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(2, 4, 5, 3)), dtype)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 2, 3)), jnp.float32)
    g = jnp.asarray(rng.normal(size=(2, 8, 10, 2)), dtype)

    def dilated(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel[::-1, ::-1].swapaxes(2, 3).astype(x.dtype),
            (1, 1),
            [(1, 2), (1, 2)],
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    @jax.jit
    def both(x, kernel, g):
        return [jax.vjp(fn, x, kernel)[1](g) for fn in (conv_transpose2d, dilated)]

    atol = 1e-4 if dtype == jnp.float32 else 0.25
    for ours, expected in zip(*both(x, kernel, g), strict=True):
        assert ours.dtype == expected.dtype
        np.testing.assert_allclose(
            np.asarray(ours, np.float32), np.asarray(expected, np.float32), rtol=1e-5, atol=atol
        )


def test_its_gradients_can_be_differentiated_again():
    x, kernel = jnp.ones((1, 2, 2, 1)), jnp.full((3, 3, 1, 1), 0.5)

    def energy(kernel):
        return jnp.sum(jnp.square(conv_transpose2d(x, kernel)))

    @jax.jit
    def curvature(kernel):
        return jax.jvp(jax.grad(energy), (kernel,), (kernel,))

    slope, along = curvature(kernel)
    np.testing.assert_allclose(along, slope, rtol=1e-5)  # quadratic: H k = gradient at k


def test_the_layer_doubles_the_size_and_starts_as_in_pytorch():
    layer = ConvTranspose(features=6, use_bias=True)
    x = jnp.zeros((1, 4, 5, 20))
    y, variables = jax.jit(layer.init_with_output)(jax.random.key(0), x)
    assert y.shape == (1, 8, 10, 6)
    for name, shape in (("kernel", (3, 3, 6, 20)), ("bias", (6,))):
        value = np.abs(variables["params"][name])
        assert value.shape == shape and value.max() <= (9 * 6) ** -0.5
    assert np.abs(variables["params"]["kernel"]).max() > 0.9 * (9 * 6) ** -0.5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "sides", "padding"),
    [
        ((0, 9, 7, 6), (3, 3), None),
        ((2, 9, 7, 6), (3, 3), None),
        ((1, 6, 8, 5), (1, 3), 2),
        ((3, 160, 160, 5), (3, 3), 0),
    ],
)
def test_gradients_by_the_kernel_are_those_of_the_definition(shape, sides, padding, dtype):
    """The last images are too many to be multiplied at once."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), dtype)
    kernel = jnp.asarray(rng.normal(size=(*sides, shape[-1], 4)), jnp.float32)
    edges = [(k // 2, k // 2) if padding is None else (padding, padding) for k in sides]

    def definition(kernel):
        order = ("NHWC", "HWIO", "NHWC")
        wide = x.astype("float32")
        return jax.lax.conv_general_dilated(wide, kernel, (1, 1), edges, dimension_numbers=order)

    def ours(kernel):
        return conv2d(x, kernel, padding=padding).astype("float32")

    g = jnp.cos(jnp.arange(definition(kernel).size, dtype="float32")).reshape(
        definition(kernel).shape
    )
    (found,), (expected,) = (jax.vjp(fn, kernel)[1](g) for fn in (ours, definition))
    scale = jnp.linalg.norm(expected)
    assert jnp.linalg.norm(found - expected) <= (1e-5 if dtype == "float32" else 1e-2) * scale
