"""The whole network: options that must not change its numbers, shapes, sizes, mistakes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import adair, export
from jaxcore.models.adair import AdaIR, AdaIRConfig
from jaxcore.nn import capture

CFG = AdaIRConfig.tiny(dim=8, heads=(1, 2, 2, 4), num_blocks=(1, 2, 1, 1))
# Without the frequency blocks, which test_adair_blocks.py has alone, it compiles in a third.
PLAIN = dataclasses.replace(CFG, decoder=False)


@pytest.fixture(scope="module")
def params():
    tree = adair.init(jax.random.key(0), CFG)
    for name in ("fre1", "fre2", "fre3"):
        tree[name]["para1"] = jnp.ones_like(tree[name]["para1"])
    return tree


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(2, 40, 56, 3)).astype(np.float32)


run = jax.jit(adair.apply, static_argnames="cfg")


@pytest.fixture(scope="module")
def output(params, images):
    return np.asarray(run(params, images, cfg=CFG))


@pytest.fixture(scope="module")
def plain(params, images):
    """The network of `PLAIN`: parameters and output."""
    tree = {name: value for name, value in params.items() if not name.startswith("fre")}
    return tree, np.asarray(run(tree, images, cfg=PLAIN))


def test_a_mapped_single_image_equals_the_batch(params, images, output):
    mapped = jax.jit(jax.vmap(lambda p, x: adair.apply(p, x[None], CFG)[0], (None, 0)))
    np.testing.assert_allclose(mapped(params, images), output, atol=1e-5)


def test_unrolled_blocks_and_a_large_statistics_window_change_nothing(plain, images):
    params, output = plain
    cfg = dataclasses.replace(PLAIN, scan_blocks=False, stat_window=56)
    np.testing.assert_allclose(run(params, images, cfg=cfg), output, atol=1e-5)


def test_a_small_statistics_window_changes_the_numbers(plain, images):
    params, output = plain
    local = run(params, images, cfg=dataclasses.replace(PLAIN, stat_window=16))
    assert np.isfinite(local).all() and np.abs(local - output).max() > 1e-4


def test_half_precision_stays_close_and_finite(plain, images):
    params, output = plain
    half = run(params, images, cfg=dataclasses.replace(PLAIN, dtype="bfloat16"))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, output, atol=0.1)


class _Level(AdaIR):
    """One stack of blocks, in the network's own form."""

    @nn.compact
    def __call__(self, image, context=None):
        return self._stage("encoder_level2", 2, image)


def test_remat_changes_no_gradient():
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 16)).astype(np.float32)
    weights = adair.init(jax.random.key(0), CFG)["encoder_level2"]

    def gradient(cfg):
        def loss(weights, x):
            return jnp.mean(_Level(cfg).apply({"params": {"encoder_level2": weights}}, x) ** 2)

        return jax.grad(loss), jax.jit(jax.grad(loss))(weights, x)

    plain, recomputed = CFG, dataclasses.replace(CFG, remat=True)
    assert "remat" not in str(jax.make_jaxpr(gradient(plain)[0])(weights, x))
    assert "remat" in str(jax.make_jaxpr(gradient(recomputed)[0])(weights, x))
    pairs = zip(*(jax.tree.leaves(gradient(cfg)[1]) for cfg in (plain, recomputed)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4)


def test_intermediates_and_context(params, images, output):
    context = jnp.zeros((2, 64))
    with_all = jax.jit(lambda p, x, c: capture(adair.apply)(p, x, CFG, context=c))
    y, seen = with_all(params, images, context)
    np.testing.assert_allclose(y, output, atol=1e-6)
    assert seen["latent"].shape == (2, 5, 7, 64)
    assert seen["encoder_level1"].shape == (2, 40, 56, 8)
    assert seen["fre2"].shape == (2, 10, 14, 32)
    assert seen["fre3/mining/mask"].shape == (2, 20, 28)
    assert seen["fre3/mining/threshold"].shape == (2, 2)
    moved, _ = with_all(params, images, context + 1)
    assert np.abs(moved - y).max() > 1e-4


@pytest.mark.slow  # by default that of DEA-Net
def test_export_round_trip(params, images, output):
    blob = export.export_network(adair, params, CFG, 40, 56, platforms=("cpu",))
    loaded = export.load_network(blob)
    np.testing.assert_allclose(loaded(images[:1]), output[:1], atol=1e-5)
    for broken in (b"", b"not a network", blob[: len(blob) // 2]):
        with pytest.raises(UserError, match="Expected an exported network"):
            export.load_network(broken)


def test_context_that_does_not_fit(params, images):
    with pytest.raises(UserError, match=r"shape \(2, 64\), found \(2, 8\)"):
        adair.apply(params, images, CFG, context=jnp.zeros((2, 8)))
