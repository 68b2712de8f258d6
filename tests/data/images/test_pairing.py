"""Pairs of degraded and clean images as published data name them."""

import itertools
import warnings

import numpy as np
import pytest
from PIL import Image

from jaxcore.data.images.kinds import (
    CleanImages,
    Pairs,
    evaluation_groups,
    training_groups,
)
from jaxcore.data.images.pack import pack
from jaxcore.data.images.pairing import check_rule, guess, partners
from jaxcore.data.images.pipeline import Stage, evaluation_samples, training_batches
from jaxcore.data.images.tfds import tfds_source
from jaxcore.errors import UserError


def write(path, seed=0, height=20, width=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


NAMED = {  # as they are published, and the rule that is found
    "O-HAZE": (("01_hazy", "02_hazy"), ("01_GT", "02_GT"), "{}_hazy => {}_GT"),
    "Raindrop": (("0_rain", "10_rain"), ("0_clean", "10_clean"), "{}_rain => {}_clean"),
    "LOL-v2": (("low00001", "low00002"), ("normal00001", "normal00002"), "low{} => normal{}"),
    "Rain100": (("norain-1x2", "norain-2x2"), ("norain-1", "norain-2"), "{}x2 => {}"),
    "Rain100L": (("rain-1", "rain-2"), ("norain-1", "norain-2"), "{} => no{}"),
    "SOTS": (("1400_1", "1400_10", "1401_1"), ("1400", "1401"), "beginning"),
    "OTS": (("p1/12_1_0.8", "p2/13_1_1"), ("12", "13"), "beginning"),
    "equal": (("a", "b"), ("a", "b"), "name"),
    "one": (("01_hazy",), ("01_GT",), "{}_hazy => {}_GT"),
}


@pytest.mark.parametrize("name", NAMED)
def test_the_names_of_published_data_are_paired(name):
    degraded, clean, rule = NAMED[name]
    found, pairs = guess(degraded, clean)
    assert found == rule
    assert set(pairs) == set(degraded) and set(pairs.values()) == set(clean)
    assert partners(rule, degraded, clean) == pairs


def test_rules_that_are_given():
    assert partners(r"re: (\d+)_.* => gt\1", ["7_x"], ["gt7"]) == {"7_x": "gt7"}
    assert partners("s*/{}_a => t/{}", ["s1/7_a"], ["t/7"]) == {"s1/7_a": "t/7"}
    assert partners("low{} => high{}", ["s/low1"], ["s/high1"]) == {"s/low1": "s/high1"}
    for wrong in ("size", "{} => *{}", "{} => x", "a => b"):
        with pytest.raises(UserError, match="Expected as pair_by one of auto"):
            check_rule(wrong)
    with pytest.raises(UserError, match="Expected a regular expression in"):
        check_rule("re: (a => b")


def test_equal_names_are_no_guess():
    names = ("1", "1_2", "x_1", "x_1_2")
    assert guess(names, names)[0] == "name"
    assert guess(("11_a", "1_a"), ("1", "11"))[1] == {"11_a": "11", "1_a": "1"}


LAYOUTS = {
    "scenes below": ("blur/s1/1.png", "blur/s2/1.png", "sharp/s1/1.png", "sharp/s2/1.png"),
    "scenes above": ("s1/blur/1.png", "s2/blur/1.png", "s1/sharp/1.png", "s2/sharp/1.png"),
    "two above": ("x/s1/blur/1.png", "x/s1/sharp/1.png", "x/s2/blur/1.png", "x/s2/sharp/1.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scenes_lie_in_folders_both_ways_round(tmp_path, layout):
    for i, name in enumerate(LAYOUTS[layout]):
        write(tmp_path / "data" / name, i)
    for folders in ({"degraded_folder": "blur", "clean_folder": "sharp"}, {}):  # named, and found
        (group,) = training_groups(Pairs(root=str(tmp_path / "data"), **folders))
        names = [group.source[i]["name"] for i in range(2)]
        assert [name.split("/")[-2:] for name in names] == [["s1", "1"], ["s2", "1"]]
    assert pack(tmp_path / "data", tmp_path / "packed") == {"train": 2}
    packed = tfds_source("packed", tmp_path, "train")
    for i in range(2):
        np.testing.assert_array_equal(packed[i]["degraded"], group.source[i]["degraded"])


@pytest.mark.parametrize(
    "folders",
    [
        ("hazy", "GT"),  # Dense-Haze
        ("Low", "Normal"),  # LOL-v2
        ("data", "gt"),  # Raindrop
        ("train/train_blur", "train/train_sharp"),  # REDS
        ("noisy", "clean"),
        ("s1/Input", "s1/Target"),
    ],
)
def test_published_names_of_folders_are_known(tmp_path, folders):
    for name in folders:
        write(tmp_path / name / "1.png")
    (group,) = training_groups(Pairs(root=str(tmp_path)))
    assert group.source[0]["name"].rpartition("/")[2] == "1"


def test_the_usual_folders_come_first_and_others_must_be_clear(tmp_path):
    for name in ("hazy", "clear", "gt"):
        write(tmp_path / name / "1.png")
    with pytest.raises(UserError, match="found hazy/clear and hazy/gt: name them"):
        training_groups(Pairs(root=str(tmp_path)))
    for name in ("degraded", "clean"):
        write(tmp_path / name / "7.png")
    (group,) = training_groups(Pairs(root=str(tmp_path)))
    assert group.source[0]["name"] == "7"


def test_a_guessed_rule_is_said(tmp_path):
    for i in range(3):
        write(tmp_path / "hazy" / f"{i}_hazy.png")
        write(tmp_path / "clear" / f"{i}_GT.png")
    (group,) = training_groups(Pairs(root=str(tmp_path)))
    assert group.note == "paired by '{}_hazy => {}_GT', such as 0_hazy.png and 0_GT.png"
    said = []
    assert pack(tmp_path, tmp_path / "packed", say=said.append) == {"train": 3}
    assert said == [group.note]


def test_wrong_pairs_are_refused(tmp_path):
    for i in range(9):
        write(tmp_path / "degraded" / f"h{i}x.png")
    for i in range(3):
        write(tmp_path / "clean" / f"c{i}y{i}.png", height=30)
    root = str(tmp_path)
    with pytest.raises(UserError, match=r"as many degraded as clean .* found 9 and 3"):
        training_groups(Pairs(root=root, pair_by="index"))
    with pytest.raises(UserError, match=r"names such as 'h0x' and 'c0y0', which no rule pairs"):
        training_groups(Pairs(root=root))
    for i in range(3, 9):
        write(tmp_path / "clean" / f"c{i}y{i}.png", height=30)
    with pytest.raises(UserError, match="pairs of equal size, found 9 of 9"):
        training_groups(Pairs(root=root, pair_by="index"))
    (group,) = training_groups(Pairs(root=root, pair_by="unpaired"))
    assert len(group.source) == 9
    write(tmp_path / "low" / "1.png")
    with pytest.raises(UserError, match="found no folder"):
        training_groups(Pairs(root=root, clean_folder="gt"))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def broken(tmp_path):
    """Eight pairs, of which the fourth is cut to half."""
    for i in range(8):
        write(tmp_path / "degraded" / f"{i}.jpg", i, 40, 40)
        write(tmp_path / "clean" / f"{i}.jpg", i, 40, 40)
    cut(tmp_path / "degraded" / "3.jpg")
    return tmp_path


def test_a_file_that_was_cut_off_is_named_before_the_first_step(broken):
    with pytest.raises(UserError, match=r"Expected a whole picture, found .*3\.jpg"):
        training_groups(Pairs(root=str(broken)))
    cut(broken / "clean" / "5.jpg")
    with pytest.raises(UserError, match=r"found 2 of 8 looked at that cannot .*skip-broken"):
        training_groups(Pairs(root=str(broken)))
    with pytest.raises(UserError, match=r"Expected a whole picture, found .*3\.jpg"):
        training_groups(CleanImages(root=str(broken / "degraded"), tasks=("haze",)))


def test_broken_files_are_left_out_on_demand(broken, tmp_path):
    with pytest.warns(UserWarning, match="1 of 8 images are broken and left out"):
        (group,) = training_groups(Pairs(root=str(broken), skip_broken=True))
    assert len(group.source) == 7
    with pytest.warns(UserWarning, match="1 of 8 images are broken and left out"):
        assert pack(broken, tmp_path / "packed", skip_broken=True) == {"train": 7}
    with pytest.warns(UserWarning, match="1 of 8 images"):
        (group,) = training_groups(
            CleanImages(root=str(broken / "degraded"), tasks=("haze",), skip_broken=True)
        )
    assert len(group.source) == 7


def test_broken_files_that_turn_up_during_a_training_are_left_out_and_counted(broken):
    data = Pairs(root=str(broken), skip_broken=True, check_sizes=0)
    stages = [Stage(steps=8, patch=16, batch_size=2)]

    def run():
        batches = training_batches(training_groups(data), stages=stages, seed=0, num_threads=0)
        return [batch["clean"] for batch in batches]

    with pytest.warns(UserWarning) as caught:
        first = run()
    assert [str(w.message).split(":")[0] for w in caught] == [
        "Image 1 of 8 that is broken and left out"
    ]
    with warnings.catch_warnings(action="ignore"):
        again = run()  # what is drawn depends on the files alone
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_broken_files_are_not_evaluated(broken):
    data = Pairs(root=str(broken), skip_broken=True, check_sizes=0, eval_root=str(broken))
    with pytest.warns(UserWarning, match="1 of 8 images are broken and left out"):
        (group,) = evaluation_groups(data)
    names = [sample["name"] for sample in itertools.islice(evaluation_samples(group), 9)]
    assert names == ["0", "1", "2", "4", "5", "6", "7"]
