"""Files of real stamps, in the layouts in which they are passed around."""

import numpy as np
import pytest

from jaxcore.data.astro import stamps as s
from jaxcore.data.astro.training import StampData, evaluation_rows, training_rows
from jaxcore.data.images.pipeline import Stage
from jaxcore.errors import UserError

RNG = np.random.default_rng(0)


def blob(side, row, col, width):
    rows, cols = np.indices((side, side))
    return np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / 2 / width**2).astype(np.float32)


def save(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def test_a_catalogue_of_galaxies_and_their_psfs(tmp_path):
    fit = RNG.uniform(1, 5, (3, 8))
    psf = np.stack([blob(45, 22, 22, 2.0)] * 3)
    path = save(tmp_path / "c.npz", sersicfit=fit, mag_auto=np.ones(3), psf_acs=psf)
    catalogue = s.read_catalogue(path)
    np.testing.assert_allclose(catalogue.shapes(0.06)[:, 1], fit[:, 1] / 2, rtol=1e-6)
    psfs = catalogue.psfs(0.06, 16)
    assert psfs.shape == (3, 16, 16) and psfs[0].argmax() == 8 * 16 + 8
    np.testing.assert_allclose(psfs.sum((1, 2)), 1)
    with pytest.raises(UserError, match=r"Expected the array sersicfit in .*, found mag_auto"):
        s.read_catalogue(save(tmp_path / "d.npz", mag_auto=np.ones(3)))


def test_one_galaxy_is_added_up_and_cut_from_the_middle(tmp_path):
    path = save(tmp_path / "g.npz", image=blob(40, 20, 20, 3.0), psf=blob(9, 4, 4, 1.0))
    out = s.read_stamps(path, 16, shrink=2)
    assert out.target.shape == (1, 16, 16) and out.observed is None
    assert out.target.sum() == pytest.approx(blob(40, 20, 20, 3.0)[4:36, 4:36].sum(), rel=1e-5)
    with pytest.raises(UserError, match=r"at least 48 pixels, found \(1, 40, 40"):
        s.read_stamps(path, 24, shrink=2)


def test_a_field_is_cut_around_its_sources(tmp_path):
    field = 200 * (blob(90, 30, 40, 2.0) + 0.5 * blob(90, 60, 70, 2.0)) + RNG.normal(size=(90, 90))
    path = save(tmp_path / "xdf.npz", luma=np.clip(field + 20, 0, 255).astype(np.uint8))
    out = s.read_stamps(path, 16).target
    assert len(out) == 2
    for stamp in out:
        assert np.abs(np.array(np.unravel_index(stamp.argmax(), (16, 16))) - 8).max() <= 1


def _pairs(path, n=5, side=16):
    observed = RNG.normal(size=(n, side // 2, side // 2)).astype(np.float32)
    target = np.stack([blob(side, 3 + i, 8, 1.5) for i in range(n)])
    return save(path, observed=observed, target=target, psf=blob(side, side // 2, side // 2, 1.0))


def test_a_folder_of_pairs_is_trained_on_and_held_out_in_part(tmp_path):
    _pairs(tmp_path / "a.npz")
    _pairs(tmp_path / "b.npz")
    data = StampData(root=str(tmp_path), held_out=3)
    rows = training_rows(data, [Stage(patch=16, batch_size=7)], seed=0, num_threads=0)
    batch = next(rows)
    assert batch["observed"].shape == (7, 8, 8) and batch["target"].shape == (7, 16, 16)
    assert rows.get_state()["entries"] == {"stamps": 7}
    # Turned with their images, PSFs keep their middle.
    assert {int(p.argmax()) for p in batch["psf"]} == {8 * 16 + 8}
    held = evaluation_rows(data, 16, 0)
    assert len(held["target"]) == 3 and "seed" not in held


def test_single_stamps_come_with_seeds_and_turn(tmp_path):
    np.save(tmp_path / "x.npy", np.stack([blob(16, 3, 8, 1.0)] * 12))
    data = StampData(root=str(tmp_path), held_out=2)
    batch = next(training_rows(data, [Stage(patch=16, batch_size=10)], seed=0, num_threads=0))
    assert batch["truth"].shape == (10, 16, 16) and batch["seed"].shape == (10, 2)
    assert len({int(t.argmax()) for t in batch["truth"]}) > 2
    still = next(
        training_rows(
            StampData(root=str(tmp_path), held_out=2, turns=False),
            [Stage(patch=16, batch_size=10)],
            seed=0,
            num_threads=0,
        )
    )
    assert len({int(t.argmax()) for t in still["truth"]}) == 1


def test_a_folder_may_hold_fits_files(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    fits.writeto(tmp_path / "a.fits", blob(20, 10, 10, 2.0).astype(">f8"))
    np.save(tmp_path / "b.npy", np.stack([blob(16, 8, 8, 2.0)] * 2))
    out = s.read_folder(tmp_path, 16).target
    np.testing.assert_allclose(out, np.stack([blob(16, 8, 8, 2.0)] * 3), rtol=1e-6)


def test_fields_from_ground_and_space_come_on_one_grid(tmp_path):
    ground, space = 12, 60  # pixels; five of space in one of the ground
    affine = np.array([[[5.0, 0, 2.0], [0, 5.0, 2.0]]])
    sky = blob(space, 27.0, 32.0, 4.0)
    binned = sky.reshape(ground, 5, ground, 5).sum((1, 3))
    path = save(
        tmp_path / "p.npz",
        hsc=binned[None, None],
        hst=sky[None],
        psf_hsc=2 * blob(7, 3, 3, 1.0)[None],
        psf_hst=blob(9, 4, 4, 1.0),
        hsc_to_hst_xy=affine,
    )
    pairs = s.read_pairs(path)
    assert pairs.ground_psf.sum() == pytest.approx(1)
    out = pairs.on_grid(0, factor=2, side=8)
    assert out.observed is not None and out.psf is not None
    assert out.target.shape == (1, 16, 16) and out.psf.shape == (1, 16, 16)
    assert out.target.sum() == pytest.approx(out.observed.sum(), rel=0.02)
    assert out.psf.sum() == pytest.approx(1, rel=1e-5)
    both = [
        np.array([(a * i).sum() for i in np.indices(a.shape)]) / a.sum()
        for a in (out.target[0], out.observed[0])
    ]
    np.testing.assert_allclose((both[0] + 0.5) / 2 - 0.5, both[1], atol=0.05)


def test_a_scene_in_several_bands(tmp_path):
    arrays = {
        "images": RNG.normal(size=(2, 8, 8)),
        "variance": np.ones((2, 8, 8)),
        "psfs": np.full((2, 3, 3), 0.2),
        "filters": np.array(["g", "r"]),
        "catalog_xy": np.ones((1, 2)),
    }
    scene = s.read_scene(save(tmp_path / "s.npz", **arrays))
    assert scene.bands == ("g", "r")
    np.testing.assert_allclose(scene.psfs.sum((1, 2)), 1, rtol=1e-6)
    with pytest.raises(UserError, match="images and variance"):
        s.read_scene(save(tmp_path / "t.npz", **{**arrays, "variance": np.ones((1, 8, 8))}))


def _pickled(path):
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "write", "sentence"),
    [
        ("x.npz", lambda p: None, "found none at"),
        ("x.npz", lambda p: p.write_bytes(b"not a zip"), "Expected NumPy arrays"),
        ("x.npy", lambda p: p.write_bytes(b"\x93NUMPY\x01\x00"), "Expected NumPy arrays"),
        ("x.npy", _pickled, "Expected NumPy arrays"),
        ("x.npz", lambda p: np.savez(p, other=np.ones(3)), "one of the arrays target"),
        ("x.npy", lambda p: np.save(p, np.ones(3)), "images"),
        ("x.npy", lambda p: np.save(p, np.full((1, 16, 16), np.nan)), "finite pixels"),
        ("x.npy", lambda p: np.save(p, np.array(["a"])), "images"),
    ],
)
def test_files_that_cannot_be_are_refused_in_one_sentence(tmp_path, name, write, sentence):
    write(tmp_path / name)
    with pytest.raises(UserError, match=sentence) as found:
        s.read_stamps(tmp_path / name, 16)
    assert "\n" not in str(found.value)


def test_what_swells_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(s, "MAX_BYTES", 10_000)
    for path in (save(tmp_path / "x.npz", target=np.zeros((1, 64, 64))), tmp_path / "x.npy"):
        if path.suffix == ".npy":
            np.save(path, np.zeros((1, 64, 64)))
        with pytest.raises(UserError, match="at most 10,000 bytes of arrays, found 3"):
            s.read_stamps(path, 16)


def test_folders_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(UserError, match="a folder of stamps"):
        s.read_folder(tmp_path / "none", 16)
    with pytest.raises(UserError, match="found none"):
        s.read_folder(tmp_path, 16)
    _pairs(tmp_path / "a.npz")
    with pytest.raises(UserError, match="more than 5 stamps"):
        training_rows(
            StampData(root=str(tmp_path), held_out=5), [Stage(patch=16, batch_size=1)], seed=0
        )
    np.save(tmp_path / "b.npy", np.ones((1, 16, 16)))
    with pytest.raises(UserError, match="either pairs or single stamps"):
        s.read_folder(tmp_path, 16)
