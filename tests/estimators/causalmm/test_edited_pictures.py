"""Counterfactual features of pictures: LLaVA's, Qwen2-VL's, weights replaced inside the tower."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm import Decoder, Text, VisionEdit, attention_maps, on_picture
from jaxcore.estimators.causalmm.maps import attention_picture, last_token, text_picture
from jaxcore.estimators.causalmm.vision import llava_features, qwen2_vl_features
from jaxcore.models import clip, llama, llava, qwen2_vl
from jaxcore.nn import AttentionEdit, capture
from jaxcore.ops import patch_weights

CFG = llava.LlavaConfig.tiny(vision=clip.CLIPConfig.tiny(projection=0, depth=3, num_heads=2))
QWEN = qwen2_vl.Qwen2VLConfig.tiny()
KEYS = jax.random.split(jax.random.key(0), 2)


def random_params(shapes):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(0.5 * rng.normal(size=s.shape), s.dtype), shapes)


@pytest.fixture(scope="module")
def params():
    return random_params(llava.param_shapes(CFG))


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 4, 3)), jnp.float32)


def test_each_row_has_its_own_draws_that_do_not_depend_on_the_others(params, images):
    for mode in ("reweight", "inject"):
        edit = VisionEdit(kind="shuffle", mode=mode)
        both = llava_features(params, images, CFG, edit, keys=KEYS)
        one = llava_features(params, images[1:], CFG, edit, keys=KEYS[1:])
        np.testing.assert_allclose(both[1:], one, atol=1e-5)
        other = llava_features(params, images[1:], CFG, edit, keys=KEYS[:1])
        assert np.abs(other - one).max() > 1e-4


def test_injected_weights_are_rows_that_sum_to_one_in_the_chosen_layers(params, images):
    look = capture(llava_features, "layers/attention")

    def weights(**options):
        return look(params, images, CFG, VisionEdit(mode="inject", **options), keys=KEYS)[1][
            "layers/attention"
        ]

    uniform = weights(kind="uniform", layers=(0,))
    np.testing.assert_allclose(uniform[0], 1 / 5, atol=1e-6)
    assert np.abs(uniform[1] - 1 / 5).max() > 1e-3
    random = weights(kind="random")
    np.testing.assert_allclose(random.sum(-1), 1, atol=1e-5)
    assert np.abs(random[0] - random[1]).max() > 1e-3  # each layer its own


def test_what_cannot_be_edited(params, images):
    every = llava.LlavaConfig.tiny(select="all")
    with pytest.raises(UserError, match="of patches alone"):
        llava_features(params, images, every, VisionEdit())
    with pytest.raises(UserError, match="one random key per row"):
        llava_features(params, images, CFG, VisionEdit(kind="random"))


def test_patches_of_qwen2_vl_get_the_weights_of_their_own_image():
    params, grids = random_params(qwen2_vl.param_shapes(QWEN)), [(1, 2, 4), (1, 4, 2)]
    rng = np.random.default_rng(2)
    size = QWEN.vision.patch_values
    rows = [rng.normal(size=(8, size)).astype(np.float32) for _ in grids]
    patches = qwen2_vl.join_patches(rows, grids, QWEN.vision, bucket=8)
    edit = VisionEdit(kind="reverse")
    ours = qwen2_vl_features(params, patches, grids, QWEN, edit)
    seen = qwen2_vl.tower(params, patches, QWEN, attention=True)
    assert seen.attention is not None
    tokens = np.array(seen.tokens)
    for number, grid in enumerate(grids):
        own = slice(8 * number, 8 * number + 8)
        weights = patch_weights(seen.attention[:, :, own, own], grid[1:], "reverse")
        cells = weights.reshape(grid[1] // 2, 2, grid[2] // 2, 2).swapaxes(1, 2).ravel()
        tokens[0, own] *= np.asarray(cells)[:, None]
    np.testing.assert_allclose(ours, qwen2_vl.project(params, tokens, QWEN), atol=1e-5)
    injected = VisionEdit(kind="uniform", mode="inject")
    plain = qwen2_vl.image_features(params, patches, QWEN)
    assert np.abs(qwen2_vl_features(params, patches, grids, QWEN, injected) - plain).max() > 1e-4


def test_maps_and_pictures_of_attention(params):
    decoder = Decoder(params["language"], CFG.language, llama)
    prompt = Text(jnp.array([[0, 1, 2, 3, 4, 5]]), jnp.arange(6)[None] > 0)
    edit = AttentionEdit.create("uniform", "all", CFG.language.depth)
    plain, edited = (attention_maps(decoder, prompt, one) for one in (None, edit))
    np.testing.assert_allclose(plain.sum(-1)[:, :, :, 1:], 1, atol=1e-5)
    np.testing.assert_allclose(edited[:, 0, :, -1, 1:], 1 / 5, atol=1e-6)
    np.testing.assert_allclose(on_picture(edited, [1, 2, 3, 4], (2, 2)), 1 / 5, atol=1e-6)
    assert last_token(plain, prompt.valid).shape == (CFG.language.depth, 5)
    with pytest.raises(UserError, match="Expected 4 places of a picture's tokens, found 1"):
        on_picture(plain, [1], (2, 2))
    pytest.importorskip("matplotlib")
    maps = {"factual": on_picture(plain, [1, 2, 3, 4], (2, 2))}
    assert len(attention_picture(np.ones((4, 4, 3)), maps).axes) >= 3
    assert len(text_picture(list("abcde"), {"factual": last_token(plain, prompt.valid)}).axes) == 2
