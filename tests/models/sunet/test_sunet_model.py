"""What is special to SUNet: windows, sizes, blocks left out, official files, the three steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import sunet
from jaxcore.models.sunet import SUNetConfig
from tests import tiny_weights
from tests.models.deconvolution.stamps import stamp

CFG = SUNetConfig.tiny(drop_path=0.5)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.05 * rng.standard_normal(leaf.shape), leaf.dtype),
        sunet.init(jax.random.key(0), CFG),
    )


apply = jax.jit(sunet.apply, static_argnames="cfg")


def images(*shape):
    return jnp.asarray(np.random.default_rng(1).random(shape), jnp.float32)


def test_an_image_does_not_depend_on_those_beside_it(params):
    x = images(2, 16, 16, 1)
    other = apply(params, x.at[0].set(0.3), cfg=CFG)
    np.testing.assert_array_equal(apply(params, x, cfg=CFG)[1], other[1])


def test_the_roll_of_shifted_windows_joins_no_opposite_borders():
    """A pixel of one border must not reach the other one through a single shifted block."""
    block = sunet.SwinBlock(num_heads=2, window=4, shift=2)
    x = images(1, 12, 12, 4)
    params = block.init(jax.random.key(0), x)
    changed = block.apply(params, x.at[:, 0, 5, 0].add(10.0)) - block.apply(params, x)
    rows = np.abs(changed[0]).max((1, 2)) > 0
    assert rows.tolist() == [True, True] + [False] * 10


def test_masks_are_those_of_the_regions_and_of_any_size():
    mask = np.asarray(sunet.shift_mask(8, 12, 4, 2))
    assert mask.shape == (6, 16, 16) and set(np.unique(mask)) == {-100.0, 0.0}
    assert not mask[0].any()  # the first window was not torn apart
    np.testing.assert_array_equal(mask, mask.transpose(0, 2, 1))
    x = images(2, 8, 12, 3)
    np.testing.assert_array_equal(sunet.merge(sunet.partition(x, 4), 8, 12), x)


def test_blocks_are_left_out_in_training_only_and_differently_by_key(params):
    x = images(2, 16, 16, 1)
    quiet = apply(params, x, cfg=CFG)
    np.testing.assert_array_equal(apply(params, x, cfg=CFG), quiet)
    one, other = (apply(params, x, cfg=CFG, key=jax.random.key(i)) for i in (0, 1))
    assert np.abs(one - quiet).max() > 0 and np.abs(one - other).max() > 0
    assert CFG.drop_rates[0] == (0.0, 0.125) and CFG.drop_rates[3] == (0.5,)


def test_unrolled_blocks_compute_the_same(params):
    x = images(2, 16, 16, 1)
    loose = SUNetConfig.tiny(drop_path=0.5, scan_blocks=False, remat=True)
    np.testing.assert_allclose(apply(params, x, cfg=loose), apply(params, x, cfg=CFG), atol=1e-6)


def test_official_files_hold_places_and_masks_under_a_prefix(params):
    weights = sunet.to_torch(params, CFG)
    assert all(key.startswith("swin_unet.") for key in weights)
    assert weights["swin_unet.layers.0.blocks.1.attn_mask"].shape == (64, 4, 4)
    bare = {k.removeprefix("swin_unet."): v for k, v in weights.items() if "attn_mask" not in k}
    jax.tree.map(np.testing.assert_array_equal, sunet.from_torch(bare, CFG), params)
    assert sunet.config_from_state_dict(bare, img_size=16, drop_path=0.5) == CFG
    odd = {f"module.{key}": value for key, value in weights.items()}
    assert sunet.config_from_state_dict(odd, drop_path=0.5) == CFG
    lost = {k: v for k, v in weights.items() if "norm_up.bias" not in k}
    with pytest.raises(UserError, match="norm_up"):
        sunet.from_torch(lost, CFG)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"img_size": 100}, "img_size must be a multiple of 8"),
        ({"num_heads": (5, 5, 5, 5)}, "48 channels cannot be divided among 5 heads"),
        ({"final_upsample": "dual"}, "patch_size must be 4"),
        ({"drop_path": 1.0}, "drop_path must be"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        SUNetConfig(**fields)


def test_three_steps_in_one_call_bring_the_flux_back(params):
    _, noisy, psf = stamp(side=40)  # no multiple of what the network takes
    stack = jnp.stack([noisy, 3 * noisy])[None]
    out = sunet.deconvolve(stack, psf[None].repeat(2, 0), params, CFG, n_iter=20)
    assert out.image.shape == out.tikhonov.shape == out.sunet.shape == (1, 2, 40, 40)
    assert out.support.shape == (1, 2, 4, 40, 40)
    lost = np.abs(out.sunet.sum((-2, -1)) / stack.sum((-2, -1)) - 1)
    left = np.abs(out.image.sum((-2, -1)) / stack.sum((-2, -1)) - 1)
    assert (left < 0.05).all() and (left < lost).all()
    np.testing.assert_allclose(out.image[0, 1], 3 * out.image[0, 0], atol=0.02)


def test_other_steps_sizes_tiles_and_ensembles():
    _, noisy, psf = stamp(side=40)
    images, psfs = noisy[None, None], psf[None]
    plain = sunet.deconvolve(images, psfs, steps=("tikhonov",), lam="sure")
    assert plain.sunet is None and plain.support is None
    np.testing.assert_array_equal(plain.image, plain.tikhonov)
    cfg = SUNetConfig.tiny(depths=(1, 1, 1, 1))
    first, second = (tiny_weights.params(seed, cfg, sunet) for seed in (1, 2))

    def ensemble(*members):
        stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        steps = ("tikhonov", "sunet")
        return sunet.deconvolve_ensemble(images, psfs, stack, cfg, steps=steps, tile=16)

    same, other, both = ensemble(first, first), ensemble(second, second), ensemble(first, second)
    assert same.image.shape == (1, 1, 40, 40) and np.isfinite(same.image).all()
    np.testing.assert_allclose(same.spread, 0, atol=1e-6)
    each = np.stack([same.image, other.image])
    np.testing.assert_allclose(both.image, each.mean(0), atol=1e-5)
    np.testing.assert_allclose(both.spread, each.std(0, ddof=1), atol=1e-5)
    assert float(both.spread.max()) > 0


def test_the_network_sees_a_peak_of_one_and_zeros_are_no_trouble():
    t = images(2, 3, 8, 8)
    scaled = sunet.normalise(t)
    np.testing.assert_allclose(scaled.images.mean((-2, -1)), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.back(scaled.images), t, atol=1e-6)
    assert not np.asarray(sunet.normalise(jnp.zeros((1, 8, 8))).images).any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": ("sunet",)}, "some of the steps"),
        ({"steps": ("tikhonov", "sunet")}, "Expected parameters"),
        ({"steps": ("tikhonov", "debias"), "psf": jnp.ones((2, 8, 8))}, "Expected images"),
    ],
)
def test_calls_that_do_not_fit_are_refused(options, sentence):
    arguments = {"images": jnp.ones((1, 1, 8, 8)), "psf": jnp.ones((1, 8, 8)), **options}
    with pytest.raises(UserError, match=sentence):
        sunet.deconvolve(arguments.pop("images"), arguments.pop("psf"), **arguments)


def test_images_may_have_one_psf_for_each():
    _, noisy, psf = stamp(side=32)
    images = jnp.stack([noisy[None], noisy[None]])
    one = sunet.deconvolve(images, psf[None], steps=("tikhonov",))
    each = sunet.deconvolve(images, jnp.stack([psf[None], psf[None]]), steps=("tikhonov",))
    np.testing.assert_allclose(each.image, one.image, atol=1e-6)
