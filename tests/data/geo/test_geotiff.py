"""Crops of rasters: the right pixels at the right place, and rasters that give none."""

import numpy as np
import pytest

from jaxcore.data.geo import geotiff
from jaxcore.data.geo.geotiff import open_crops
from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.errors import UserError

rasterio = pytest.importorskip("rasterio")
from rasterio.transform import Affine  # noqa: E402
from rasterio.warp import transform  # noqa: E402

UTM = "EPSG:32636"  # northern Uganda
WEST, NORTH, PIXEL = 400_000.0, 300_000.0, 30.0


def from_origin(west, north, width, height):
    return Affine(width, 0, west, 0, -height, north)


@pytest.fixture
def raster(tmp_path):
    """A function that writes a raster whose pixels say where they are."""

    def write(name="a.tif", *, pixels=None, crs=UTM, place=None, **profile):
        row, col = np.mgrid[:60, :80]
        pixels = np.stack([row, col]).astype(np.uint8) if pixels is None else pixels
        place = from_origin(WEST, NORTH, PIXEL, PIXEL) if place is None else place
        profile = {"driver": "GTiff", "crs": crs, "transform": place, **profile}
        count, height, width = pixels.shape
        sizes = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
        descriptions = profile.pop("descriptions", None)
        scales = profile.pop("scales", None)
        with rasterio.open(tmp_path / name, "w", **sizes, **profile) as out:
            out.write(pixels)
            if descriptions:
                out.descriptions = descriptions
            if scales:
                out.scales = scales
        return tmp_path / name

    return write


def degrees(row, col, crs=UTM):
    """Longitude and latitude of the middle of a pixel."""
    x, y = WEST + (col + 0.5) * PIXEL, NORTH - (row + 0.5) * PIXEL
    (long,), (lat,) = transform(UTM, "EPSG:4326", [x], [y])[:2]
    return [long, lat]


def test_the_pixel_of_a_place_is_in_the_middle_of_its_crop(raster):
    images = open_crops(raster(), [degrees(20, 30), degrees(41, 50)], ["a", "b"], size=8)
    crops = images.images[images.rows_of(["b", "a"])]
    assert crops.shape == (2, 8, 8, 2) and crops.dtype == np.uint8
    assert crops[:, 4, 4].tolist() == [[41, 50], [20, 30]]
    assert crops[0, 0, 0].tolist() == [37, 46] and images.notices == ()
    assert images.images[0].shape == (8, 8, 2)


def test_crops_at_borders_are_moved_inward_and_told(raster):
    images = open_crops(raster(), [degrees(0, 79), degrees(59, 0), degrees(30, 30)], size=10)
    crops = images.images[np.arange(3)]
    assert crops[0, 0, -1].tolist() == [0, 79] and crops[1, -1, 0].tolist() == [59, 0]
    assert images.notices == ("moved 2 of 3 crops inward at a border",)


def test_bands_have_the_names_scales_and_order_asked_for(raster):
    path = raster(descriptions=("red", "nir"), scales=(0.5, 2.0))
    images = open_crops(path, [degrees(20, 30)], size=2, bands=["nir", "red"])
    assert images.bands.names == ("nir", "red")
    np.testing.assert_allclose(images.bands.physical(images.images[0])[1, 1], [60, 10])
    with pytest.raises(UserError, match="Expected bands of red, nir, found swir"):
        open_crops(path, [degrees(20, 30)], size=2, bands=["swir"])


def test_a_place_is_looked_for_in_every_raster_in_its_own_system(raster):
    here = raster()
    long, lat = degrees(10, 10)
    there = from_origin(long + 1, lat + 1, 0.001, 0.001)
    far = raster("b.tif", crs="EPSG:4326", place=there)
    images = open_crops([here, far], [[long + 1.0305, lat + 0.9795], degrees(10, 10)], size=4)
    assert images.images[np.arange(2)][:, 2, 2].tolist() == [[20, 30], [10, 10]]
    assert images.notices == ("b.tif is in another coordinate system: EPSG:4326",)


def test_north_is_up_also_where_a_raster_begins_in_the_south(raster):
    south = Affine(PIXEL, 0, WEST, 0, PIXEL, NORTH - 60 * PIXEL)
    row, col = np.mgrid[:60, :80]
    path = raster(pixels=np.stack([59 - row, col]).astype(np.uint8), place=south)
    images = open_crops(path, [degrees(20, 30), degrees(0, 0)], size=8)
    crops = images.images[np.arange(2)]
    north, middle = crops[:, 0, 0], crops[0, :, :, 0]
    assert north[1].tolist() == [0, 0] and 20 in middle[3:5, 0]
    assert np.all(np.diff(middle[:, 0].astype(int)) == 1)
    assert images.notices[0] == "turned north up: a.tif"


def test_crops_with_pixels_in_common_are_counted(raster):
    """Networks trained on one such crop have seen part of the other, whatever the folds."""
    apart = [degrees(20, 30), degrees(20, 38), degrees(40, 30)]
    assert open_crops(raster(), apart, size=8).notices == ()
    (told,) = open_crops(raster(), [*apart, degrees(27, 23)], size=8).notices
    assert told.startswith("2 of 4 crops share pixels with that of another place")
    (told,) = open_crops(raster(), [apart[0], apart[0], apart[2]], ["a", "b", "c"], size=8).notices
    assert told.startswith("2 of 3 crops share pixels")


@pytest.mark.parametrize("at", [(-1, 30), (-2, 30), (20, -1), (20, -2), (60, 30), (20, 80)])
def test_places_outside_on_every_side_are_refused(raster, at):
    """Negative rows and columns have been read from the other end, or as no data."""
    with pytest.raises(UserError, match=r"found 1 of 2 outside \(keys far\)"):
        open_crops(raster(), [degrees(20, 30), degrees(*at)], ["near", "far"], size=4)


def test_pixels_without_data_are_refused_or_filled(raster):
    pixels = np.ones((1, 60, 80), np.int16) * 7
    pixels[0, 20, 30] = -9999
    pixels[0, 50:, :20] = -9999
    path = raster(pixels=pixels, nodata=-9999)
    places = [degrees(20, 30), degrees(55, 5)]
    with pytest.raises(UserError, match=r"found 1 of 16 pixels without in that of key '0'; give"):
        open_crops(path, places, size=4).images[0]
    filled = open_crops(path, places[:1], size=4, fill="mean").images[0]
    assert filled.dtype == np.float32 and np.all(filled == 7)
    assert open_crops(path, places, size=4, fill=0).images[np.arange(2)][1].max() == 0
    with pytest.raises(UserError, match="found 16 of 16 pixels without in that of key '1'"):
        open_crops(path, places, size=4, fill="mean").images[np.arange(2)]


def test_nan_counts_as_no_data(raster):
    pixels = np.ones((1, 60, 80), np.float32)
    pixels[0, 20, 30] = np.nan
    images = open_crops(raster(pixels=pixels), [degrees(20, 30)], size=4)
    with pytest.raises(UserError, match="found 1 of 16 pixels without"):
        images.images[0]


def test_zeros_are_data_where_a_raster_does_not_say_otherwise(raster):
    """Masked reads have taken zeros for missing in rasters without a value for it."""
    path = raster(pixels=np.zeros((1, 60, 80), np.uint8))
    assert np.all(open_crops(path, [degrees(20, 30)], size=4).images[0] == 0)
    with pytest.raises(UserError, match="found 16 of 16 pixels without"):
        open_crops(path, [degrees(20, 30)], size=4, nodata=0).images[0]


def test_a_declared_value_and_nan_are_both_missing(raster):
    pixels = np.ones((1, 60, 80), np.float32)
    pixels[0, 20, 30:32] = np.nan, -9999
    path = raster(pixels=pixels, nodata=-9999)
    with pytest.raises(UserError, match="found 2 of 16 pixels without"):
        open_crops(path, [degrees(20, 30)], size=4).images[0]
    assert np.all(open_crops(path, [degrees(20, 30)], size=4, fill=1).images[0] == 1)


def test_pixels_that_a_mask_inside_the_file_hides_are_missing(raster):
    """Lossy compression leaves no value that could say it: such files bring a mask of their own."""
    path = raster(pixels=np.full((3, 60, 80), 7, np.uint8), photometric="RGB")
    seen = np.ones((60, 80), bool)
    seen[20, 30] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
        out.write_mask(seen)
    with pytest.raises(UserError, match="found 1 of 16 pixels without"):
        open_crops(path, [degrees(20, 30)], size=4).images[0]
    assert np.all(open_crops(path, [degrees(20, 30)], size=4, fill="mean").images[0] == 7)


def test_pixels_that_are_transparent_are_missing(raster):
    pixels = np.full((4, 60, 80), 7, np.uint8)
    pixels[3] = 255
    pixels[3, 20, 30] = 0
    path = raster(pixels=pixels, photometric="RGB", alpha="yes")
    bands = ["band1", "band2", "band3"]
    with pytest.raises(UserError, match="found 1 of 16 pixels without"):
        open_crops(path, [degrees(20, 30)], size=4, bands=bands).images[0]


def test_a_place_on_the_line_between_pixels_belongs_to_one_of_them(raster):
    """The first of the raster, or none where it lies on its far end."""
    x, y = [WEST, WEST + PIXEL, WEST + 80 * PIXEL], [NORTH - PIXEL / 2] * 3
    long, lat = transform(UTM, "EPSG:4326", x, y)[:2]
    near = np.column_stack([long, lat]) + [1e-9, 0]  # 0.1 mm inside of what rounding may move
    images = open_crops(raster(), near[:2], size=1)
    assert images.images[np.arange(2)][:, 0, 0].tolist() == [[0, 0], [0, 1]]
    with pytest.raises(UserError, match="found 1 of 1 outside"):
        open_crops(raster(name="b.tif"), near[2:], size=1)


def test_oblong_pixels_are_found_and_told(raster):
    path = raster(place=from_origin(WEST, NORTH, PIXEL, 2 * PIXEL))
    images = open_crops(path, [degrees(40.5, 30)], size=4)
    assert images.images[0][2, 2].tolist() == [20, 30]
    assert images.notices == ("pixels of a.tif are oblong: 30 wide, 60 high",)


def test_rasters_that_give_no_crops_are_one_sentence(raster, tmp_path):
    at = [degrees(20, 30)]
    cos, sin = PIXEL * np.cos(np.pi / 6), PIXEL * np.sin(np.pi / 6)
    turned = Affine(cos, sin, WEST, sin, -cos, NORTH)
    text = tmp_path / "text.tif"
    text.write_bytes(b"II*\x00 and no more")
    cut = raster(
        "cut.tif", pixels=np.random.default_rng(0).integers(0, 255, (1, 900, 900), "uint8")
    )
    cut.write_bytes(cut.read_bytes()[:10_000])
    three = raster("three.tif", pixels=np.zeros((3, 60, 80), np.uint8))
    cases = [
        (raster("t.tif", place=turned), at, "rotated by -?30 degrees: warp it first"),
        (raster("n.tif", crs=None), at, "its coordinate system, found none"),
        (raster("s.tif"), at, "at least 256 x 256 pixels, found 60 x 80"),
        (text, at, "Expected a whole GeoTIFF file .*text.tif, found"),
        (cut, at, "Expected a whole GeoTIFF file .*cut.tif, found"),
        (tmp_path / "none.tif", at, "found no file"),
        ([raster("u.tif"), three], at, "same bands, found 2 .* and 3 "),
        (raster("v.tif"), [at[0][::-1]], r"found 1 of 1 outside \(keys 0\): longitude comes first"),
        (raster("w.tif"), [[np.nan, 0]], "Expected finite coordinates"),
        (raster("x.tif"), [], "Expected a row of longitude and latitude"),
    ]
    for paths, coords, sentence in cases:
        size = 256 if "s.tif" in str(paths) else 4
        with pytest.raises(UserError, match=sentence):
            open_crops(paths, coords, size=size).images[np.arange(len(coords))]


def test_a_raster_leads_to_no_other_file(raster, tmp_path):
    """A VRT names other files and addresses; by any name it is no GeoTIFF."""
    raster("a.tif")
    with rasterio.open(tmp_path / "a.tif") as data:
        described = f"""<VRTDataset rasterXSize="80" rasterYSize="60"><SRS>{data.crs}</SRS>
        <VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>a.tif
        </SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""
    (tmp_path / "b.tif").write_text(described)
    with pytest.raises(UserError, match="Expected a whole GeoTIFF file"):
        open_crops(tmp_path / "b.tif", [degrees(20, 30)], size=4)


def test_dull_crops_are_named():
    pixels = np.zeros((2, 4, 4, 2))
    pixels[1] = np.arange(32).reshape(4, 4, 2)
    assert geotiff.dull(KeyedImages(pixels, ["flat", "rich"])) == ["flat"]
