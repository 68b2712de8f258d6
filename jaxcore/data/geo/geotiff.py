"""Square crops of GeoTIFF rasters around places, through rasterio (extra ``geo``).

Places are longitude and latitude (EPSG:4326); every raster is in its own coordinate system. A crop
has the pixel of its place in the middle, and is moved inward where it would cross a border. North
is up. Only GeoTIFF is opened, without files beside it, so that no raster leads anywhere else.
"""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxcore.data.columns import array_of
from jaxcore.data.geo.bands import BandSpec
from jaxcore.data.geo.keyed import KeyedImages, texts
from jaxcore.errors import UserError, readable

MAX_BYTES = 2**30
"""Of a block that a raster is stored in, and of one crop."""

FEWEST_VALUES = 5
"""A crop with fewer different values is reported: clouds, borders, a broken scene."""

_FILLS = "None, 'mean' or a number"


@dataclasses.dataclass(frozen=True)
class _Raster:
    """What is known of a raster without reading pixels."""

    path: Path
    crs: Any
    transform: Any
    height: int
    width: int
    count: int
    dtype: np.dtype
    bands: BandSpec


def open_crops(
    paths: str | Path | Sequence[str | Path],
    coords: Any,
    keys: Any = None,
    *,
    size: int = 256,
    bands: Sequence[str] | None = None,
    fill: float | str | None = None,
    nodata: float | None = None,
) -> KeyedImages:
    """Crops around places, read from the rasters when they are asked for.

    Args:
      paths: one raster or several; the first that holds a place gives its crop.
      coords: longitude and latitude in degrees, a row for each place.
      keys: of the places; None takes 0, 1, 2, ...
      size: height and width of a crop, in pixels.
      bands: names of the bands to read; None reads all. They are the descriptions in the file, or
        band1, band2, ...
      fill: what stands for pixels without data: a number, or "mean" (of the band in the crop). None
        refuses such crops.
      nodata: value of pixels without data, for rasters that do not say it or say a wrong one; what
        they say holds besides, and so does NaN.

    Returns:
      Images with ``bands`` (scale and offset of the file), ``coords``, and notices on crops that
      were moved or share pixels, and on rasters of another resolution, with south up or with oblong
      pixels.

    Raises:
      UserError: rasterio is missing; a file that is no GeoTIFF, without coordinate system, rotated,
        smaller than a crop, or with other bands than the first; places outside; and, when crops are
        read, pixels without data or a damaged file.
    """
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    if not listed:
        raise UserError("Expected at least one raster, found none.")
    if size < 1:
        raise UserError(f"Expected crops of one pixel or more, found {size}.")
    if not (fill is None or fill == "mean" or isinstance(fill, int | float)):
        raise UserError(f"Expected fill of {_FILLS}, found {fill!r}.")
    rasters = [_described(Path(path), size) for path in listed]
    notices = _alike(rasters)
    place = array_of(coords, "the coordinates")
    if place.ndim != 2 or place.shape[1] != 2 or place.dtype.kind not in "iuf" or not len(place):
        raise UserError(
            f"Expected a row of longitude and latitude for each place, found an array of shape "
            f"{place.shape} and type {place.dtype}."
        )
    names = texts(np.arange(len(place)) if keys is None else keys, "image keys")
    if len(names) != len(place):
        raise UserError(f"Expected a key for each of {len(place)} places, found {len(names)}.")
    spec = rasters[0].bands
    chosen = tuple(range(rasters[0].count)) if bands is None else spec.places(bands)
    raster, corner, moved = _corners(rasters, place.astype(np.float64), names, size)
    if moved:
        notices.append(f"moved {moved} of {len(place)} crops inward at a border")
    if shared := _sharing(raster, corner, size):
        notices.append(
            f"{shared} of {len(place)} crops share pixels with that of another place: what is "
            "trained on one has seen part of the other, unless folds are of blocks (block_km)"
        )
    fitting = (raster, corner, names, chosen, fill, nodata)
    source = Crops(rasters, *fitting, (len(place), size, size, len(chosen)))
    return KeyedImages(
        source,
        names,
        bands=spec if bands is None else spec.select(bands),
        coords=place.astype(np.float64),
        notices=tuple(notices),
    )


class Crops:
    """Crops of `open_crops` by row number."""

    def __init__(
        self,
        rasters: Sequence[_Raster],
        raster: Int[np.ndarray, " n"],
        corner: Int[np.ndarray, "n 2"],
        keys: np.ndarray,
        bands: Sequence[int],
        fill: float | str | None,
        nodata: float | None,
        shape: tuple[int, ...],
    ) -> None:
        self._rasters, self._raster, self._corner, self._keys = rasters, raster, corner, keys
        self._bands, self._fill, self.shape = [b + 1 for b in bands], fill, shape
        self._nodata = nodata
        filled = fill is not None and rasters[0].dtype.kind in "iu"
        self.dtype = np.dtype(np.float32) if filled else rasters[0].dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = np.atleast_1d(np.arange(self.shape[0])[rows])
        out = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        for number in np.unique(self._raster[wanted]):
            with _opened(self._rasters[number].path) as data:
                for i in np.flatnonzero(self._raster[wanted] == number):
                    out[i] = self._crop(data, self._rasters[number], int(wanted[i]))
        return out if np.ndim(np.arange(self.shape[0])[rows]) else out[0]

    def _crop(self, data: Any, raster: _Raster, row: int) -> np.ndarray:
        size = self.shape[1]
        top, left = (int(v) for v in self._corner[row])
        read = data.read(self._bands, window=((top, top + size), (left, left + size)), masked=True)
        pixels = np.moveaxis(np.ma.getdata(read), 0, -1)
        gone = np.moveaxis(np.ma.getmaskarray(read), 0, -1)
        if pixels.dtype.kind == "f":
            gone = gone | ~np.isfinite(pixels)
        if self._nodata is not None:
            gone = gone | (pixels == self._nodata)
        if raster.transform.e > 0:  # south is up in the file
            pixels, gone = pixels[::-1], gone[::-1]
        return pixels if not gone.any() else self._filled(pixels, gone, row)

    def _filled(self, pixels: np.ndarray, gone: np.ndarray, row: int) -> np.ndarray:
        share = f"{int(gone.any(axis=-1).sum())} of {gone.shape[0] * gone.shape[1]} pixels"
        if self._fill is None or (self._fill == "mean" and gone.all(axis=(0, 1)).any()):
            hint = "; give fill='mean' or a number" if self._fill is None else ""
            raise UserError(
                f"Expected crops with data, found {share} without in that of key "
                f"{str(self._keys[row])!r}{hint}."
            )
        known = np.where(gone, 0, pixels).astype(np.float64)
        value: Any = self._fill
        if self._fill == "mean":
            value = (known.sum(axis=(0, 1)) / (~gone).sum(axis=(0, 1)))[None, None]
        return np.where(gone, value, known).astype(self.dtype)


def dull(images: KeyedImages) -> list[str]:
    """Keys of images with fewer than `FEWEST_VALUES` different values in each band.

    >>> dull(KeyedImages(np.zeros((1, 4, 4, 1)), ["a"]))
    ['a']
    """
    out = []
    for start, batch in zip(range(0, len(images), 256), images.batches(256), strict=True):
        for i, image in enumerate(batch):
            bands = image.reshape(-1, image.shape[-1]).T
            if all(len(np.unique(band)) < FEWEST_VALUES for band in bands):
                out.append(str(images.keys[start + i]))
    return out


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A raster, for as long as it is used.

    Raises:
      UserError: rasterio is missing, or the file cannot be opened or read.
    """
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioError
    except ImportError:
        raise UserError("Expected rasterio, found none: install jaxcore[geo].") from None
    if not path.is_file():
        raise UserError(f"Expected a GeoTIFF file, found no file {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
                with rasterio.open(path, driver="GTiff") as data:
                    yield data
    except RasterioError as error:
        text = readable(str(error.__cause__ or error).splitlines()[0]).rstrip(".")
        raise UserError(f"Expected a whole GeoTIFF file {path}, found: {text}.") from None


def _described(path: Path, size: int) -> _Raster:
    with _opened(path) as data:
        if data.crs is None or data.transform.is_identity:
            what = "coordinate system" if data.crs is None else "position"
            raise UserError(f"Expected a raster with its {what}, found none in {path}.")
        transform = data.transform
        if transform.b or transform.d:
            raise UserError(
                f"Expected a raster whose rows run from west to east, found {path} rotated by "
                f"{math.degrees(math.atan2(transform.d, transform.a)):.3g} degrees: "
                "warp it first (rio warp, gdalwarp)."
            )
        if len(set(data.dtypes)) != 1 or np.dtype(data.dtypes[0]).kind not in "iuf":
            raise UserError(
                f"Expected bands of one type of numbers, found {', '.join(set(data.dtypes))} in "
                f"{path}."
            )
        dtype = np.dtype(data.dtypes[0])
        if min(data.height, data.width) < size:
            raise UserError(
                f"Expected a raster of at least {size} x {size} pixels, found {data.height} x "
                f"{data.width} in {path}."
            )
        tall, wide = data.block_shapes[0]
        for what, pixels in (("blocks", tall * wide), ("crops", size * size)):
            if pixels * data.count * dtype.itemsize > MAX_BYTES:
                raise UserError(
                    f"Expected {what} of at most {MAX_BYTES} bytes, found {pixels} pixels of "
                    f"{data.count} bands in {path}."
                )
        named = [d for d in data.descriptions if d]
        names = [readable(d, 40) for d in named]
        if len(set(names)) != data.count:
            names = [f"band{i + 1}" for i in range(data.count)]
        bands = BandSpec(tuple(names), tuple(data.scales), tuple(data.offsets))
        return _Raster(
            path,
            data.crs,
            transform,
            data.height,
            data.width,
            data.count,
            dtype,
            bands,
        )


def _alike(rasters: Sequence[_Raster]) -> list[str]:
    """What to say of rasters that differ; those that cannot stand together are refused."""
    first, notices = rasters[0], []
    for other in rasters[1:]:
        if (other.count, other.dtype, other.bands) != (first.count, first.dtype, first.bands):
            raise UserError(
                f"Expected rasters with the same bands, found {first.count} ({first.dtype}, "
                f"{', '.join(first.bands.names)}) in {first.path} and {other.count} "
                f"({other.dtype}, {', '.join(other.bands.names)}) in {other.path}, or another "
                "scale and offset."
            )
        steps = abs(other.transform.a / first.transform.a)
        if other.crs != first.crs:
            notices.append(f"{other.path.name} is in another coordinate system: {other.crs}")
        elif not 0.99 < steps < 1.01:
            notices.append(f"{other.path.name} has pixels of {steps:.3g} times the first's size")
    for raster in rasters:
        wide, tall = abs(raster.transform.a), abs(raster.transform.e)
        if not 0.99 < wide / tall < 1.01:
            notices.append(f"pixels of {raster.path.name} are oblong: {wide:g} wide, {tall:g} high")
    south = [raster.path.name for raster in rasters if raster.transform.e > 0]
    if south:
        notices.append(f"turned north up: {', '.join(south)}")
    return notices


def _corners(
    rasters: Sequence[_Raster], place: np.ndarray, keys: np.ndarray, size: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, "n 2"], int]:
    """Raster and upper left pixel of every crop, and how many were moved inward."""
    n = len(place)
    which, corner, moved = np.full(n, -1), np.zeros((n, 2), np.int64), np.zeros(n, bool)
    for number, raster in enumerate(rasters):
        left = which < 0
        row, col = _pixels(raster, place)
        inside = (row >= 0) & (row < raster.height) & (col >= 0) & (col < raster.width)
        taken = np.flatnonzero(left & inside)
        start = np.stack([row, col], axis=1)[taken].astype(np.int64) - size // 2
        end = np.array([raster.height - size, raster.width - size])
        which[taken], corner[taken] = number, np.clip(start, 0, end)
        moved[taken] = np.any(corner[taken] != start, axis=1)
    outside = which < 0
    if outside.any():
        shown = ", ".join(readable(str(key), 40) for key in keys[outside][:5])
        raise UserError(
            f"Expected places inside the rasters, found {int(outside.sum())} of {n} outside (keys "
            f"{shown}): longitude comes first."
        )
    return which, corner, int(moved.sum())


def _sharing(raster: Int[np.ndarray, " n"], corner: Int[np.ndarray, "n 2"], size: int) -> int:
    """How many crops have pixels that another one has, too."""
    from scipy.spatial import KDTree

    found = 0
    for number in np.unique(raster):
        own = corner[raster == number]
        if len(own) > 1:
            near = KDTree(own).query(own, k=2, p=np.inf)[0][:, 1]  # the larger of both distances
            found += int(np.sum(near < size))
    return found


def _pixels(raster: _Raster, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every place; NaN or infinity where it has none."""
    from rasterio.warp import transform

    if not np.all(np.isfinite(place)):
        raise UserError(
            f"Expected finite coordinates, found {int((~np.isfinite(place)).any(axis=1).sum())} "
            "places without."
        )
    x, y = transform("EPSG:4326", raster.crs, place[:, 0].tolist(), place[:, 1].tolist())[:2]
    to = ~raster.transform
    x, y = np.asarray(x), np.asarray(y)
    return np.floor(to.e * y + to.f), np.floor(to.a * x + to.c)
