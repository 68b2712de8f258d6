"""Folders of a CSV matrix per image and band: written and read back, R's habits, mistakes."""

import os

import numpy as np
import pytest

from jaxcore.data.geo.band_folder import read_band_folder, write_band_folder
from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.errors import UserError

PIXELS = np.random.default_rng(0).normal(size=(2, 3, 4, 2)).astype(np.float32)


def test_images_come_back_to_the_bit(tmp_path):
    write_band_folder(tmp_path / "a", KeyedImages(PIXELS, ["7", "x-1"]))
    assert sorted(os.listdir(tmp_path / "a"))[0] == "Key7_BAND1.csv"
    images = read_band_folder(tmp_path / "a")
    assert images.bands.names == ("band1", "band2")
    np.testing.assert_array_equal(images.images[images.rows_of(["x-1", 7])], PIXELS[[1, 0]])
    with pytest.raises(UserError, match="exists"):
        write_band_folder(tmp_path / "a", KeyedImages(PIXELS, ["7", "x-1"]))
    with pytest.raises(UserError, match=r"found key '\.\./b'"):
        write_band_folder(tmp_path / "b", KeyedImages(PIXELS, ["7", "../b"]))


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,NA\n",
        '"V1","V2"\n1,2\n3,NA\n',
        '"","V1","V2"\n"1",1,2\n"2",3,NA\n',
        '"V1","V2"\n"1",1,2\n"2",3,\n',
    ],
)
def test_what_r_writes_around_a_matrix_is_passed_over(tmp_path, text):
    (tmp_path / "GeoKey12_BAND3.csv").write_text(text)
    images = read_band_folder(tmp_path)
    assert list(images.keys) == ["12"] and images.bands.names == ("band3",)
    np.testing.assert_array_equal(images.images[0][..., 0], [[1, 2], [3, np.nan]])


def test_folders_that_are_others_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="found no folder"):
        read_band_folder(tmp_path / "none")
    with pytest.raises(UserError, match="found none in"):
        read_band_folder(tmp_path)
    for name, text in {"a_BAND1": "1,2", "a_BAND2": "1,2", "b_BAND1": "1,2,3"}.items():
        (tmp_path / f"{name}.csv").write_text(text)
    with pytest.raises(UserError, match="found none of band 2 of key 'b'"):
        read_band_folder(tmp_path)
    (tmp_path / "b_BAND2.csv").write_text("1\n2,3")
    with pytest.raises(UserError, match="Expected matrices of 1 x 2 pixels, found 1 x 3"):
        read_band_folder(tmp_path).images[1]
    (tmp_path / "b_BAND1.csv").write_text("1,2")
    with pytest.raises(UserError, match=r"found 2 lines of .* fields, or text among them"):
        read_band_folder(tmp_path).images[1]
    (tmp_path / "Keya_BAND1.csv").write_text("1,2")
    with pytest.raises(UserError, match="Expected one file for each band"):
        read_band_folder(tmp_path)
