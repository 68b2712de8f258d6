"""The configuration: published variants, JSON, and what it refuses."""

import json

import pytest

from jaxcore.errors import UserError
from jaxcore.models.rddm import PRESETS, ObjectiveConfig, RDDMConfig, ScheduleConfig, UnetConfig
from jaxcore.registry import network, task_of


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
    assert cfg.objective.name == objective and cfg.objective.time_conditioning == times
    assert RDDMConfig.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    assert hash(cfg) == hash(PRESETS[name]())
    assert len(cfg.schedule.make()) == 1000
    if not cfg.searching:
        assert cfg.make_objective().concat_input == (cfg.kind == "restoration")


def test_the_registry_knows_network_and_task():
    assert network("rddm").config_class is RDDMConfig
    assert task_of("rddm").name == "diffusion"


def test_channels_are_described_in_their_order():
    cfg = RDDMConfig.shadow_removal(objective={"self_condition": True}, condition_channels=1)
    assert cfg.input_channels == 10
    assert cfg.input_description == "self conditioning 3 + I_t 3 + I_in 3 + conditions 1"


def test_changes_of_a_part_leave_its_other_fields():
    cfg = RDDMConfig.inpainting(objective={"loss": "l1"}, unet=UnetConfig(dim=8))
    assert cfg.objective == ObjectiveConfig(loss="l1", time_conditioning="cumulative")
    assert cfg.unet == UnetConfig(dim=8) and cfg.schedule == ScheduleConfig(version="v2")


# As `to_dict` wrote it when all fields stood side by side.
FLAT = {
    "dim": 16,
    "dim_mults": [1, 2],
    "channels": 3,
    "groups": 4,
    "heads": 2,
    "dim_head": 8,
    "num_unet": 1,
    "share_encoder": False,
    "kind": "restoration",
    "condition_channels": 3,
    "self_condition": True,
    "time_embedding": "learned",
    "learned_frequencies": 4,
    "objective": "pred_noise",
    "loss": "l2",
    "time_conditioning": "cumulative",
    "residual_clip": None,
    "timesteps": 50,
    "ddpm": None,
    "alpha": "average",
    "beta": "increased",
    "ratio_a": 1.0,
    "ratio_b": 0.5,
    "version": "v2",
    "sum_scale": 0.01,
    "compat_last_one_minus_alpha": False,
    "eps": 0.001,
    "dtype": "bfloat16",
    "param_dtype": "float32",
    "remat": True,
}


def test_files_of_the_flat_layout_still_load():
    expected = RDDMConfig(
        unet=UnetConfig(
            dim=16,
            dim_mults=(1, 2),
            groups=4,
            heads=2,
            dim_head=8,
            time_embedding="learned",
            learned_frequencies=4,
            eps=0.001,
            dtype="bfloat16",
            remat=True,
        ),
        schedule=ScheduleConfig(
            timesteps=50,
            alpha="average",
            ratio_b=0.5,
            version="v2",
            sum_scale=0.01,
            compat_last_one_minus_alpha=False,
        ),
        objective=ObjectiveConfig(
            name="pred_noise",
            loss="l2",
            time_conditioning="cumulative",
            self_condition=True,
            residual_clip=None,
        ),
        condition_channels=3,
    )
    assert RDDMConfig.from_dict(FLAT) == expected
    assert RDDMConfig.from_dict(json.loads(json.dumps(expected.to_dict()))) == expected
    with pytest.raises(UserError, match="depth is not a field of RDDMConfig"):
        RDDMConfig.from_dict({**FLAT, "depth": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unet": {"dim": 0}}, "dim must be a whole number of at least 1, found 0"),
        ({"unet": {"dim": 12}}, "12 channels cannot be divided into 8 groups"),
        ({"unet": {"dim": 9}}, "dim must be even"),
        ({"unet": {"dim_mults": ()}}, "dim_mults must have at least one value"),
        ({"unet": {"dim_mults": (1, 0)}}, "dim_mults must be a list of values, each a whole n"),
        ({"unet": {"dtype": "int8"}}, "dtype must be one of float32"),
        ({"objective": {"name": "pred_v"}}, "name must be one of pred_res_noise"),
        (
            {"unet": {"share_encoder": True}, "objective": {"time_conditioning": "cumulative"}},
            "share_encoder needs time_co",
        ),
        (
            {"unet": {"share_encoder": True}, "objective": {"name": "pred_res"}},
            "share_encoder needs an objective of two outputs, found pred_res",
        ),
        ({"kind": "denoising"}, "kind must be one of restoration, translation, generation"),
        ({"schedule": {"sum_scale": 2.0}}, "sum_scale must be a number above 0 and of at most 1"),
        ({"schedule": {"sum_scale": 0}}, "sum_scale must be a number above 0"),
        ({"schedule": {"ratio_a": 2.0}}, "need version='v2', found 'v1'"),
        ({"schedule": {"alpha": "normal"}}, "need version='v2', found 'v1'"),
        ({"schedule": {"ddpm": "sigmoid"}}, "ddpm must be one of linear"),
        ({"objective": {"residual_clip": -1.0}}, "residual_clip must be a number above 0 or None"),
        ({"condition_channels": -1}, "condition_channels must be a whole number of at least 0"),
        ({"objective": {"self_condition": 1}}, "self_condition must be true or false, found 1"),
        (
            {"objective": {"name": "auto_res_noise"}, "kind": "generation"},
            "search of an objective needs restoration",
        ),
    ],
)
def test_values_that_do_not_fit(change, message):
    with pytest.raises(UserError, match=message):
        RDDMConfig().replace(**change)


def test_a_search_has_no_objective_yet():
    with pytest.raises(UserError, match="whose search has no result yet"):
        RDDMConfig.objective_search().make_objective()
