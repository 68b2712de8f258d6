"""Pictures of any look: clean in training, and not taken for degraded."""

import numpy as np
import pytest

from jaxcore.data.images.degradations import degradation
from jaxcore.data.images.kinds import CleanImages, evaluation_groups, training_groups
from jaxcore.data.images.looks import any_look, colour_look, colour_or_grey_look, is_grey
from jaxcore.data.images.pipeline import Stage, training_batches
from jaxcore.data.images.write import write_image


def photo(seed=0):
    rng = np.random.default_rng(seed)
    return np.repeat(np.repeat(rng.integers(0, 256, (5, 6, 3), np.uint8), 8, 0), 8, 1)


@pytest.mark.parametrize("look", [any_look, colour_look, colour_or_grey_look])
def test_a_look_is_drawn_from_the_generator_alone_and_leaves_the_picture_as_it_was(look):
    clean = photo()
    before = clean.copy()
    one, same = (look(clean, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(clean, before)
    assert one.dtype == np.uint8 and one.shape == clean.shape


def test_looks_are_many_and_a_third_of_them_are_grey():
    looks = [any_look(photo(), np.random.default_rng(seed)) for seed in range(60)]
    assert 8 < sum(map(is_grey, looks)) < 40
    spans = [float(np.ptp(look)) for look in looks]
    assert min(spans) < 100 and max(spans) > 200
    assert min(look.mean() for look in looks) < 90 < 150 < max(look.mean() for look in looks)


def test_fog_is_not_drawn_over_grey_pictures():
    grey = np.repeat(photo()[..., :1], 3, axis=-1)
    haze = degradation("haze_any")
    np.testing.assert_array_equal(haze(grey, np.random.default_rng(0)), grey)
    foggy = haze(photo(), np.random.default_rng(0))
    assert foggy.mean() > photo().mean() + 10


def test_grey_pictures_lie_beside_those_with_fog_in_training():
    looks = [colour_or_grey_look(photo(), np.random.default_rng(seed)) for seed in range(60)]
    assert 12 < sum(map(is_grey, looks)) < 36


def test_noise_of_any_strength_reaches_from_none_to_that_of_sigma_55():
    flat = np.full((64, 64, 3), 128, np.uint8)
    noise = degradation("noise_any")
    spread = [noise(flat, np.random.default_rng(seed)).std() for seed in range(80)]
    assert min(spread) < 4 and 45 < max(spread) < 58


def test_a_clean_picture_of_any_look_is_its_own_target_and_is_not_measured(tmp_path):
    for i in range(2):
        write_image(tmp_path / f"{i}.png", photo(i) / np.float32(255))
    tasks = ("noise_any", "haze_any", "clean_any")
    data = CleanImages(root=str(tmp_path), tasks=tasks, eval_root=str(tmp_path))
    groups = training_groups(data)
    assert [group.name for group in evaluation_groups(data)] == ["noise_any", "haze_any"]
    stages = [Stage(patch=16, batch_size=24)]
    batch = next(training_batches(groups, stages=stages, seed=0, num_threads=0))
    clean = batch["task"] == 2
    np.testing.assert_array_equal(batch["degraded"][clean], batch["clean"][clean])
    originals = {photo(i)[y, x].tobytes() for i in range(2) for y in range(40) for x in range(48)}
    seen = np.round(batch["clean"][clean][:, 0, 0] * 255).astype(np.uint8)
    assert any(pixel.tobytes() not in originals for pixel in seen)
