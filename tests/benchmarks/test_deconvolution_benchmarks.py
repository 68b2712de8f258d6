"""The benchmarks of deconvolution on stand-ins that cost nothing: tables, questions, pictures."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks import deconvolution, starred_rival
from benchmarks.deconvolution_science import measure, methods, real, report
from jaxcore.data.astro.telescopes import seeing

SIDE = 32


@pytest.fixture
def restore():
    """Every method returns the target, but the observation and the network a part of it."""

    def stand_in(seen):
        lost = {"observed": 0.5, "network": 0.9}
        return {name: np.float32(lost.get(name, 1.0)) * seen.target for name in methods.NAMES}

    return stand_in


@pytest.mark.slow
def test_every_question_is_answered_and_shown(restore, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "CONDITIONS", {"as trained": measure.TRAINED})
    record = {
        "photometry": measure.photometry(restore, SIDE, 10, 0),
        "resolution": measure.resolution(restore, SIDE, 8, 0),
        "conditions": measure.conditions(restore, SIDE, 4, 0),
        "clumps": measure.clumps(restore, SIDE, 4, 0),
        "colour": measure.colour(restore, SIDE, 10, 0),
        "stamps": {"cosmos": {"nmse": {"debias": 0.1}, "stamps": 3}},
        "seconds": {"debias": 0.1},
        "about": {"date": "", "processor": "", "cores": 2, "network": "none", "galaxies": 10},
    }
    found = record["photometry"]
    assert found["bias"]["network"] == pytest.approx(0.1144, abs=1e-3)
    assert found["bias"]["debias"] == pytest.approx(0, abs=1e-4)
    assert sum(one["galaxies"] for one in found["bins"]) >= 10
    assert record["resolution"]["nmse"]["network"] == pytest.approx(0.01, rel=0.01)
    assert record["resolution"]["radius_error"]["network"] == pytest.approx(0, abs=1e-3)
    assert 2 < record["resolution"]["width_of_a_point"]["target"] < 4
    bias = record["conditions"]["as trained"]["flux_bias"]
    assert bias["network"] == pytest.approx(-0.1, abs=1e-3)
    assert record["clumps"]["target"] == record["clumps"]["debias"]
    assert record["colour"]["target"]["put_in_against_colour"] < -0.8
    table = report.text(record)
    assert "Clumps" in table and "step 3 makes the median absolute error" in table
    report.plots(record, tmp_path / "plots.png")
    seen = methods.look(methods.galaxies(0, 2, measure.Population()), measure.TRAINED, SIDE, 0)
    report.stamps([(seen, restore(seen))], tmp_path / "stamps.png")
    for name in ("plots", "stamps"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 600


def test_real_stamps_are_taken_where_their_files_are(restore, tmp_path):
    assert real.simulated_from_real(restore, tmp_path, SIDE, 0) == ({}, [])
    assert real.pairs(restore, tmp_path, SIDE) == ({}, [])
    rows, cols = np.indices((200, 200)) - 100
    image = np.exp(-np.hypot(rows, cols) / 20).astype(np.float32)
    np.savez(tmp_path / "cosmos_galaxy_147246.npz", image=image, psf=np.ones((3, 3)))
    out, shown = real.simulated_from_real(restore, tmp_path, SIDE, 0)
    assert out["cosmos_galaxy"]["flux_bias"]["network"] == pytest.approx(-0.1, abs=1e-3)
    assert len(shown) == 1


def test_speed_is_measured_beside_quality_and_without_rivals_that_are_not_there(
    tmp_path, monkeypatch
):
    def few(params, cfg, side):
        return {"sparse": lambda y, psf, sigma: 0.9 * y, "three_steps": lambda y, psf, sigma: y}

    def absent(*_):
        raise ImportError(name="starred")

    monkeypatch.setattr(deconvolution, "ours", few)
    monkeypatch.setattr(deconvolution, "network", lambda run, smoke: ({}, None, "none"))
    monkeypatch.setattr(starred_rival, "restore", absent)
    monkeypatch.setattr(deconvolution.harness, "PAUSE", 0)
    limits = {"matrix_product_gflop_s": 10.0, "memory_gb_s": 1.0}
    monkeypatch.setattr(deconvolution.harness, "limits", lambda: dict(limits))
    path = tmp_path / "d.json"
    deconvolution.main(smoke=True, output=path, parts=("stamps_64",))
    found = json.loads(path.read_text())["stamps_64"]
    assert "starred" not in found and limits.items() <= found["limits"].items()
    assert set(found["batches"]) == {"1", "2"}
    for batch in found["batches"].values():
        assert batch["sparse"]["stamps_per_s"] > 0 and batch["sparse"]["nmse"] > 0
        assert batch["sparse"]["over_scikit_image_richardson_lucy"] > 0
        assert "share_of_fourier_limit" in batch["sparse"]
        assert "share_of_matrix_product" in batch["three_steps"]


def test_the_narrow_psf_and_the_target_make_the_psf():
    with jax.enable_x64(True):
        psf = np.asarray(seeing((64, 64), 6.0), float)
        target = np.asarray(seeing((64, 64), 2.0, profile="gaussian"), float)
    narrow = starred_rival.narrow(psf, target)
    spectra = [np.fft.rfft2(np.fft.ifftshift(a)) for a in (narrow, target)]
    again = np.fft.fftshift(np.fft.irfft2(spectra[0] * spectra[1], s=psf.shape))
    np.testing.assert_allclose(again, psf, atol=1e-10)
    assert np.unravel_index(narrow.argmax(), narrow.shape) == (32, 32)
