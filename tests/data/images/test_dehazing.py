"""Dehazing sets on synthetic trees: pairs, borders, counts, foreign test sets, held-out scenes."""

import numpy as np
import pytest
from PIL import Image

from jaxcore.data.images.dehazing import dehazing
from jaxcore.data.images.kinds import Dehazing, describe, evaluation_groups, training_groups
from jaxcore.errors import UserError

HAZY, CLEAR = (46, 62), (66, 82)  # rows and columns, with a border of 10 around the clear one

counts_differ = pytest.mark.filterwarnings("ignore:Expected the published")


def write(path, grey, shape=HAZY, border=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((*shape, 3), grey, np.uint8)
    if border:
        image[:border] = image[-border:] = image[:, :border] = image[:, -border:] = 255
    Image.fromarray(image).save(path)


def grow(root):
    for scene in range(1, 5):
        write(root / f"ITS/train/clear/{scene}.png", 20 * scene)
        for k in (1, 2):
            write(root / f"ITS/train/hazy/{scene}_{k}_0.9{k}.png", 20 * scene + 10)
    write(root / "ITS/test/clear/1400.png", 60, CLEAR, border=10)
    write(root / "ITS/test/hazy/1400_1.png", 70)
    write(root / "ITS/test/hazy/1400_10.png", 70)
    write(root / "OTS/train/clear/0005.jpg", 60)
    write(root / "OTS/train/hazy/part1/0005_0.8_0.04.jpg", 70)
    write(root / "OTS/train/hazy/part2/0005_1_0.2.jpg", 70)
    write(root / "SOTS/outdoor/gt/0001.png", 60)
    write(root / "SOTS/outdoor/hazy/0001_0.8_0.2.jpg", 70)
    for part in ("train", "test"):
        write(root / f"Haze4K/{part}/clear/7.png", 60, (40, 40))
        write(root / f"Haze4K/{part}/hazy/7_0.85_1.2.png", 70, (40, 40))


@pytest.fixture
def tree(tmp_path):
    grow(tmp_path)
    return tmp_path


@counts_differ
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_set_is_paired_by_the_first_part_of_its_names(tree, split):
    groups = dehazing(tree, split, ("its", "ots", "haze4k"))
    expected = {"train": (8, 2, 1), "test": (2, 1, 1)}[split]
    names = ("its", "ots", "haze4k")
    assert describe(groups) == [(n, c, 1, c) for n, c in zip(names, expected, strict=True)]
    for group in groups:
        for i in range(len(group.source)):
            sample = group.source[i]
            assert sample["clean"].shape == sample["degraded"].shape
            difference = sample["degraded"].astype(int) - sample["clean"]
            assert np.abs(difference - 10).max() <= 1, sample["name"]  # JPEG, and no border left


@counts_differ
def test_the_config_names_the_same_groups(tree):
    cfg = Dehazing(root=str(tree))
    assert describe(training_groups(cfg)) == [("its", 8, 1, 8)]
    assert describe(evaluation_groups(cfg)) == [("its", 2, 1, 2)]


@counts_differ
def test_held_out_scenes_leave_with_all_their_hazy_versions(tree):
    cfg = Dehazing(root=str(tree), held_out=2)
    kept, held = (
        {groups[0].source[i]["name"] for i in range(len(groups[0].source))}
        for groups in (training_groups(cfg), evaluation_groups(cfg))
    )
    assert len(kept) == len(held) == 4
    assert not {n.split("_")[0] for n in kept} & {n.split("_")[0] for n in held}
    with pytest.raises(UserError, match="fewer than all 4 clear images, found 4"):
        dehazing(tree, "train", held_out=4)


@pytest.mark.filterwarnings("ignore:Expected the published 620x460 pixels")
def test_counts_are_compared_with_the_published_ones(tree):
    expected = "published 13,990 pairs from 1,399 clear images of its, found 8 pairs from 4"
    with pytest.warns(UserWarning, match=expected):
        dehazing(tree, "train")
    with pytest.raises(UserError, match=expected):
        dehazing(tree, "train", strict=True)
    with pytest.raises(UserError, match="313,950 pairs from 8,970 clear images or 72,135 pairs"):
        dehazing(tree, "train", ("ots",), strict=True)


def test_sizes_are_compared_with_the_published_ones(tmp_path):
    root = tmp_path / "Haze4K/test"
    for scene, shape in ((1, (400, 400)), (2, (400, 400)), (3, (300, 400))):
        write(root / f"clear/{scene}.png", 60, shape)
        write(root / f"hazy/{scene}_0.8_1.0.png", 70, shape)
    for odd in (1, 0):
        with pytest.warns(UserWarning) as caught:
            dehazing(tmp_path, "test", ("haze4k",))
        told = [str(warning.message) for warning in caught]
        assert "published 1,000 pairs of haze4k" in told[0] and len(told) == 1 + odd
        if odd:
            expected = "400x400 pixels of haze4k, found 1 of 3 hazy images looked at"
            assert expected in told[1] and "such as 3_0.8_1.0 of 400x300" in told[1]
            (root / "hazy/3_0.8_1.0.png").unlink()


def test_indoor_images_of_the_published_size_pass_the_strict_check(tmp_path):
    for scene in range(1400, 1450):
        root = tmp_path / "SOTS/indoor"
        write(root / f"gt/{scene}.png", 60, (480, 640), border=10)
        for k in range(1, 11):
            (root / "hazy").mkdir(exist_ok=True)
            if scene == 1400 and k == 1:
                write(root / "hazy/1400_1.png", 70, (460, 620))
            else:
                (root / f"hazy/{scene}_{k}.png").symlink_to(root / "hazy/1400_1.png")
    (group,) = dehazing(tmp_path, "test", strict=True)
    assert len(group.source) == 500
    assert group.source[499]["clean"].shape == (460, 620, 3)
    write(tmp_path / "SOTS/indoor/hazy/1400_1.png", 70, (480, 640))
    with pytest.raises(UserError, match="published 620x460 pixels of its, found 500 of 500"):
        dehazing(tmp_path, "test", strict=True)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_the_complete_indoor_test_set_passes_the_strict_check(tmp_path):
    for scene in range(1400, 1450):
        touch(tmp_path / f"SOTS/indoor/gt/{scene}.png")
        for k in range(1, 11):
            touch(tmp_path / f"SOTS/indoor/hazy/{scene}_{k}.png")
    (group,) = dehazing(tmp_path, "test", strict=True, check_sizes=0)
    assert len(group.source) == 500


def test_another_test_folder_of_its_is_told_from_sots(tmp_path):
    for scene in range(1, 51):
        touch(tmp_path / f"ITS/test/clear/{scene}.png")
        for k in range(1, 11):
            touch(tmp_path / f"ITS/test/hazy/{scene}_{k}_0.95.png")
    expected = r"SOTS indoor .* found 500 others such as 10_10_0.95: .*another set"
    with pytest.warns(UserWarning, match=expected):
        dehazing(tmp_path, "test", check_sizes=0)
    with pytest.raises(UserError, match=expected):
        dehazing(tmp_path, "test", strict=True, check_sizes=0)


@counts_differ
def test_the_large_edition_of_ots_is_reported(tmp_path):
    for scene in range(2062):
        touch(tmp_path / f"OTS/train/clear/{scene:04}.jpg")
        touch(tmp_path / f"OTS/train/hazy/{scene:04}_1_0.2.jpg")
    with pytest.warns(UserWarning, match="2062 scenes: .*SOTS outdoor"):
        dehazing(tmp_path, "train", ("ots",), check_sizes=0)


@counts_differ
def test_bad_trees_are_refused(tree):
    with pytest.raises(UserError, match="Expected tasks among its, ots, haze4k, found rain"):
        dehazing(tree, "train", ("rain",))
    with pytest.raises(UserError, match=r"folder Haze4K/test/hazy in .*, found none"):
        dehazing(tree / "ITS", "test", ("haze4k",))
    write(tree / "ITS/train/hazy/77_1_0.9.png", 3)
    with pytest.raises(UserError, match=r"1 of 9 images .* without a clean one \(77_1_0.9.png\)"):
        dehazing(tree, "train")
    (tree / "OTS/train/clear/0005.jpg").unlink()
    with pytest.raises(UserError, match=r"found none in .*clear"):
        dehazing(tree, "train", ("ots",))


@counts_differ
@pytest.mark.parametrize("shape", [(66, 62), (64, 80), (46, 63)])
def test_other_sizes_than_the_known_border_are_refused(tree, shape):
    write(tree / "ITS/test/clear/1400.png", 60, shape)
    with pytest.raises(UserError, match=f"62x46 against {shape[1]}x{shape[0]}"):
        dehazing(tree, "test")
    (group,) = dehazing(tree, "test", check_sizes=0)
    with pytest.raises(UserError, match="of equal size"):
        group.source[0]


def test_its_without_a_folder_of_its_training_part(tmp_path):
    for folder, name in (("hazy", "1_1_0.9"), ("hazy", "2_1_0.9"), ("clear", "1"), ("clear", "2")):
        path = tmp_path / "ITS" / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(path)
    with pytest.warns(UserWarning, match="published"):
        (group,) = dehazing(tmp_path, "train")
    assert len(group.source) == 2
    assert group.note == f"its from {tmp_path / 'ITS' / 'hazy'} and clear"
