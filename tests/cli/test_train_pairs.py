"""Pairs under names of their own, and broken ones, through ``train``, ``evaluate`` and ``pack``."""

import json

import numpy as np
import pytest
from PIL import Image

from tests import tiny_network

NOTE = "paired by '{}_hazy => {}_GT', such as 0_hazy.png and 0_GT.png"


@pytest.fixture
def pairs(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        clean = rng.integers(0, 256, (40, 48, 3), np.uint8)
        for name, image in ((f"clear/{i}_GT.png", clean), (f"hazy/{i}_hazy.png", clean // 2)):
            path = tmp_path / "pairs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path / "pairs"


def training(pairs, run, *more):
    own = "--data.held-out 1 --train.steps 6 --train.save-every 2".split()
    return ["train", tiny_network.NETWORK.name, "--data.root", pairs, "-o", run, *own, *more]


def test_the_rule_is_said_and_is_the_same_everywhere(pairs, tmp_path, call):
    code, out, err = call(*training(pairs, tmp_path / "run"))
    assert code == 0 and NOTE in out and "trained 6 steps" in out, err
    code, out, err = call("evaluate", tmp_path / "run")
    assert code == 0 and NOTE in out, err
    code, out, err = call("data", "pack", pairs, tmp_path / "packed")
    assert code == 0 and NOTE in out and "6 pairs" in out, err
    code, _, err = call(*training(pairs, tmp_path / "no", "--data.pair-by", "{}x => {}y"))
    assert code == 2 and "by the rule '{}x => {}y', found 6 of 6" in err
    code, _, err = call(*training(pairs, tmp_path / "no", "--data.pair-by", "by hand"))
    assert code == 2 and "Expected as pair_by one of auto" in err
    assert not (tmp_path / "no").exists()


def test_a_picture_that_breaks_ends_a_run_with_its_state_saved_or_is_left_out(
    pairs, tmp_path, call
):
    for i in (1, 2, 3):
        path = pairs / "hazy" / f"{i}_hazy.png"
        content = bytearray(path.read_bytes())
        content[200:300] = bytes(100)  # the header and the end are whole
        path.write_bytes(content)
    code, _, err = call(*training(pairs, tmp_path / "run"))
    assert code == 2 and "Expected a whole picture, found" in err
    with pytest.warns(UserWarning, match="that is broken and left out"):
        code, out, err = call(*training(pairs, tmp_path / "run2", "--data.skip-broken"))
    assert code == 0 and "trained 6 steps" in out, err
    stored = json.loads((tmp_path / "run2" / "config.json").read_text())
    assert stored["task_config"]["data"]["skip_broken"] is True
