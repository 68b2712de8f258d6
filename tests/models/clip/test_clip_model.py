"""Encoders of images: the golden file, the other family in plain NumPy, forms of weight files."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import clip
from jaxcore.models.clip import CLIPConfig

VIT = CLIPConfig.tiny(family="vit", projection=4, epsilon=1e-12, activation="gelu", num_heads=2)


def random_params(cfg):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), clip.param_shapes(cfg)
    )


def count(cfg):
    return sum(leaf.size for leaf in jax.tree.leaves(clip.param_shapes(cfg)))


def test_published_sizes_have_the_published_number_of_parameters():
    assert count(CLIPConfig.large_14_336(projection=0)) == 303_507_456
    assert count(CLIPConfig.base_32()) == 87_849_216
    assert count(CLIPConfig.vit_base_16()) == 86_389_248


def norm(x, weights, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def dense(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def plain_vit(weights, images, heads):
    """The formulas of the vision transformer under its official names."""
    kernel = weights["embeddings.patch_embeddings.projection.weight"]
    width, _, side, _ = kernel.shape
    count = images.shape[1] // side
    cut = images.reshape(-1, count, side, count, side, 3).transpose(0, 1, 3, 5, 2, 4)
    tokens = cut.reshape(len(images), count * count, -1) @ kernel.reshape(width, -1).T
    tokens = tokens + weights["embeddings.patch_embeddings.projection.bias"]
    first = np.broadcast_to(weights["embeddings.cls_token"], (len(images), 1, width))
    x = np.concatenate([first, tokens], 1) + weights["embeddings.position_embeddings"]
    for i in range(2):
        layer = f"encoder.layer.{i}"
        z = norm(x, weights, f"{layer}.layernorm_before")
        q, k, v = (
            dense(z, weights, f"{layer}.attention.attention.{name}")
            .reshape(*z.shape[:2], heads, -1)
            .swapaxes(1, 2)
            for name in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        y = (shares / shares.sum(-1, keepdims=True)) @ v
        y = y.swapaxes(1, 2).reshape(x.shape)
        x = x + dense(y, weights, f"{layer}.attention.output.dense")
        z = norm(x, weights, f"{layer}.layernorm_after")
        z = dense(z, weights, f"{layer}.intermediate.dense")
        z = z * 0.5 * (1 + np.vectorize(math.erf)(z / np.sqrt(2)))
        x = x + dense(z, weights, f"{layer}.output.dense")
    return np.tanh(dense(norm(x, weights, "layernorm")[:, 0], weights, "pooler.dense"))


def test_a_vision_transformer_is_what_its_formulas_say():
    params = random_params(VIT)
    images = np.random.default_rng(1).normal(size=(3, 4, 4, 3)).astype(np.float32)
    weights = {k: np.asarray(v, np.float64) for k, v in clip.to_torch(params, VIT).items()}
    found = jax.jit(clip.apply, static_argnames="cfg")(params, images, cfg=VIT)
    np.testing.assert_allclose(found, plain_vit(weights, images, 2), atol=1e-4)


def test_weights_come_in_the_forms_in_which_they_are_published():
    for cfg in (CLIPConfig.tiny(), VIT):
        params = random_params(cfg)
        weights = clip.to_torch(params, cfg)
        forms = [weights, {f"module.{k}": v for k, v in weights.items()}]
        if cfg is VIT:
            forms.append({f"vit.{k}": v for k, v in weights.items()})
        else:
            forms.append({k.removeprefix("vision_model."): v for k, v in weights.items()})
            texts = {"text_model.final_layer_norm.weight": np.ones(3, np.float32)}
            texts |= {"logit_scale": np.float32(1), "text_projection.weight": np.ones((3, 3))}
            texts["vision_model.embeddings.position_ids"] = np.arange(5)[None]
            forms.append(weights | texts)
        for form in forms:
            found = clip.config_from_state_dict(form, num_heads=cfg.num_heads)
            assert found == cfg
            jax.tree.map(np.testing.assert_array_equal, clip.from_torch(form, cfg), params)


def test_what_does_not_fit_is_said():
    cfg = CLIPConfig.tiny()
    with pytest.raises(UserError, match="a height and width of 4, found 8 and 4"):
        clip.apply(clip.param_shapes(cfg), jnp.zeros((1, 8, 4, 3)), cfg)
    with pytest.raises(UserError, match="projection of a vit must be 1024, found 768"):
        CLIPConfig(family="vit")
    with pytest.raises(UserError, match="multiple of the 16 heads, found 40"):
        CLIPConfig(width=40)
    with pytest.raises(UserError, match="image_size must be a multiple of 14, found 225"):
        CLIPConfig(image_size=225)
