"""``jaxcore train --init``: a network is that of the weights, as the pages print it."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxcore.train
from jaxcore.convert import write_torch
from jaxcore.models import adair, dea_net, rddm
from jaxcore.train.schedules import ScheduleConfig
from tests.cli.reader import FIVE, printed
from tests.tiny_weights import params, write_run

HAZE = dea_net.DEANetConfig(base_dim=4, depths=(1, 1, 2, 1, 1))
FACES = rddm.RDDMConfig.low_light(unet={"dim": 8, "dim_mults": (1, 2)})


@pytest.mark.parametrize("page", ["README.md", "models/adair/README.md"])
def test_the_printed_fine_tuning_takes_the_network_of_the_file(folder, begun, call, page):
    (argv,) = printed(page, "train adair --init")
    code, _, err = call(*argv)
    assert code == 0, err
    ((task, start),) = begun
    assert task.network == FIVE
    np.testing.assert_array_equal(start["output"]["kernel"], params(cfg=FIVE)["output"]["kernel"])


def test_a_published_recipe_goes_on_from_its_weights_on_own_pairs(folder, begun, call):
    data = "--data.kind pairs --data.root PAIRS --stages.0.batch-size 1".split()
    code, _, err = call("train", "adair_5d", "--init", "adair5d.ckpt", *data, "-o", "r")
    assert code == 0, err
    ((task, _),) = begun
    assert task.network == FIVE and task.data.tasks == ()


def test_options_that_contradict_the_weights_are_refused(folder, begun, call):
    argv = "train adair --init adair5d.ckpt --data.root PAIRS -o r".split()
    for option, value, of_the_file in (("dim", "24", "8"), ("decoder", None, "True")):
        given = ["--network.no-decoder"] if value is None else [f"--network.{option}", value]
        code, _, err = call(*argv, *given)
        assert code == 2 and err.count("\n") == 1
        assert f"the weights in adair5d.ckpt, whose {option} is {of_the_file}" in err
    code, _, err = call(*argv, "--network.mask-mode", "soft", "--network.dtype", "bfloat16")
    assert code == 0, err
    changed = dataclasses.replace(FIVE, mask_mode="soft", dtype="bfloat16")
    assert begun[-1][0].network == changed


def test_the_network_may_be_that_of_a_run(folder, begun, call):
    write_run(folder / "old", FIVE)
    code, _, err = call(*"train adair --init old --data.root PAIRS -o r".split())
    assert code == 0, err
    assert begun[0][0].network == FIVE


def test_the_network_may_be_another_than_adair(folder, begun, call):
    write_torch(Path("haze.pth"), dea_net.to_torch(params(cfg=HAZE, module=dea_net), HAZE))
    data = "--data.kind pairs --data.root PAIRS".split()
    options = "--stages.0.patch 64 --network.scan-blocks False".split()
    code, _, err = call("train", "dea_net", "--init", "haze.pth", *data, "-o", "r", *options)
    assert code == 0, err
    assert begun[0][0].network == dataclasses.replace(HAZE, scan_blocks=False)
    merged, small = dea_net.deploy(params(cfg=HAZE, module=dea_net), HAZE)
    write_torch(Path("merged.pth"), dea_net.to_torch(merged, small))
    code, out, err = call("train", "dea_net", "--init", "merged.pth", *data, "-o", "r", *options)
    assert code == 0, err
    assert "the merged kernels of merged.pth are one branch of each convolution" in out
    start = begun[1][1]
    again, _ = dea_net.deploy(start, HAZE)
    jax.tree.map(np.testing.assert_array_equal, again, merged)


def test_weights_of_rddm_decide_sizes_and_the_recipe_the_rest(folder, begun, call):
    drawn = params(cfg=FACES, module=rddm)
    write_torch(Path("faces.pt"), rddm.to_torch(drawn, FACES))
    data = "--data.root PAIRS --stages.0.patch 64".split()
    code, _, err = call("train", "rddm", "--init", "faces.pt", *data, "-o", "r")
    assert code == 0, err
    (task, start) = begun[0]
    assert task.network.unet.dim == 8 and task.network.unet.dim_mults == (1, 2)
    assert jax.tree.structure(start) == jax.tree.structure(drawn)


@pytest.mark.slow
def test_the_printed_fine_tuning_at_the_full_size(folder, call, monkeypatch):
    """With the published network; one update of two rows instead of 100,000 of eight: 20 GB."""
    cfg = adair.AdaIRConfig.five_task()
    drawn = adair.init(jax.random.key(0), cfg)
    Path("adair5d.ckpt").unlink()
    write_torch(Path("adair5d.ckpt"), adair.to_torch(drawn, cfg), prefix="net.", wrap="state_dict")
    real = jaxcore.train.fit

    def one_update(task, train, *args, **kwargs):
        optim = dataclasses.replace(train.optim, schedule=ScheduleConfig())
        return real(task, dataclasses.replace(train, steps=1, optim=optim), *args, **kwargs)

    monkeypatch.setattr(jaxcore.train, "fit", one_update)
    argv, *_ = printed("README.md", "train adair ", "--init")
    code, out, err = call(*argv, "--stages.0.batch-size", "2")
    assert code == 0 and "trained 1 steps" in out, err
