"""The configuration: published sizes, JSON, and what it refuses."""

import json

import pytest

from jaxcore.errors import UserError
from jaxcore.models.dea_net import DEANetConfig
from jaxcore.registry import network


def test_published_sizes():
    assert DEANetConfig() == DEANetConfig.base()
    assert DEANetConfig().depths == (4, 4, 8, 4, 4) and DEANetConfig().double_sigmoid
    assert DEANetConfig.small(base_dim=8).depths == (3, 3, 6, 3, 3)
    assert network("dea_net").config_class is DEANetConfig


def test_json_round_trip_and_hash():
    cfg = DEANetConfig.tiny(adc=False, double_sigmoid=False, dtype="bfloat16")
    again = DEANetConfig.from_dict(json.loads(json.dumps(cfg.to_dict())))
    assert again == cfg and hash(again) == hash(cfg)


def test_missing_and_unknown_fields_are_named():
    fields = DEANetConfig().to_dict()
    del fields["depths"]
    fields["dim"] = 3
    with pytest.raises(UserError, match="missing 'depths'; unknown 'dim'"):
        DEANetConfig.from_dict(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_dim": 0}, "base_dim must be a whole number of at least 2, found 0"),
        ({"base_dim": True}, "base_dim must be a whole number"),
        ({"depths": (4, 4, 8)}, r"five positive whole numbers, found \(4, 4, 8\)"),
        ({"depths": (4, 4, 8, 4, 0)}, "five positive whole numbers"),
        ({"form": "merged"}, "form must be one of train, deploy, found 'merged'"),
        ({"dtype": "int8"}, "dtype must be one of float32"),
        ({"cga": 1}, "cga must be true or false, found 1"),
        ({"form": "deploy", "adc": False}, "leave cdc, hdc, vdc and adc at true"),
    ],
)
def test_values_that_do_not_fit(change, message):
    with pytest.raises(UserError, match=message):
        DEANetConfig(**change)
