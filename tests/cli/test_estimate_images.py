"""The command for images of places: files of every kind, and files that are wrong."""

import json

import jax
import numpy as np
import pytest

from jaxcore.convert import write_safetensors
from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.data.geo.tfrecord import write_tfrecord
from jaxcore.estimators import load_fit
from jaxcore.models import clip
from jaxcore.models.clip import CLIPConfig

UNITS, PLACES, SIDE = 120, 80, 8
TOWNS = np.array([f"town{i}" for i in range(PLACES)])
FEATURES = ["--backbone", "band_stats"]
QUICK = [*FEATURES, "--ml-m", "ridge", "--folds", "2", "--clip", "0.05", "0.95"]
TABLE = ["--outcome", "y", "--treatment", "aid", "--covariates", "x"]
NAMES = ["difference in means", "covariates", "images", "images and covariates"]


def made():
    """Columns of the units and images of the places."""
    rng = np.random.default_rng(0)
    place = np.arange(UNITS) % PLACES
    images = rng.integers(0, 200, (PLACES, SIDE, SIDE, 2)).astype(np.uint8)
    seen = (images.mean((1, 2, 3))[place] - 100) / 5
    aid = (seen + 2 * rng.normal(size=UNITS) > 0).astype(int)
    columns = {
        "y": 2 * aid + seen + rng.normal(size=UNITS),
        "aid": aid,
        "x": rng.normal(size=UNITS),
        "town": TOWNS[place],
        "longitude": 32 + 0.005 * place,
        "latitude": 2.0 + 0.01 * (place % 7),
        "all": np.ones(UNITS, int),
    }
    return columns, images


def write_table(path, columns):
    lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table, images in several kinds of files, and damaged ones."""
    folder = tmp_path_factory.mktemp("places")
    columns, images = made()
    write_table(folder / "units.csv", columns)
    np.savez(folder / "images.npz", images=images, keys=TOWNS)
    write_tfrecord(folder / "images.tfrecord", KeyedImages(images, TOWNS), dtype=np.uint8)
    missing = images.astype(np.float32)
    missing[3, 0, 0, 0] = np.nan
    np.savez(folder / "missing.npz", images=missing, keys=TOWNS)
    np.savez(folder / "narrow.npz", images=images[:, :, 2:], keys=TOWNS)
    np.savez(folder / "few.npz", images=images[1:], keys=TOWNS[1:])
    np.savez(folder / "other.npz", pictures=images)
    whole = (folder / "images.npz").read_bytes()
    (folder / "damaged.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "images.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def estimate(files, tmp_path, call):
    """Run the command on files of that folder; gives exit code, output, errors and the report."""
    report = tmp_path / "report"

    def run(images, *options, data="units.csv", command="image-confounding"):
        given = [] if images is None else ["--images", files / images]
        argv = [files / data, *given, *options, "-o", report]
        return *call("estimate", command, *argv), report

    return run


def test_a_report_holds_all_four_adjustments(estimate):
    places = ["--longitude", "longitude", "--latitude", "latitude"]
    options = ["--image", "town", *places, *QUICK, "--estimator", "hajek"]
    code, said, err, report = estimate("images.npz", *TABLE, *options)
    assert code == 0, err
    assert sorted(p.name for p in report.iterdir()) == sorted(
        ["summary.txt", "estimate.json", "estimates.png", "overlap.png", "balance.png", "map.png"]
    )
    assert (report / "summary.txt").read_text() in said
    content = json.loads((report / "estimate.json").read_text())
    assert list(content) == NAMES
    columns, _ = made()
    means = [columns["y"][columns["aid"] == arm].mean() for arm in (0, 1)]
    found = [fit["estimate"] for fit in content.values()]
    assert found[0]["estimate"] == pytest.approx(means[1] - means[0])
    assert all(one["std_error"] > 0 and one["lower"] < one["upper"] for one in found)
    assert "units share 80 images" in said and "clusters" in said
    for words in ("AUC", "effective sizes", "Moran's I"):
        assert words in said


@pytest.mark.parametrize("kind", ["images.tfrecord", "raster.tif"])
def test_other_files_of_images(files, estimate, kind):
    options = ["--image", "town"]
    if kind.endswith(".tif"):
        write_raster(files / kind)
        options += ["--longitude", "longitude", "--latitude", "latitude", "--side", "6"]
    code, said, err, report = estimate(kind, *TABLE, *options, *QUICK, "--alone")
    assert code == 0, err
    assert "units share 80 images" in said
    assert (report / "estimates.png").is_file()


def write_raster(path):
    rasterio = pytest.importorskip("rasterio")
    pixels = np.random.default_rng(0).integers(1, 200, (2, 40, 90)).astype(np.uint8)
    place = rasterio.Affine(0.005, 0, 31.98, 0, -0.005, 2.1)
    profile = {"driver": "GTiff", "crs": "EPSG:4326", "transform": place, "dtype": "uint8"}
    with rasterio.open(path, "w", count=2, height=40, width=90, **profile) as out:
        out.write(pixels)


def test_a_network_is_trained_and_its_training_kept(estimate, tmp_path):
    runs = tmp_path / "runs"
    options = ["--image", "town", "--backbone", "cnn", "--folds", "2", "--steps", "2", "--alone"]
    options += ["--estimator", "hajek", "--runs", runs, "--save", tmp_path / "fit"]
    code, said, err, report = estimate("images.npz", *TABLE, *options)
    assert code == 0, err
    assert load_fit(tmp_path / "fit").summary() in said
    assert list(json.loads((report / "estimate.json").read_text())) == [NAMES[-1]]
    assert (report / "salience.png").is_file()
    assert list(runs.glob("**/checkpoints"))


def test_kinds_of_places_and_their_effects(estimate, tmp_path, files):
    options = ["--image", "town", "--backbone", "cnn", "--folds", "2", "--steps", "2"]
    options += ["--repetitions", "1", "--propensity", "0.5", "--save", tmp_path / "fit"]
    options += ["--longitude", "longitude", "--latitude", "latitude"]
    options += ["--others", files / "few.npz"]
    table = ["--outcome", "y", "--treatment", "aid"]
    given = {"command": "image-heterogeneity"}
    code, said, err, report = estimate("images.npz", *table, *options, **given)
    assert code == 0, err
    assert sorted(p.name for p in report.iterdir()) == sorted(
        ["summary.txt", "estimate.json", "clusters.png", "effects.png", "salience.png", "map.png"]
    )
    assert "2 clusters of images" in said and f"{PLACES - 1} other places" in said
    content = json.loads((report / "estimate.json").read_text())
    assert len(content["other_places"]) == PLACES - 1
    fit = load_fit(tmp_path / "fit")
    assert fit.summary() in said and set(fit.propensity) == {0.5}


def test_a_pretrained_encoder_of_a_folder_looks_at_images(estimate, files):
    cfg, rng = CLIPConfig.tiny(num_heads=2), np.random.default_rng(0)
    drawn = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in shapes_of(cfg).items()}
    folder = files / "encoder"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", drawn)
    vision = {"num_attention_heads": 2, "layer_norm_eps": cfg.epsilon, "hidden_act": cfg.activation}
    told = {"model_type": "clip", "vision_config": vision, "projection_dim": cfg.projection}
    (folder / "config.json").write_text(json.dumps(told))
    _, images = made()
    three = np.concatenate([images, images[..., :1]], axis=-1)
    np.savez(files / "three.npz", images=three, keys=TOWNS)
    np.savez(files / "wide.npz", images=three.astype(np.float32), keys=TOWNS)
    options = [*TABLE, *IMAGE, *QUICK[2:], "--alone", "--encoder", folder]
    code, said, err, _ = estimate("three.npz", *options)
    assert code == 0, err
    assert "units share 80 images" in said
    again = estimate("wide.npz", *options, "--span", "0", "255", "--overwrite")
    assert again[0] == 0 and again[1] == said
    code, _, err, _ = estimate("wide.npz", *options, "--overwrite")
    assert code == 2 and "--span" in err
    options[-1] = files / "nowhere"
    code, _, err, _ = estimate("three.npz", *options, "--overwrite")
    assert code == 2 and "nowhere" in err


def shapes_of(cfg):
    """Names and shapes of the weights of an encoder."""
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), clip.param_shapes(cfg))
    return clip.to_torch(zeros, cfg)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--propensity", "chance"], ["chance"]),
        (["--propensity", "1.5"], ["1.5"]),
        (["--n-clusters", "1"], ["at least 2", "found 1"]),
        (["--weights", "x"], ["--weights"]),
        (["--covariates", "x", "--others", "few.npz"], ["--others"]),
        (["--others", "absent.npz"], ["absent.npz"]),
        (["--others", "narrow.npz"], ["(n, 8, 8, 2) for --others", "(80, 8, 6, 2)"]),
    ],
)
def test_what_is_wrong_with_kinds_of_places_is_told(estimate, files, monkeypatch, options, words):
    monkeypatch.chdir(files)
    table = ["--outcome", "y", "--treatment", "aid", "--image", "town", "--steps", "1"]
    given = {"command": "image-heterogeneity"}
    code, _, err, report = estimate("images.npz", *table, *options, **given)
    assert code == 2 and not report.exists()
    assert err.startswith("jaxcore: Expected") and "Traceback" not in err
    assert [w for w in words if w not in err] == [], err


def test_without_data_it_shows_itself(tmp_path, call):
    report = tmp_path / "report"
    options = [*QUICK, "--backbone", "none", "--alone", "--estimator", "hajek"]
    code, said, err = call("estimate", "image-confounding", *options, "-o", report)
    assert code == 0, err
    assert "simulated" in said and "an effect of 2" in said and "1000 units" in said
    assert (report / "estimates.png").is_file()


IMAGE = ["--image", "town"]
PLACED = ["--longitude", "longitude", "--latitude", "latitude"]


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (None, TABLE, ["--images"]),
        ("absent.npz", [*TABLE, *IMAGE], ["no file", "absent.npz"]),
        ("images.jpg", [*TABLE, *IMAGE], [".npz", ".tif", "images.jpg"]),
        ("damaged.npz", [*TABLE, *IMAGE], ["damaged.npz"]),
        ("other.npz", [*TABLE, *IMAGE], ["images", "pictures"]),
        ("images.npz", ["--outcome", "yield", "--treatment", "aid", *IMAGE], ["yield"]),
        ("images.npz", [*TABLE, "--image", "village"], ["village"]),
        ("images.npz", [*TABLE, *IMAGE, "--longitude", "longitude"], ["--latitude"]),
        ("images.npz", TABLE, ["120 units", "80"]),
        ("few.npz", [*TABLE, *IMAGE], ["town0", "2 of 120"]),
        ("missing.npz", [*TABLE, *IMAGE], ["missing pixels", "keys town3"]),
        ("images.npz", ["--outcome", "y", "--treatment", "all", *IMAGE], ["treatment"]),
        ("images.npz", [*TABLE, *IMAGE, "--trim", "0.7"], ["trim", "0.7"]),
        ("images.npz", [*TABLE, *IMAGE, "--folds", "1"], ["2 folds"]),
        ("images.npz", [*TABLE, *IMAGE, "--block-km", "10"], ["--longitude"]),
        ("images.npz", [*TABLE, *IMAGE, "--level", "95"], ["95"]),
        ("raster.tif", [*TABLE, *IMAGE], ["--longitude"]),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_what_is_wrong_is_one_sentence_and_writes_nothing(estimate, images, options, words):
    code, _, err, report = estimate(images, *FEATURES, *options)
    assert code == 2 and not report.exists()
    assert err.startswith("jaxcore: Expected") and "Traceback" not in err
    assert [w for w in words if w not in err] == [], err


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--images", "images.npz"], "a table beside --images"),
        (["--outcome", "y", "--clusters", "town"], "a table for --outcome, --clusters"),
        (["images.npz", "--weights", "w"], "a table for --weights"),
        (["images.npz"], "causalimages_uganda.npz"),
    ],
)
def test_a_forgotten_table_is_missed(files, tmp_path, call, monkeypatch, argv, word):
    monkeypatch.chdir(files)
    report = tmp_path / "report"
    code, _, err = call("estimate", "image-confounding", *argv, "-o", report)
    assert code == 2 and err.startswith("jaxcore: Expected") and word in err
    assert not report.exists()


def test_a_report_is_not_replaced_unasked(estimate, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "summary.txt").write_text("mine")
    code, _, err, report = estimate("images.npz", *TABLE, *IMAGE, *QUICK)
    assert code == 2 and "report" in err
    assert [p.name for p in report.iterdir()] == ["summary.txt"]
    assert (report / "summary.txt").read_text() == "mine"
