"""What every network of the registry holds, in its smallest configuration."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore import registry
from jaxcore.convert import Rule
from jaxcore.errors import UserError
from jaxcore.models.base import TokenNetwork
from jaxcore.models.regression import RegressionNetwork
from tests import tiny_network

NAMES = registry.networks()  # with "tiny", which joins them on import


@pytest.fixture(scope="module", params=NAMES)
def network(request):
    return registry.network(request.param)


@pytest.fixture(scope="module")
def cfg(network):
    return network.tiny()


@pytest.fixture(scope="module")
def params(network, cfg):
    """Those of `init`, a little away from zeros and ones."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.02 * rng.standard_normal(leaf.shape), leaf.dtype),
        network.init(jax.random.key(0), cfg),
    )


def inputs(network, cfg, *, side=None, channels=None, dtype=jnp.float32):
    """Arguments of ``apply`` between the parameters and the configuration."""
    if isinstance(network, TokenNetwork):
        return (jnp.array([[1, 0, 2]]),)
    side = side or max(network.multiple(cfg), network.least(cfg))
    if network.task == "diffusion":
        x = jnp.full((1, side, side, channels or cfg.input_channels), 0.5, dtype)
        return x, jnp.array([3.0])
    if isinstance(network, RegressionNetwork):
        x = jnp.full((1, side, side, channels or cfg.in_channels), 0.5, dtype)
        return x, jnp.full((1, cfg.covariates), 0.5)
    return (jnp.full((1, side, side, channels or network.channels(cfg)), 0.5, dtype),)


def test_looking_at_the_registry_imports_no_network():
    code = (
        "import sys, jaxcore.registry, jaxcore.weights; jaxcore.registry.networks();"
        "print([m for m in sys.modules if m in ('jax', 'flax', 'jaxcore.models')])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() in ("[]", "['jax']")


def test_configurations_survive_json(network, cfg):
    stored = json.loads(json.dumps(cfg.to_dict()))
    again = network.config_class.from_dict(stored)
    assert again == cfg and hash(again) == hash(cfg)
    for make in network.presets.values():
        assert network.config_class.from_dict(json.loads(json.dumps(make().to_dict()))) == make()


def test_fields_that_are_missing_take_their_default_and_unknown_ones_are_named(network, cfg):
    assert network.config_class.from_dict({}) == network.config_class()
    with pytest.raises(UserError, match=f"colour is not a field of {type(cfg).__name__}"):
        network.config_class.from_dict({**cfg.to_dict(), "colour": 3})


def test_first_parameters_are_finite_and_as_announced(network, cfg, params):
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), network.param_shapes(cfg)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_official_weights_go_there_and_back_to_the_bit(network, cfg, params):
    weights = network.to_torch(params, cfg)
    jax.tree.map(np.testing.assert_array_equal, network.from_torch(weights, cfg), params)
    if not network.presets:  # those are for weights that do not tell their configuration
        found = network.config_from_state_dict(weights)
        assert network.param_shapes(found) == network.param_shapes(cfg)
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    jax.tree.map(np.testing.assert_array_equal, network.from_torch(wrapped, cfg), params)
    first, *rest = jax.tree.leaves(params)
    with pytest.raises(UserError):
        network.to_torch(
            jax.tree.unflatten(jax.tree.structure(params), [first[..., :0], *rest]), cfg
        )
    with pytest.raises(UserError, match="contain the key"):
        network.config_from_state_dict({"conv.weight": np.zeros((3, 3))})


def test_a_key_table_may_depend_on_the_configuration():
    def rules(cfg):
        return [Rule(r"(\w+)/(\w+)", rf"\1.{cfg.width}.\2")]

    network = dataclasses.replace(tiny_network.NETWORK, rules=rules)
    cfg = network.tiny(width=5)
    params = network.init(jax.random.key(0), cfg)
    weights = network.to_torch(params, cfg)
    assert sorted(weights) == ["first.5.bias", "first.5.kernel", "last.5.bias", "last.5.kernel"]
    jax.tree.map(np.testing.assert_array_equal, network.from_torch(weights, cfg), params)


def test_one_program_for_one_shape_with_a_finite_output(network, cfg, params):
    traced = []

    def run(params, *arrays):
        traced.append(1)
        return network.apply(params, *arrays, cfg)

    compiled, arrays = jax.jit(run), inputs(network, cfg)
    tokens = isinstance(network, TokenNetwork)
    for scale in (1.0, 0.5):
        out = compiled(params, arrays[0] if tokens else scale * arrays[0], *arrays[1:])
    assert len(traced) == 1
    if tokens:
        assert out.logits.shape == (1, 3, cfg.vocab_size)
        assert out.logits.dtype == jnp.float32 and np.isfinite(out.logits).all()
        return
    image = out[0] if isinstance(out, tuple) else out
    if network.restores(cfg):
        assert image.shape == (*arrays[0].shape[:3], network.channels(cfg))
    else:
        assert image.shape == (1, cfg.features if network.name == "clip" else cfg.outputs)
    assert image.dtype == jnp.float32 and np.isfinite(image).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_can_be_taken_of_every_network(name):
    """Shapes only: their values are compared with PyTorch's in the golden files."""
    network = registry.network(name)
    cfg = network.tiny()
    arrays = inputs(network, cfg)

    def loss(params):
        return sum(
            jnp.sum(leaf**2) for leaf in jax.tree.leaves(network.apply(params, *arrays, cfg))
        )

    shapes = network.param_shapes(cfg)
    found = jax.eval_shape(jax.grad(loss), shapes)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, shapes)


def test_inputs_that_do_not_fit_are_refused_in_one_sentence(network, cfg):
    def refused(**kinds):
        with pytest.raises(UserError) as error:
            network.apply(network.param_shapes(cfg), *inputs(network, cfg, **kinds), cfg)
        return str(error.value)

    title = cfg.title
    if isinstance(network, TokenNetwork):
        with pytest.raises(UserError, match=f"{title} expects tokens .*found \\(3,\\) of float32"):
            network.apply(network.param_shapes(cfg), jnp.ones(3), cfg)
        return
    assert f"{title} expects images of shape (batch, height, width," in refused(channels=11)
    if network.multiple(cfg) > 1:
        assert f"multiples of {network.multiple(cfg)}" in refused(side=17)
    assert f"{title} expects floating-point images in" in refused(dtype=jnp.uint8)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 37, 50, 3), np.float32, "positive multiples of 4, found 37 and 50"),
        ((1, 0, 8, 3), np.float32, "positive multiples of 4, found 0 and 8"),
        ((0, 8, 8, 3), np.float32, r"\(batch, height, width, 3\), found \(0, 8, 8, 3\)"),
        ((8, 8, 3), np.float32, r"\(batch, height, width, 3\), found \(8, 8, 3\)"),
        ((1, 8, 8, 1), np.float32, r"found \(1, 8, 8, 1\)"),
        ((1, 8, 8, 3), np.uint8, r"floating-point images in \[0, 1\], found uint8"),
    ],
)
def test_what_an_image_cannot_be(shape, dtype, message):
    cfg = tiny_network.TinyConfig()
    with pytest.raises(UserError, match=message):
        tiny_network.apply(tiny_network.param_shapes(cfg), np.zeros(shape, dtype), cfg)


def test_images_of_any_size_are_restored(network, cfg, params):
    image = np.random.default_rng(1).random((17, 9, network.channels(cfg) or 3), np.float32)
    if not network.restores(cfg):
        with pytest.raises(
            UserError, match=f"a network that restores images, found {network.name}"
        ):
            network.restore(params, image, cfg)
        return
    restored = network.restore(params, image, cfg)
    assert network.restores(cfg)
    assert restored.shape == image.shape and restored.dtype == np.float32
    assert np.isfinite(restored).all() and np.abs(restored - image).max() > 1e-4


def test_names_are_given_once():
    other = dataclasses.replace(tiny_network.NETWORK)
    with pytest.raises(UserError, match="Expected a new name for a network, found 'tiny'"):
        registry.register(other)
    with pytest.raises(UserError, match="found 'adair'"):
        registry.register(dataclasses.replace(tiny_network.NETWORK, name="adair"))
    registry.register(tiny_network.NETWORK)  # again is no mistake
