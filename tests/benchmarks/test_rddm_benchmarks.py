"""RDDM's benchmark and experiments in their smoke modes."""

import json
import sys

import numpy as np
import pytest

from benchmarks import rddm, rddm_experiments
from jaxcore.models.rddm import RDDMConfig


def test_speed_without_its_rival(tmp_path, monkeypatch):
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


@pytest.mark.slow
def test_residuals_suit_a_shadow_better_than_noise(tmp_path, monkeypatch):
    """One seed, the two ends of the table: 25 dB at five steps, and 5 dB between them."""
    kept = {name: rddm_experiments.SHADOW[name] for name in ("pred_res", "pred_noise")}
    found = {}
    for name, fields in kept.items():
        cfg = RDDMConfig(**rddm_experiments.SIZES, **fields)
        run = rddm_experiments.run(name, cfg, 0, 1200, tmp_path)
        found[name] = run["figures"]["psnr"]
    assert found["pred_res"]["5"] >= 25
    assert found["pred_res"]["5"] >= found["pred_noise"]["5"] + 5
    assert found["pred_res"]["2"] >= found["pred_res"]["10"] - 1  # two steps are nearly enough
