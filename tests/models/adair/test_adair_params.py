"""Counts, initialisation, and official weights in and out."""

import jax
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import adair
from jaxcore.models.adair import AdaIRConfig
from tests.models.weights import (
    check_counts,
    check_round_trip,
    check_uniform,
    count,
    random_weights,
)

TINY = AdaIRConfig.tiny(dim=8, heads=(1, 2, 2, 4), num_blocks=(1, 2, 1, 1))


@pytest.mark.parametrize(
    ("cfg", "parameters", "tensors"),
    [
        (AdaIRConfig.five_task(), 28_784_824, 587),
        (AdaIRConfig.restormer(), 26_126_644, 494),
        (AdaIRConfig.tiny(), 1_117_367, None),
        (AdaIRConfig.tiny(decoder=False), 800_547, None),
    ],
)
def test_published_counts(cfg, parameters, tensors):
    check_counts(adair, cfg, parameters, tensors)


def test_published_counts_per_part():
    tree = adair.param_shapes(AdaIRConfig())
    expected = {
        "patch_embed": 1_296,
        "encoder_level1": 125_116,
        "encoder_level2": 707_232,
        "encoder_level3": 2_738_112,
        "latent": 14_370_448,
        "decoder_level1": 471_484,
        "refinement": 471_484,
        "down3_4": 165_888,
        "up4_3": 2_654_208,
        "reduce_chan_level2": 18_432,
        "output": 2_592,
        "fre1": 2_007_188,
        "fre2": 515_300,
        "fre3": 135_692,
    }
    assert {name: count(tree[name]) for name in expected} == expected


@pytest.mark.parametrize(
    "cfg",
    [
        TINY,
        AdaIRConfig.tiny(bias=True, norm_type="BiasFree", in_channels=1, out_channels=1),
        AdaIRConfig.restormer_bias_free(dim=8, num_blocks=(1, 1, 2, 1), ffn_expansion=2.5),
        AdaIRConfig.restormer(dim=6, heads=(3, 2, 1, 4), bias=True, num_refinement_blocks=3),
    ],
)
def test_official_weights_round_trip_to_the_bit(cfg):
    weights = random_weights(adair, cfg)
    assert adair.config_from_state_dict(weights) == cfg
    check_round_trip(adair, cfg, weights)


def test_wrapped_keys_are_accepted():
    weights = random_weights(adair, TINY)
    plain = adair.from_torch(weights, TINY)
    for prefix in ("net.", "module.", "module.net."):
        wrapped = {prefix + key: value for key, value in weights.items()}
        assert adair.config_from_state_dict(wrapped) == TINY
        params = adair.from_torch(wrapped, TINY)
        jax.tree.map(np.testing.assert_array_equal, params, plain)


def test_weights_of_something_else_are_refused():
    weights = random_weights(adair, TINY)
    with pytest.raises(
        UserError, match=r"contain the key 'patch_embed.proj.weight', which these 1"
    ):
        adair.config_from_state_dict({"conv.weight": np.zeros((3, 3))})
    with pytest.raises(UserError, match="same network in another size"):
        adair.from_torch(weights, AdaIRConfig.tiny(heads=TINY.heads, num_blocks=TINY.num_blocks))
    del weights["fre2.para1"]
    weights["skip_conv.weight"] = np.zeros((16, 8, 1, 1), np.float32)
    with pytest.raises(UserError, match=r"fre2.para1.*skip_conv.weight"):
        adair.from_torch(weights, TINY)
    with pytest.raises(UserError, match="another structure or size"):
        adair.to_torch(adair.param_shapes(TINY), AdaIRConfig.tiny())


def test_initialisation_is_the_official_one():
    params = adair.init(jax.random.key(0), TINY)
    shapes = jax.tree.map(lambda a: (a.shape, a.dtype), params)
    assert shapes == jax.tree.map(lambda a: (a.shape, a.dtype), adair.param_shapes(TINY))
    weights = adair.to_torch(params, TINY)
    for key, w in weights.items():
        if key.endswith(("temperature", "para2")) or (".norm" in key and key.endswith("weight")):
            assert (w == 1).all(), key
        elif key.endswith("para1") or ".norm" in key:
            assert (w == 0).all(), key
        else:
            check_uniform(weights, key)


def test_initialisation_depends_on_the_key_only():
    first, again = (adair.init(jax.random.key(0), TINY) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = adair.init(jax.random.key(1), TINY)
    assert not np.array_equal(first["output"]["kernel"], other["output"]["kernel"])


def test_parameters_take_the_requested_type():
    tree = adair.param_shapes(AdaIRConfig.tiny(param_dtype="bfloat16"))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(tree)} == {"bfloat16"}


@pytest.mark.parametrize(("mode", "left_alone"), [("official", 15), ("ratio", 15), ("soft", 9)])
def test_trainable_leaves_out_what_has_no_gradient(mode, left_alone):
    cfg = AdaIRConfig.tiny(mask_mode=mode)
    mask = adair.trainable(adair.param_shapes(cfg), cfg)
    assert sum(not leaf for leaf in jax.tree.leaves(mask)) == left_alone
    assert mask["fre1"]["conv"]["kernel"] is False
    assert mask["fre1"]["mining"]["rate_conv_0"]["kernel"] is (mode == "soft")
    assert mask["fre1"]["mining"]["conv1"]["kernel"] is True
