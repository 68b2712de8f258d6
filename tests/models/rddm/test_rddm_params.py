"""Counts of the published networks, and official checkpoints in and out."""

import jax
import numpy as np
import pytest

from jaxcore.convert import read_state_dict, write_torch
from jaxcore.errors import UserError
from jaxcore.models import rddm
from jaxcore.models.rddm import RDDMConfig
from jaxcore.models.rddm.process.schedule import official_buffers
from tests.models.weights import check_counts, check_round_trip, random_weights

SMALL = {"dim": 8, "dim_mults": (1, 2), "groups": 8}


def weights_of(cfg, seed=0):
    weights = random_weights(rddm, cfg, seed)
    if cfg.searching:
        weights["alpha_res"] = np.float32([0.52])
    return {**official_buffers(cfg.schedule.make()), **weights}


@pytest.mark.parametrize(
    ("cfg", "parameters"),
    [
        (RDDMConfig.generation(objective={"name": "pred_x0"}), 36_251_779),
        (RDDMConfig.low_light(), 36_261_187),
        (RDDMConfig.shadow_removal(), 36_270_595),
        (RDDMConfig.generation(), 72_503_558),
        (RDDMConfig.deraining(), 72_522_374),
        (RDDMConfig.deraining(condition_channels=3), 72_541_190),
        (RDDMConfig.deraining(unet={"share_encoder": True}), 51_980_614),
    ],
)
def test_published_counts(cfg, parameters):
    check_counts(rddm, cfg, parameters, None)


@pytest.mark.parametrize(
    "cfg",
    [
        RDDMConfig.deraining(unet=SMALL),
        RDDMConfig.deraining(unet={**SMALL, "share_encoder": True}),
        RDDMConfig.low_light(unet=SMALL, schedule={"version": "v2"}),
        RDDMConfig.low_light(unet=SMALL, condition_channels=1),
        RDDMConfig.generation(unet=SMALL),
        RDDMConfig.objective_search(unet=SMALL),
        RDDMConfig.low_light(unet={**SMALL, "time_embedding": "learned", "learned_frequencies": 4}),
    ],
)
def test_official_weights_round_trip_to_the_bit(cfg):
    weights = weights_of(cfg)
    assert rddm.config_from_state_dict(weights) == cfg
    check_round_trip(rddm, cfg, weights)


def test_the_averaged_copy_of_a_checkpoint_is_taken(tmp_path):
    cfg = RDDMConfig.low_light(unet=SMALL)
    averaged, online = weights_of(cfg, 1), weights_of(cfg, 2)
    ema = {f"ema_model.{k}": v for k, v in averaged.items()}
    ema |= {f"online_model.{k}": v for k, v in online.items()}
    ema |= {"initted": np.array([True]), "step": np.array([70])}
    path = tmp_path / "model-140.pt"
    write_torch(path, ema, wrap="ema", extra={"step": 140_000})
    params = rddm.from_torch(read_state_dict(path).tensors, cfg)
    jax.tree.map(np.testing.assert_array_equal, params, rddm.from_torch(averaged, cfg))


def test_weights_of_the_networks_alone_are_accepted():
    cfg = RDDMConfig.low_light(unet=SMALL)
    whole = weights_of(cfg)
    params = rddm.from_torch(whole, cfg)
    inner = {k.removeprefix("model."): v for k, v in whole.items() if k.startswith("model.")}
    single = {k.removeprefix("unet0."): v for k, v in inner.items()}
    for weights in (inner, single, {f"module.{k}": v for k, v in whole.items()}):
        jax.tree.map(np.testing.assert_array_equal, rddm.from_torch(weights, cfg), params)


def test_a_checkpoint_of_another_experiment_is_named():
    weights = weights_of(RDDMConfig.low_light(unet=SMALL))
    message = r"Expected weights of 2 network\(s\) with 6 .* another experiment: 1 network\(s\) "
    with pytest.raises(UserError, match=message):
        rddm.from_torch(weights, RDDMConfig.deraining(unet=SMALL))
    message = r"1 network\(s\) with 9 .*conditions 3\), found .* 1 network\(s\) with 6 input chan"
    with pytest.raises(UserError, match=message):
        rddm.from_torch(weights, RDDMConfig.shadow_removal(unet=SMALL))
    with pytest.raises(UserError, match="and a weight of objectives"):
        rddm.from_torch(weights, RDDMConfig.objective_search(unet=SMALL))
    with pytest.raises(UserError, match="same network in another size"):
        rddm.from_torch(weights, RDDMConfig.low_light(unet={**SMALL, "dim": 16}))


def test_foreign_weights_are_refused():
    message = "contain the key 'model.unet0.init_conv.weight', which these 1 keys do not"
    with pytest.raises(UserError, match=message):
        rddm.config_from_state_dict({"conv.weight": np.zeros((3, 3))})
    cfg = RDDMConfig.low_light(unet=SMALL)
    weights = weights_of(cfg)
    del weights["model.unet0.mid_attn.fn.norm.g"]
    weights["model.unet0.extra"] = np.zeros(1, np.float32)
    with pytest.raises(UserError, match=r"mid_attn.fn.norm.g.*unet0.extra"):
        rddm.from_torch(weights, cfg)
    with pytest.raises(UserError, match="another structure or size"):
        rddm.to_torch(rddm.param_shapes(cfg), RDDMConfig.deraining(unet=SMALL))


def test_another_schedule_is_told():
    weights = weights_of(RDDMConfig.low_light(unet=SMALL))
    with pytest.warns(UserWarning, match="another schedule .*: betas2, betas, betas2_cumsum ..."):
        rddm.from_torch(weights, RDDMConfig.low_light(unet=SMALL, schedule={"sum_scale": 0.01}))


def test_a_search_that_chose_otherwise_is_told():
    weights = weights_of(RDDMConfig.objective_search(unet=SMALL))
    cfg = RDDMConfig.low_light(unet=SMALL, schedule={"ddpm": "linear"})
    rddm.from_torch(weights, cfg)
    weights["alpha_res"] = np.float32([0.48])
    with pytest.raises(UserError, match=r"for pred_res, found .* weight 0.4800 .* pred_noise"):
        rddm.from_torch(weights, cfg)
