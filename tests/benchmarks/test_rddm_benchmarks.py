"""RDDM's benchmark and experiments in their smoke modes."""

import json
import sys

import numpy as np
import pytest

from benchmarks import rddm, rddm_experiments
from jaxcore.models.rddm import RDDMConfig


@pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["stub", "network"]
)
def test_speed_without_its_rival(tmp_path, monkeypatch, whole):
    if not whole:  # the network takes a minute to compile
        monkeypatch.setattr(rddm, "weights", lambda plan, rival: {"gain": np.float32(0.5)})

        def scale(params, x, time):
            return (params["gain"] * x,)

        monkeypatch.setattr(rddm, "ddpm_network", lambda cfg: scale)
    monkeypatch.setitem(sys.modules, "denoising_diffusion_pytorch", None)
    monkeypatch.setattr(rddm.harness, "PAUSE", 0)
    path = tmp_path / "rddm.json"
    rddm.main(smoke=True, output=path, parts=("overhead",))
    record = json.loads(path.read_text())["overhead"]
    assert record["rival"]["absent"].startswith("not installed: ")
    assert record["compilations"] == {"tables": 7, "programs": 1}
    assert record["overhead_16"]["sampler"]["median_s"] > 0


def test_scenes_are_those_of_the_published_experiment():
    import jax

    batch = rddm_experiments.batch_of(jax.random.key(0), 64, RDDMConfig.tiny())
    clean, degraded = (np.asarray(batch[n]) / 2 + 0.5 for n in ("clean", "degraded"))
    assert clean.shape == (64, 16, 16, 3) and clean.min() >= 0 and clean.max() <= 1
    changed = np.abs(degraded - clean).max(axis=-1) > 1e-6
    assert changed.sum(axis=(1, 2)).max() == 64  # an 8x8 box
    np.testing.assert_allclose(degraded[changed], 0.35 * clean[changed], atol=1e-6)


def test_finished_trainings_are_used_again_and_only_those(tmp_path, monkeypatch):
    trained = []

    def train(cfg, seed, steps):
        trained.append((cfg.objective.name, seed))
        return {}, [0.5], 1.0

    def measure(params, cfg):
        psnr = {str(s): 20.0 + cfg.num_unet for s in rddm_experiments.SHADOW_STEPS}
        return {"input": 14.0, "psnr": psnr}, np.zeros((5, 4, 16, 16, 3))

    monkeypatch.setattr(rddm_experiments, "train", train)
    monkeypatch.setattr(rddm_experiments, "evaluate", measure)
    options = {"which": ("shadow",), "seeds": (0, 1), "steps": 3, "runs": tmp_path, "out": tmp_path}
    with pytest.raises(SystemExit, match="3 trainings are left"):
        rddm_experiments.main(new=5, **options)
    assert len(trained) == 5 and not (tmp_path / "rddm_experiments.json").exists()
    rddm_experiments.main(**options)
    assert len(trained) == len(set(trained)) + 2 == 8  # one objective has two noise levels
    record = json.loads((tmp_path / "rddm_experiments.json").read_text())["shadow"]
    assert record["table"]["pred_res"]["S=5"] == {"mean": 21.0, "std": 0.0}
    assert not all(record["checks"].values())
    rddm_experiments.main(**(options | {"steps": 4}))
    assert len(trained) == 16


@pytest.mark.slow
def test_residuals_suit_a_shadow_better_than_noise(tmp_path):
    """One seed, the two ends of the table: 25 dB at five steps, and 5 dB between them."""
    runs = rddm_experiments.plan("shadow", (0,), 1200, tmp_path)
    found = {name: runs[name][0].result()["figures"]["psnr"] for name in ("pred_res", "pred_noise")}
    assert found["pred_res"]["5"] >= 25
    assert found["pred_res"]["5"] >= found["pred_noise"]["5"] + 5
    assert found["pred_res"]["2"] >= found["pred_res"]["10"] - 1  # two steps are nearly enough


@pytest.mark.slow
def test_other_paths_end_near_the_sample_of_the_training_schedule(tmp_path):
    """One seed, 10 steps: re-scheduled within a quarter of a different sample, two passes 0.6."""
    row = rddm_experiments.plan("paths", (0,), 1200, tmp_path)["paths"][0].result()["figures"]["10"]
    reference = row["a different sample"]
    for name in ("average, average", "decreased, increased"):
        assert row[name] <= 0.25 * reference
    assert row["residual then noise"] <= 0.6 * reference
