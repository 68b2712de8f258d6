"""Published layouts on synthetic trees: names, repetitions, counts."""

import numpy as np
import pytest
from PIL import Image

from jaxcore.data.images.kinds import CDD11, AllInOne, describe, evaluation_groups, training_groups
from jaxcore.data.images.layouts import (
    CDD11_TASKS,
    FIVE_TASKS,
    THREE_TASKS,
    adair_evaluation,
    adair_training,
    cdd11,
)
from jaxcore.data.images.pipeline import Stage, training_batches
from jaxcore.errors import UserError
from tests.data.images.whole import whole_images


def write(path, grey, shape=(32, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), grey, np.uint8)).save(path)


def grow(root):
    """A tree with few images; degraded ones are 10 darker than their clean ones."""
    for name in ("117025.jpg", "00001.bmp", "00002.bmp"):
        write(root / "Train/Denoise" / name, 120)
    for k in (1, 2):
        write(root / f"Train/Derain/rainy/rain-{k}.png", 100 * k - 10)
        write(root / f"Train/Derain/gt/norain-{k}.png", 100 * k)
        write(root / f"Train/Dehaze/original/000{k}.jpg", 100 * k)
        for part, (a, beta) in enumerate([("0.8", "0.04"), ("1", "0.2")], start=1):
            path = root / f"Train/Dehaze/synthetic/part{part}/000{k}_{a}_{beta}.jpg"
            write(path, 100 * k - 10)
    for folder, clean, degraded in [("Deblur", "sharp", "blur"), ("Enhance", "gt", "low")]:
        write(root / "Train" / folder / clean / "GOPR0372_07_00-000047.png", 150)
        write(root / "Train" / folder / degraded / "GOPR0372_07_00-000047.png", 140)
    write(root / "test/denoise/bsd68/test001.png", 120)
    write(root / "test/denoise/kodak24/kodim01.png", 120)
    for folder in ("derain/Rain100L", "deblur/gopro", "enhance/lol"):
        write(root / "test" / folder / "input/1.png", 90)
        write(root / "test" / folder / "target/1.png", 100)
    write(root / "test/dehaze/input/0001_0.8_0.2.jpg", 90)
    write(root / "test/dehaze/target/0001.png", 100)


@pytest.fixture
def tree(tmp_path):
    grow(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:Expected the published numbers")
def test_training_groups_are_repeated_as_in_the_papers(tree):
    groups = adair_training(tree, FIVE_TASKS)
    assert describe(groups) == [
        ("denoise_15", 3, 3, 9),
        ("denoise_25", 3, 3, 9),
        ("denoise_50", 3, 3, 9),
        ("derain", 2, 120, 240),
        ("dehaze", 4, 1, 4),
        ("deblur", 1, 5, 5),
        ("enhance", 1, 20, 20),
    ]
    assert [g.degradation for g in groups] == ["noise15", "noise25", "noise50"] + [None] * 4
    assert groups[0].source is groups[2].source


@pytest.mark.filterwarnings("ignore:Expected the published numbers")
def test_partners_are_found_by_the_names_of_each_set(tree):
    for group in adair_training(tree, FIVE_TASKS)[3:]:
        for i in range(len(group.source)):
            sample = group.source[i]
            difference = sample["clean"].astype(int) - sample["degraded"]
            assert abs(difference.mean() - 10) <= 1  # JPEG


@pytest.mark.filterwarnings("ignore:Expected the published numbers")
def test_a_single_noise_level_stands_for_itself(tree):
    # The official code would load no noise at all without denoise_15.
    assert describe(adair_training(tree, ["denoise_25"])) == [("denoise_25", 3, 3, 9)]


def test_other_counts_are_a_warning_with_numbers(tree):
    with pytest.warns(UserWarning, match="found derain 2 instead of 200, deblur 1 instead of 2103"):
        adair_training(tree, ["derain", "deblur"])
    with pytest.raises(UserError, match="found derain 2 instead of 200"):
        adair_training(tree, ["derain"], strict=True)
    with pytest.raises(UserError, match="found dehaze_sots 1 instead of 500"):
        adair_evaluation(tree, ["dehaze"], strict=True)


def test_complete_sets_pass_the_strict_check(tmp_path):
    def touch(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    for k in range(1, 201):
        touch(tmp_path / f"Train/Derain/rainy/rain-{k}.png")
        touch(tmp_path / f"Train/Derain/gt/norain-{k}.png")
    for k in range(485):
        touch(tmp_path / f"Train/Enhance/low/{k}.png")
        touch(tmp_path / f"Train/Enhance/gt/{k}.png")
    for k in range(5144):
        touch(tmp_path / f"Train/Denoise/{k:05}.bmp")
    tasks = ("denoise_15", "denoise_25", "denoise_50", "derain", "enhance")
    groups = adair_training(tmp_path, tasks, strict=True, check_sizes=0)
    entries = [entries for *_, entries in describe(groups)]
    assert entries == [15_432] * 3 + [24_000, 9_700]


@pytest.mark.filterwarnings("ignore:Expected the published numbers")
@pytest.mark.parametrize("spelling", ["117025.jpg", "a117025.jpg"])
@pytest.mark.parametrize("listed", ["117025.jpg", "a117025.jpg", "a117025"])
def test_both_spellings_of_bsd400_are_found(tree, spelling, listed):
    (tree / "Train/Denoise/117025.jpg").rename(tree / "Train/Denoise" / spelling)
    names = tree / "denoise.txt"
    names.write_text(f"{listed}\n00002.bmp\n\n")
    (group,) = adair_training(tree, ["denoise_15"], denoise_list=names)
    found = [group.source[i]["name"] for i in range(len(group.source))]
    assert found == ["00002", spelling.removesuffix(".jpg")]


def test_listed_images_that_are_missing_are_named(tree):
    names = tree / "denoise.txt"
    names.write_text("00001.bmp\n77.bmp\n78.bmp\n")
    with pytest.raises(UserError, match=r"the 3 images .*, found 1; missing are 77, 78"):
        adair_training(tree, ["denoise_15"], denoise_list=names)
    with pytest.raises(UserError, match="Expected a text file of names"):
        adair_training(tree, ["denoise_15"], denoise_list=tree / "nothing.txt")


@pytest.mark.filterwarnings("ignore:Expected the published numbers")
def test_evaluation_groups(tree):
    groups = adair_evaluation(tree, ("denoise_25", "derain", "dehaze", "deblur", "enhance"))
    assert [g.name for g in groups] == [
        "denoise_25_bsd68",
        "denoise_25_kodak24",
        "derain_rain100l",
        "dehaze_sots",
        "deblur_gopro",
        "enhance_lol",
    ]
    assert [g.degradation for g in groups] == ["noise25"] * 2 + [None] * 4
    ((name, degraded, clean),) = whole_images(groups[3])
    assert name == "0001_0.8_0.2"
    assert abs(255 * (clean - degraded).mean() - 10) < 1


@pytest.mark.filterwarnings("ignore:Expected the published numbers")
def test_adair_through_the_config(tree):
    cfg = AllInOne(root=str(tree), tasks=("denoise_50", "dehaze"))
    groups = training_groups(cfg)
    assert [g.name for g in evaluation_groups(cfg)] == [
        "denoise_50_bsd68",
        "denoise_50_kodak24",
        "dehaze_sots",
    ]
    batch = next(training_batches(groups, stages=[Stage(patch=16, batch_size=13)], seed=0))
    assert np.bincount(batch["task"]).tolist() == [9, 4]
    default = AllInOne(root=str(tree))
    assert tuple(g.name for g in training_groups(default)) == THREE_TASKS


@pytest.mark.parametrize("folder", ["CDD-11_{}", "{}"])
def test_cdd11(tmp_path, folder):
    for split in ("train", "test"):
        for i, name in enumerate(("clear", *CDD11_TASKS)):
            for k in (1, 2):
                write(tmp_path / folder.format(split) / name / f"0000{k}.png", 20 * i + k)
    with pytest.warns(UserWarning, match="haze 2 instead of 1183"):
        groups = training_groups(CDD11(root=str(tmp_path)))
    assert tuple(g.name for g in groups) == CDD11_TASKS and len(groups) == 11
    for i, group in enumerate(groups, start=1):
        sample = group.source[1]
        assert (sample["degraded"] == 20 * i + 2).all() and (sample["clean"] == 2).all()
    with pytest.warns(UserWarning, match="low_snow 2 instead of 200"):
        (one,) = cdd11(tmp_path, "test", ["low_snow"])
    assert len(one.source) == 2


def test_missing_parts_and_unknown_tasks(tmp_path):
    for make in (adair_training, adair_evaluation):
        with pytest.raises(UserError, match=r"Expected tasks among denoise_15, .*found desnow"):
            make(tmp_path, ["desnow"])
        for task in FIVE_TASKS:
            with pytest.raises(UserError, match="found no folder"):
                make(tmp_path, [task])
    with pytest.raises(UserError, match="found none"):
        adair_training(tmp_path, [])
    with pytest.raises(UserError, match="found no folder"):
        cdd11(tmp_path, "train")
