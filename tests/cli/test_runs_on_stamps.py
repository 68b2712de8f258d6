"""``jaxcore train`` and ``evaluate`` on stamps of galaxies, as a user calls them."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.tiny_recipes import tiny_stamps

RECIPE = tiny_stamps.__name__


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("stamps") / "run"


@pytest.mark.slow
def test_nothing_but_the_simulator_is_needed_and_the_run_can_be_evaluated(run, call, tmp_path):
    code, out, err = call("train", RECIPE, "-o", run)
    assert code == 0, err
    assert "simulated" in out and "debias/flux_error" in out and "trained 2 steps" in out
    code, out, err = call("evaluate", run, "-o", tmp_path / "e", "--images", "2")
    assert code == 0, err
    table = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert {"tikhonov", "network", "debias"} <= table.keys()
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert float(table["debias"][0]) == pytest.approx(metrics["debias/nmse"], abs=1e-4)
    with Image.open(tmp_path / "e" / "deconvolved.png") as picture:
        assert picture.width > 600
    code, _, err = call("evaluate", run, "--photos")
    assert code == 2 and "no options of pictures for a run on stamps" in err


def test_a_folder_of_stamps_is_one_option(call, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "stamps.npy", rng.uniform(size=(6, 20, 20)).astype(np.float32))
    root = ["--data.root", tmp_path, "--data.held-out", "2"]
    code, out, err = call("train", RECIPE, "-o", tmp_path / "run", *root, "--dry-run")
    assert code == 0, err
    assert "truth float32 (2, 16, 16)" in out
    assert not (tmp_path / "run").exists()
    code, _, err = call("train", RECIPE, "-o", tmp_path / "run", "--data.root", "nowhere")
    assert code == 2 and "Expected a folder of stamps, found none at nowhere" in err
    code, _, err = call("train", RECIPE, "-o", tmp_path / "run", "--data.telescope.snr", "9", "2")
    assert code == 2 and "snr must be in rising order" in err
