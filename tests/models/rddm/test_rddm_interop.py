"""A third-party network: the same outputs and the same DDIM samples as its own package."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models.rddm.interop import (
    config_from_ddpm_torch,
    ddpm_network,
    from_ddpm_torch,
    schedule_from_ddpm_torch,
    to_ddpm_torch,
)
from jaxcore.models.rddm.network import ddpm_unet
from jaxcore.models.rddm.network.ddpm_unet import DDPMUnetConfig
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.sampling.ddim import DDIMNetwork, ddim
from jaxcore.models.rddm.sampling.sampler import sample
from tests.parity.golden import Golden


@pytest.fixture(scope="module")
def stored():
    """Written by make_ddpm_fixture.py beside this file."""
    return Golden(Path(__file__).with_name("ddpm_unet.npz"))


def weights(stored):
    return stored.group("param")


def test_outputs_are_those_of_the_package(stored):
    cfg = config_from_ddpm_torch(weights(stored))
    assert (cfg.dim, cfg.dim_mults, cfg.heads, cfg.dim_head) == (8, (1, 2), 2, 4)
    assert cfg.attends == (False, True) and not cfg.self_condition
    params = from_ddpm_torch(weights(stored), cfg)
    run = jax.jit(ddpm_unet.apply, static_argnames="cfg")
    y = run(params, stored.image("in/x"), stored["in/time"], cfg=cfg)
    np.testing.assert_allclose(y, stored.image("out/y"), atol=2e-5)


def test_other_sizes_are_read_from_the_weights_too(stored):
    state = stored.group("param2")
    cfg = config_from_ddpm_torch(state, channels=3)
    assert cfg.out_channels == 6 and cfg.attends == (True, False)
    cfg = config_from_ddpm_torch(state, channels=3, self_condition=True)
    params = from_ddpm_torch(state, cfg)
    x = stored.image("in/x")
    seen = forward.network_input(x, self_condition=x[::-1])
    y = jax.jit(ddpm_unet.apply, static_argnames="cfg")(params, seen, stored["in/time"], cfg=cfg)
    np.testing.assert_allclose(y, stored.image("out/y_self_condition"), atol=2e-5)
    (first,) = ddpm_network(cfg)(params, seen, (stored["in/time"],))
    assert first.shape == x.shape


def test_samples_are_those_of_the_packages_ddim(stored):
    cfg = config_from_ddpm_torch(weights(stored))
    table = ddim(schedule_from_ddpm_torch(weights(stored)), stored.config["steps"])
    start = stored.image("in/start")
    _, seen = sample(
        ddpm_network(cfg),
        from_ddpm_torch(weights(stored), cfg),
        shape=start.shape,
        table=table,
        objective=DDIMNetwork(prediction="v", rederive_noise=True),
        noise=start[None],
        return_trajectory=True,
    )
    ours = forward.to_unit(np.concatenate([seen.start[None], seen.states]))[:, 0]
    np.testing.assert_allclose(ours, np.moveaxis(stored["out/trajectory"], 1, -1), atol=2e-5)


def test_weights_go_there_and_back(stored):
    cfg = config_from_ddpm_torch(weights(stored))
    back = to_ddpm_torch(from_ddpm_torch(weights(stored), cfg), cfg)
    network = {k.removeprefix("model."): v for k, v in weights(stored).items() if "model." in k}
    assert back.keys() == network.keys()
    for key, value in network.items():
        np.testing.assert_array_equal(back[key], value)


def test_the_default_network_has_the_packages_size():
    shapes = ddpm_unet.param_shapes(DDPMUnetConfig(dim=64))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 35_711_491
    cfg = DDPMUnetConfig(dim=8, dim_mults=(1, 2), heads=2, dim_head=4)
    assert DDPMUnetConfig.from_dict(cfg.to_dict()) == cfg
    assert ddpm_network(cfg) is ddpm_network(DDPMUnetConfig.from_dict(cfg.to_dict()))


CFG = DDPMUnetConfig(dim=8, dim_mults=(1, 2))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: config_from_ddpm_torch({"a": np.zeros(1)}), "weights of denoising-diffusion"),
        (lambda: schedule_from_ddpm_torch({"a": np.zeros(1)}), "the schedule 'betas'"),
        (lambda: DDPMUnetConfig(full_attention=(True,)), "full_attention for 4 levels, found 1"),
        (lambda: DDPMUnetConfig.from_dict({"width": 3}), "width is not a field"),
        (
            lambda: ddpm_unet.apply({}, jnp.zeros((1, 4, 4, 6)), jnp.zeros(1), CFG),
            "shape \\(batch, height, width, 3\\), found \\(1, 4, 4, 6\\)",
        ),
        (
            lambda: ddpm_unet.apply({}, jnp.zeros((1, 5, 4, 3)), jnp.zeros(1), CFG),
            "multiples of 2, found 5 and 4",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
