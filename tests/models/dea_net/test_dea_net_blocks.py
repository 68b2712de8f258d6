"""Kernels by their definitions, and pixel attention against its grouped form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.dea_net import five_convolutions
from jaxcore import ops
from jaxcore.models import dea_net
from jaxcore.nn import Types


def convolve(image, taps):
    """Cross-correlation of one channel with zero padding, tap by tap."""
    padded = np.pad(image, 1)
    height, width = image.shape
    return sum(
        weight * padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        for (dy, dx), weight in taps.items()
    )


RING = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]  # clockwise


@pytest.mark.parametrize("kind", ["cdc", "adc", "hdc", "vdc"])
def test_difference_kernels_are_differences_of_pixels(kind):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(6, 7))
    shape = {"hdc": (3, 1, 1, 1), "vdc": (1, 3, 1, 1)}.get(kind, (3, 3, 1, 1))
    w = rng.normal(size=shape)
    at = {(dy, dx): w[dy + 1, dx + 1, 0, 0] for dy, dx in RING} if w.size == 9 else {}
    if kind == "cdc":  # every neighbour minus the centre
        expected = sum(convolve(image, {p: v}) - v * image for p, v in at.items())
    elif kind == "adc":  # every neighbour minus the next one clockwise
        expected = sum(
            at[p] * (convolve(image, {p: 1.0}) - convolve(image, {RING[(i + 1) % 8]: 1.0}))
            for i, p in enumerate(RING)
        )
    elif kind == "hdc":
        expected = convolve(image, {(i - 1, -1): w[i, 0, 0, 0] for i in range(3)}) - convolve(
            image, {(i - 1, 1): w[i, 0, 0, 0] for i in range(3)}
        )
    else:
        expected = convolve(image, {(-1, i - 1): w[0, i, 0, 0] for i in range(3)}) - convolve(
            image, {(1, i - 1): w[0, i, 0, 0] for i in range(3)}
        )
    kernel = dea_net.effective_kernel(kind, w)[..., 0, 0]
    taps = {(i - 1, j - 1): kernel[i, j] for i in range(3) for j in range(3)}
    np.testing.assert_allclose(convolve(image, taps), expected, atol=1e-12)


def random_deconv(width, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"hdc": (3, 1), "vdc": (1, 3)}
    return {
        kind: {
            "kernel": rng.normal(size=(*shapes.get(kind, (3, 3)), width, width)),
            "bias": rng.normal(size=width),
        }
        for kind in (*dea_net.BRANCHES, "vanilla")
    }


def test_the_merged_kernel_is_exact_in_float64():
    weights = random_deconv(5)
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 6, 7, 5)))
        five = sum(
            ops.conv2d(x, jnp.asarray(dea_net.effective_kernel(kind, w["kernel"])))
            + w["bias"][None, None, None, :]
            for kind, w in weights.items()
        )
        merged = dea_net.merge(weights)
        assert merged["kernel"].dtype == np.float64  # NumPy's stay NumPy's
        one = ops.conv2d(x, jnp.asarray(merged["kernel"])) + merged["bias"][None, None, None, :]
        np.testing.assert_allclose(one, five, atol=1e-12)


def test_gradients_of_the_merged_kernel_are_those_of_five_convolutions():
    block = dea_net.DEBlock(types=Types("float64", "float64"))

    def loss(params, x):
        return jnp.sum(jnp.sin(block.apply({"params": params}, x)))

    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(2, 6, 8, 4)))
        shapes = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
        params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape)), shapes)
        one, five = (jax.jit(jax.grad(run))(params, x) for run in (loss, five_convolutions(loss)))
    assert set(one["conv1"]) == {*dea_net.BRANCHES, "vanilla"}
    apart = 0.0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(five), strict=True):
        assert a.dtype == np.float64 and np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())
        apart = max(apart, np.abs(a - b).max())
    assert apart > 0  # two programs were compared, not one with itself


def test_merging_a_tree_is_pure_and_merging_again_changes_nothing():
    tree = {"level": {"conv1": random_deconv(3), "conv2": {"kernel": np.ones((3, 3, 3, 3))}}}
    before = jax.tree.map(np.copy, tree)
    merged = dea_net.reparameterize(tree)
    assert set(merged["level"]["conv1"]) == {"kernel", "bias"}
    again = dea_net.reparameterize(merged)
    jax.tree.map(np.testing.assert_array_equal, merged, again)
    jax.tree.map(np.testing.assert_array_equal, tree, before)


def grouped_pixel_attention(x, spatial, channel, kernel, bias):
    """The form of the paper: channels next to their coarse maps, one grouped convolution."""
    width = x.shape[-1]
    coarse = jnp.broadcast_to(spatial + channel, x.shape)
    both = jnp.stack([x, coarse], axis=-1).reshape(*x.shape[:3], 2 * width)
    both = jnp.pad(both, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    y = jax.lax.conv_general_dilated(
        both,
        kernel,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=width,
    )
    return jax.nn.sigmoid(y + bias[None, None, None, :])


def test_pixel_attention_equals_its_grouped_form():
    rng = np.random.default_rng(0)
    inputs = [
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in ((2, 9, 8, 6), (2, 9, 8, 1), (2, 1, 1, 6), (7, 7, 2, 6), (6,), (2, 9, 8, 6))
    ]

    def ours(x, spatial, channel, kernel, bias):
        params = {"pa": {"kernel": kernel, "bias": bias}}
        return dea_net.PixelAttention().apply({"params": params}, x, spatial, channel)

    @jax.jit
    def both(*arguments):
        *arguments, g = arguments
        out = []
        for f in (ours, grouped_pixel_attention):
            y, vjp = jax.vjp(f, *arguments)
            out.append((y, *vjp(g)))
        return out

    for found, expected in zip(*both(*inputs), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


def test_fusion_without_attention_is_a_sum_and_the_second_sigmoid_bounds_the_weights():
    rng = np.random.default_rng(0)
    low, high = (jnp.asarray(rng.normal(size=(1, 8, 8, 8)), jnp.float32) for _ in range(2))
    plain = dea_net.CGAFusion(mixup=False)
    params = jax.jit(plain.init)(jax.random.key(0), low, high)["params"]
    assert set(params) == {"conv"}
    expected = ops.pointwise(low + high, params["conv"]["kernel"])
    expected += params["conv"]["bias"][None, None, None, :]
    np.testing.assert_allclose(plain.apply({"params": params}, low, high), expected, atol=1e-6)
    outputs = []
    for double in (True, False):
        fusion = dea_net.CGAFusion(reduction=4, double_sigmoid=double)

        @jax.jit
        def run(low, high, fusion=fusion):
            return fusion.init_with_output(jax.random.key(0), low, high)[0]

        outputs.append(np.asarray(run(low, high)))
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
