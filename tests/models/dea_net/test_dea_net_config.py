"""The configuration: published sizes, JSON, and what it refuses."""

import pytest

from jaxcore.errors import UserError
from jaxcore.models.dea_net import DEANetConfig


def test_published_sizes():
    assert DEANetConfig() == DEANetConfig.base()
    assert DEANetConfig().depths == (4, 4, 8, 4, 4) and DEANetConfig().double_sigmoid
    assert DEANetConfig.small(base_dim=8).depths == (3, 3, 6, 3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_dim": 0}, "base_dim must be a whole number of at least 2, found 0"),
        ({"base_dim": True}, "base_dim must be a whole number"),
        ({"depths": (4, 4, 8)}, r"5 values, each a whole number of at least 1, found \(4, 4, 8\)"),
        ({"depths": (4, 4, 8, 4, 0)}, "depths must be 5 values"),
        ({"form": "merged"}, "form must be one of train, deploy, found 'merged'"),
        ({"dtype": "int8"}, "dtype must be one of float32"),
        ({"cga": 1}, "cga must be true or false, found 1"),
        ({"form": "deploy", "adc": False}, "leave cdc, hdc, vdc and adc at true"),
    ],
)
def test_values_that_do_not_fit(change, message):
    with pytest.raises(UserError, match=message):
        DEANetConfig(**change)
