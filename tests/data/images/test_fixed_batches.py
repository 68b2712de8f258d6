"""The numbers of a seed never change: batches and evaluation images have fixed checksums."""

import hashlib
import itertools

import numpy as np
import pytest

from jaxcore.data.images.pipeline import Stage, evaluation_samples, training_batches
from jaxcore.data.images.sources import ArraySource, Group

STAGES = [Stage(steps=3, patch=16, batch_size=4), Stage(patch=48, batch_size=2)]


def photo(number, height, width, dtype=np.uint8):
    rng = np.random.default_rng(number)
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, 3)).astype(dtype)


def digest(samples):
    total = hashlib.sha256()
    for sample in samples:
        for name, value in sorted(sample.items()):
            content = value.encode() if isinstance(value, str) else np.ascontiguousarray(value)
            total.update(name.encode())
            total.update(content)
    return total.hexdigest()[:16]


CLEAN = ArraySource({f"c{i}": photo(i, 40 + 3 * i, 50 - i) for i in range(3)})
PAIRS = ArraySource(
    {
        f"p{i}": (photo(10 + i, 33, 64, np.uint16), photo(20 + i, 33, 64, np.uint16))
        for i in range(2)
    }
)

# Only degradations of whole numbers and normal draws: no exponential that a machine may round.
TRAINING = [
    (("noise50", "centre_box"), "all", 1, "bc25e62950a40f72"),
    (("noise50", "centre_box"), "all", 2, "c6ec3d9b1f088c45"),
    (("noise50", "centre_box"), "official", 1, "0f8525dc9cd46f19"),
    (("noise50", "centre_box"), "official", 2, "f0c52f2020c32bdf"),
    (("noise50", "centre_box"), "none", 1, "ad0f63f7758de939"),
    (("noise50", "centre_box"), "none", 2, "86c32eadea9b3cc9"),
    (("noise50", "centre_box"), "flip", 1, "fcd8bbb87a7a6162"),
    (("noise50", "centre_box"), "flip", 2, "6df0a78cad249189"),
    (("noise50", "centre_box"), "mirror", 1, "1492df06148de93a"),
    (("noise50", "centre_box"), "mirror", 2, "54e6f02516b5b6ce"),
    (("noise50", "centre_box"), "rotate", 1, "0af8dc719917fd9b"),
    (("noise50", "centre_box"), "rotate", 2, "ee8f9a6d5b3ae7f0"),
]


@pytest.mark.parametrize(("names", "augment", "processes", "expected"), TRAINING)
def test_training_batches(names, augment, processes, expected):
    groups = [Group("pairs", PAIRS, repeat=2)]
    groups += [Group(name, CLEAN, degradation=name) for name in names]
    batches = training_batches(
        groups,
        stages=STAGES,
        seed=7,
        start_step=1,
        augment=augment,
        num_threads=2,
        process_index=processes - 1,
        process_count=processes,
    )
    assert digest(itertools.islice(batches, 8)) == expected


EVALUATION = [
    ("noise25", False, "92c6d9d2611e5d6b"),
    ("noise25", True, "a40891d96ec37536"),
    ("noise50", False, "c0f768f200d1bda2"),
    ("noise50", True, "3e7d8e02d5a0b8a3"),
    ("centre_box", False, "4bc0f08463947a80"),
]


@pytest.mark.parametrize(("name", "legacy", "expected"), EVALUATION)
def test_evaluation_images(name, legacy, expected):
    group = Group(name, CLEAN, degradation=name)
    assert digest(evaluation_samples(group, seed=3, legacy_rng=legacy)) == expected
