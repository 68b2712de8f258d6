"""What the vision transformer promises beyond what every network does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import vit
from jaxcore.models.vit import ViTConfig


def images(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def numbers(cfg, x, columns=None, seed=0):
    params = vit.init(jax.random.key(seed), cfg)
    return np.asarray(jax.jit(vit.apply, static_argnames="cfg")(params, x, columns, cfg=cfg))


def count(cfg):
    return sum(leaf.size for leaf in jax.tree.leaves(vit.param_shapes(cfg)))


def test_published_sizes_have_the_published_number_of_parameters():
    assert count(ViTConfig.causalimages(covariates=6)) == 130_049
    assert count(ViTConfig.tutorial()) == 4_331_521


def test_a_remainder_that_fills_no_patch_is_left_out_or_filled():
    cfg = ViTConfig.tiny(covariates=0)
    x = images(2, 10, 9, 3)
    cut = numbers(cfg, x)
    np.testing.assert_array_equal(cut, numbers(cfg, x[:, :8, :8]))
    filled = numbers(ViTConfig.tiny(covariates=0, pad_to_patch=True), x)
    whole = jnp.pad(x, ((0, 0), (0, 2), (0, 3), (0, 0)))
    np.testing.assert_allclose(filled, numbers(cfg, whole), atol=1e-6)
    assert np.abs(filled - cut).max() > 1e-5


@pytest.mark.parametrize("mode", ["token", "head", "only"])
def test_covariates_count_in_every_mode_and_the_image_but_in_one(mode):
    cfg = ViTConfig.tiny(covariate_mode=mode)
    x, columns = images(2, 8, 8, 3), images(2, 2)
    first = numbers(cfg, x, columns)
    assert np.abs(numbers(cfg, x, columns + 1) - first).max() > 1e-6
    assert (np.abs(numbers(cfg, 2 * x, columns) - first).max() > 1e-6) == (mode != "only")


def test_the_order_of_patches_counts():
    cfg = ViTConfig.tiny(covariates=0)
    x = images(1, 4, 8, 3)
    swapped = jnp.concatenate([x[:, :, 4:], x[:, :, :4]], axis=2)
    assert np.abs(numbers(cfg, x) - numbers(cfg, swapped)).max() > 1e-6


def test_first_values_of_the_published_package_switch_the_first_block_off():
    ours, theirs = (
        vit.init(jax.random.key(0), ViTConfig.tiny(depth=3, start=start))["encoder"]["layer"]
        for start in ("ours", "official")
    )
    for name in ("RightWt1", "RightWt2"):
        shares = np.log1p(np.exp(np.asarray(ours[name], np.float64)))
        np.testing.assert_allclose(shares, 6**-0.5, rtol=1e-5)
        shares = np.log1p(np.exp(np.asarray(theirs[name], np.float64)))[:, 0]
        np.testing.assert_allclose(shares, [1e-6, 3**-0.5, 3**-0.25], rtol=1e-4)


def test_parts_are_left_out_in_training_by_the_key_alone():
    cfg = ViTConfig.tiny(drop_path=0.5, dropout=0.5)
    params = vit.init(jax.random.key(0), cfg)
    # Further from the start, so that updates count.
    params = jax.tree.map(lambda leaf: leaf + 0.5, params)
    x, columns = images(6, 8, 8, 3), images(6, 2)
    learn = jax.jit(vit.learn, static_argnames="cfg")

    def run(seed):
        found = learn(params, x, columns, cfg=cfg, key=jax.random.key(seed))
        assert found.collections == {}
        return np.asarray(found.outputs)

    np.testing.assert_array_equal(run(1), run(1))
    assert np.abs(run(1) - run(2)).max() > 1e-6
    without = learn(params, x, columns, cfg=cfg, key=None).outputs
    np.testing.assert_allclose(without, vit.apply(params, x, columns, cfg), atol=1e-6)


def test_the_transformer_over_time_has_weights_of_its_own_that_learn():
    cfg = ViTConfig.tiny(frames=3, num_heads=2, temporal_depth=1, covariate_mode="head")
    x, columns = images(2, 3, 8, 8, 3), images(2, 2)
    params = vit.init(jax.random.key(0), cfg)
    again = vit.from_torch(vit.to_torch(params, cfg), cfg)
    jax.tree.map(np.testing.assert_array_equal, again, params)

    @jax.jit
    def slopes(params, x):
        return jax.grad(lambda p: jnp.sum(vit.apply(p, x, columns, cfg) ** 2))(params)

    found, turned = slopes(params, x), slopes(params, x[:, ::-1])
    own = found["over_time"]["encoder"]["layer"]["attention"]["W_v"]
    assert np.abs(own).max() > 0
    # The order of the images counts.
    other = turned["over_time"]["encoder"]["layer"]["attention"]["W_v"]
    assert np.abs(own - other).max() > 1e-7


@pytest.mark.parametrize(
    ("fields", "x", "columns", "message"),
    [
        ({}, (2, 8, 8, 3), (2, 3), r"covariates of shape \(2, 2\), found \(2, 3\)"),
        ({}, (2, 8, 8, 3), None, r"covariates of shape \(2, 2\), found None"),
        ({"covariates": 0}, (2, 8, 8, 3), (2, 2), "covariates of shape None, found"),
        ({}, (2, 3, 8, 3), (2, 2), "at least 4, found 3 and 8"),
        ({"frames": 3}, (2, 8, 8, 3), (2, 2), r"sequences of shape \(batch, 3, height"),
        ({"frames": 3}, (2, 2, 8, 8, 3), (2, 2), r"found \(2, 2, 8, 8, 3\)"),
    ],
)
def test_what_does_not_fit_is_said(fields, x, columns, message):
    cfg = ViTConfig.tiny(num_heads=2, **fields)
    columns = None if columns is None else jnp.zeros(columns)
    with pytest.raises(UserError, match=message):
        vit.apply(vit.param_shapes(cfg), jnp.zeros(x), columns, cfg)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="a multiple of the 8 heads, found 12"):
        ViTConfig(width=12)
    with pytest.raises(UserError, match="needs covariates"):
        ViTConfig(covariate_mode="only")


def test_dead_weights_of_the_published_package_are_left_out_and_others_refused():
    cfg = ViTConfig.tiny()
    weights = vit.to_torch(vit.init(jax.random.key(0), cfg), cfg)
    dead = {"unused/MixCLSPool.weight": np.zeros((4, 8), np.float32)}
    vit.from_torch(weights | dead, cfg)
    with pytest.raises(UserError, match=r"1 unexpected: Extra\.weight"):
        vit.from_torch(weights | {"Extra.weight": np.zeros(3, np.float32)}, cfg)
