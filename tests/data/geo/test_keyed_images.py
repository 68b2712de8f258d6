"""Image sets: keys, sources that are read row by row, files of NumPy; bands and standardisation."""

import numpy as np
import pytest

from jaxcore.data.geo.bands import (
    BandSpec,
    average_pool,
    moments,
    moments_of,
    standardise_table,
)
from jaxcore.data.geo.keyed import Generated, KeyedImages, from_function, read_images
from jaxcore.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)


def test_keys_match_whatever_type_a_table_made_of_them():
    images = KeyedImages(PIXELS, np.array([3, 1, 4, 5], np.int32))
    for keys in ([1, 5, 1], ["1", "5", "1"], np.array([1.0, 5.0, 1.0]), [np.int8(1), "5", 1.0]):
        assert images.rows_of(keys).tolist() == [1, 3, 1]


def test_images_without_units_are_left_out_and_told():
    images, rows = KeyedImages(PIXELS, list("abcd"), coords=np.eye(4)[:, :2]).of_units(list("dbb"))
    assert list(images.keys) == ["b", "d"] and rows.tolist() == [1, 0, 0]
    assert images.notices == ("left out 2 of 4 images that no unit has",)
    np.testing.assert_array_equal(images.images[np.array([1])], PIXELS[[3]])
    np.testing.assert_array_equal(next(images.batches(8)), PIXELS[[1, 3]])
    assert images.coords.tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: KeyedImages(PIXELS, list("abc")), "Expected a key for each of 4 images, found 3"),
        (lambda: KeyedImages(PIXELS, list("abca")), "Expected every key once, found a more than"),
        (lambda: KeyedImages(PIXELS, ["a", "b", None, "c"]), "found 1 missing"),
        (lambda: KeyedImages(PIXELS[0], list("abcdef")), "Expected images of shape"),
        (lambda: KeyedImages(PIXELS.astype(str), list("abcd")), "Expected numbers as pixels"),
        (
            lambda: KeyedImages(PIXELS, list("abcd"), BandSpec(("red",))),
            r"Expected images of 1 bands \(red\), found 3",
        ),
        (
            lambda: KeyedImages(PIXELS, list("abcd")).rows_of(["a", "x", "y", "x"]),
            "found none for 3 of 4 units: keys x, y",
        ),
    ],
)
def test_keys_and_bands_that_do_not_fit_are_one_sentence(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


def test_a_million_images_are_made_as_they_are_asked_for():
    def make(rows):
        return np.broadcast_to(
            (rows % 251).astype(np.uint8)[:, None, None, None], (len(rows), 64, 64, 3)
        )

    images = KeyedImages(Generated(make, (10**6, 64, 64, 3)), np.arange(10**6))
    found = moments_of(images.images, batch_size=4)
    assert found.sd[0] == pytest.approx(72.5, rel=0.1)
    assert images.images[images.rows_of([999_999])][0, 0, 0, 0] == 999_999 % 251


def test_a_loader_gets_keys_and_must_keep_its_word():
    asked = []

    def load(keys):
        asked.append(keys)
        return np.zeros((len(keys), 2, 2, 1))

    images = from_function(["b", "a"], load, (2, 2, 1))
    assert images.images[images.rows_of(["a"])].dtype == np.float32 and asked == [["a"]]
    with pytest.raises(UserError, match=r"Expected images of shape \(1, 3, 3, 1\), found"):
        from_function(["b"], load, (3, 3, 1)).images[np.array([0])]


@pytest.mark.parametrize("ending", ["npz", "npy"])
def test_files_of_numpy(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "npz":
        np.savez(path, images=PIXELS, keys=np.array(list("abcd")))
    else:
        np.save(path, PIXELS)
    images = read_images(path, None if ending == "npz" else list("abcd"))
    np.testing.assert_array_equal(images.images[images.rows_of(["c"])], PIXELS[[2]])


def test_files_that_hold_no_images_are_one_sentence(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=PIXELS)
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "c.tif").write_bytes(b"")
    for name, sentence in {
        "a.npz": "no array images among pictures",
        "o.npy": "Expected images in .*o.npy, found",
        "b.npz": "Expected images in .*b.npz, found",
        "c.tif": "Expected a file ending in .npy or .npz",
        "d.npy": "found no file",
    }.items():
        with pytest.raises(UserError, match=sentence):
            read_images(tmp_path / name)


# --- bands --------------------------------------------------------------------------------------


def test_stored_numbers_become_physical_ones_band_by_band():
    spec = BandSpec(("a", "b", "c"), scale=(1, 2, 3), offset=-1)
    stored = np.ones((1, 1, 3), np.uint16)
    assert spec.physical(stored).tolist() == [[[0, 1, 2]]]
    part = spec.select(("c", "a"))
    assert part.physical(stored[..., list(spec.places(("c", "a")))]).tolist() == [[[2, 0]]]
    with pytest.raises(UserError, match="Expected bands of a, b, c, found nir"):
        spec.select(("nir",))
    with pytest.raises(UserError, match="Expected one finite scale, or one for each of 2 bands"):
        BandSpec(("a", "b"), scale=(1, 2, 3))


def test_moments_do_not_change_where_images_are_flipped():
    batches = np.split(PIXELS, 2)
    flipped = [batch[:, ::-1, ::-1] for batch in batches]
    np.testing.assert_allclose(moments(flipped).sd, moments(batches).sd, rtol=1e-12)


def test_standardised_images_have_mean_0_and_about_variance_1():
    found = moments([PIXELS])
    z = found.standardise(PIXELS)
    np.testing.assert_allclose(z.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=(0, 1, 2), ddof=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("batches", "sentence"),
    [
        ([], "found none"),
        ([np.ones((2, 2, 1))], "found band 0 constant"),
        ([np.array([[1.0], [np.nan]])], "Expected images without missing pixels"),
        ([PIXELS, PIXELS[..., :2]], "Expected images of 3 bands, found 2"),
    ],
)
def test_images_without_moments_are_refused(batches, sentence):
    with pytest.raises(UserError, match=sentence):
        moments(batches)


def test_tables_are_standardised_or_refused():
    X = np.array([[0.0, 1.0], [1.0, 5.0], [50.0, 3.0]] * 30)
    z = standardise_table(X)
    assert np.abs(z.mean(axis=0)).max() < 0.05 and np.abs(z).max() <= 4
    for bad, sentence in ((np.ones((3, 1)), "column 0 constant"), (X * np.nan, "missing values")):
        with pytest.raises(UserError, match=sentence):
            standardise_table(bad)


def test_pooling_keeps_the_mean_of_each_square():
    pooled = average_pool(PIXELS, 2)
    assert pooled.shape == (4, 3, 2, 3)
    np.testing.assert_allclose(pooled[1, 2, 1], PIXELS[1, 4:6, 2:4].mean(axis=(0, 1)))
    with pytest.raises(UserError, match="found 6"):
        average_pool(PIXELS, 6)
