"""What the networks from images to numbers share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.models import convnet
from jaxcore.models.convnet import ConvNetConfig
from jaxcore.models.regression import OverTime

X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)  # sequences of three


@pytest.mark.parametrize(
    ("temporal", "expected"),
    [
        ("concatenate", X.reshape(2, 12)),
        ("difference", np.concatenate([X.mean(1), np.diff(X, axis=1).mean(1)], -1)),
        ("variance", np.concatenate([X.mean(1), X.var(1)], -1)),
    ],
)
def test_sequences_are_joined_in_time(temporal, expected):
    cfg = ConvNetConfig.tiny(frames=3, temporal=temporal)
    found = OverTime(cfg).apply({}, X.reshape(6, 4))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("temporal", ["concatenate", "difference", "variance"])
def test_a_sequence_of_one_image_is_no_mistake(temporal):
    found = OverTime(ConvNetConfig.tiny(frames=1, temporal=temporal)).apply({}, X[:, 0])
    assert np.isfinite(found).all()


def test_several_numbers_and_layers():
    cfg = ConvNetConfig.tiny(outputs=3, head_depth=2, head_width=5)
    params = convnet.init(jax.random.key(0), cfg)
    assert {k: v["kernel"].shape for k, v in params["head"].items()} == {
        "Dense1": (6, 5),
        "Dense2": (5, 3),
    }
    found = convnet.config_from_state_dict(convnet.to_torch(params, cfg))
    assert found == cfg


def test_lower_precision_is_computed_and_comes_out_wide():
    cfg = ConvNetConfig.tiny(dtype="bfloat16")
    params = convnet.init(jax.random.key(0), cfg)
    arguments = jnp.ones((2, 14, 14, 3)), jnp.ones((2, 2))
    learn = jax.jit(convnet.learn, static_argnames="cfg")
    found = learn(params, *arguments, cfg=cfg, key=None)
    kept = {leaf.dtype for leaf in jax.tree.leaves((found, params))}
    assert kept == {jnp.dtype("float32")}
    plain = dataclasses.replace(cfg, dtype="float32")
    wide = learn(params, *arguments, cfg=plain, key=None)
    np.testing.assert_allclose(found.outputs, wide.outputs, atol=0.1)
