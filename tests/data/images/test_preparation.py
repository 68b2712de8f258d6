"""Images as diffusion models train on them: equalised, padded, squared, flipped, paired, masked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcore.data.images.kinds import (
    CelebA,
    CleanImages,
    ImageData,
    Pairs,
    PlainImages,
    evaluation_groups,
    training_groups,
)
from jaxcore.data.images.pipeline import Stage, evaluation_samples, training_batches, turn
from jaxcore.data.images.preparation import Preparation, equalise, resize_square
from jaxcore.data.images.sources import ArraySource, Group
from jaxcore.errors import UserError


def image(seed, height=20, width=24):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_equalise_follows_the_definition():
    picture = image(0) // 3 + 20
    ours = equalise(picture)
    for c in range(3):
        levels = picture[..., c]
        lowest = (levels == levels.min()).sum()
        below = np.array([(levels <= v).sum() for v in range(256)])
        exact = 255 * (below - lowest) / (levels.size - lowest)
        assert np.abs(ours[..., c] - exact[levels]).max() <= 0.5 + 1e-4
        assert ours[..., c].min() == 0 and ours[..., c].max() == 255


def test_equalise_leaves_a_flat_channel_alone():
    flat = np.full((4, 5, 3), (7, 0, 255), np.uint8)
    np.testing.assert_array_equal(equalise(flat), flat)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(0, 255))
def test_resizing_keeps_a_flat_image(height, width, side, level):
    flat = np.full((height, width, 3), level, np.uint8)
    for kind in ("bicubic", "bilinear", "matlab"):
        out = resize_square(flat, side, kind)
        assert out.shape == (side, side, 3) and (out == level).all(), kind


@pytest.mark.parametrize("side", [9, 20, 45])
def test_matlab_and_pillow_differ_at_the_border_only(side):
    """The same kernel; MATLAB mirrors at the border where Pillow leaves weights out."""
    smooth = resize_square(image(1, 6, 6), 40)
    ours, pillow = (resize_square(smooth, side, k).astype(int) for k in ("matlab", "bicubic"))
    edge = -(-2 * max(side, 40) // 40)
    inner = slice(edge, side - edge)
    assert np.abs(ours - pillow)[inner, inner].max() <= 1


def test_the_order_of_a_preparation():
    prepare = Preparation(crop=(2, 3, 10, 12), pad=True, size=16, equalise=True)
    picture = image(2)
    padded = np.zeros((16, 16, 3), np.uint8)
    padded[:10, :12] = picture[2:12, 3:15]
    np.testing.assert_array_equal(prepare(picture), padded)
    np.testing.assert_array_equal(prepare(picture, "degraded"), equalise(padded))
    np.testing.assert_array_equal(Preparation()(picture), picture)
    truth = Preparation(pad=True, size=16, truth="matlab")
    np.testing.assert_array_equal(truth(picture, "truth"), resize_square(picture, 16, "matlab"))
    wide = picture.astype(np.uint16) * np.uint16(257)
    np.testing.assert_array_equal(Preparation(size=8)(wide), resize_square(picture, 8))


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="size must be a whole number of at least 1"):
        Preparation(size=0)
    with pytest.raises(UserError, match=r"resample must be one of bicubic, .*, found 'lanczos'"):
        Preparation(resample="lanczos")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(UserError, match="at least 153x185 pixels for the crop, found 24x20 in 'a'"):
        Preparation(crop=(57, 25, 128, 128))(image(0), name="a")
    with pytest.raises(UserError, match="splits of CelebA, found no file"):
        training_groups(CelebA(root=str(tmp_path)))
    with pytest.raises(UserError, match=r"Expected as pair_by one of auto, name, .* found 'size'"):
        Pairs(root="x", pair_by="size")  # type: ignore[arg-type]  # the same
    with pytest.raises(UserError, match="pairs beside a condition_folder"):
        Pairs(root="x", pair_by="unpaired", condition_folder="mask")


def batch(groups, augment="none", images=("degraded", "clean"), side=16, rows=8):
    stages = [Stage(patch=side, batch_size=rows)]
    options = {"images": images, "crop_multiple": 1, "num_threads": 0}
    return next(training_batches(groups, stages=stages, seed=0, augment=augment, **options))


def test_flips():
    square = image(3, 16, 16)
    groups = [Group("a", ArraySource({"a": square}))]
    np.testing.assert_array_equal(turn(square, 5), square[:, ::-1])
    rows = {kind: batch(groups, kind, ("clean",))["clean"] * 255 for kind in ("flip", "mirror")}
    assert all((np.rint(row) == square[:, ::-1]).all() for row in rows["mirror"])
    flipped = [(np.rint(row) == square[:, ::-1]).all() for row in rows["flip"]]
    plain = [(np.rint(row) == square).all() for row in rows["flip"]]
    assert any(flipped) and any(plain)
    assert all(a != b for a, b in zip(flipped, plain, strict=True))


def test_generation_needs_clean_images_only(tmp_path):
    write(tmp_path / "a.png", image(0, 30, 20))
    cfg = PlainImages(root=str(tmp_path), prepare=Preparation(size=16))
    groups = training_groups(cfg)
    found = batch(groups, images=("clean",))
    assert found.keys() == {"clean", "task"} and found["clean"].shape == (8, 16, 16, 3)
    with pytest.raises(UserError, match="found neither"):
        batch(groups)


def test_pairs_by_index_may_differ_in_size_and_number(tmp_path):
    for i, name in enumerate(("dog1", "dog2", "dog3")):
        write(tmp_path / "degraded" / f"{name}.png", image(i, 20 + i, 30))
    for i, name in enumerate(("cat7", "cat9")):
        write(tmp_path / "clean" / f"{name}.png", image(10 + i, 40, 26))
    cfg = Pairs(root=str(tmp_path), pair_by="unpaired", prepare=Preparation(size=16))
    (group,) = training_groups(cfg)
    assert len(group.source) == 3
    third = group.source[2]
    assert third["name"] == "dog3"
    np.testing.assert_array_equal(third["clean"], resize_square(image(10, 40, 26), 16))
    np.testing.assert_array_equal(third["degraded"], resize_square(image(2, 22, 30), 16))


@pytest.fixture
def masked(tmp_path):
    for i, name in enumerate("ab"):
        for k, folder in enumerate(("degraded", "clean", "mask")):
            write(tmp_path / folder / f"{name}.png", image(10 * k + i))
    return tmp_path


def test_conditions_come_along(masked):
    cfg = Pairs(root=str(masked), condition_folder="mask", held_out=1)
    images = ("degraded", "clean", "condition")
    (group,) = training_groups(cfg)
    found = batch([group], "all", images)
    mask = group.source[0]["condition"]
    np.testing.assert_array_equal(mask, image(21))
    for kind in images:  # the same window and turn for all three
        pixels = group.source[0][kind].reshape(-1, 3)
        assert all((np.rint(255 * row[3, 5]) == pixels).all(axis=1).any() for row in found[kind]), (
            kind
        )
    (held,) = evaluation_groups(cfg)
    (sample,) = evaluation_samples(held, images=images, crop_multiple=1)
    np.testing.assert_array_equal(np.rint(255 * sample["condition"]), image(20))


def test_conditions_that_are_missing_or_of_another_size(masked):
    cfg = Pairs(root=str(masked), condition_folder="mask")
    write(masked / "mask" / "b.png", image(0, 20, 20))
    (group,) = training_groups(cfg)
    with pytest.raises(UserError, match=r"size of its image, found \(20, 20\) for \(20, 24\)"):
        group.source[1]
    (masked / "mask" / "b.png").unlink()
    with pytest.raises(UserError, match=r"an image in .*mask for each of 2 samples, found none"):
        training_groups(cfg)
    plain = Pairs(root=str(masked))
    with pytest.raises(UserError, match="such as masks, found none in group 'pairs'"):
        batch(training_groups(plain), images=("clean", "condition"))


def test_inpainting_hides_the_centre_exactly(tmp_path):
    write(tmp_path / "a.png", image(0, 40, 40))
    prepare = Preparation(size=16, resample="bilinear")
    cfg = CleanImages(root=str(tmp_path), tasks=("centre_box",), prepare=prepare)
    found = batch(training_groups(cfg))
    signed = 2 * found["degraded"] - 1
    assert np.abs(signed[:, 4:12, 4:12]).max() < 1e-4
    outside = np.ones((16, 16), bool)
    outside[4:12, 4:12] = False
    np.testing.assert_allclose(found["degraded"][:, outside], found["clean"][:, outside], atol=1e-6)


def test_celeba(tmp_path):
    faces = {f"{i:06d}.jpg": split for i, split in enumerate((0, 0, 1, 2), start=1)}
    lines = [f"{name} {split}" for name, split in faces.items()]
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(lines))
    for i, name in enumerate(faces):
        write(tmp_path / "img_align_celeba" / name, image(i, 218, 178))
    cfg = CelebA(root=str(tmp_path), prepare=Preparation(size=64, resample="bilinear"))
    (train,), (test,) = training_groups(cfg), evaluation_groups(cfg)
    assert (len(train.source), len(test.source)) == (2, 1)
    with Image.open(tmp_path / "img_align_celeba" / "000004.jpg") as file:
        box = np.asarray(file)[57:185, 25:153]
    np.testing.assert_array_equal(test.source[0]["clean"], resize_square(box, 64, "bilinear"))
    inpaint = CelebA(root=str(tmp_path), tasks=("centre_box",))
    assert training_groups(inpaint)[0].degradation == "centre_box"
    (tmp_path / "img_align_celeba" / "000004.jpg").unlink()
    with pytest.raises(UserError, match=r"split test of CelebA, found no .*000004.jpg"):
        evaluation_groups(cfg)


def test_a_configuration_survives_json():
    prepare = Preparation(crop=(1, 2, 3, 4), size=8, truth="matlab")
    cfg = PlainImages(root="x", prepare=prepare)
    assert ImageData.from_dict(cfg.to_dict()) == cfg
    old = {key: value for key, value in cfg.to_dict().items() if key != "prepare"}
    assert ImageData.from_dict(old).prepare == Preparation()
