"""Folders of LLaVA and Qwen2-VL: settings, weights, pictures in their prompts."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxcore.convert import read_state_dict, write_safetensors, write_torch
from jaxcore.data.images.vision_inputs import PatchInputs, SquareInputs
from jaxcore.errors import UserError
from jaxcore.json_files import read_json
from jaxcore.models import clip, llama, llava, qwen2_vl
from jaxcore.parallel import make_mesh
from jaxcore.tokenizers import read_tokenizer
from jaxcore.weights import load_language
from jaxcore.weights.hugging_face import decoder_options
from jaxcore.weights.seeing import read_seeing
from tests.seeing_folders import LLAVA, QWEN, random_params, write_llava, write_qwen2_vl

RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 256, (6, 14, 3), np.uint8)
TALL = RNG.integers(0, 256, (9, 5, 3), np.uint8)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def read(folder, **options):
    return read_seeing(folder, read_json(folder / "config.json"), **options)


@pytest.fixture(scope="module")
def llava_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    return write_llava(folder), folder


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    return write_qwen2_vl(folder), folder


def test_a_llava_is_read_with_its_settings(llava_folder):
    params, folder = llava_folder
    found, sight = read(folder)
    assert sight.cfg == LLAVA
    assert sight.inputs == SquareInputs(side=4, pad=True)
    same(found, params)
    assert read(folder, fit="crop")[1].inputs == SquareInputs(side=4)
    narrow, sight = read(folder, dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(narrow)} == {"bfloat16"}
    assert sight.cfg.language.dtype == sight.cfg.vision.dtype == "bfloat16"


def test_a_qwen2_vl_is_read_with_its_settings(qwen_folder):
    params, folder = qwen_folder
    found, sight = read(folder)
    assert sight.cfg == QWEN
    assert sight.inputs == PatchInputs(patch=2, min_pixels=16, max_pixels=128)
    same(found, params)
    assert read(folder, max_pixels=64)[1].inputs == PatchInputs(
        patch=2, min_pixels=16, max_pixels=64
    )


@pytest.mark.parametrize("write", [write_llava, write_qwen2_vl])
def test_weights_go_straight_to_the_devices_of_a_mesh(tmp_path, write):
    expected = write(tmp_path)
    model = load_language(tmp_path, mesh=make_mesh(devices=jax.devices()[:2], fsdp=2))
    same(model.params, expected)
    leaves = jax.tree.leaves(model.params)
    assert {len(leaf.sharding.device_set) for leaf in leaves} == {2}


def test_settings_of_transformers_5_are_read_too(tmp_path):
    flat = {"num_attention_heads": 4, "head_dim": 6, "rms_norm_eps": 1e-6}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 1]}
    nested = {"text_config": {**flat, "rope_parameters": rope, "max_position_embeddings": 256}}
    params = write_qwen2_vl(tmp_path, rope_scaling=None, rope_theta=3.0, **nested)
    found, sight = read(tmp_path)
    assert sight.cfg == QWEN
    same(found, params)


def test_the_authors_folder_needs_the_tower_of_clip(tmp_path):
    cfg = llava.LlavaConfig(vision=LLAVA.vision, language=LLAVA.language, image_token=-200)
    params = random_params(llava, cfg)
    weights = llava.to_torch(params, cfg, layout="original", vision=False)
    config = {
        "model_type": "llava_llama",
        "num_attention_heads": 4,
        "head_dim": 4,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 256,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "vision_config": {"num_attention_heads": 1},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_torch(tmp_path / "pytorch_model.bin", weights)
    with pytest.raises(UserError, match=r"the tower too, found none .*--tower"):
        read(tmp_path)
    tower = tmp_path / "clip"
    tower.mkdir()
    write_safetensors(tower / "model.safetensors", clip.to_torch(params["vision"], cfg.vision))
    found, sight = read(tmp_path, tower=tower)
    assert sight.cfg == cfg
    same(found, params)


def test_a_picture_stands_in_the_prompt_of_a_llava(llava_folder):
    params, folder = llava_folder
    _, sight = read(folder)
    prompt = sight.prompt(params, [1, 3, 4, 5], [WIDE], room=300)
    assert prompt.tokens.tolist() == [[1, 3, 3, 3, 3, 4, 5]] and prompt.room == 249
    prompt = sight.prompt(params, [1, 3, 4, 5], [WIDE], pad=2)
    assert prompt.tokens.tolist() == [[2] * 57 + [1, 3, 3, 3, 3, 4, 5]]
    assert prompt.valid.tolist() == [[False] * 57 + [True] * 7]
    image = SquareInputs(side=4, pad=True)(WIDE)[None]
    expected = llava.image_features(params, image, LLAVA)[0]
    np.testing.assert_allclose(prompt.x[0, 58:62], expected, atol=1e-6)
    decoder = params["language"]
    logits, _ = llama.prefill(decoder, prompt.x, LLAVA.language, room=1, valid=prompt.valid)
    alone = llava.apply(params, np.array([[1, 3, 3, 3, 3, 4, 5]]), LLAVA, images=image)
    assert alone.logits is not None
    np.testing.assert_allclose(logits[0], alone.logits[0, -1], atol=1e-5)
    text = sight.prompt(params, [1, 4])
    np.testing.assert_array_equal(text.x[0, -2:], decoder["embed"][np.array([1, 4])])
    with pytest.raises(UserError, match="1 to 255 tokens, for which this model was made, found 25"):
        sight.prompt(params, [1, 3, *[4] * 251], [WIDE])


def test_pictures_of_several_sizes_stand_in_the_prompt_of_a_qwen2_vl(qwen_folder):
    params, folder = qwen_folder
    _, sight = read(folder)
    prompt = sight.prompt(params, [3, 5, 4, 3, 5, 4, 7], [WIDE, TALL])
    inputs = PatchInputs(patch=2, min_pixels=16, max_pixels=128)
    (one, first), (two, second) = inputs(WIDE), inputs(TALL)
    counts = [qwen2_vl.image_tokens(grid, QWEN.vision) for grid in (first, second)]
    row = [3, *[5] * counts[0], 4, 3, *[5] * counts[1], 4, 7]
    assert prompt.tokens[0, -len(row) :].tolist() == row
    assert prompt.tokens.shape == (1, 64)
    patches = qwen2_vl.join_patches([one, two], [first, second], QWEN.vision)
    expected = qwen2_vl.image_features(params, patches, QWEN)
    found = prompt.x[0][prompt.tokens[0] == 5]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    positions, _ = qwen2_vl.position_ids(np.array([row]), [first, second], QWEN)
    assert prompt.positions is not None
    np.testing.assert_array_equal(prompt.positions[:, :, -len(row) :], positions)


@pytest.mark.parametrize(
    ("write", "ids", "images", "message"),
    [
        (write_llava, [1, 4], [WIDE], r"each of 1 image\(s\), found 0"),
        (write_llava, [1, 3, 4], [], r"each of 0 image\(s\), found 1"),
        (write_llava, [3, 3, 4], [WIDE, TALL], "one image, all that LLaVA-1.5 knows, found 2"),
        (write_llava, [3, 4], [WIDE / 255], "a picture of 8 bits"),
        (write_qwen2_vl, [5, 5, 4], [WIDE], r"each of 1 image\(s\), found 2"),
        (write_qwen2_vl, [5, 4], [WIDE[:1].repeat(300, 1)], "factor of at most 200"),
    ],
)
def test_prompts_and_pictures_that_do_not_fit_are_refused(tmp_path, write, ids, images, message):
    params = write(tmp_path)
    with pytest.raises(UserError, match=message):
        read(tmp_path)[1].prompt(params, ids, images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, r"reads images \(llava, qwen2_vl\) in .*, found 'llama'"),
        ({"vision_feature_layer": [-2, -5]}, "one layer and a way to take its tokens"),
        ({"text_config": 3}, "text_config in .* as an object, found 3"),
        ({"text_config": {"num_attention_heads": 0}}, "at least 1 as num_attention_heads"),
        ({"text_config": {"head_dim": 4, "hidden_act": "gelu"}}, "the activation silu"),
        (
            {"text_config": {"head_dim": 4, "rope_scaling": {"type": "yarn"}}},
            "linear or llama3 in .*'yarn'",
        ),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "tower of CLIP .*siglip"),
        ({"projector_hidden_act": "relu"}, "activation gelu between"),
        ({"image_token_index": "x"}, "image_token"),
    ],
)
def test_settings_that_are_not_supported_are_named(tmp_path, changes, message):
    write_llava(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_size": 336}, "pictures of 4 pixels for this tower, found 336 as crop_size"),
        ({"image_std": [1, 1, 0]}, "an image_std above 0"),
    ],
)
def test_settings_of_pictures_that_do_not_fit_are_named(tmp_path, settings, message):
    write_llava(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_a_file_without_a_projection_to_logits_uses_the_embeddings(tmp_path):
    """Whatever its settings say of tied weights."""
    write_qwen2_vl(tmp_path, tie_word_embeddings=False)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    file = tmp_path / index["weight_map"].pop("lm_head.weight")
    path.write_text(json.dumps(index))
    kept = {k: np.asarray(v) for k, v in read_state_dict(file).tensors.items()}
    del kept["lm_head.weight"]
    write_safetensors(file, kept, overwrite=True)
    params, sight = read(tmp_path)
    assert sight.cfg.language.tied and "head" not in params["language"]


def test_a_shard_that_is_missing_is_named(tmp_path):
    write_llava(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("rope", "kind"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 4}}, ("linear", 4.0)),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, ("linear", 4.0)),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 5.0}},
            ("linear", 4),
        ),
        ({"rope_scaling": None}, ("none", 1.0)),
        ({"rope_scaling": {"rope_type": "default"}}, ("none", 1.0)),
    ],
)
def test_rotations_are_read_under_their_old_and_new_names(tmp_path, rope, kind):
    found = decoder_options(rope, 128, tmp_path)
    assert (found["rope"].kind, found["rope"].factor) == kind
    assert found["head_dim"] == 4
    assert found["theta"] == (5.0 if "rope_parameters" in rope else 10000.0)


def test_rotations_of_llama_3_are_read(tmp_path):
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 8192
    found = decoder_options({"rope_scaling": rope}, 128, tmp_path)["rope"]
    assert (found.kind, found.factor, found.low, found.high, found.length) == (
        "llama3",
        8.0,
        1.0,
        4.0,
        8192,
    )
    with pytest.raises(UserError, match="number above 0 as low_freq_factor"):
        decoder_options({"rope_scaling": {"type": "llama3", "factor": 8.0}}, 128, tmp_path)


TEMPLATE = (
    "{% for m in messages %}{% for c in m.content if c.type == 'image' %}a <image> {% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}{% endfor %}"
)


def texts(tokenizer, ids):
    return [tokenizer.engine.id_to_token(i) for i in ids]


def test_a_chat_without_a_template_is_that_of_the_training(llava_folder, qwen_folder):
    _, folder = llava_folder
    tokenizer = read_tokenizer(folder)
    ids = read(folder)[1].chat(tokenizer, "what is this?", 1)
    words = texts(tokenizer, ids)
    assert words[0] == "<s>" and words.count("<image>") == 1
    assert words[-6:] == ["what", "is", "this", "?", "ASSISTANT", ":"]
    _, folder = qwen_folder
    tokenizer = read_tokenizer(folder)
    words = texts(tokenizer, read(folder)[1].chat(tokenizer, "what is this?", 2))
    start = words.index("user")
    seen = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"]
    asked = ["what", "is", "this", "?", "<|im_end|>", "<|im_start|>", "assistant"]
    assert words[start - 1 :] == ["<|im_start|>", "user", *seen, *seen, *asked]
    told = texts(tokenizer, read(folder)[1].chat(tokenizer, "what", 0, system="a cat"))
    assert told[:5] == ["<|im_start|>", "system", "a", "cat", "<|im_end|>"]


def test_a_folders_own_template_counts_and_questions_cannot_add_images(llava_folder, tmp_path):
    _, folder = llava_folder
    tokenizer = dataclasses.replace(read_tokenizer(folder), template=TEMPLATE)
    ids = read(folder)[1].chat(tokenizer, "is this <image> a cat", 1)
    assert ids.count(LLAVA.image_token) == 1
    # The published template of LLaVA leaves the token out with which all its texts begin.
    assert texts(tokenizer, ids)[:4] == ["<s>", "a", "<image>", "is"]
    told = read(folder)[1].chat(tokenizer, "what", 1, system="a dog ")
    assert texts(tokenizer, told) == ["<s>", "a", "dog", "a", "<image>", "what"]


def test_an_image_token_that_no_tokenizer_knows_is_added(llava_folder):
    """The authors of LLaVA split the text at it, and number it -200."""
    _, folder = llava_folder
    _, sight = read(folder)
    original = dataclasses.replace(sight.cfg, image_token=-200)
    sight = dataclasses.replace(sight, cfg=original)
    ids = sight.chat(read_tokenizer(folder), "what is this", 1)
    assert ids.count(-200) == 1
