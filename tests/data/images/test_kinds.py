"""A description of data per kind: what each has, from files of all versions and from options."""

import dataclasses

import numpy as np
import pytest

from jaxcore.data.images.kinds import (
    ImageData,
    Pairs,
    Photos,
    PlainImages,
    Toy,
    evaluation_groups,
    training_groups,
)
from jaxcore.data.images.pipeline import Stage, training_batches
from jaxcore.data.images.preparation import Preparation
from jaxcore.errors import UserError

# As runs were stored when one class had the fields of all kinds.
FLAT = {
    "kind": "pairs",
    "root": "x",
    "tasks": ["derain"],
    "eval_root": "",
    "held_out": 3,
    "degraded_folder": "degraded",
    "clean_folder": "gt",
    "condition_folder": "",
    "pair_by": "auto",
    "prepare": {
        "crop": [1, 2, 3, 4],
        "pad": False,
        "equalise": False,
        "size": 64,
        "resample": "bilinear",
        "truth": None,
    },
    "denoise_list": "",
    "strict": False,
    "tfds_name": "",
    "split": "train",
    "eval_split": "",
    "degraded_feature": "degraded",
    "clean_feature": "clean",
    "check_sizes": 2000,
    "cache_gb": 0.5,
}


def test_a_run_stored_with_the_fields_of_all_kinds_is_read():
    steps = Preparation(crop=(1, 2, 3, 4), size=64, resample="bilinear")
    assert ImageData.from_dict(FLAT) == Pairs(
        root="x", tasks=("derain",), held_out=3, clean_folder="gt", prepare=steps, cache_gb=0.5
    )
    photos = {**FLAT, "kind": "photos", "root": "", "tasks": []}
    assert ImageData.from_dict(photos) == Photos(prepare=steps, cache_gb=0.5)
    with pytest.raises(UserError, match="colour is not a field of Pairs"):
        ImageData.from_dict({**FLAT, "colour": 1})


@pytest.mark.parametrize("kind", ImageData.kinds().values(), ids=list(ImageData.kinds()))
def test_every_kind_survives_json_and_reads_the_old_layout(kind):
    needed = {"tasks": ["haze"], "tfds_name": "pairs"}
    data = ImageData.from_dict({**FLAT, **needed, "kind": kind.kind})
    assert type(data) is kind
    assert ImageData.from_dict(data.to_dict()) == data and hash(data) == hash(data)
    for name in data.to_dict().keys() & FLAT.keys() - needed.keys() - {"kind"}:
        assert data.to_dict()[name] == FLAT[name]


def test_a_kind_has_its_own_fields_only():
    """The fields of other kinds were accepted, and without effect."""
    assert {f.name for f in dataclasses.fields(Toy)} == {
        "kind",
        "tasks",
        "prepare",
        "cache_gb",
        "skip_broken",
    }
    with pytest.raises(UserError, match="strict is not a field of PlainImages"):
        ImageData.from_dict({"kind": "images", "root": "x", "strict": True})
    with pytest.raises(UserError, match="kind must be images, found 'toy'"):
        PlainImages(kind="toy")  # type: ignore[arg-type]  # the mistake under test


def test_clean_pictures_are_trained_on_and_not_measured():
    data = Photos(tasks=("haze", "clean"))
    haze, clean = training_groups(data)
    assert [group.name for group in evaluation_groups(data)] == ["haze"]
    assert 1.5 < clean.entries / haze.entries < 3 and len(clean.source) > len(haze.source)
    stages = [Stage(patch=16, batch_size=8)]
    batch = next(training_batches([clean], stages=stages, seed=0, num_threads=0))
    np.testing.assert_array_equal(batch["degraded"], batch["clean"])
