# ruff: noqa: F811  # fixtures that are imported
"""Files as trainings leave them: several sets of weights, other parts, leftovers, no name."""

import collections
import fractions

import jax
import numpy as np
import pytest

from jaxcore import registry
from jaxcore.errors import UserError
from jaxcore.models import adair, dea_net, rddm, sunet
from jaxcore.weights import load
from tests.tiny_weights import TINY, call, params, photo  # noqa: F401  # fixtures
from tests.torch_bytes import write_nested


def official(seed=0):
    return adair.to_torch(params(seed), TINY)


def below(prefix, tensors):
    return {prefix + key: value for key, value in tensors.items()}


def same(found, seed):
    jax.tree.map(np.testing.assert_array_equal, found, params(seed))


@pytest.fixture
def file(tmp_path):
    def write(tree):
        write_nested(tmp_path / "w.pth", tree)
        return tmp_path / "w.pth"

    return write


OTHER = {"w.weight": np.zeros((3, 2), np.float32), "w.bias": np.zeros(3, np.float32)}


@pytest.mark.parametrize(
    ("tree", "name", "left"),
    [
        (lambda a, b: {"net_g": a, "net_g_ema": b}, "net_g_ema", "net_g"),
        (lambda a, b: {"state_dict_ema": b, "state_dict": a}, "state_dict_ema", "state_dict"),
        (lambda a, b: {"model_state_dict": a, "ema_state_dict": b}, "ema_state_dict", "model_s"),
        (lambda a, b: {"params": a, "params_ema": b}, "params_ema", "params"),
        (lambda a, b: {"generator": b, "discriminator": OTHER}, "generator", "discriminator"),
        (lambda a, b: {"state_dict": {**below("net.", a), **below("ema.", b)}}, "ema", "net"),
    ],
)
def test_the_set_that_fits_is_taken_and_of_two_the_averaged_one(file, tree, name, left):
    path = file({**tree(official(1), official(2)), "epoch": 3})
    found = load(path)
    same(found.params, 2)
    assert f"{name}'; left alone: {left}" in found.notes[0]


def test_a_set_can_be_named(file):
    path = file({"net_g": official(1), "net_g_ema": official(2), "net_d": OTHER})
    same(load(path, part="net_g").params, 1)
    with pytest.raises(UserError, match=r"a set of weights 'net' in .*, found net_g, net_g_ema"):
        load(path, part="net")
    with pytest.raises(UserError, match="does not hold weights of adair"):
        load(path, part="net_d", model="adair")
    path = file({"netG_A": official(1), "netG_B": official(2)})
    with pytest.raises(
        UserError, match=r"found 2 that fit: name one with --set, of netG_A, netG_B"
    ):
        load(path)
    same(load(path, part="netG_B").params, 2)
    path = file({"state_dict": {**below("net.", official(1)), **below("ema.", official(2))}})
    same(load(path, part="net").params, 1)
    same(load(path, part="state_dict/net").params, 1)


def test_what_a_lightning_module_has_beside_the_network_is_left_alone(file):
    window = {"loss_fn.window": np.ones((1, 1, 3, 3), np.float32)}
    found = load(file({"state_dict": {**below("net.", official(1)), **window}}))
    same(found.params, 1)
    assert found.notes == ("taken from 'state_dict/net'; left alone: loss_fn.window",)


def test_counters_of_a_profiler_are_dropped_and_named(file):
    counters = {
        key: np.zeros(1, np.float64)
        for key in ("total_ops", "total_params", "latent.0.total_ops", "latent.0.total_params")
    }
    found = load(file({**official(1), **counters}))
    same(found.params, 1)
    assert found.notes == ("left out 4 counters of a profiler, such as total_ops",)


def test_harmless_built_ins_of_the_older_protocol_are_read(file):
    kept = {
        "hits": collections.defaultdict(int),
        "types": [int, str, bytes, range(3), slice, complex(1, 2), fractions.Fraction(1, 3)],
        "texts": collections.Counter("ab"),
    }
    same(load(file({"state_dict": official(1), **kept})).params, 1)


class Made:
    def __reduce__(self):
        return eval, ("1",)


def test_code_stays_refused(file):
    with pytest.raises(UserError, match=r"builtins.eval, which is code"):
        load(file({"state_dict": official(1), "hits": Made()}))


SMALL = {
    "dea_net": dea_net.DEANetConfig.tiny(form="deploy"),
    "rddm": rddm.RDDMConfig.tiny(),
    "sunet": sunet.SUNetConfig.tiny(),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_network_is_recognised_by_the_keys(file, name):
    network, cfg = registry.network(name), SMALL[name]
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), network.param_shapes(cfg))
    tensors = {k: np.asarray(v) for k, v in network.to_torch(shapes, cfg).items()}
    tensors = {k: v for k, v in tensors.items() if v.dtype == np.float32}
    if name == "rddm":  # buffers of whole numbers and float64 are not needed
        tensors = {k: v for k, v in tensors.items() if k.startswith("model.")}
    assert load(file({"params": tensors})).network.name == name


def test_other_weights_are_of_no_network(file):
    with pytest.raises(UserError, match=r"--model names one"):
        load(file(OTHER))
    with pytest.raises(UserError, match=r"found 2 sets \(a, b\), none of which fits adair"):
        load(file({"a": OTHER, "b": OTHER}))


def test_the_state_of_an_optimiser_is_named(file):
    state = {0: {"step": 1.0}}  # as PyTorch numbers parameters
    with pytest.raises(UserError, match="it is the state of an optimiser, which stands beside"):
        load(file({"state": collections.OrderedDict(state), "param_groups": [{"lr": 0.1}]}))


def test_the_commands_say_what_they_took(file, call, photo, tmp_path):
    path = file({"net_g": official(1), "net_g_ema": official(2)})
    words = ("restore", photo, "-o", tmp_path / "out.png", "--weights", path)
    code, out, err = call(*words)
    assert code == 0 and "taken from 'net_g_ema'; left alone: net_g" in out, err
    code, out, _ = call("convert", path, tmp_path / "a.safetensors", "--set", "net_g")
    assert code == 0 and "taken from 'net_g'; left alone: net_g_ema" in out
    same(load(tmp_path / "a.safetensors").params, 1)
    code, _, err = call(*words, "--overwrite", "--set", "other")
    assert code == 2 and "found net_g, net_g_ema" in err
    code, out, err = call("info", path)
    assert code == 0 and "adair" in out and "net_g_ema" in out, err
