"""Every parameter has the distribution that its initialiser names, and published seeds stay."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.models import dea_net
from jaxcore.nn import Conv, PointwiseConv, apply_stack, init_params, torch_uniform

WIDTH = 64


class Mixed(nn.Module):
    """Layers whose kernels and biases are of several kinds, alone and in a stack."""

    @nn.compact
    def __call__(self, x):
        x = PointwiseConv(features=WIDTH, use_bias=True, name="ours")(x)
        normal, zeros = nn.initializers.normal(0.02), nn.initializers.zeros
        options = {"features": WIDTH, "kernel_init": normal, "bias_init": zeros}
        x = nn.Dense(name="normal", **options)(x)
        x, _ = apply_stack(nn.Dense(name="layers", **options), x, length=3)
        ours = PointwiseConv(features=WIDTH, use_bias=True, name="more")
        return apply_stack(ours, x, length=3)[0]


@pytest.fixture(scope="module")
def params():
    net, x = Mixed(), jnp.zeros((1, WIDTH))

    def init(key):
        return net.init(key, x)["params"]

    return jax.jit(lambda key: init_params(init, key))(jax.random.key(0))


@pytest.mark.parametrize("name", ["normal", "layers"])
def test_a_normal_kernel_stays_normal_and_its_bias_zero(params, name):
    kernel = np.asarray(params[name]["kernel"])
    assert np.std(kernel) == pytest.approx(0.02, rel=0.05)
    assert np.abs(kernel).max() > 0.05  # no uniform distribution of this width reaches it
    assert not params[name]["bias"].any()
    if name == "layers":
        assert kernel.shape == (3, WIDTH, WIDTH)
        assert np.abs(kernel[0] - kernel[1]).max() > 0.01


@pytest.mark.parametrize("name", ["ours", "more"])
def test_our_layers_are_uniform_in_one_over_the_root_of_the_inputs(params, name):
    for leaf in (params[name]["kernel"], params[name]["bias"]):
        assert np.abs(leaf).max() <= WIDTH**-0.5
        assert np.std(leaf) == pytest.approx((3 * WIDTH) ** -0.5, rel=0.15)


def test_a_layer_by_itself_has_the_same_distribution():
    kernel = Conv(features=256).init(jax.random.key(0), jnp.zeros((1, 4, 4, 16)))["params"][
        "kernel"
    ]
    bound = torch_uniform(9 * 16).bound
    assert bound == 1 / 12 and 0.99 * bound < np.abs(kernel).max() <= bound


def test_seeds_give_the_parameters_they_always_gave():
    params = dea_net.init(jax.random.key(7), dea_net.DEANetConfig.tiny())
    found = [
        params["down_level1"]["conv1"]["hdc"]["kernel"][0, 0, 0, 0, :2],
        params["up3"]["kernel"][2, 2, -1, -2:],
    ]
    np.testing.assert_allclose(
        found, [[-0.002093362, -0.12964419], [0.086242065, -0.10281797]], rtol=1e-6
    )
