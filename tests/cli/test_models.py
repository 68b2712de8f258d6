"""``jaxcore models`` and ``jaxcore info``: what there is, and what a file or a run holds."""

import math
import shlex

import jax
import pytest

from jaxcore import registry
from jaxcore.cli import parse
from jaxcore.models import adair, dea_net, rddm, sunet
from jaxcore.train.recipes import names
from jaxcore.weights import SHIPPED
from jaxcore.weights.official import OFFICIAL


def test_everything_is_listed_with_a_command_that_can_be_typed(call):
    code, out, err = call("models")
    assert (code, err) == (0, "")
    for name in (*registry.networks(), *names(), "noise", "haze"):
        assert any(name in line.split() for line in out.splitlines()), name
    for one in OFFICIAL:
        assert one.where in out and one.licence in out and f"about {one.megabytes} MB" in out
    commands = [shlex.split(line) for line in out.splitlines() if " jaxcore " in line]
    assert len(commands) == len(OFFICIAL) + len(SHIPPED)
    for words in commands:
        parse(words[words.index("jaxcore") + 1 :])  # understood, not run


def test_one_network_is_listed_alone(call):
    code, out, _ = call("models", "dea_net")
    assert code == 0 and out.splitlines()[0] == "dea_net" and "restormer" not in out
    code, _, err = call("models", "resnet")
    assert code == 2 and "Unknown network 'resnet': expected one of adair" in err


PUBLISHED = {
    "AdaIR, five tasks": (adair, adair.AdaIRConfig.five_task),
    "Restormer": (adair, adair.AdaIRConfig.restormer),
    "DEA-Net-CR": (dea_net, lambda: dea_net.DEANetConfig(form="deploy")),
    "SUNet": (sunet, sunet.SUNetConfig.denoise_rgb),
    "RDDM, faces": (rddm, rddm.RDDMConfig.path_independence),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_of_the_published_networks(name):
    module, make = PUBLISHED[name]
    shapes = module.param_shapes(make())
    (one,) = [one for one in OFFICIAL if one.name == name]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == one.parameters


def test_what_a_run_and_a_file_hold(call, run, weights):
    code, out, err = call("info", run)
    assert (code, err) == (0, "")
    said = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert said["network"].startswith("adair") and said["checkpoints"] == "1, 2"
    assert said["dim"] == "8" and said["train.best_metric"] == "psnr"
    code, out, _ = call("info", weights / "tiny.pth")
    said = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0 and "arrays" in said["parameters"] and "checkpoints" not in said
    code, _, err = call("info", run / "gone")
    assert code == 2 and "found nothing at" in err
