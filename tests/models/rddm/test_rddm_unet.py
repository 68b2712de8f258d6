"""The networks: options that must not change what is computed, and inputs that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore import ops
from jaxcore.errors import UserError
from jaxcore.models import rddm
from jaxcore.models.rddm import RDDMConfig
from jaxcore.models.rddm.network.blocks import linear_attention

CFG = RDDMConfig.deraining(unet={"dim": 8, "dim_mults": (1, 2), "groups": 4})
FLAT = RDDMConfig.tiny(
    unet={"dim": 8, "groups": 4, "dim_mults": (1,)}
)  # one level, quick to compile
run = jax.jit(rddm.apply, static_argnames="cfg")


def inputs(cfg, batch=2, height=6, width=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, height, width, cfg.input_channels), np.float32)
    return x, jnp.array(rng.uniform(0, 999, batch).astype(np.float32))


@pytest.fixture(scope="module")
def params():
    return rddm.init(jax.random.key(0), CFG)


@pytest.fixture(scope="module")
def outputs(params):
    return run(params, *inputs(CFG), cfg=CFG)


def test_two_networks_share_nothing(params, outputs):
    assert [y.shape for y in outputs] == [(2, 6, 4, 3)] * 2
    other = {**params, "unet1": jax.tree.map(lambda a: a + 0.1, params["unet1"])}
    changed = run(other, *inputs(CFG), cfg=CFG)
    np.testing.assert_array_equal(changed[0], outputs[0])
    assert np.abs(changed[1] - outputs[1]).max() > 1e-3


def test_each_network_is_told_its_own_time(params, outputs):
    x, time = inputs(CFG)
    changed = run(params, x, (time, time * 0.5), cfg=CFG)
    np.testing.assert_allclose(changed[0], outputs[0], atol=1e-5)
    assert np.abs(changed[1] - outputs[1]).max() > 1e-4


@pytest.fixture(scope="module")
def flat():
    params = rddm.init(jax.random.key(0), FLAT)
    return params, run(params, *inputs(FLAT), cfg=FLAT)[0]


def test_images_of_a_batch_do_not_mix(flat):
    params, whole = flat
    x, time = inputs(FLAT)
    (alone,) = run(params, x[1:], time[1:], cfg=FLAT)
    np.testing.assert_allclose(alone, whole[1:], atol=1e-5)


def test_kernels_standardised_beforehand_compute_the_same(params, outputs):
    frozen = rddm.standardise(params, CFG)
    for ours, given in zip(run(frozen, *inputs(CFG), cfg=CFG), outputs, strict=True):
        np.testing.assert_allclose(ours, given, atol=1e-5)
    kernel = frozen["unet0"]["mid_block1"]["block2"]["proj"]["standardised"]
    np.testing.assert_allclose(jnp.mean(kernel, axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(jnp.std(kernel, axis=(0, 1, 2)), 1, atol=1e-2)


def test_half_precision_stays_near_float32(flat):
    params, given = flat
    (ours,) = run(params, *inputs(FLAT), cfg=FLAT.replace(unet={"dtype": "bfloat16"}))
    assert ours.dtype == jnp.float32
    assert 0 < np.abs(ours - given).mean() < 0.05 * np.abs(given).mean()


def test_gradients_are_finite_and_the_same_with_rematerialisation(flat):
    params, _ = flat
    x, time = inputs(FLAT)

    def loss(params, cfg):
        return sum(jnp.mean(jnp.square(y)) for y in rddm.apply(params, x, time, cfg))

    plain, again = (
        jax.jit(jax.grad(loss), static_argnames="cfg")(params, cfg=cfg)
        for cfg in (FLAT, FLAT.replace(unet={"remat": True}))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), plain, again)
    assert all(np.isfinite(g).all() and np.any(g != 0) for g in jax.tree.leaves(plain))


def test_fourier_features_learn_or_stay():
    cfg = FLAT.replace(unet={"time_embedding": "random"})
    shapes = rddm.param_shapes(cfg)
    assert shapes["unet0"]["time_mlp"]["dense_1"]["kernel"].shape == (17, 32)
    mask = rddm.trainable(shapes, cfg)
    assert mask["unet0"]["time_mlp"]["frequencies"] is False
    assert sum(not leaf for leaf in jax.tree.leaves(mask)) == 1
    assert rddm.trainable(shapes, cfg.replace(unet={"time_embedding": "learned"})) is None
    (y,) = run(rddm.init(jax.random.key(0), cfg), *inputs(cfg), cfg=cfg)
    assert np.isfinite(y).all()


def test_initialisation_is_the_official_one(params):
    weights = rddm.to_torch(params, CFG)
    for key, w in weights.items():
        if not key.startswith("model."):
            continue
        if key.endswith(".g") or key.endswith("norm.weight"):
            assert (w == 1).all(), key
        elif key.endswith("norm.bias"):
            assert (w == 0).all(), key
        else:
            kernel = weights[key.removesuffix("bias").removesuffix("weight") + "weight"]
            bound = np.prod(kernel.shape[1:]) ** -0.5
            assert np.abs(w).max() <= bound, key
            if w.size > 200:
                assert abs(w.std() * 3**0.5 / bound - 1) < 0.2, key


@pytest.mark.parametrize(
    ("shape", "times", "message"),
    [
        ((2, 6, 4, 3), 2, r"width, 6\) with the channels I_t 3 \+ I_in 3, found \(2, 6, 4, 3\)"),
        ((2, 6, 5, 6), 2, "positive multiples of 2, found 6 and 5"),
        ((6, 4, 6), 2, r"found \(6, 4, 6\)"),
        ((3, 6, 4, 6), 2, r"2 vector\(s\) of times, one entry per image, found shapes .* 3 images"),
    ],
)
def test_inputs_that_do_not_fit(params, shape, times, message):
    with pytest.raises(UserError, match=message):
        rddm.apply(params, jnp.zeros(shape), jnp.zeros(times), CFG)


def test_whole_numbers_and_a_wrong_count_of_times_are_refused(params):
    with pytest.raises(UserError, match=r"floating-point images in \[-1, 1\], found int32"):
        rddm.apply(params, jnp.zeros((1, 2, 2, 6), jnp.int32), jnp.zeros(1), CFG)
    with pytest.raises(UserError, match=r"expects 2 vector\(s\) of times"):
        rddm.apply(params, jnp.zeros((1, 2, 2, 6)), (jnp.zeros(1),), CFG)


def test_linear_attention_is_what_it_says():
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 3, 5, 8), np.float32)
    ours = linear_attention(*map(jnp.asarray, (q, k, v)), 2)
    q, k, v = (a.reshape(2, 15, 2, 4).astype(np.float64) for a in (q, k, v))
    q = np.exp(q) / np.exp(q).sum(axis=-1, keepdims=True) * 4**-0.5
    k = np.exp(k) / np.exp(k).sum(axis=1, keepdims=True)
    context = np.einsum("bnhd,bnhe->bhde", k, v / 15)
    expected = np.einsum("bhde,bnhd->bnhe", context, q).reshape(2, 3, 5, 8)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2])
def test_group_norm_and_its_gradient_equal_the_plain_formula(rows):
    rng = np.random.default_rng(0)
    x = jnp.asarray(3 + rng.standard_normal((2, 3, 5, 8), np.float32))
    scale, bias = jnp.asarray(rng.standard_normal((2, rows, 8), np.float32))

    def plain(x, scale, bias):
        parts = x.reshape(2, 15, 4, 2)
        mean = jnp.mean(parts, axis=(1, 3), keepdims=True)
        variance = jnp.var(parts, axis=(1, 3), keepdims=True)
        unit = ((parts - mean) / jnp.sqrt(variance + 1e-5)).reshape(x.shape)
        return unit * scale[:, None, None] + bias[:, None, None]

    def scalar(function):
        weights = jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
        return lambda *a: jnp.sum(weights * function(*a))

    ours = scalar(lambda *a: ops.group_norm(*a, 4))
    np.testing.assert_allclose(ops.group_norm(x, scale, bias, 4), plain(x, scale, bias), atol=1e-5)
    found = jax.grad(ours, argnums=(0, 1, 2))(x, scale, bias)
    expected = jax.grad(scalar(plain), argnums=(0, 1, 2))(x, scale, bias)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 4, 5, 3)])
def test_a_convolution_of_repeated_pixels_is_what_it_says(shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal(shape, np.float32))
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, 2), np.float32))

    def plain(x, kernel):
        return ops.conv2d(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2), kernel)

    np.testing.assert_allclose(ops.repeated_conv2d(x, kernel), plain(x, kernel), atol=1e-5)
    found, expected = (
        jax.grad(lambda k, f=f: jnp.sum(jnp.sin(f(x, k))))(kernel)
        for f in (ops.repeated_conv2d, plain)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
