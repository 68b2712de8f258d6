"""Pretrained encoders from a folder on this machine."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore import weights
from jaxcore.convert import write_safetensors, write_torch
from jaxcore.errors import UserError
from jaxcore.models import clip
from jaxcore.models.clip import CLIPConfig

CLIP = CLIPConfig.tiny(num_heads=2)
VIT = CLIPConfig.tiny(family="vit", projection=4, epsilon=1e-12, activation="gelu", num_heads=2)
IMAGES = np.random.default_rng(0).random((5, 7, 6, 3)).astype(np.float32)


def settings(cfg):
    own = {"num_attention_heads": 2, "layer_norm_eps": cfg.epsilon, "hidden_act": cfg.activation}
    if cfg.family == "clip":
        return {"model_type": "clip", "vision_config": own, "projection_dim": cfg.projection}
    return {"model_type": "vit", **own}


@pytest.fixture
def write(tmp_path):
    def into(cfg, write_file=write_safetensors, name="model.safetensors", **changes):
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32),
            clip.param_shapes(cfg),
        )
        write_file(tmp_path / name, clip.to_torch(params, cfg))
        (tmp_path / "config.json").write_text(json.dumps({**settings(cfg), **changes}))
        return params, tmp_path

    return into


def encoded(params, cfg, images, mean, deviation):
    resized = jax.image.resize(images, (len(images), 4, 4, 3), "bilinear")
    constants = (np.asarray(c, np.float32).reshape(1, 1, 1, 3) for c in (mean, deviation))
    mean, deviation = constants
    return clip.apply(params, (resized - mean) / deviation, cfg)


MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def test_features_are_those_of_normalised_images_in_parts_or_at_once(write):
    params, folder = write(CLIP)
    encoder = weights.load_encoder(folder)
    assert encoder.cfg == CLIP
    expected = encoded(params, CLIP, IMAGES, MEAN, DEVIATION)
    steps = []
    found = encoder(IMAGES, rows=2, progress=lambda done, total: steps.append((done, total)))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert steps == [(2, 5), (4, 5), (5, 5)]
    raw = (IMAGES * 1000 + 500).astype(np.float32)
    np.testing.assert_allclose(encoder(raw, span=(500, 1500)), expected, atol=1e-3)
    more = np.concatenate([IMAGES, np.full_like(IMAGES, np.nan)], axis=-1)
    np.testing.assert_allclose(encoder(more), expected, atol=1e-4)
    grey = IMAGES[..., :1]
    expected = encoded(params, CLIP, np.repeat(grey, 3, axis=-1), MEAN, DEVIATION)
    np.testing.assert_allclose(encoder(grey), expected, atol=1e-4)


def test_the_published_package_normalises_twice_and_inverts_the_vision_transformers(write):
    params, folder = write(VIT, write_torch, "pytorch_model.bin")
    encoder = weights.load_encoder(folder)
    half = (0.5,) * 3
    expected = encoded(params, VIT, IMAGES, half, half)
    np.testing.assert_allclose(encoder(IMAGES), expected, atol=1e-4)
    standardised = IMAGES - 0.5
    expected = encoded(params, VIT, standardised * 0.5 + 0.5, (0,) * 3, (1,) * 3)
    found = encoder(standardised, span=(0, 7), compat="causalimages")
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_folder_tells_its_own_constants(write):
    params, folder = write(CLIP)
    own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    found = weights.load_encoder(folder)(IMAGES)
    np.testing.assert_allclose(found, encoded(params, CLIP, IMAGES, *own.values()), atol=1e-4)
    (folder / "preprocessor_config.json").write_text('{"image_std": [1, 0, 1]}')
    with pytest.raises(UserError, match="image_std above 0"):
        weights.load_encoder(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": "grey"}')
    with pytest.raises(UserError, match="three numbers as image_mean"):
        weights.load_encoder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "kind clip, clip_vision_model or vit in .*, found 'bert'"),
        ({"vision_config": 3}, "settings of the image part"),
        ({"vision_config": {"num_attention_heads": "x"}}, "another num_attention_heads than 'x'"),
        ({"vision_config": {"hidden_act": "relu"}}, "another hidden_act than 'relu'"),
        ({"vision_config": {"num_attention_heads": 3}}, "multiple of the 3 heads, found 4"),
        ({"vision_config": {"num_attention_heads": 0}}, "num_heads"),
    ],
)
def test_folders_of_another_kind_are_refused(write, changes, message):
    _, folder = write(CLIP, **changes)
    with pytest.raises(UserError, match=message):
        weights.load_encoder(folder)


def test_what_is_missing_or_cut_off_is_said(write, tmp_path):
    with pytest.raises(UserError, match="a folder with an encoder, found none"):
        weights.load_encoder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"configuration of an encoder in .* no such file"):
        weights.load_encoder(tmp_path)
    _, folder = write(CLIP)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:300])
    with pytest.raises(UserError):
        weights.load_encoder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="a folder without weights"):
        weights.load_encoder(folder)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (IMAGES[..., :2], {}, r"one band, or three and more, found \(5, 7, 6, 2\)"),
        (IMAGES[0], {}, r"found \(7, 6, 3\)"),
        (np.full_like(IMAGES, np.nan), {}, "without missing values"),
        (IMAGES, {"span": (1, 1)}, "a rising span"),
        (IMAGES, {"rows": 0}, "rows of at least 1"),
    ],
)
def test_images_that_do_not_fit_are_refused(write, images, options, message):
    _, folder = write(CLIP)
    with pytest.raises(UserError, match=message):
        weights.load_encoder(folder)(images, **options)
