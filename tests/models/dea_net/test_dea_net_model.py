"""The whole network: both forms, options, sizes, cost, mistakes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcore.errors import UserError
from jaxcore.models import dea_net, export
from jaxcore.models.dea_net import DEANetConfig

CFG = DEANetConfig(base_dim=4, depths=(1, 1, 2, 1, 1))


@pytest.fixture(scope="module")
def params():
    return dea_net.init(jax.random.key(0), CFG)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(2, 20, 28, 3)).astype(np.float32)


run = jax.jit(dea_net.apply, static_argnames="cfg")


@pytest.fixture(scope="module")
def output(params, images):
    return np.asarray(run(params, images, cfg=CFG))


def test_both_forms_agree_after_training(params, images):
    tx = optax.sgd(0.1)

    def loss(params, x):
        return jnp.mean(jnp.abs(dea_net.apply(params, x, CFG) - x))

    # Compiled once and run three times: optimising the machine code is most of the time.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def step(params, state, x):
        gradient = jax.grad(loss)(params, x)
        updates, state = tx.update(gradient, state)
        return optax.apply_updates(params, updates), state, gradient

    state, gradient = tx.init(params), {}
    for _ in range(3):
        params, state, gradient = step(params, state, images)
    for kind in ("cdc", "adc"):  # the centres cancel
        assert not np.any(gradient["level3"]["conv1"][kind]["kernel"][:, 1, 1])
    merged, cfg = dea_net.deploy(params, CFG)
    deployed = run(merged, images, cfg=cfg)
    np.testing.assert_allclose(deployed, run(params, images, cfg=CFG), atol=1e-6)


def test_unrolled_blocks_and_a_mapped_image_change_nothing(params, images, output):
    cfg = dataclasses.replace(CFG, scan_blocks=False)
    mapped = jax.jit(jax.vmap(lambda p, x: dea_net.apply(p, x[None], cfg)[0], (None, 0)))
    np.testing.assert_allclose(mapped(params, images), output, atol=1e-5)


def test_options_that_weights_do_not_tell(params, images, output):
    residual = run(params, images, cfg=dataclasses.replace(CFG, global_residual=True))
    np.testing.assert_allclose(residual, output + images, atol=1e-6)
    single = run(params, images, cfg=dataclasses.replace(CFG, double_sigmoid=False))
    assert np.abs(single - output).max() > 1e-4
    half = run(params, images, cfg=dataclasses.replace(CFG, dtype="bfloat16"))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, output, atol=0.02)


def test_any_size_comes_back(params):
    merged, cfg = dea_net.deploy(params, CFG)
    rng = np.random.default_rng(1)
    for size in ((1, 3), (37, 16)):  # padded to 16x16 and to 40x16
        image = rng.uniform(size=(*size, 3)).astype(np.float32)
        out = dea_net.restore(merged, image, cfg)
        assert out.shape == image.shape and np.isfinite(out).all()
    np.testing.assert_allclose(dea_net.restore(params, image, CFG), out, atol=1e-6)
    np.testing.assert_array_equal(dea_net.dehaze(merged, image, cfg), np.clip(out, 0, 1))
    tiles = dea_net.restore(merged, image, cfg, tile=16, overlap=4)
    assert tiles.shape == image.shape and np.abs(tiles - out).max() > 1e-6
    thin = dea_net.restore(merged, image[:5], cfg, tile=16, overlap=4)
    assert thin.shape == (5, 16, 3)
    with pytest.raises(UserError, match="tile must be at least 16, found 12"):
        dea_net.dehaze(merged, image, cfg, tile=12)


def test_export_round_trip(params, images, output):
    merged, cfg = dea_net.deploy(params, CFG)
    blob = export.export_network(dea_net, merged, cfg, 20, 28, platforms=("cpu",))
    np.testing.assert_allclose(export.load_network(blob)(images), output, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((16, 16, 3), "float32", r"\(batch, height, width, 3\), found \(16, 16, 3\)"),
        ((1, 16, 16, 4), "float32", "found"),
        ((1, 18, 16, 3), "float32", "multiples of 4 and at least 16, found 18 and 16"),
        ((1, 12, 16, 3), "float32", "multiples of 4 and at least 16, found 12 and 16"),
        ((1, 16, 16, 3), "uint8", "floating-point images"),
    ],
)
def test_inputs_that_do_not_fit(params, shape, dtype, message):
    with pytest.raises(UserError, match=message):
        dea_net.apply(params, np.zeros(shape, dtype), CFG)


def multiply_adds(jaxpr):
    """Multiply-adds of all convolutions and products, the way papers count them.

    Zeros of the padding count, zeros between the pixels of a transposed convolution do not. Where
    the platform decides, the branch with a convolution counts.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        out = equation.outvars[0].aval if equation.outvars else None
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            spread = int(np.prod(params["lhs_dilation"]))
            total += out.size * int(np.prod(kernel[:3])) // spread
        elif name == "dot_general":
            left = equation.invars[0].aval.shape
            contracted = params["dimension_numbers"][0][0]
            total += out.size * int(np.prod([left[axis] for axis in contracted]))
        elif name == "cond":
            total += max(multiply_adds(branch.jaxpr) for branch in params["branches"])
        else:
            inner = [p for p in params.values() if hasattr(p, "jaxpr")]
            inner = [p.jaxpr for p in inner][:1]
            total += sum(map(multiply_adds, inner)) * params.get("length", 1)
    return total


def test_cost_is_the_published_one():
    for cfg, giga in (
        (DEANetConfig(form="deploy"), 32.225),
        (DEANetConfig.small(form="deploy"), 24.87),
    ):
        image = jax.ShapeDtypeStruct((1, 256, 256, 3), "float32")
        run = jax.make_jaxpr(lambda p, x, cfg=cfg: dea_net.apply(p, x, cfg))
        found = multiply_adds(run(dea_net.param_shapes(cfg), image).jaxpr) / 1e9
        assert found == pytest.approx(giga, rel=1e-3)
