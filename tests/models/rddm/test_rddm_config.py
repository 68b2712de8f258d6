"""The configuration: published variants, JSON, and what it refuses."""

import json

import pytest

from jaxcore.errors import UserError
from jaxcore.models.rddm import PRESETS, RDDMConfig


@pytest.mark.parametrize(
    ("name", "channels", "nets", "objective", "times"),
    [
        ("deraining", 6, 2, "pred_res_noise", "index"),
        ("low_light", 6, 1, "pred_res", "index"),
        ("shadow_removal", 9, 1, "pred_noise", "index"),
        ("deblurring", 6, 2, "pred_res_noise", "index"),
        ("objective_search", 6, 1, "auto_res_noise", "index"),
        ("inpainting", 3, 2, "pred_res_noise", "cumulative"),
        ("translation", 3, 2, "pred_res_noise", "cumulative"),
        ("generation", 3, 2, "pred_res_noise", "index"),
        ("path_independence", 3, 2, "pred_res_noise", "cumulative"),
    ],
)
def test_published_experiments(name, channels, nets, objective, times):
    cfg = PRESETS[name]()
    assert cfg.input_channels == channels and cfg.num_unet == nets
    assert cfg.objective == objective and cfg.time_conditioning == times
    assert RDDMConfig.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    assert hash(cfg) == hash(PRESETS[name]())
    assert len(cfg.make_schedule()) == 1000
    if not cfg.searching:
        assert cfg.make_objective().concat_input == (cfg.kind == "restoration")


def test_channels_are_described_in_their_order():
    cfg = RDDMConfig.shadow_removal(self_condition=True, condition_channels=1)
    assert cfg.input_channels == 10
    assert cfg.input_description == "self conditioning 3 + I_t 3 + I_in 3 + conditions 1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim must be a whole number of at least 1, found 0"),
        ({"dim": 12}, "12 channels cannot be divided into 8 groups"),
        ({"dim": 9}, "dim must be even"),
        ({"dim_mults": ()}, "dim_mults must have at least one value"),
        (
            {"dim_mults": (1, 0)},
            "each a whole number of at least 1",
        ),
        ({"num_unet": 1}, "num_unet must be 2 for the objective pred_res_noise, found 1"),
        ({"objective": "pred_v"}, "objective must be one of pred_res_noise"),
        ({"share_encoder": True, "time_conditioning": "cumulative"}, "share_encoder needs time_co"),
        (
            {"share_encoder": True, "num_unet": 1, "objective": "pred_res"},
            "share_encoder needs two outputs",
        ),
        ({"kind": "denoising"}, "kind must be one of restoration, translation, generation"),
        ({"sum_scale": 2.0}, "sum_scale must be a number above 0 and of at most 1, found 2.0"),
        ({"sum_scale": 0}, "sum_scale must be a number above 0"),
        ({"ratio_a": 2.0}, "need version='v2', found 'v1'"),
        ({"alpha": "normal"}, "need version='v2', found 'v1'"),
        ({"ddpm": "sigmoid"}, "ddpm must be one of linear"),
        ({"residual_clip": -1.0}, "residual_clip must be a number above 0 or None, found -1.0"),
        ({"condition_channels": -1}, "condition_channels must be a whole number of at least 0"),
        ({"self_condition": 1}, "self_condition must be true or false, found 1"),
        ({"dtype": "int8"}, "dtype must be one of float32"),
        (
            {"objective": "auto_res_noise", "num_unet": 1, "kind": "generation"},
            "search of an objective needs restoration",
        ),
    ],
)
def test_values_that_do_not_fit(change, message):
    with pytest.raises(UserError, match=message):
        RDDMConfig(**change)


def test_a_search_has_no_objective_yet():
    with pytest.raises(UserError, match="whose search has no result yet"):
        RDDMConfig.objective_search().make_objective()
