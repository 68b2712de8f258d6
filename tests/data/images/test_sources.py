"""Folders of images, good and bad, and the groups of a config."""

import numpy as np
import pytest
from PIL import Image

from jaxcore.data.images.kinds import (
    CleanImages,
    ImageData,
    Pairs,
    Photos,
    describe,
    evaluation_groups,
    training_groups,
)
from jaxcore.data.images.pairs import PairedFolder
from jaxcore.data.images.pipeline import Stage, training_batches
from jaxcore.data.images.sources import (
    ArraySource,
    CleanFolder,
    Group,
    cached,
    hold_out,
    list_images,
)
from jaxcore.errors import UserError
from tests.data.images.whole import whole_images


def image(seed, height=20, width=24):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def pairs(tmp_path):
    """Three pairs; endings differ in case and kind."""
    for i, name in enumerate(["b.PNG", "a.png", "c.bmp"]):
        write(tmp_path / "degraded" / name, image(i))
        write(tmp_path / "clean" / f"{name[0]}.png", image(10 + i))
    return tmp_path


def test_pairs_are_read_in_order(pairs):
    source = PairedFolder(pairs / "degraded", pairs / "clean")
    assert [source[i]["name"] for i in range(len(source))] == ["a", "b", "c"]
    np.testing.assert_array_equal(source[1]["degraded"], image(0))
    np.testing.assert_array_equal(source[1]["clean"], image(10))


def test_hidden_and_foreign_files_are_passed_over(pairs):
    (pairs / "degraded" / ".a.png").write_bytes(b"")
    (pairs / "degraded" / "Thumbs.db").write_bytes(b"")
    write(pairs / "degraded" / ".cache" / "z.png", image(0))
    write(pairs / "degraded" / "below" / "z.png", image(0))
    names = [path.name for path in list_images(pairs / "degraded")]
    assert names == ["a.png", "b.PNG", "c.bmp"]
    deep = [path.name for path in list_images(pairs / "degraded", recursive=True)]
    assert deep == ["a.png", "b.PNG", "z.png", "c.bmp"]


def test_several_degraded_may_share_a_clean_one(tmp_path):
    for name in ("1_0.8_0.04", "1_1_0.2", "2_1_0.2"):
        write(tmp_path / "hazy/part1" / f"{name}.png", image(0))
    for name in ("1", "2", "3"):
        write(tmp_path / "clear" / f"{name}.png", image(int(name)))

    def make(**options):
        return PairedFolder(
            tmp_path / "hazy",
            tmp_path / "clear",
            lambda name: name.split("_")[0],
            recursive=True,
            **options,
        )

    source = make(spare_clean=True)
    assert [name for name, _, _ in source.files] == [
        "part1/1_0.8_0.04",
        "part1/1_1_0.2",
        "part1/2_1_0.2",
    ]
    np.testing.assert_array_equal(source[1]["clean"], image(1))
    with pytest.raises(UserError, match=r"1 of 3 in .*clear without a degraded one \(3.png\)"):
        make()


def test_files_without_partner_are_counted_and_named(pairs):
    for i in range(5):
        write(pairs / "degraded" / f"x{i}.png", image(0))
    (pairs / "degraded" / "a.png").unlink()
    with pytest.raises(UserError) as caught:
        PairedFolder(pairs / "degraded", pairs / "clean")
    message = str(caught.value)
    assert "found 5 of 7 images" in message and "(x0.png, x1.png, x2.png, ...)" in message
    assert "1 of 3 in" in message and "(a.png)" in message


def test_two_files_of_one_name_are_refused(pairs):
    write(pairs / "clean" / "a.jpg", image(0))
    with pytest.raises(UserError, match=r"one image of each name, found a\.\w+ and a\.\w+"):
        PairedFolder(pairs / "degraded", pairs / "clean")


def test_unequal_sizes_are_found_at_the_start(pairs):
    write(pairs / "degraded" / "a.png", image(0, 20, 23))
    with pytest.raises(UserError, match=r"1 of 3 .* differ \(a.png 23x20 against 24x20"):
        PairedFolder(pairs / "degraded", pairs / "clean")


def test_unequal_sizes_are_found_when_read(pairs):
    write(pairs / "degraded" / "c.bmp", image(0, 20, 23))
    calls = []
    source = PairedFolder(
        pairs / "degraded",
        pairs / "clean",
        check_sizes=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 2), (2, 2)]
    with pytest.raises(UserError, match=r"c.bmp 23x20 against 24x20"):
        source[2]


def test_images_turned_by_exif_are_no_mismatch(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "b.png", "c.tif"):
        write(tmp_path / "degraded" / name, image(0, 24, 20), exif=exif)
        write(tmp_path / "clean" / f"{name[0]}.png", image(1, 20, 24))
    source = PairedFolder(tmp_path / "degraded", tmp_path / "clean")
    assert [source[i]["degraded"].shape for i in range(3)] == [(20, 24, 3)] * 3


def test_damaged_images_are_named(pairs):
    path = pairs / "degraded" / "a.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"Expected a whole picture, found .*a\.png"):
        PairedFolder(pairs / "degraded", pairs / "clean")  # the header is whole
    source = PairedFolder(pairs / "degraded", pairs / "clean", check_sizes=0)
    with pytest.raises(UserError, match=r"Expected a whole picture, found .*a\.png"):
        source[0]
    path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"readable image, found .*a\.png"):
        PairedFolder(pairs / "degraded", pairs / "clean")


def test_a_damaged_image_ends_the_training_in_one_sentence(pairs):
    path = pairs / "degraded" / "a.png"
    path.write_bytes(path.read_bytes()[:-60])
    groups = [Group("p", PairedFolder(pairs / "degraded", pairs / "clean", check_sizes=0))]
    with pytest.raises(UserError, match=r"Expected a whole picture, found .*a\.png"):
        for _ in training_batches(groups, stages=[Stage(steps=3, patch=16, batch_size=3)], seed=0):
            pass


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match=r"found no folder .*nowhere"):
        CleanFolder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"Expected images .* found none in"):
        CleanFolder(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="found no folder"):
        CleanFolder(tmp_path / "file")


def test_arrays_are_checked():
    with pytest.raises(UserError, match="found float64"):
        ArraySource({"a": np.zeros((4, 4, 3))})
    with pytest.raises(UserError, match=r"found uint8 \(4, 4\)"):
        ArraySource({"a": np.zeros((4, 4), np.uint8)})
    with pytest.raises(UserError, match="equal shape and type"):
        ArraySource({"a": (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8))})
    with pytest.raises(UserError, match="at least one image"):
        ArraySource({})


class Counting:
    def __init__(self, count):
        self.reads = [0] * count

    def __len__(self):
        return len(self.reads)

    def __getitem__(self, index):
        self.reads[index] += 1
        return {"clean": image(index, 16, 16), "name": str(index)}


def test_cache_reads_once_within_its_budget():
    source = Counting(4)
    groups = [Group(name, source, degradation=name) for name in ("noise15", "haze")]
    kept = cached(groups, 3 * 16 * 16 * 3)  # three of four images
    for _ in range(5):
        for group in kept:
            for i in range(4):
                np.testing.assert_array_equal(group.source[i]["clean"], image(i, 16, 16))
    assert source.reads == [1, 1, 1, 10]
    with pytest.raises(ValueError, match="read-only"):
        kept[0].source[0]["clean"][0] = 0
    assert cached(groups, 0) == tuple(groups)


def test_hold_out_splits_without_overlap():
    source = Counting(7)
    kept, held = hold_out(source, 3)
    names = [[part[i]["name"] for i in range(len(part))] for part in (kept, held)]
    assert names == [["1", "3", "5", "6"], ["0", "2", "4"]]
    with pytest.raises(UserError, match="fewer than all 7 images, found 7"):
        hold_out(source, 7)


def test_config_of_photographs():
    cfg = Photos()
    train, held_out = training_groups(cfg), evaluation_groups(cfg)
    assert describe(train) == [(n, 4, 1, 4) for n in ("noise25", "noise50", "haze")]
    assert describe(held_out) == [(n, 2, 1, 2) for n in ("noise25", "noise50", "haze")]
    names = [{g.source[i]["name"] for i in range(len(g.source))} for g in (train[0], held_out[0])]
    assert names[0].isdisjoint(names[1])
    (rain,) = training_groups(Photos(tasks=("rain+noise50",)))
    assert rain.degradation == "rain+noise50"
    shapes = [degraded.shape for _, degraded, _ in whole_images(held_out[2])]
    assert shapes == [(288, 448, 3), (416, 640, 3)]


def test_config_of_pairs(pairs):
    cfg = Pairs(root=str(pairs), held_out=1, tasks=("derain",))
    assert describe(training_groups(cfg)) == [("derain", 2, 1, 2)]
    ((name, degraded, clean),) = whole_images(evaluation_groups(cfg)[0], crop_multiple=1)
    assert name == "a"
    np.testing.assert_array_equal(degraded, image(1) / np.float32(255))
    np.testing.assert_array_equal(clean, image(11) / np.float32(255))
    other = Pairs(root=str(pairs), eval_root=str(pairs))
    assert describe(training_groups(other)) == describe(evaluation_groups(other))
    assert evaluation_groups(Pairs(root=str(pairs))) == ()


def test_config_of_clean_images(pairs):
    cfg = CleanImages(root=str(pairs / "clean"), tasks=("blur", "haze"), cache_gb=1)
    groups = training_groups(cfg)
    assert describe(groups) == [("blur", 3, 1, 3), ("haze", 3, 1, 3)]
    assert groups[0].source is groups[1].source
    batch = next(training_batches(groups, stages=[Stage(patch=16, batch_size=6)], seed=0))
    assert sorted(batch["task"]) == [0, 0, 0, 1, 1, 1]


BAD = [
    ({"kind": "movies"}, "Expected data of kind photos"),
    ({"kind": "clean", "root": "x"}, "Expected tasks"),
    ({"kind": "pairs", "root": "x", "tasks": ("a", "b")}, "one task for one set"),
    ({"kind": "tfds", "root": "x"}, "Expected tfds_name"),
    ({"tasks": ("haze", "haze")}, "Expected different tasks"),
    ({"kind": "dehazing", "held_out": -1}, "held_out must be a whole number of at least 0"),
    ({"root": "x"}, "root is not a field of Photos"),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[message for _, message in BAD])
def test_impossible_configs_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        ImageData.from_dict(fields)


def test_config_from_json(tmp_path):
    with pytest.raises(UserError, match="size is not a field of Photos; colour is not a field"):
        ImageData.from_dict({"kind": "photos", "size": 3, "colour": 1})
    with pytest.raises(UserError, match="Expected degradations among"):
        training_groups(Photos(tasks=("snow",)))
    with pytest.raises(UserError, match="root folder for data of kind pairs, found none"):
        training_groups(Pairs())
    missing = Pairs(root=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="found no folder"):
        training_groups(missing)
