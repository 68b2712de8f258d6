"""Keyed images of a TFDS set: any number of bands, keys of a text feature, wrong features."""

import os

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxcore.data.geo.tfds import open_tfds
from jaxcore.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 4000, (3, 4, 5, 2), np.uint16)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    version = folder / "places" / "1.0.0"
    version.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="places",
        version=tfds.core.Version("1.0.0"),
        data_dir=os.fspath(version),
        module_name="a",
    )
    features = {
        "image": tfds.features.Tensor(shape=(4, 5, 2), dtype=np.uint16, encoding="zlib"),
        "key": tfds.features.Text(),
    }
    info = tfds.core.DatasetInfo(
        builder=identity,
        description="Places.",
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
    )
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2, file_format="array_record")
    writer.initialize_splits(["train"])
    examples = [{"image": p, "key": k} for p, k in zip(PIXELS, "abc", strict=True)]
    writer.add_examples({"train": examples})
    writer.close_splits(["train"])
    return folder


def test_images_are_found_by_their_keys(root):
    images = open_tfds("places", root, "train")
    assert images.images.shape == (3, 4, 5, 2) and images.images.dtype == np.uint16
    np.testing.assert_array_equal(images.images[images.rows_of(["c", "a"])], PIXELS[[2, 0]])
    np.testing.assert_array_equal(images.images[1], PIXELS[1])
    assert list(open_tfds("places", root, "train[:2]").keys) == ["a", "b"]


def test_features_and_splits_that_are_not_there(root):
    for options, sentence in (
        ({"key": "place"}, "Expected a text feature 'place'"),
        ({"image": "picture"}, "Expected features picture"),
        ({"split": "test"}, "Expected split 'test'"),
    ):
        with pytest.raises(UserError, match=sentence):
            open_tfds("places", root, options.pop("split", "train"), **options)
