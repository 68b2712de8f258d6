"""Maps side by side, as the kernels for GPUs filter them, against the same maps one by one.

On the processor Pallas plays the kernels' programs in plain JAX.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from jaxcore import ops
from jaxcore.models.adair import blocks

TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}


def draw(shape, dtype="float32", seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def split_one_by_one(x, kernel, parts):
    return tuple(jnp.split(ops.depthwise_conv(x, kernel), parts, axis=-1))


def gated_one_by_one(x, kernel, product):
    halves = jnp.split(ops.depthwise_conv(x, kernel), 2, axis=-1)
    return ops.pointwise(ops.gelu_gate(*halves), product)


def value_and_gradients(fn, *args):
    """The value, and gradients of a sum of squares."""

    def loss(*args):
        return sum(jnp.sum(jnp.square(a.astype("float32"))) for a in jax.tree.leaves(fn(*args)))

    return jax.jit(lambda *args: (fn(*args), jax.grad(loss, tuple(range(len(args))))(*args)))(*args)


def check(found, expected, dtype):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.abs(a - b).max() <= TOLERANCE[dtype] * max(np.abs(b).max(), 1.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("parts", "sides", "width"), [(3, (3, 3), 24), (2, (5, 3), 16)])
def test_split_filters_equal_filters_one_by_one(parts, sides, width, dtype):
    x, kernel = draw((2, 19, 11, width), dtype), draw((*sides, 1, width), seed=1)
    joined, plain = (functools.partial(f, parts=parts) for f in (_split, split_one_by_one))
    check(value_and_gradients(joined, x, kernel), value_and_gradients(plain, x, kernel), dtype)


def _split(x, kernel, parts):
    return ops.filter_split(x, kernel, parts)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 18, 9), (1, 3, 20), (3, 1, 1)])
def test_gated_product_equals_its_parts(shape, dtype):
    x, kernel = draw((*shape, 32), dtype), draw((3, 3, 1, 32), seed=1)
    product = draw((16, 8), seed=2) / 4
    found = value_and_gradients(ops.gated_product, x, kernel, product)
    wide = value_and_gradients(gated_one_by_one, x.astype("float32"), kernel, product)
    expected = jax.tree.map(lambda a, b: a.astype(b.dtype), wide, found)
    check(found, expected, dtype)


def test_gradients_can_be_differentiated_again_in_either_mode():
    args = draw((1, 5, 6, 16)), draw((3, 3, 1, 16), seed=1), draw((8, 4), seed=2)
    along = jax.tree.map(jnp.ones_like, args)

    def twice(fn):
        def loss(args):
            return jnp.sum(jnp.square(fn(*args)))

        def slope(args):
            return sum(jnp.vdot(a, b) for a, b in zip(jax.grad(loss)(args), along, strict=True))

        return jax.grad(slope)(args), jax.jvp(jax.grad(loss), (args,), (along,))[1]

    check(twice(ops.gated_product), twice(gated_one_by_one), "float32")


def test_nothing_in_nothing_out():
    x, kernel, product = jnp.zeros((0, 4, 4, 16)), jnp.ones((3, 3, 1, 16)), jnp.ones((8, 4))
    value, (dx, dkernel, dproduct) = value_and_gradients(ops.gated_product, x, kernel, product)
    assert value.shape == (0, 4, 4, 4) and dx.shape == x.shape
    assert not dkernel.any() and not dproduct.any()


@pytest.mark.parametrize("multiple", [1, 8])
def test_a_block_with_joined_maps_is_the_same_block(monkeypatch, multiple):
    monkeypatch.setattr(blocks, "_aligned", lambda: multiple)  # 1 as here, 8 as on a GPU
    block, x = blocks.TransformerBlock(num_heads=2), draw((1, 6, 9, 8))
    params = block.init(jax.random.key(0), x)

    def run():
        return value_and_gradients(lambda p: block.apply(p, x), params)

    plain = run()
    asked = []
    monkeypatch.setattr(ops, "joining_pays", lambda width, dtype: not asked.append(width))
    joined = run()
    assert set(asked) == {8, 24 if multiple == 8 else 21}
    check(joined, plain, "float32")


def test_processors_keep_maps_apart():
    assert not ops.joining_pays(64, "float32")


@pytest.mark.filterwarnings("ignore:.*Triton:DeprecationWarning")
def test_kernels_become_triton_programs_without_a_gpu_at_hand():
    device = AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
    mesh = AbstractMesh((1,), ("one",), abstract_device=device)

    def loss(x, kernel, product):
        q, k = ops.filter_split(x, kernel, 2)
        return jnp.sum(ops.gated_product(x, kernel, product)) + jnp.sum(q * k)

    shapes = (2, 16, 16, 32), (3, 3, 1, 32), (16, 8)
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    with use_abstract_mesh(mesh), warnings.catch_warnings():
        traced = jax.jit(jax.value_and_grad(loss, (0, 1, 2))).trace(*args)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("xla.gpu.triton") >= 4
