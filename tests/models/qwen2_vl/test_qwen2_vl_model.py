"""Qwen2-VL: the golden file, names of both publications, several images, positions, refusals."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import llama, qwen2_vl
from jaxcore.models.qwen2_vl import Qwen2VLConfig, VisionConfig
from tests.models.weights import count
from tests.parity.causalmm_vision import check_qwen2_vl

GOLDEN = Path(__file__).parents[2] / "golden" / "causalmm"
CFG = Qwen2VLConfig.tiny()


def random_params(cfg):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
        qwen2_vl.param_shapes(cfg),
    )


@pytest.fixture(scope="module")
def params():
    return random_params(CFG)


def image(grid, seed):
    return np.random.default_rng(seed).normal(size=(np.prod(grid), 12)).astype(np.float32)


def patches(grids, **options):
    rows = [image(grid, seed) for seed, grid in enumerate(grids)]
    return qwen2_vl.join_patches(rows, grids, CFG.vision, **options)


def test_the_official_code_gives_the_same():
    check_qwen2_vl(GOLDEN / "qwen2vl_tiny.npz")


def test_published_sizes_have_the_published_number_of_parameters():
    shapes = qwen2_vl.param_shapes(Qwen2VLConfig.qwen2_vl_7b())
    assert count(shapes) == 8_291_375_616
    assert count(shapes["vision"]) == 675_759_104
    assert count(shapes["vision"]["merger"]) == 44_575_744
    assert count(qwen2_vl.param_shapes(Qwen2VLConfig.qwen2_vl_2b())) == 2_208_985_600


@pytest.mark.parametrize("cfg", [Qwen2VLConfig.qwen2_vl_7b(), Qwen2VLConfig.qwen2_vl_2b()])
@pytest.mark.parametrize("layout", ["released", "memory"])
def test_published_sizes_are_told_by_names_and_shapes(cfg, layout):
    shapes = qwen2_vl.official_keys(cfg, layout)
    tensors = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    found = qwen2_vl.config_from_state_dict(tensors, language={"max_positions": 32768})
    assert found == cfg


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layout", ["released", "memory"])
def test_weights_of_both_layouts_go_there_and_back_to_the_bit(layout, tied):
    language = llama.LlamaConfig.tiny(
        head_dim=6, mrope_sections=(1, 1, 1), qkv_bias=True, tied=tied
    )
    cfg = Qwen2VLConfig.tiny(language=language)
    params = random_params(cfg)
    weights = qwen2_vl.to_torch(params, cfg, layout=layout)
    assert list(weights) == list(qwen2_vl.official_keys(cfg, layout))
    assert ("lm_head.weight" in weights) != tied
    for order in (weights, dict(reversed(weights.items()))):
        jax.tree.map(np.testing.assert_array_equal, qwen2_vl.from_torch(order, cfg), params)
    if tied:  # some files hold the embeddings twice
        table = weights[
            "model.embed_tokens.weight"
            if layout == "released"
            else "model.language_model.embed_tokens.weight"
        ]
        twice = {**weights, "lm_head.weight": table}
        jax.tree.map(np.testing.assert_array_equal, qwen2_vl.from_torch(twice, cfg), params)


def test_images_do_not_see_each_other_nor_what_fills_up(params):
    grids = [(1, 4, 6), (1, 2, 4), (1, 2, 2)]
    look = jax.jit(lambda params, patches: qwen2_vl.image_features(params, patches, CFG))
    alone = [
        look(params, qwen2_vl.join_patches([image(grid, i)], [grid], CFG.vision))
        for i, grid in enumerate(grids)
    ]
    joined = look(params, patches(grids, bucket=8))
    assert joined.shape == (16, 8)
    np.testing.assert_allclose(joined[:9], np.concatenate(alone), atol=1e-5)


def test_moments_of_a_film_do_not_see_each_other(params):
    look = jax.jit(lambda params, patches: qwen2_vl.image_features(params, patches, CFG))
    film = patches([(2, 2, 4)])
    rows = np.split(film.values, 2)
    single = [qwen2_vl.join_patches([row], [(1, 2, 4)], CFG.vision) for row in rows]
    found = np.concatenate([look(params, one) for one in single])
    np.testing.assert_allclose(look(params, film), found, atol=1e-5)


def test_many_patches_are_read_some_at_a_time_with_the_same_result(params):
    many = patches([(1, 30, 40), (1, 2, 4)])

    def look(params, attention):
        return qwen2_vl.tower(params, many, CFG, attention=attention)

    plain, seen = (jax.jit(look, static_argnums=1)(params, flag) for flag in (False, True))
    assert plain.attention is None and seen.attention.shape == (1, 1, 1208, 1208)
    np.testing.assert_allclose(plain.tokens, seen.tokens, atol=1e-5)
    np.testing.assert_allclose(seen.attention.sum(-1), 1, atol=1e-4)
    assert not seen.attention[0, 0, :1200, 1200:].any()


def test_positions_of_texts_images_and_films():
    text = np.array([[4, 5, 6]])
    positions, delta = qwen2_vl.position_ids(text, [], CFG)
    assert positions[:, 0].tolist() == [[0, 1, 2]] * 3 and delta.tolist() == [0]
    film = np.array([[4, *[9] * 4, 10, 10, 5]])
    positions, delta = qwen2_vl.position_ids(film, [(2, 2, 4), (1, 4, 2)], CFG)
    # The film takes 1 and 2 (its longest side has 2 vectors), the image goes on from 3.
    assert positions[0, 0].tolist() == [0, 1, 1, 2, 2, 3, 3, 5]
    assert positions[1, 0].tolist() == [0, 1, 1, 1, 1, 3, 4, 5]
    assert positions[2, 0].tolist() == [0, 1, 2, 1, 2, 3, 3, 5]
    assert delta.tolist() == [-2]


def test_rows_with_padding_on_the_left_say_the_same_as_alone(params):
    """Images in a batch: their positions, order and counts."""
    grids = [(1, 2, 4), (1, 4, 4)]
    rows = [[3, 10, 10, 4, 5, 6, 7], [8, 10, 10, 10, 10], [1, 2]]
    features = qwen2_vl.image_features(params, patches(grids), CFG)
    apply = jax.jit(qwen2_vl.apply, static_argnums=2)

    def read(rows, grids, features, length):
        tokens = np.array([[0] * (length - len(row)) + row for row in rows])
        lengths = np.array([len(row) for row in rows])
        valid = np.arange(length) >= length - lengths[:, None]
        positions, delta = qwen2_vl.position_ids(tokens, grids, CFG, valid)
        options = {"features": features, "positions": positions, "valid": valid}
        cache = llama.init_cache(CFG.language, len(rows), length + 1)
        out = apply(params, tokens, CFG, **options, cache=cache)
        np.testing.assert_array_equal(out.cache.position, lengths + delta)
        return [its[-len(row) :] for row, its in zip(rows, out.logits, strict=True)], out.cache

    found, cache = read(rows, grids, features, 7)
    following = [5, 6, 7]
    then, _ = llama.step(params["language"], CFG.language)(jnp.array(following)[:, None], cache)
    for i, row in enumerate(rows):
        # Vectors behind those of the images are never looked at: one program for all rows.
        its = jnp.roll(features, -2 * i, axis=0)
        (alone,), _ = read([[*row, following[i]]], grids[i : i + 1], its, 9)
        np.testing.assert_allclose(found[i], alone[:-1], atol=1e-5)
        np.testing.assert_allclose(then[i], alone[-1], atol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "grids", "message"),
    [
        ([[1, 10, 10, 2]], [], "an image for every place in the prompts, found too few"),
        ([[1, 2]], [(1, 2, 4)], r"places in the prompts for 1 image\(s\), found some for 0"),
        ([[1, 10, 2, 10]], [(1, 2, 4)], "Expected 2 tokens for an image of 1x2x4 patches, found 1"),
        ([[1, 10, 2]], [(1, 3, 4)], "whole cells of 2x2 patches, found 1x3x4"),
    ],
)
def test_prompts_and_images_that_do_not_fit_are_refused(tokens, grids, message):
    with pytest.raises(UserError, match=message):
        qwen2_vl.position_ids(np.array(tokens), grids, CFG)


def test_what_does_not_belong_together_is_refused(params):
    rows = image((1, 2, 4), 0)
    with pytest.raises(UserError, match="8 patches of 12 values for a grid of 1x2x4, found"):
        qwen2_vl.join_patches([rows[:4]], [(1, 2, 4)], CFG.vision)
    with pytest.raises(UserError, match="found 1 and 2"):
        qwen2_vl.join_patches([rows], [(1, 2, 4)] * 2, CFG.vision)
    tokens, one = np.array([[1, 10, 10, 2]]), patches([(1, 2, 4)])
    with pytest.raises(UserError, match="expects positions where there are images"):
        qwen2_vl.apply(params, tokens, CFG, images=one)
    with pytest.raises(UserError, match="vectors of images, 0, found 2"):
        qwen2_vl.apply(params, tokens, CFG)
    with pytest.raises(UserError, match="out_width must be that of the decoder, 8, found 4"):
        Qwen2VLConfig.tiny(vision=VisionConfig(out_width=4))
    with pytest.raises(UserError, match="mrope_sections must be three"):
        Qwen2VLConfig.tiny(language=llama.LlamaConfig.tiny())
