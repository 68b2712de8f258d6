"""What the convolutional networks promise beyond what every network does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import convnet
from jaxcore.models.convnet import ConvNetConfig, cnn2023
from jaxcore.models.convnet.cnn2023 import CNN2023Config

NETWORKS = [
    (convnet.NETWORK, ConvNetConfig.tiny(), 0.99),
    (cnn2023.NETWORK, CNN2023Config.tiny(), 0.9),
]


def arrays(cfg, rows=5, side=16):
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, size=(rows, side, side, cfg.in_channels))
    return jnp.asarray(x, jnp.float32), jnp.asarray(rng.normal(size=(rows, 2)), jnp.float32)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_published_network_has_the_published_number_of_parameters():
    for columns in (0, 3):
        learned, _ = cnn2023.NETWORK.split(cnn2023.param_shapes(CNN2023Config(covariates=columns)))
        assert count(learned) == 5203 + 32 * columns


@pytest.mark.parametrize(("network", "cfg", "momentum"), NETWORKS)
def test_statistics_are_carried_not_learned(network, cfg, momentum):
    params, (x, columns) = network.init(jax.random.key(0), cfg), arrays(cfg)
    learned, carried = network.split(params)
    jax.tree.map(np.testing.assert_array_equal, network.join(learned, carried), params)
    assert "batch_stats" in carried and "batch_stats" not in learned
    learn = jax.jit(network.learn, static_argnames="cfg")
    first = learn(params, x, columns, cfg=cfg, key=None)
    assert jax.tree.structure(first.collections) == jax.tree.structure(carried)
    # Old values are kept to the share that the specification gives.
    old, new = (jax.tree.leaves(tree)[0] for tree in (carried, first.collections))
    second = learn(network.join(learned, first.collections), x, columns, cfg=cfg, key=None)
    third = jax.tree.leaves(second.collections)[0]
    np.testing.assert_allclose(third - new, momentum * (new - old), rtol=1e-3, atol=1e-6)
    # In training the batch's own statistics count, whatever is carried.
    np.testing.assert_array_equal(first.outputs, second.outputs)
    after = network.apply(network.join(learned, second.collections), x, columns, cfg)
    assert np.abs(after - network.apply(params, x, columns, cfg)).max() > 1e-6


@pytest.mark.parametrize(("network", "cfg", "momentum"), NETWORKS)
def test_once_the_statistics_are_those_of_the_batch_training_and_use_agree(network, cfg, momentum):
    params, (x, columns) = network.init(jax.random.key(0), cfg), arrays(cfg)
    learned, _ = network.split(params)
    learn = jax.jit(network.learn, static_argnames="cfg")

    def step(params, _):
        found = learn(params, x, columns, cfg=cfg, key=None)
        return network.join(learned, found.collections), found.outputs

    params, outputs = jax.lax.scan(step, params, length=2000)
    np.testing.assert_allclose(
        network.apply(params, x, columns, cfg), outputs[-1], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(("network", "cfg", "momentum"), NETWORKS)
def test_units_do_not_see_each_other_outside_of_training(network, cfg, momentum):
    params, (x, columns) = network.init(jax.random.key(0), cfg), arrays(cfg)
    apply = jax.jit(network.apply, static_argnames="cfg")
    whole = apply(params, x, columns, cfg=cfg)
    one = apply(params, x[2:3], columns[2:3], cfg=cfg)
    np.testing.assert_allclose(whole[2:3], one, atol=1e-6)


def test_no_image_is_smaller_than_told_and_the_least_one_works():
    cfg = ConvNetConfig.tiny(covariates=0)
    params = convnet.init(jax.random.key(0), cfg)
    out = convnet.apply(params, jnp.zeros((1, cfg.least, cfg.least, 3)), None, cfg)
    assert np.isfinite(out).all()
    with pytest.raises(UserError, match=f"{cfg.least}, found {cfg.least} and {cfg.least - 1}"):
        convnet.apply(params, jnp.zeros((1, cfg.least, cfg.least - 1, 3)), None, cfg)


def test_sequences_and_even_bins():
    cfg = ConvNetConfig.tiny(frames=2, temporal="variance", bins="even")
    params = convnet.init(jax.random.key(0), cfg)
    x, columns = arrays(cfg, rows=3)
    frames = jnp.stack([x, x], axis=1)
    found = np.asarray(convnet.features(params, frames, columns, cfg))
    assert found.shape == (3, 2 * cfg.width + 2)
    np.testing.assert_allclose(found[:, cfg.width : 2 * cfg.width], 0, atol=1e-6)


def test_random_features_are_the_largest_the_mean_and_their_product():
    cfg = ConvNetConfig.tiny()
    params = convnet.init(jax.random.key(0), cfg)
    x, _ = arrays(cfg)
    found = np.asarray(convnet.random_features(params, x, cfg))
    largest, mean, product = np.split(found, 3, axis=1)
    assert (largest >= mean).all()
    np.testing.assert_allclose(product, largest * mean, rtol=1e-6)
    other = convnet.init(jax.random.key(1), cfg)
    assert np.abs(convnet.random_features(other, x, cfg) - found).max() > 1e-3


def test_even_sides_of_filters_are_refused():
    with pytest.raises(UserError, match="kernel_size must be odd, found 4"):
        ConvNetConfig(kernel_size=4)
