"""LLaVA: the golden files, names of three publications, images in their places, refusals."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import clip, llama, llava
from jaxcore.models.llava import LlavaConfig
from tests.models.weights import count
from tests.parity.causalmm_vision import check_llava, check_names

GOLDEN = Path(__file__).parents[2] / "golden" / "causalmm"
CFG = LlavaConfig.tiny()
IMAGE = [10] * 4


def random_params(cfg, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32),
        llava.param_shapes(cfg),
    )


@pytest.fixture(scope="module")
def params():
    return random_params(CFG)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 4, 3)), jnp.float32)


@pytest.fixture(scope="module")
def features(params, images):
    return llava.image_features(params, images, CFG)


@pytest.fixture(scope="module")
def read():
    """One program for each number of rows."""
    run = jax.jit(lambda params, x, valid: llama.apply(params, x, CFG.language, valid=valid).logits)

    def logits(params, rows, features, length):
        tokens = np.array([[0] * (length - len(row)) + row for row in rows])
        x = llava.embed(params, tokens, CFG, features)
        lengths = np.array([len(row) for row in rows])
        found = run(params["language"], x, np.arange(length) >= length - lengths[:, None])
        return [its[-len(row) :] for row, its in zip(rows, found, strict=True)]

    return logits


def test_the_official_code_gives_the_same():
    check_llava(GOLDEN / "llava_tiny.npz")


def test_names_and_shapes_are_those_of_the_published_files():
    check_names(GOLDEN / "state_dict_full.json")


@pytest.mark.parametrize(
    ("cfg", "parameters"),
    [
        (LlavaConfig.llava_1_5_7b(), 7_063_427_072),
        (LlavaConfig.original_7b(), 7_062_902_784),
        (LlavaConfig.llava_1_5_13b(), 13_351_494_656),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(cfg, parameters):
    shapes = llava.param_shapes(cfg)
    assert count(shapes) == parameters
    if cfg == LlavaConfig.llava_1_5_7b():
        assert count(shapes["projector"]) == 20_979_712
        assert count(shapes["vision"]) == 303_507_456


@pytest.mark.parametrize("layout", ["released", "memory", "original"])
@pytest.mark.parametrize("cfg", [LlavaConfig.llava_1_5_7b(), LlavaConfig.llava_1_5_13b()])
def test_published_sizes_are_told_by_names_and_shapes(cfg, layout):
    shapes = llava.official_keys(cfg, layout)
    tensors = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    assert llava.config_from_state_dict(tensors) == cfg


@pytest.mark.parametrize("layout", ["released", "memory", "original"])
def test_weights_of_every_layout_go_there_and_back_to_the_bit(params, layout):
    weights = llava.to_torch(params, CFG, layout=layout)
    assert list(weights) == list(llava.official_keys(CFG, layout))
    again = llava.from_torch(weights, CFG)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    leftovers = {"vision_tower.vision_model.embeddings.position_ids": np.arange(5)}
    inv_freq = "model.layers.0.self_attn.rotary_emb.inv_freq"
    more = {**weights, **leftovers, inv_freq: np.ones(2)}
    jax.tree.map(np.testing.assert_array_equal, llava.from_torch(more, CFG), params)


def test_files_of_transformers_5_24_have_lost_a_level(params):
    weights = llava.to_torch(params, CFG)
    lost = {
        key.replace("vision_tower.vision_model.", "vision_tower."): value
        for key, value in weights.items()
    }
    assert lost.keys() != weights.keys()
    jax.tree.map(np.testing.assert_array_equal, llava.from_torch(lost, CFG), params)


def test_the_authors_files_may_leave_the_tower_to_clip(params):
    weights = llava.to_torch(params, CFG, layout="original", vision=False)
    assert not any("vision" in key for key in weights)
    with pytest.raises(UserError, match="leave it to openai/clip-vit-large-patch14-336"):
        llava.from_torch(weights, CFG)
    tower = clip.to_torch(params["vision"], CFG.vision)
    whole = {**tower, "logit_scale": np.ones(()), "visual_projection.weight": np.ones((2, 4))}
    whole["text_model.embeddings.token_embedding.weight"] = np.ones((3, 3))
    for vision in (tower, whole, {k.removeprefix("vision_model."): v for k, v in tower.items()}):
        found = llava.from_torch(weights, CFG, vision=vision)
        jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize("projector", ["linear", "mlp1x_gelu", "mlp3x_gelu", "identity"])
def test_other_projectors(projector, images):
    vision = clip.CLIPConfig.tiny(projection=0, width=8)
    cfg = LlavaConfig.tiny(projector=projector, vision=vision)
    params = random_params(cfg)
    weights = llava.to_torch(params, cfg, layout="original")
    jax.tree.map(np.testing.assert_array_equal, llava.from_torch(weights, cfg), params)
    sizes = {"vision": {"num_heads": 1}, "language": {"head_dim": 4, "max_positions": 64}}
    assert llava.config_from_state_dict(weights, **sizes, image_token=10) == cfg
    x = np.asarray(llava.tower(params, images, cfg).tokens, np.float64)
    for i in range(1, len(cfg.projector_widths)):
        layer = jax.tree.map(np.asarray, params["projector"][f"linear_{i}"])
        x = x if i == 1 else x * 0.5 * (1 + np.asarray(jax.scipy.special.erf(x / 2**0.5)))
        x = x @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(llava.image_features(params, images, cfg), x, atol=1e-5)


def test_blocks_behind_the_selected_one_are_not_computed(params, images):
    broken = jax.tree.map(lambda leaf: leaf.at[-1].set(jnp.nan), params["vision"]["layers"])
    vision = {**params["vision"], "layers": broken, "post_norm": {}}
    seen = llava.tower({**params, "vision": vision}, images, CFG, attention=True)
    whole = clip.features(params["vision"], images, CFG.vision, layer=1, attention=True)
    np.testing.assert_allclose(seen.tokens, whole.tokens[:, 1:], atol=1e-6)
    np.testing.assert_allclose(seen.attention, whole.attention, atol=1e-6)
    np.testing.assert_allclose(seen.attention.sum(-1), 1, atol=1e-5)


def test_images_stand_in_the_order_of_the_prompts_and_rows_may_have_none(params, features, read):
    """Each row alone says the same as in a batch with padding on the left."""
    rows = [[3, *IMAGE, 4, *IMAGE, 5], [6, 7], [*IMAGE, 8]]
    found = read(params, rows, features, 11)
    alone = (features[:2], features[:0], features[2:])
    for row, its, ours in zip(rows, alone, found, strict=True):
        np.testing.assert_allclose(ours, read(params, [row], its, 12)[0], atol=1e-5)
    swapped = read(params, rows, features[jnp.array([1, 0, 2])], 11)
    assert np.abs(swapped[0] - found[0]).max() > 1e-3
    for ours, same in zip(swapped[1:], found[1:], strict=True):
        np.testing.assert_allclose(ours, same, atol=1e-6)


def test_generation_goes_on_behind_an_image_as_if_all_were_read_at_once(
    params, images, features, read
):
    prompt = [3, *IMAGE, 4]
    (whole,) = read(params, [[*prompt, 7, 2]], features[:1], 12)
    cache = llama.init_cache(CFG.language, 1, 8)
    out = llava.apply(params, jnp.array([prompt]), CFG, images=images[:1], cache=cache)
    assert out.logits is not None
    np.testing.assert_allclose(out.logits[0], whole[:6], atol=1e-4)
    step, cache = llama.step(params["language"], CFG.language), out.cache
    for i, token in enumerate((7, 2)):
        logits, cache = step(jnp.array([[token]]), cache)
        np.testing.assert_allclose(logits[0], whole[6 + i], atol=1e-4)


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ([[1, 10, 10, 10, 2]], {"images": 1}, "vectors of images, 4, found 3"),
        ([[1, 2, 3, 4, 5]], {"images": 1}, "vectors of images, 4, found 0"),
        ([[1, *IMAGE, 5]], {}, "vectors of images, 0, found 4"),
        ([[1, *IMAGE, 5]], {"images": 1, "features": 1}, "either images or their features"),
        ([1.5], {}, r"LLaVA expects tokens .* found \(1,\) of float32"),
    ],
)
def test_prompts_and_images_that_do_not_fit_are_refused(params, images, tokens, options, message):
    given = {name: images[:number] for name, number in options.items()}
    with pytest.raises(UserError, match=message):
        llava.apply(params, jnp.asarray(tokens), CFG, **given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projector": "mlp0x_gelu"}, "projector must be linear, identity or mlpNx_gelu"),
        ({"projector": "identity"}, "identity needs features of 8, found 4"),
        ({"select_layer": -4}, "select_layer must be a block of the 2, found -4"),
        ({"vision": clip.CLIPConfig.tiny()}, "family 'clip' with projection 0"),
    ],
)
def test_configurations_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        LlavaConfig.tiny(**changes)
