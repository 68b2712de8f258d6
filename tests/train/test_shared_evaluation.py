"""Evaluation is shared over devices and processes and gives what one device gives, to the bit."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcore.data.images.kinds import CleanImages
from jaxcore.data.images.pipeline import Stage
from jaxcore.errors import UserError
from jaxcore.parallel import dealt_back, local_copies, make_mesh, spread, state_shardings
from jaxcore.train.tasks.restoration import RestorationTask
from tests.parallel.jobs import EVALUATION, Job
from tests.tiny_network import TinyConfig


def make_task(root):
    """Six images degraded in two ways; a network of which one kernel is big enough to be split."""
    rng = np.random.default_rng(0)
    for name in "abcdef":
        size = (24 + 4 * (name < "d"), 20)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(root / f"{name}.png")
    data = CleanImages(root=str(root), tasks=("noise25", "noise15"), held_out=5)
    stages = (Stage(patch=16, batch_size=2),)
    network = TinyConfig(width=700)
    options = {"crop_multiple": 4, "eval_legacy_rng": True, "eval_images": 4}
    return RestorationTask(model="tiny", network=network, data=data, stages=stages, **options)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("clean"))


class _State:
    def __init__(self, params):
        self.eval_params = params


@pytest.mark.parametrize("fsdp", [1, 2])
def test_devices_share_the_images(task, fsdp):
    params = task.init_params(jax.random.key(0))
    alone = task.evaluate(_State(params))
    mesh = make_mesh(fsdp=fsdp)
    placed = jax.device_put(params, state_shardings(params, mesh))
    assert placed["first"]["kernel"].is_fully_replicated == (fsdp == 1)
    copies = local_copies(placed)
    assert [leaf.devices() for leaf in map(lambda c: c["first"]["kernel"], copies)] == [
        {device} for device in jax.devices()
    ]
    assert task.evaluate(_State(placed)) == alone
    np.testing.assert_array_equal(
        task.pictures(_State(placed))["restored"], task.pictures(_State(params))["restored"]
    )


@pytest.mark.parametrize("limit", [None, 2, 0])
@pytest.mark.parametrize("processes", [2, 3, 7])
def test_every_image_falls_to_one_process(task, limit, processes):
    whole = [(group, s["name"]) for group, s in task.evaluation_samples(limit)]
    hands = [
        list(task.evaluation_samples(limit, first=index, stride=processes))
        for index in range(processes)
    ]
    found = dealt_back(hands)
    assert [(group, s["name"]) for group, s in found] == whole
    for (_, one), (_, other) in zip(found, task.evaluation_samples(limit), strict=True):
        np.testing.assert_array_equal(one["degraded"], other["degraded"])


def test_an_error_on_one_device_ends_the_evaluation():
    params = [jax.device_put(np.float32(0), device) for device in jax.devices()]

    def fail(_, item):
        if item == 3:
            raise UserError("Expected a whole picture.")
        return item

    found = spread(fail, range(100), params)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="whole picture"):
        next(found)


@pytest.mark.slow
def test_processes_share_the_images_and_the_errors(task, tmp_path):
    (tmp_path / "images").mkdir()
    same = make_task(tmp_path / "images")
    described = tmp_path / "task.json"
    described.write_text(json.dumps(same.to_dict()))
    alone = task.evaluate(_State(task.init_params(jax.random.key(0))))
    with Job(2, described, script=EVALUATION) as job:
        results = job.results()
    assert [code for code, *_ in results] == [0, 0], results
    found = [json.loads(out.splitlines()[-1]) for _, out, _ in results]
    assert [one["metrics"] for one in found] == [alone, alone]
    assert [one["pictures"] for one in found] == [["restored"], []]
    assert [one["restored"] for one in found] == [4 + 2, 4]  # of eight, and those of the picture
    # Without the official tester's draws, for which every process looks at all images.
    described.write_text(json.dumps({**same.to_dict(), "eval_legacy_rng": False}))
    first = tmp_path / "images" / f"{next(same.evaluation_samples())[1]['name']}.png"
    first.write_bytes(first.read_bytes()[:100])
    with Job(2, described, script=EVALUATION) as job:
        results = job.results()
    errors = [err.splitlines()[-1] for _, _, err in results]
    assert all("Expected a whole picture" in one for one in errors), errors
    assert [" of 2 has failed: " in one for one in errors] == [False, True]
