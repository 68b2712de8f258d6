"""Counts, initialisation, and official weights of both forms in and out."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import dea_net
from jaxcore.models.dea_net import DEANetConfig
from tests.models.weights import (
    check_counts,
    check_round_trip,
    check_uniform,
    count,
    random_weights,
)

TINY = DEANetConfig(base_dim=4, depths=(1, 2, 2, 1, 1))


@pytest.mark.parametrize(
    ("cfg", "parameters", "tensors"),
    [
        (DEANetConfig(), 7_789_313, 388),
        (DEANetConfig(form="deploy"), 3_653_377, 196),
        (DEANetConfig.small(form="deploy"), 2_844_315, None),
        (DEANetConfig(base_dim=8, form="deploy"), 253_225, None),
        (DEANetConfig(base_dim=8), 513_065, None),
    ],
)
def test_published_counts(cfg, parameters, tensors):
    check_counts(dea_net, cfg, parameters, tensors)


def test_published_counts_per_part():
    for form, blocks in (
        ("deploy", (18_496, 73_856, 312_179)),
        ("train", (43_200, 172_416, 705_907)),
    ):
        tree = dea_net.param_shapes(DEANetConfig(form=form))
        expected = {
            "down1": 896,
            "down2": 18_496,
            "down3": 73_856,
            "up1": 73_792,
            "up2": 18_464,
            "up3": 867,
            "fe_level_2": 36_928,
            "fe_level_3": 147_584,
            "mix1": 33_523,
            "mix2": 12_723,
            "down_level1": 4 * blocks[0],
            "down_level2": 4 * blocks[1],
            "level3": 8 * blocks[2],
            "up_level2": 4 * blocks[1],
            "up_level1": 4 * blocks[0],
        }
        assert {name: count(tree[name]) for name in expected} == expected
        assert expected.keys() == tree.keys()


@pytest.mark.parametrize(
    "cfg",
    [
        TINY,
        TINY.deployed(),
        dataclasses.replace(TINY, cdc=False, vdc=False),
        dataclasses.replace(TINY, cdc=False, hdc=False, vdc=False, adc=False, cga=False),
        dataclasses.replace(TINY.deployed(), mixup=False),
    ],
)
def test_official_weights_round_trip_to_the_bit(cfg):
    weights = random_weights(dea_net, cfg)
    assert dea_net.config_from_state_dict(weights) == cfg
    check_round_trip(dea_net, cfg, weights)


def test_wrapped_keys_are_accepted():
    weights = random_weights(dea_net, TINY)
    wrapped = {"module." + key: value for key, value in weights.items()}
    assert dea_net.config_from_state_dict(wrapped) == TINY
    pair = (dea_net.from_torch(wrapped, TINY), dea_net.from_torch(weights, TINY))
    jax.tree.map(np.testing.assert_array_equal, *pair)


def test_merged_weights_keep_all_other_keys():
    params = dea_net.from_torch(random_weights(dea_net, TINY), TINY)
    merged, cfg = dea_net.deploy(params, TINY)
    assert cfg == TINY.deployed()
    weights = dea_net.to_torch(merged, cfg)
    assert dea_net.config_from_state_dict(weights) == cfg
    assert dea_net.deploy(merged, cfg)[0] is merged
    before = random_weights(dea_net, TINY)
    kept = [key for key in weights if key in before]
    assert len(kept) == len(weights) - 2 * sum(cfg.depths)
    for key in kept:
        np.testing.assert_array_equal(weights[key], before[key])


def test_weights_of_something_else_are_refused():
    weights = random_weights(dea_net, TINY)
    with pytest.raises(UserError, match=r"DEA-Net contain the key 'down1.0.weight', which these 1"):
        dea_net.config_from_state_dict({"conv.weight": np.zeros((3, 3))})
    with pytest.raises(UserError, match=r"\(form 'deploy'\), found the five kernels"):
        dea_net.from_torch(weights, TINY.deployed())
    with pytest.raises(UserError, match="take them apart"):
        dea_net.from_torch(random_weights(dea_net, TINY.deployed()), TINY)
    with pytest.raises(UserError, match="same network in another size"):
        dea_net.from_torch(weights, dataclasses.replace(TINY, base_dim=6))
    del weights["mix1.conv.bias"]
    weights["skip.weight"] = np.zeros((16, 8, 1, 1), np.float32)
    with pytest.raises(UserError, match=r"mix1.conv.bias.*skip.weight"):
        dea_net.from_torch(weights, TINY)
    with pytest.raises(UserError, match="another structure or size"):
        dea_net.to_torch(dea_net.param_shapes(TINY), TINY.deployed())


def test_initialisation_is_the_official_one():
    cfg = dataclasses.replace(TINY, base_dim=8)
    weights = dea_net.to_torch(dea_net.init(jax.random.key(0), cfg), cfg)
    for key in weights:
        check_uniform(weights, key)
    assert np.abs(weights["level3_block1.conv1.conv1_2.conv.weight"]).max() > 0.9 * (3 * 32) ** -0.5
