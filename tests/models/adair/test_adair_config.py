"""The configuration: published variants, JSON, and what it refuses."""

import pytest

from jaxcore.errors import UserError
from jaxcore.models.adair import AdaIRConfig


def test_published_variants():
    assert AdaIRConfig.three_task() == AdaIRConfig.five_task() == AdaIRConfig.single_task()
    assert AdaIRConfig.base() == AdaIRConfig()
    assert AdaIRConfig.five_task(preset="fixed").mask_mode == "soft"
    assert AdaIRConfig.five_task(preset="fixed", mask_mode="ratio").mask_mode == "ratio"
    restormer = AdaIRConfig.restormer_bias_free(dim=16)
    assert (restormer.decoder, restormer.norm_type, restormer.dim) == (False, "BiasFree", 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": "48"}, "dim must be a whole number of at least 1, found '48'"),
        ({"dim": True}, "dim must be a whole number of at least 1, found True"),
        ({"dim": 9}, "dim must be even, found 9"),
        ({"dim": 4}, "at least 8 with decoder=True, found 4"),
        ({"heads": (5, 2, 4, 8)}, "48 channels cannot be divided among 5 heads"),
        ({"heads": (1, 2, 64, 8)}, "cannot be divided among 64 heads"),
        (
            {"num_blocks": (1, 2, 3)},
            r"4 values, each a whole number .*, found \(1, 2, 3\)",
        ),
        ({"num_blocks": (1, 2, 3, 0)}, "num_blocks must be 4 values"),
        (
            {"num_refinement_blocks": 0},
            "num_refinement_blocks must be a whole number",
        ),
        ({"ffn_expansion": 0.0}, "ffn_expansion must be a number above 0, found 0.0"),
        ({"soft_tau": -1.0}, "soft_tau must be a number above 0"),
        ({"norm_type": "RMS"}, "norm_type must be one of WithBias, BiasFree, found 'RMS'"),
        ({"mask_mode": "hard"}, "mask_mode must be one of official, fixed, ratio, soft"),
        ({"spectral": "dct"}, "spectral must be one of fft, matrix"),
        ({"dtype": "int8"}, "dtype must be one of float32"),
        ({"bias": 1}, "bias must be true or false, found 1"),
        ({"stat_window": 100}, "stat_window must be None or a multiple of 8, found 100"),
        ({"out_channels": 1}, "out_channels must equal in_channels"),
    ],
)
def test_values_that_do_not_fit(change, message):
    with pytest.raises(UserError, match=message):
        AdaIRConfig(**change)
    with pytest.raises(UserError, match=message):
        AdaIRConfig.from_dict({**AdaIRConfig().to_dict(), **change})


def test_unknown_preset():
    with pytest.raises(UserError, match="preset must be 'official' or 'fixed', found 'best'"):
        AdaIRConfig.five_task(preset="best")  # type: ignore[arg-type]  # the mistake under test
