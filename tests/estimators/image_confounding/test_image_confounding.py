"""`ImageConfounding`: what images confound is taken out, by every backbone; the rest is refused."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from jaxcore.data.geo.keyed import Generated, KeyedImages
from jaxcore.errors import UserError
from jaxcore.estimators import load_fit
from jaxcore.estimators.image_confounding import ImageConfounding, Training
from jaxcore.models.convnet import ConvNetConfig
from jaxcore.parallel import make_mesh
from jaxcore.train.logging import Silent

RNG = np.random.default_rng(1)
N, PLACES = 300, 100
IMAGES = (
    RNG.integers(0, 60, (PLACES, 13, 13, 2)) + RNG.integers(0, 190, (PLACES, 1, 1, 1))
).astype(np.uint8)
KEYS = np.array([f"place {i}" for i in RNG.permutation(PLACES)])
ROW = RNG.integers(0, PLACES, N)
SEEN = ((IMAGES.mean((1, 2, 3)) - IMAGES.mean()) / IMAGES.mean((1, 2, 3)).std())[ROW]
X = RNG.normal(size=(N, 2))
A = (RNG.random(N) < 1 / (1 + np.exp(-SEEN - X[:, 0]))).astype(float)
Y = 2 * A + SEEN + X[:, 0] + RNG.normal(size=N)
SMALL = ConvNetConfig.tiny(in_channels=2)
FAST = Training(steps=3, batch_size=16)
STATS = ImageConfounding(backbone="band_stats", n_folds=3)


def fit(estimator=STATS, **changes):
    data = {"Y": Y, "A": A, "images": IMAGES, "X": X, "image": KEYS[ROW], "keys": KEYS} | changes
    keys = data.pop("keys")
    if keys is not None:
        data["images"] = KeyedImages(data["images"], keys)
    return estimator.fit(**data, reporter=Silent())


@pytest.fixture(scope="module")
def stats():
    return fit()


@pytest.fixture(scope="module")
def trained():
    return fit(ImageConfounding(backbone=SMALL, n_folds=2, training=FAST))


def test_image_and_table_together_take_the_confounding_out(stats):
    naive = fit(dataclasses.replace(STATS, estimator="difference", backbone="none"), X=None)
    assert naive.theta - 2 > 0.7
    assert abs(stats.theta - 2) < 3 * stats.se < 0.6
    for one in ({"X": None}, {"images": IMAGES[:, ::-1] * 0 + RNG.integers(0, 9, IMAGES.shape)}):
        assert fit(**one).theta - 2 > 0.25  # one of the two is not enough


@pytest.mark.parametrize("name", ["ipw", "hajek", "ato", "att", "aipw_hajek"])
def test_every_estimator_agrees(name):
    found = fit(dataclasses.replace(STATS, estimator=name))
    assert abs(found.theta - 2) < 4 * found.se and np.isfinite(found.se)


@pytest.mark.parametrize("backbone", ["rcf", "embeddings"])
def test_features_of_other_kinds_take_it_out_too(backbone):
    images = IMAGES if backbone == "rcf" else IMAGES.mean((1, 2))
    own = dataclasses.replace(STATS, backbone=backbone, rcf_features=16)
    found = own.fit(Y, A, images, X, image=ROW)
    assert abs(found.theta - 2) < 4 * found.se < 1


def test_errors_are_clustered_by_image_and_folds_keep_images(stats):
    assert stats.units.n_clusters == len(np.unique(ROW))
    folds = stats.estimate.diagnostics["fold_ids"]
    assert all(len(np.unique(folds[row == ROW])) == 1 for row in np.unique(ROW))
    alone = fit(dataclasses.replace(STATS, se="iid"))
    assert alone.theta == stats.theta and alone.se != stats.se


def test_balance_names_covariates_and_statistics_of_bands(stats):
    names = [row["covariate"] for row in stats.balance()]
    assert names[:3] == ["x1", "x2", "mean of band 1"] and names[-1] == "90 % quantile of band 2"


def test_neither_order_nor_names_of_images_and_units_matter(stats):
    order = RNG.permutation(PLACES)
    names = {key: f"z{i}" for i, key in enumerate(KEYS)}
    folds = stats.estimate.diagnostics["fold_ids"]
    found = fit(
        images=IMAGES[order],
        keys=np.array([names[k] for k in KEYS[order]]),
        image=np.array([names[k] for k in KEYS[ROW]]),
        fold_ids=folds,
    )
    np.testing.assert_allclose(found.theta, stats.theta, rtol=1e-9)


def test_the_unit_that_pixels_are_stored_in_does_not_matter(stats):
    """Statistics of another sensor, or a division by 255 twice, have crushed images to nothing."""
    found = fit(images=(IMAGES / 255 / 255 + 7).astype(np.float64))
    np.testing.assert_allclose(found.theta, stats.theta, rtol=1e-3)


def test_networks_give_propensities_of_units_that_they_have_not_seen(trained):
    assert trained.propensity.shape == (N,) and len(np.unique(trained.propensity)) > PLACES
    assert 0 <= trained.overlap().auc <= 1 and "in sample" in trained.summary()
    there = trained.predict_propensity(IMAGES[ROW[:5]], X[:5])
    assert there.shape == (5,) and np.all((there > 0) & (there < 1))
    assert "ConvNet(3 steps)" in trained.summary()


def test_maps_show_what_the_network_that_has_not_seen_an_image_looks_at(trained):
    maps = trained.salience([5, 0, 5])
    assert maps.shape == (3, 13, 13, 2) and np.abs(maps).max() > 0
    np.testing.assert_array_equal(maps[0], maps[2])
    fold = trained.estimate.diagnostics["fold_ids"]
    other = np.flatnonzero((fold != fold[5]) & (ROW != ROW[5]))[:1]
    np.testing.assert_allclose(trained.salience(np.array([5, *other]))[0], maps[0], atol=1e-6)
    assert trained.salience([0], "occlusion", window=5, stride=4).shape == (1, 3, 3)
    assert set(trained.table_salience()) == {"x1", "x2"}
    for units, method, told in ([[N], "gradient", "numbers of units"], [[0], "cam", "a method"]):
        with pytest.raises(UserError, match=told):
            trained.salience(units, method)


def test_one_network_for_treatment_and_outcome(trained):
    targeted = dataclasses.replace(FAST, targeting=0.5)
    own = ImageConfounding(backbone=SMALL, n_folds=2, training=targeted, outcome_model="network")
    both = fit(own)
    assert all(np.abs(one.params["targeting"]["shift"]).min() > 0 for one in both.trained)
    assert {"ml_m", "ml_g0", "ml_g1"} <= set(both.nuisances)
    assert np.isfinite(both.theta) and both.theta != trained.theta


def test_devices_share_the_images_of_a_batch(trained):
    found = fit(trained.config, mesh=make_mesh(data=2))
    np.testing.assert_allclose(found.theta, trained.theta, rtol=1e-4)


def test_patience_judges_by_images_set_aside_and_takes_the_best(trained, tmp_path):
    patient = dataclasses.replace(FAST, steps=60, patience=1, held_out=0.2, learning_rate=0.3)
    own = ImageConfounding(backbone=SMALL, n_folds=2, training=patient)
    found = fit(own, run_dir=tmp_path / "run")
    units = found.trained[0].task.units
    for mask, judged in zip(units.masks, units.judged, strict=True):
        assert not np.any((mask > 0) & judged)
        assert not set(ROW[mask > 0]) & set(ROW[judged]) and 0 < judged.sum() < N / 5
    (record,) = (tmp_path / "run").rglob("metrics.jsonl")
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    losses = [line["held_out_loss"] for line in lines if "held_out_loss" in line]
    task = found.trained[0].task
    state = types.SimpleNamespace(
        eval_params=found.trained[0].params, collections=found.trained[0].collections
    )
    with jax.enable_x64(False):
        assert task.evaluate(state, None)["held_out_loss"] == pytest.approx(min(losses), rel=1e-5)
    assert fit(own, run_dir=tmp_path / "run").theta == found.theta
    found.save(tmp_path / "fit")
    same(found, load_fit(tmp_path / "fit"))


def test_trainings_in_a_folder_are_not_done_again(trained, tmp_path):
    estimator = ImageConfounding(backbone=SMALL, n_folds=2, training=FAST)
    first = fit(estimator, run_dir=tmp_path)
    assert first.theta == trained.theta
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert fit(estimator, run_dir=tmp_path).theta == first.theta
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def same(one, other):
    """Whether two fits say the same, networks included."""
    assert one.summary() == other.summary() and one.config == other.config
    np.testing.assert_array_equal(one.psi, other.psi)
    np.testing.assert_array_equal(one.images.keys, other.images.keys)
    for mine, yours in zip(one.networks, other.networks, strict=True):
        assert [f.task.to_dict() for f in mine] == [f.task.to_dict() for f in yours]


def test_a_fit_with_networks_comes_back_whole(trained, tmp_path):
    trained.save(tmp_path / "fit")
    found = load_fit(tmp_path / "fit")
    same(trained, found)
    np.testing.assert_array_equal(found.salience([5, 0]), trained.salience([5, 0]))
    there = [one.predict_propensity(IMAGES[:4], X[:4]) for one in (trained, found)]
    np.testing.assert_array_equal(*there)
    with pytest.raises(UserError, match="name of a new folder"):
        found.save(tmp_path / "fit")


def test_a_fit_with_features_and_repetitions_comes_back_too(tmp_path):
    coords = np.stack([30 + ROW / 100, ROW % 7], axis=1)
    twice = dataclasses.replace(STATS, n_rep=2, trim=0.1)
    first = fit(twice, coords=coords)
    first.save(tmp_path / "fit")
    found = load_fit(tmp_path / "fit")
    same(first, found)
    assert first.balance() == found.balance()
    np.testing.assert_array_equal(found.places, coords)


def test_images_that_are_no_array_in_memory_stay_where_they_are(tmp_path):
    source = KeyedImages(Generated(lambda rows: IMAGES[rows], IMAGES.shape), KEYS)
    own = ImageConfounding(backbone=SMALL, n_folds=2, training=FAST)
    first = own.fit(Y, A, source, X, image=KEYS[ROW], reporter=Silent())
    first.save(tmp_path / "fit")
    found = load_fit(tmp_path / "fit")
    assert found.summary() == first.summary()
    with pytest.raises(UserError, match="with_images"):
        found.salience([0])
    order = RNG.permutation(PLACES)
    again = found.with_images(KeyedImages(IMAGES[order], KEYS[order]))
    np.testing.assert_array_equal(again.salience([3]), first.salience([3]))
    for given, told in (
        (IMAGES[::-1], "found others with the same keys"),
        (IMAGES[:, :6], "Expected images of shape"),
        (KeyedImages(IMAGES[:9], KEYS[:9]), "found none for"),
    ):
        with pytest.raises(UserError, match=told):
            found.with_images(given)


def test_a_bootstrap_draws_images_whole(stats):
    own = dataclasses.replace(STATS, se="bootstrap", n_boot=400)
    found = fit(own)
    assert found.theta == stats.theta and abs(found.se / stats.se - 1) < 0.15
    assert fit(own).se == found.se and fit(dataclasses.replace(own, seed=1)).se != found.se
    alone = fit(dataclasses.replace(own, trim=0.2))
    assert len(alone.estimate.diagnostics["bootstrap"]) == 400 and np.isfinite(alone.se)


def test_blocks_of_places_are_clusters_of_folds_and_errors():
    coords = np.stack([ROW % 10, ROW // 10], axis=1).astype(float)
    found = fit(dataclasses.replace(STATS, block_km=300.0, se="bootstrap"), coords=coords)
    blocks = found.units.clusters
    assert found.units.n_clusters < 25
    folds = found.estimate.diagnostics["fold_ids"]
    assert all(len(np.unique(folds[blocks == b])) == 1 for b in np.unique(blocks))
    assert np.isfinite(found.se) and found.estimate.df == found.units.n_clusters - 1


def test_clusters_that_are_trimmed_whole_are_not_counted():
    found = fit(dataclasses.replace(STATS, trim=0.3))
    kept = found.estimate.diagnostics["kept"]
    left = len(np.unique(ROW[kept]))
    assert left < len(np.unique(ROW)) and found.units.n_clusters == left
    assert f"({left} clusters)" in found.summary() and found.estimate.df == left - 1
    sums = np.bincount(ROW, weights=found.psi)
    error = np.sqrt(left / (left - 1) * np.sum(sums**2)) / N
    np.testing.assert_allclose(found.se, error, rtol=1e-10)


def test_the_mean_over_folds_of_the_published_package(stats):
    found = fit(dataclasses.replace(STATS, estimator="hajek", compat="causalimages"))
    e, folds = found.propensity, found.estimate.diagnostics["fold_ids"]
    every = []
    for f in range(3):
        weights = [(folds == f) * arm for arm in (A / e, (1 - A) / (1 - e))]
        every.append(np.subtract(*(np.average(Y, weights=w) for w in weights)))
    np.testing.assert_allclose(found.theta, np.mean(every))
    np.testing.assert_allclose(found.se, np.std(every, ddof=1) / np.sqrt(3))


def test_trimmed_units_are_counted(stats):
    found = fit(dataclasses.replace(STATS, trim=0.2))
    gone = int(np.sum(np.abs(stats.estimate.diagnostics["raw"]["ml_m"] - 0.5) >= 0.3))
    assert f"trimmed {gone} of {N} units" in found.summary()


def test_images_that_tell_nothing_are_told():
    noise = RNG.integers(0, 255, IMAGES.shape).astype(np.uint8)
    found = fit(images=noise, X=None, A=RNG.integers(0, 2, N).astype(float))
    assert found.overlap().auc < 0.55 and any(
        "area under the curve" in text for text in found.notices
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": IMAGES[0]}, r"Expected images of shape"),
        (
            {"image": np.where(ROW == 0, "nowhere", KEYS[ROW])},
            "units: keys nowhere",
        ),
        ({"image": ROW}, "units: keys 0, 1"),
        ({"keys": KEYS[:-1]}, f"Expected a key for each of {PLACES} images"),
        ({"keys": np.where(np.arange(PLACES) < 2, "a", KEYS)}, "found a more than once"),
        ({"images": np.where(IMAGES == 3, np.nan, IMAGES)}, "without missing pixels"),
        ({"images": IMAGES * np.array([1, 0])}, "found band 1 constant"),
        ({"images": IMAGES.astype("U3")}, "Expected numbers as pixels"),
        ({"image": None, "keys": None}, f"found {PLACES} images"),
        ({"acquired": ["2001-01-01"] * PLACES, "treated_on": "2000-01-01"}, "before the treatment"),
        ({"A": np.ones(N)}, "Expected both 0 and 1 in the treatment"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, told):
    with pytest.raises(UserError, match=told):
        fit(**changes)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"backbone": "resnet"}, "Expected a backbone of vit, cnn"),
        ({"estimator": "ols"}, "Expected an estimator of difference"),
        ({"trim": 0.7}, "Expected trim between 0 and 0.5"),
        ({"outcome_model": "network", "backbone": "rcf"}, "Expected a backbone that is trained"),
        ({"n_folds": 1}, "Expected at least 2 folds"),
        ({"se": "jackknife"}, "Expected se of cluster, iid, bootstrap"),
        ({"n_boot": 1}, "Expected n_boot of at least 2"),
        ({"compat": "causalimages"}, "Expected estimator='hajek' without trimming"),
        ({"training": Training(targeting=1.0)}, "Expected outcome_model='network'"),
    ],
)
def test_wrong_settings_are_refused(settings, told):
    with pytest.raises(UserError, match=told):
        ImageConfounding(**settings)
