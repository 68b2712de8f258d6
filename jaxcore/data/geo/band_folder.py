"""Folders with a CSV matrix for each image and band: the form of the papers' replication archives.

``Key12_BAND1.csv``, ``GeoKey12_BAND1.csv`` and ``12_BAND1.csv`` are band 1 of the image of key 12.
A line of names, and a column of row numbers as R writes them, are passed over.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.atomic import whole_folder
from jaxcore.data.geo.bands import BandSpec
from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.errors import UserError, readable

_NAME = re.compile(r"(?:Geo)?(?:Key)?(?P<key>.+)_BAND(?P<band>\d{1,4})\.csv", re.DOTALL)


def read_band_folder(folder: str | Path, **fields: Any) -> KeyedImages:
    """Images of a folder; each is read when it is asked for, as float32.

    Args:
      folder: with files ``*_BAND<b>.csv``.
      **fields: of `KeyedImages`.

    Raises:
      UserError: no such folder, no such file, an image without one of the bands; and, when images
        are read, matrices of another size or of something else than numbers.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"Expected a folder of images, found no folder {folder}.")
    files: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        found = _NAME.fullmatch(path.name)
        if found:
            bands = files.setdefault(found["key"], {})
            if bands.setdefault(int(found["band"]), path) != path:
                raise UserError(
                    f"Expected one file for each band, found {bands[int(found['band'])].name} and "
                    f"{path.name} in {folder}."
                )
    if not files:
        raise UserError(f"Expected files such as Key12_BAND1.csv, found none in {folder}.")
    numbers = sorted(set().union(*files.values()))
    for key, bands in files.items():
        if len(bands) != len(numbers):
            absent = ", ".join(str(b) for b in numbers if b not in bands)
            raise UserError(
                f"Expected bands {', '.join(map(str, numbers))} of every image in {folder}, found "
                f"none of band {absent} of key {readable(key, 40)!r}."
            )
    keys = list(files)
    source = _Matrices([[files[key][b] for b in numbers] for key in keys])
    fields.setdefault("bands", BandSpec(tuple(f"band{b}" for b in numbers)))
    return KeyedImages(source, keys, **fields)


def write_band_folder(
    folder: str | Path,
    images: KeyedImages,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write images as such a folder, which appears whole: ``Key<key>_BAND<b>.csv``, plain numbers.

    Raises:
      UserError: the folder exists, keys that make no file names, or sequences of images.
    """
    wrong = [key for key in images.keys if not re.fullmatch(r"[\w.-]+", str(key))]
    if wrong or images.frames is not None:
        what = f"key {str(wrong[0])!r}" if wrong else "sequences"
        raise UserError(f"Expected images with keys of letters, digits, _ - and ., found {what}.")
    with whole_folder(Path(folder), overwrite=overwrite) as temporary:
        temporary.mkdir(parents=True, exist_ok=True)
        for i, key in enumerate(images.keys):
            pixels = np.asarray(images.images[np.array([i])])[0]
            kind = "%d" if pixels.dtype.kind in "iu" else "%.9g"
            for b in range(pixels.shape[-1]):
                path = temporary / f"Key{key}_BAND{b + 1}.csv"
                np.savetxt(path, pixels[..., b], fmt=kind, delimiter=",")
            if progress is not None:
                progress(i + 1, len(images))


class _Matrices:
    """Images by row number, from one file for each band."""

    def __init__(self, files: list[list[Path]]) -> None:
        self._files, self.dtype = files, np.dtype(np.float32)
        first = _matrix(files[0][0])
        self.shape = (len(files), *first.shape, len(files[0]))

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = np.arange(self.shape[0])[rows]
        out = np.empty((np.size(wanted), *self.shape[1:]), self.dtype)
        for i, row in enumerate(np.atleast_1d(wanted)):
            for b, path in enumerate(self._files[row]):
                matrix = _matrix(path)
                if matrix.shape != self.shape[1:3]:
                    raise UserError(
                        f"Expected matrices of {self.shape[1]} x {self.shape[2]} pixels, found "
                        f"{matrix.shape[0]} x {matrix.shape[1]} in {path}."
                    )
                out[i, ..., b] = matrix
        return out if wanted.ndim else out[0]


def _matrix(path: Path) -> np.ndarray:
    """Numbers of a CSV file; empty fields and NA are NaN."""
    try:
        lines = [
            line.replace('"', "").split(",")
            for line in path.read_text("utf-8").splitlines()
            if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Expected a matrix of numbers in {path}, found: {error}.") from None
    names = bool(lines) and any(_number(field) is None for field in lines[0])
    numbered = names and (not lines[0][0] or len(lines[0]) + 1 == len(lines[-1]))
    body = [line[int(numbered) :] for line in lines[int(names) :]]
    values = [[_number(field) for field in line] for line in body]
    text = any(number is None for line in values for number in line)
    if text or len({len(line) for line in values}) != 1:
        raise UserError(
            f"Expected a matrix of numbers in {path}, found {len(values)} lines of "
            f"{sorted({len(line) for line in values})[:3]} fields, or text among them."
        )
    return np.array(values, np.float32)


def _number(field: str) -> float | None:
    text = field.strip()
    if text in ("", "NA", "NaN"):
        return np.nan
    try:
        return float(text)
    except ValueError:
        return None
