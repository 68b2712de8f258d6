"""`ImageHeterogeneity`: bright and dark places with effects of 0 and 2, and what is refused."""

import dataclasses

import numpy as np
import pytest

from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.errors import UserError
from jaxcore.estimators import load_fit
from jaxcore.estimators.image_confounding import ImageHeterogeneity, Training
from jaxcore.estimators.image_confounding import cluster_pictures as pictures
from jaxcore.models.convnet import ConvNetConfig
from jaxcore.train.logging import Silent

RNG = np.random.default_rng(0)
N = 240
BRIGHT = RNG.permutation(N) % 2 == 1
IMAGES = (RNG.normal(size=(N, 13, 13, 1)) + 3 * BRIGHT[:, None, None, None]).astype(np.float32)
A = (RNG.random(N) < 0.5).astype(float)
Y = 10 + 3 * (0.5 * BRIGHT + A * np.where(BRIGHT, 2.0, 0.0) + 0.3 * RNG.normal(size=N))
SMALL = ConvNetConfig.tiny(in_channels=1, covariates=0)
ESTIMATOR = ImageHeterogeneity(
    backbone=SMALL,
    training=Training(steps=200, batch_size=16, learning_rate=0.02),
    n_folds=2,
    n_rep=1,
)
SHORT = dataclasses.replace(ESTIMATOR, training=dataclasses.replace(ESTIMATOR.training, steps=1))


def fit(estimator=SHORT, **changes):
    data = {"Y": Y, "A": A, "images": IMAGES} | changes
    return estimator.fit(**data, reporter=Silent())


@pytest.fixture(scope="module")
def found():
    coords = RNG.uniform(0, 3, (N, 2))
    return fit(ESTIMATOR, images=KeyedImages(IMAGES, np.arange(N), coords=coords))


def test_places_are_told_apart_by_their_effects(found):
    np.testing.assert_allclose(found.effects, [0, 6], atol=1.0)
    assert np.mean((found.cluster_probs[:, 1] > 0.5) == BRIGHT) > 0.9
    np.testing.assert_allclose(found.cluster_probs.sum(axis=1), 1, rtol=1e-6)
    assert np.corrcoef(found.cate, BRIGHT)[0, 1] > 0.8
    assert abs(found.implied_ate - 3) < 0.6


def test_effects_of_groups_bear_it_out(found):
    low, high = np.asarray(found.groups.theta)
    errors = np.asarray(found.groups.se)
    assert abs(low) < 4 * errors[0] + 0.4 and abs(high - 6) < 4 * errors[1] + 0.4
    assert found.difference is not None and found.difference.pvalue()[0] < 1e-6
    assert abs(found.ate.theta - 3) < 4 * found.ate.se
    text = found.summary()
    assert "cluster 2" in text and "cluster 2 less cluster 1" in text
    assert [row["units"] for row in found.rows()] == [
        np.sum(found.cluster_probs.argmax(1) == c) for c in (0, 1)
    ]


def test_a_treatment_that_follows_the_images_is_told(found):
    assert "drawn by lot" not in found.summary()
    chosen = (RNG.random(N) < np.where(BRIGHT, 0.8, 0.2)).astype(float)
    effect = np.where(BRIGHT, 2.0, 0.0) * chosen
    told = fit(ESTIMATOR, A=chosen, Y=0.5 * BRIGHT + effect + 0.3 * RNG.normal(size=N)).notices
    assert any("than its propensities say" in text and "drawn by lot" in text for text in told)


def test_clusters_of_other_places(found):
    other = (RNG.normal(size=(6, 13, 13, 1)) + 3 * (np.arange(6) % 2)[:, None, None, None]).astype(
        np.float32
    )
    told = found.transport(other)
    assert ((told.probabilities[:, 1] > 0.5) == (np.arange(6) % 2 == 1)).all()
    assert (told.effects[1::2] > told.effects[::2].max() + 2).all()
    assert told.variances.shape == (6, 2) and (told.deviations >= 0).all()
    keyed = found.transport(KeyedImages(other[::-1], np.arange(6)))
    np.testing.assert_allclose(keyed.probabilities[::-1], told.probabilities, atol=1e-6)
    np.testing.assert_allclose(told.shares, told.probabilities.mean(0))


def test_brighter_pixels_make_the_last_cluster_more_probable(found):
    unsure = np.argsort(np.abs(found.cluster_probs[:, 0] - 0.5))[:4]
    last = found.salience(unsure, cluster=1)
    assert last.shape == (4, 13, 13, 1) and last.sum() > 0
    first, p = found.salience(unsure), found.repetitions[0]
    own = p.own(p.probabilities(p.outputs))[unsure]  # by the network that is looked at
    slopes = [
        each * (own[:, c] + 0.005 / 0.99).reshape(4, 1, 1, 1) for c, each in ((0, first), (1, last))
    ]
    np.testing.assert_allclose(slopes[0], -slopes[1], atol=1e-6)  # of probabilities


def test_two_repetitions_with_shared_images_covariates_and_known_propensities(tmp_path):
    row, e = np.repeat(np.arange(N // 2), 2), np.where(A > 0, 0.6, 0.4)
    X = np.stack([RNG.normal(size=N), np.arange(N) % 5], axis=1)
    given = {"images": IMAGES[: N // 2], "image": row, "propensity": e, "run_dir": tmp_path / "run"}
    given |= {"X": X, "covariates": ["age", "rooms"]}
    twice = dataclasses.replace(SHORT, n_rep=2, backbone=ConvNetConfig.tiny(in_channels=1))
    first = fit(twice, **given)
    assert len(first.repetitions) == 2 and first.to_dict()["covariates"] == ["age", "rooms"]
    for one in first.repetitions:
        assert (one.fold_ids[::2] == one.fold_ids[1::2]).all()
    assert first.ate.clusters is not None and first.groups.clusters is not None
    np.testing.assert_array_equal(first.propensity, e)
    low, high = first.transport(IMAGES[[0, 0]], [[0, 0], [3, 0]]).effects
    assert low != high
    for wrong in (None, X[:3], X[:2, :1]):
        with pytest.raises(UserError, match=r"Expected covariates of shape \(2, 2\)"):
            first.transport(IMAGES[:2], wrong)
    first.save(tmp_path / "fit")
    np.testing.assert_array_equal(load_fit(tmp_path / "fit").cate, first.cate)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()}
    np.testing.assert_array_equal(fit(twice, **given).cate, first.cate)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}  # not trained again


def test_pictures_are_of_the_places_the_clusters_are_in(found):
    pytest.importorskip("matplotlib")
    images = pictures.draw_typical(found, 3)
    assert len(images.axes) == 6
    assert BRIGHT[pictures.typical(found, 1, 3)].all()
    assert not BRIGHT[pictures.typical(found, 0, 3)].any()
    (effects,) = pictures.draw_effects(found).axes
    assert "cluster 2" in effects.get_xticklabels()[1].get_text()
    places = pictures.draw_cluster_map(found).axes[0].collections[0]
    np.testing.assert_allclose(places.get_array(), found.cluster_probs[:, 1])
    bare = dataclasses.replace(
        found, images=dataclasses.replace(found.images, keyed=KeyedImages(IMAGES, np.arange(N)))
    )
    with pytest.raises(UserError, match="Expected coordinates of units or images"):
        pictures.draw_cluster_map(bare)


def test_a_fit_comes_back_whole(found, tmp_path):
    found.save(tmp_path / "fit")
    again = load_fit(tmp_path / "fit")
    assert again.summary() == found.summary() and again.config == found.config
    np.testing.assert_array_equal(again.cluster_probs, found.cluster_probs)
    np.testing.assert_array_equal(again.salience([1, 2]), found.salience([1, 2]))
    np.testing.assert_array_equal(*(one.transport(IMAGES[:3]).effects for one in (again, found)))
    assert again.to_dict() == found.to_dict()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"A": np.ones(N)}, "Expected both 0 and 1 in the treatment"),
        ({"Y": np.ones(N)}, "Expected an outcome that varies"),
        ({"images": IMAGES[:-1]}, f"Expected an image for each of {N} units"),
        ({"images": np.where(IMAGES > 5, np.nan, IMAGES)}, "without missing pixels"),
        ({"propensity": 1.0}, "Expected propensities between 0 and 1"),
        ({"propensity": np.full(3, 0.5)}, f"Expected {N} propensities"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, told):
    with pytest.raises(UserError, match=told):
        fit(**changes)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"n_clusters": 1}, "Expected n_clusters of at least 2"),
        ({"backbone": "rcf"}, "Expected a backbone of vit, cnn, cnn2023"),
        ({"n_folds": 1}, "Expected n_folds of at least 2"),
        ({"n_rep": 0}, "Expected at least one repetition"),
    ],
)
def test_wrong_settings_are_refused(settings, told):
    with pytest.raises(UserError, match=told):
        ImageHeterogeneity(**settings)


def test_other_images_and_clusters_are_refused(found):
    with pytest.raises(UserError, match=r"Expected images of shape \(n, 13, 13, 1\)"):
        found.transport(IMAGES[..., 0])
    with pytest.raises(UserError, match="Expected finite pixels"):
        found.transport(IMAGES[:2] * np.nan)
    with pytest.raises(UserError, match="Expected a cluster from 0 to 1, found 2"):
        found.salience([0], cluster=2)
