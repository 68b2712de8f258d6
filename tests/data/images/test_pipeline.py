"""Batches: protocol of a row, exact resume, independence of threads and processes."""

import itertools
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxcore.data.images.degradations import gaussian_noise, legacy_noise
from jaxcore.data.images.pipeline import (
    Stage,
    centre_crop,
    training_batches,
    turn,
)
from jaxcore.data.images.sources import ArraySource, Group
from jaxcore.errors import UserError
from tests.data.images.whole import whole_images

STAGES = (
    Stage(steps=3, patch=16, batch_size=4),
    Stage(steps=2, patch=24, batch_size=2),
    Stage(patch=32, batch_size=2),
)


def coordinates(height, width, dtype=np.uint8):
    """An image whose pixels say where they are: (row, column, 0)."""
    rows, columns = np.indices((height, width))
    return np.stack([rows, columns, 0 * rows], axis=-1).astype(dtype)


def noise_image(seed, height=50, width=60):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def mixed_groups():
    clean = ArraySource({f"c{i}": noise_image(i) for i in range(3)})
    pairs = ArraySource({f"p{i}": (noise_image(i), noise_image(10 + i)) for i in range(2)})
    return (
        Group("noise25", clean, repeat=2, degradation="noise25"),
        Group("haze", clean, degradation="haze"),
        Group("blur", clean, degradation="blur"),
        Group("derain", pairs, repeat=3),
    )


def stream(count, groups=None, stages=STAGES, **options):
    batches = training_batches(groups or mixed_groups(), stages=stages, **{"seed": 5, **options})
    return list(itertools.islice(batches, count))


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys() == {"degraded", "clean", "task"}
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])


def test_batches_have_the_promised_form():
    for step, batch in enumerate(stream(8)):
        patch, rows = (16, 4) if step < 3 else (24, 2) if step < 5 else (32, 2)
        for key in ("degraded", "clean"):
            assert batch[key].shape == (rows, patch, patch, 3) and batch[key].dtype == np.float32
            assert batch[key].min() >= 0 and batch[key].max() <= 1
        assert batch["task"].shape == (rows,) and batch["task"].dtype == np.int32


def test_resume_is_exact_after_every_prefix():
    whole = stream(9)
    for done in range(9):  # across both changes of stage
        batches = training_batches(mixed_groups(), stages=STAGES, seed=5)
        for _ in range(done):
            next(batches)
        state = json.loads(json.dumps(batches.get_state()))
        resumed = training_batches(mixed_groups(), stages=STAGES, seed=5)
        next(resumed)
        resumed.set_state(state)
        assert resumed.get_state() == state
        assert_same(list(itertools.islice(resumed, 9 - done)), whole[done:])


def test_state_can_be_set_back_in_the_middle():
    batches = training_batches(mixed_groups(), stages=STAGES, seed=5, num_threads=2)
    first = list(itertools.islice(batches, 2))
    state = batches.get_state()
    later = list(itertools.islice(batches, 3))
    batches.set_state(state)
    assert_same(list(itertools.islice(batches, 3)), later)
    assert_same(first + later, stream(5))


@pytest.mark.parametrize("start", [1, 3, 4, 7])
def test_start_step_equals_skipping(start):
    assert_same(stream(2, start_step=start), stream(start + 2)[start:])


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_do_not_matter(threads):
    assert_same(stream(9, num_threads=threads), stream(9))


def test_processes_share_the_rows_of_one_process():
    whole = stream(7)
    parts = [stream(7, process_index=i, process_count=2) for i in range(2)]
    joined = [
        {key: np.concatenate([part[step][key] for part in parts]) for key in whole[step]}
        for step in range(7)
    ]
    assert_same(joined, whole)


def test_seeds_differ():
    one, other = stream(2), stream(2, seed=6)
    assert (one[0]["clean"] != other[0]["clean"]).any()


def test_every_epoch_holds_every_entry_in_a_new_order():
    images = {f"{i}": np.full((16, 16, 3), i, np.uint8) for i in range(6)}
    other = np.full((16, 16, 3), 99, np.uint8)
    groups = [
        Group("a", ArraySource({k: (v, v) for k, v in images.items()}), repeat=2),
        Group("b", ArraySource({"x": (other, other)}), repeat=3),
    ]
    batches = stream(30, groups, [Stage(patch=16, batch_size=5)])  # 10 epochs of 15 entries
    seen = np.concatenate([np.round(255 * b["clean"][:, 0, 0, 0]) for b in batches]).astype(int)
    tasks = np.concatenate([b["task"] for b in batches])
    np.testing.assert_array_equal(tasks, seen == 99)
    epochs = seen.reshape(10, 15)
    for epoch in epochs:
        assert sorted(epoch) == sorted([*range(6), *range(6), 99, 99, 99])
    assert len({tuple(epoch) for epoch in epochs}) == 10


def test_the_same_image_differs_between_epochs():
    groups = [Group("n", ArraySource({"a": noise_image(0)}), degradation="noise15")]
    one, two = stream(2, groups, [Stage(patch=32, batch_size=1)])
    assert (one["clean"] != two["clean"]).any()


def test_degraded_and_clean_get_the_same_window_and_turn():
    pair = (coordinates(70, 90), coordinates(70, 90))
    batches = stream(20, [Group("p", ArraySource({"a": pair}))], [Stage(patch=24, batch_size=3)])
    corners = set()
    for batch in batches:
        np.testing.assert_array_equal(batch["degraded"], batch["clean"])
        for window in np.round(255 * batch["clean"]).astype(int):
            rows, columns = window[..., 0], window[..., 1]
            # 70x90 loses 3 + 3 rows and 5 + 5 columns to the crop to multiples of 16.
            assert 3 <= rows.min() and rows.max() < 67 and 5 <= columns.min() < columns.max() < 85
            assert np.ptp(rows) == np.ptp(columns) == 23
            corners.add((rows.min(), columns.min()))
    assert len(corners) > 50


@pytest.mark.parametrize(("augment", "numbers"), [("all", 8), ("official", 7), ("none", 1)])
def test_turns_are_drawn_among_the_right_ones(augment, numbers):
    square = coordinates(16, 16)
    groups = [Group("p", ArraySource({"a": (square, square)}))]
    batches = stream(30, groups, [Stage(patch=16, batch_size=8)], augment=augment)
    drawn = {w.tobytes() for b in batches for w in np.round(255 * b["clean"]).astype(np.uint8)}
    assert len(drawn) == numbers
    assert (square.tobytes() in drawn) == (augment != "official")


def test_turns_are_those_of_the_table():
    image = coordinates(3, 5)
    table = [
        image,
        np.flipud(image),
        np.rot90(image),
        np.flipud(np.rot90(image)),
        np.rot90(image, 2),
        np.flipud(np.rot90(image, 2)),
        np.rot90(image, 3),
        np.flipud(np.rot90(image, 3)),
    ]
    for number, expected in enumerate(table):
        np.testing.assert_array_equal(turn(image, number), expected)
    # A quarter turn is counter-clockwise: the last column comes to the top.
    np.testing.assert_array_equal(turn(image, 2)[0], image[:, -1])


def test_noise_comes_after_crop_and_turn():
    flat = np.full((40, 40, 3), 100, np.uint8)
    groups = [Group("n", ArraySource({"a": flat}), degradation="noise25")]
    batch = stream(1, groups, [Stage(patch=32, batch_size=8)])[0]
    np.testing.assert_array_equal(batch["clean"], np.float32(100) / np.float32(255))
    grey = 255 * batch["degraded"]
    np.testing.assert_allclose(grey, np.round(grey), atol=1e-4)  # 8 bits
    assert abs(grey.mean() - 99.5) < 1


def test_blur_reads_the_image_around_the_patch():
    # Left half black, right half white: patches near the edge are blurred with what lies outside.
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    groups = [Group("b", ArraySource({"a": image}), degradation="blur")]
    batch = stream(1, groups, [Stage(patch=16, batch_size=64)], augment="none")[0]
    black = (batch["clean"] == 0).all(axis=(1, 2, 3))
    assert black.sum() > 5
    assert batch["degraded"][black].max() > 0.1


def test_small_images_are_mirrored():
    pair = (coordinates(20, 10), coordinates(20, 10))
    groups = [Group("p", ArraySource({"a": pair}))]
    batch = stream(1, groups, [Stage(patch=24, batch_size=1)], augment="none")[0]
    np.testing.assert_array_equal(batch["degraded"], batch["clean"])
    window = np.round(255 * batch["clean"][0]).astype(int)
    # 20 rows lose 2 at the top and 2 at the bottom, then 16 rows are mirrored to 24.
    np.testing.assert_array_equal(window[:, 0, 0], [*range(2, 18), *range(16, 8, -1)])
    np.testing.assert_array_equal(window[0, :, 1], [*range(10), *range(8, -1, -1), *range(1, 6)])


def test_sixteen_bits_are_scaled_by_their_maximum():
    deep = np.full((16, 16, 3), 65535, np.uint16)
    deep[0] = 257 * 100 + 128  # rounds to 100
    pairs = [Group("p", ArraySource({"a": (deep, deep)}))]
    batch = stream(1, pairs, [Stage(patch=16, batch_size=1)], augment="none")[0]
    np.testing.assert_array_equal(batch["clean"][0], deep / np.float32(65535))
    fly = Group("h", ArraySource({"a": deep}), degradation="noise15")
    batch = stream(1, [fly], [Stage(patch=16, batch_size=1)], augment="none")[0]
    np.testing.assert_array_equal(batch["clean"][0, 0], np.float32(100) / np.float32(255))
    (_, _, clean) = next(whole_images(fly))
    np.testing.assert_array_equal(clean[0], np.float32(100) / np.float32(255))


def test_stages_end():
    batches = training_batches(mixed_groups(), stages=STAGES[:2], seed=0)
    assert len(list(batches)) == 5


def test_changed_data_are_noticed_at_resume():
    state = training_batches(mixed_groups(), stages=STAGES, seed=0).get_state()
    fewer = training_batches(mixed_groups()[:2], stages=STAGES, seed=0)
    with pytest.raises(UserError, match="Expected the data of the checkpoint"):
        fewer.set_state(state)


BAD = [
    ({"groups": ()}, "Expected groups with data"),
    ({"stages": ()}, "only the last may last for ever"),
    ({"stages": (STAGES[2], STAGES[0])}, "only the last may last for ever"),
    ({"stages": (Stage(steps=0, patch=8, batch_size=2),)}, "positive steps"),
    ({"stages": (Stage(patch=0, batch_size=2),)}, "positive steps"),
    ({"process_index": 0, "process_count": 3}, "divides over 3 processes, found 4"),
    ({"seed": -1}, "seed of 32 bits"),
    ({"start_step": -1}, "step -1"),
    ({"augment": "most"}, "Expected augment among all, official, none"),
    ({"groups": (Group("x", ArraySource({"a": noise_image(0)})),)}, "found neither in group 'x'"),
    (
        {"groups": (Group("x", ArraySource({"a": noise_image(0)}), degradation="snow"),)},
        "Expected degradations among",
    ),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[message for _, message in BAD])
def test_impossible_wishes_are_refused_at_once(options, message):
    with pytest.raises(UserError, match=message):
        training_batches(**{"groups": mixed_groups(), "stages": STAGES, "seed": 0, **options})


def test_evaluation_is_seeded_per_image_and_degradation():
    images = {name: noise_image(i) for i, name in enumerate("abc")}
    group = Group("n", ArraySource(images), degradation="noise25")
    alone = Group("n", ArraySource({"b": images["b"]}), degradation="noise25")
    items = {name: degraded for name, degraded, _ in whole_images(group)}
    assert list(items) == ["a", "b", "c"]
    ((_, again, clean),) = whole_images(alone)
    np.testing.assert_array_equal(items["b"], again)  # whatever else is evaluated
    assert again.shape == clean.shape == (48, 48, 3)
    np.testing.assert_array_equal(clean, images["b"][1:49, 6:54] / np.float32(255))
    ((_, other, _),) = whole_images(alone, seed=1)
    assert (other != again).any()
    # Noise of two levels is not the same draw at two scales.
    strong = Group("n", alone.source, degradation="noise50")
    ((_, louder, _),) = whole_images(strong)
    grey = clean.astype(np.float64)
    correlation = np.corrcoef((again - grey).ravel(), (louder - grey).ravel())[0, 1]
    assert abs(correlation) < 0.2


def test_evaluation_with_the_legacy_stream():
    images = {"b": noise_image(0, 37, 50), "a": noise_image(1, 32, 33)}
    crops = [centre_crop(images[name], 16) for name in ("a", "b")]
    for sigma in (15, 25, 50):
        group = Group("n", ArraySource(images), degradation=f"noise{sigma}")
        draws = legacy_noise([crop.shape for crop in crops], sigma)
        items = whole_images(group, legacy_rng=True)
        for (_, degraded, _), crop, noise in zip(items, crops, draws, strict=True):
            expected = gaussian_noise(crop, sigma, noise) / np.float32(255)
            np.testing.assert_array_equal(degraded, expected)


def test_evaluation_of_pairs_and_central_squares():
    pair = (coordinates(37, 50), coordinates(37, 50))
    group = Group("p", ArraySource({"a": pair}))
    ((_, degraded, clean),) = whole_images(group, legacy_rng=True)
    np.testing.assert_array_equal(degraded, pair[0][2:34, 1:49] / np.float32(255))
    np.testing.assert_array_equal(clean, degraded)
    ((_, square, _),) = whole_images(group, side=16)
    np.testing.assert_array_equal(square, pair[0][10:26, 17:33] / np.float32(255))
    ((_, whole, _),) = whole_images(group, crop_multiple=1)
    assert whole.shape == (37, 50, 3)


sides = st.integers(1, 70)


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(sides, sides, st.sampled_from([1, 8, 16]))
def test_centre_crop_is_central_and_divides(height, width, multiple):
    cropped = centre_crop(coordinates(height, width), multiple)
    for axis, side in enumerate((height, width)):
        left = cropped[0, 0, axis]
        right = side - 1 - cropped[-1, -1, axis]
        size = cropped.shape[axis]
        assert left + size + right == side
        if side < multiple:
            assert size == side
        else:
            assert size % multiple == 0 and left + right < multiple and right - left in (0, 1)


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(sides, sides, st.integers(0, 7))
def test_turns_keep_the_pixels_and_can_be_undone(height, width, number):
    image = coordinates(height, width)
    turned = turn(image, number)
    assert sorted(turned.shape) == sorted(image.shape)
    undone = np.rot90(turned[::-1] if number % 2 else turned, -(number // 2))
    np.testing.assert_array_equal(undone, image)


@hypothesis.settings(deadline=None, derandomize=True, max_examples=25)
@hypothesis.given(sides, sides, st.sampled_from([8, 16, 30]), st.integers(0, 99))
def test_pairs_stay_aligned_whatever_the_sizes(height, width, patch, seed):
    image = coordinates(height, width)
    groups = [Group("p", ArraySource({"a": (image, 255 - image)}))]
    options = {"seed": seed, "num_threads": 0}
    batch = stream(1, groups, [Stage(patch=patch, batch_size=2)], **options)[0]
    assert batch["clean"].shape == (2, patch, patch, 3)
    np.testing.assert_allclose(batch["degraded"], 1 - batch["clean"], atol=1e-6)
