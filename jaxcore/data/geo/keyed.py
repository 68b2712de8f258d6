"""Image sets in which every image has a key: of a place, a village, a tile.

Many units may share an image. What holds the pixels gives any rows of them (an array, a file mapped
into memory, a TFRecord file, a function), so that a set may be larger than memory.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from jaxcore.data.columns import array_of, missing
from jaxcore.data.geo.bands import BandSpec
from jaxcore.data.npy import open_npy
from jaxcore.errors import UserError, readable

_SHOWN = 5  # keys in a message


class Rows(Protocol):
    """Images by row number: ``(n, h, w, c)``, or ``(n, t, h, w, c)`` for sequences."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Known without reading."""
        ...

    @property
    def dtype(self) -> Any:
        """Of what is read."""
        ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class KeyedImages:
    """Images and their keys.

    >>> images = KeyedImages(np.zeros((2, 4, 4, 3)), ["a", "b"])
    >>> images.rows_of(["b", "b", "a"]).tolist(), images.frames
    ([1, 1, 0], None)

    Raises:
      UserError: another number of keys than images, a key twice or missing, a shape that is none of
        images, bands other than described, coordinates of another number.
    """

    images: Rows
    keys: Sequence[Any] | np.ndarray  # as text: 1, 1.0 and "1" are the same key
    bands: BandSpec | None = None
    coords: np.ndarray | None = None  # longitude and latitude of each image, degrees
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if len(shape) not in (4, 5) or min(shape) < 1:
            raise UserError(
                "Expected images of shape (n, height, width, bands) or (n, time, height, width, "
                f"bands), found {shape}."
            )
        if np.dtype(self.images.dtype).kind not in "biuf":
            raise UserError(f"Expected numbers as pixels, found {self.images.dtype}.")
        keys = texts(self.keys, "image keys")
        if len(keys) != shape[0]:
            raise UserError(f"Expected a key for each of {shape[0]} images, found {len(keys)}.")
        found, count = np.unique(keys, return_counts=True)
        if len(found) != len(keys):
            raise UserError(
                f"Expected every key once, found {_some(found[count > 1])} more than once."
            )
        if self.bands is not None:
            self.bands.check(shape[-1])
        if self.coords is not None and np.shape(self.coords) != (len(keys), 2):
            raise UserError(
                f"Expected longitude and latitude of {len(keys)} images, found an array of shape "
                f"{np.shape(self.coords)}."
            )
        object.__setattr__(self, "keys", keys)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def frames(self) -> int | None:
        """Images of each sequence; None where each key has one image."""
        return self.images.shape[1] if len(self.images.shape) == 5 else None

    def rows_of(self, unit_keys: Any) -> Int[np.ndarray, " n"]:
        """Row of the image of each unit.

        Raises:
          UserError: a unit whose key has no image.
        """
        wanted = texts(unit_keys, "unit keys")
        order = np.argsort(self.keys)
        ordered = np.asarray(self.keys)[order]
        place = np.minimum(np.searchsorted(ordered, wanted), len(order) - 1)
        absent = ordered[place] != wanted
        if absent.any():
            raise UserError(
                f"Expected an image for every unit, found none for {int(absent.sum())} of "
                f"{len(wanted)} units: keys {_some(np.unique(wanted[absent]))}."
            )
        return order[place]

    def of_units(self, unit_keys: Any) -> "tuple[KeyedImages, Int[np.ndarray, ' n']]":
        """The images that units have, and the row of each unit among them.

        Images without units are left out, which a notice says.
        """
        used, rows = np.unique(self.rows_of(unit_keys), return_inverse=True)
        if len(used) == len(self):
            return self, used[rows]
        gone = len(self) - len(used)
        part = dataclasses.replace(
            self,
            images=_Part(self.images, used),
            keys=np.asarray(self.keys)[used],
            coords=None if self.coords is None else np.asarray(self.coords)[used],
            notices=(*self.notices, f"left out {gone} of {len(self)} images that no unit has"),
        )
        return part, rows.ravel()

    def batches(self, size: int = 256) -> Iterator[np.ndarray]:
        """All images in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield np.asarray(self.images[np.arange(start, min(start + size, len(self)))])


class _Part:
    """Some rows of a source; read when they are asked for."""

    def __init__(self, source: Rows, rows: np.ndarray) -> None:
        self._source, self._rows = source, rows
        self.shape, self.dtype = (len(rows), *source.shape[1:]), source.dtype

    def __getitem__(self, rows: Any) -> Any:
        return self._source[self._rows[rows]]


@dataclasses.dataclass(frozen=True)
class Generated:
    """Images that a function makes for an array of row numbers, such as a loader of files.

    >>> made = Generated(lambda rows: np.zeros((len(rows), 2, 2, 1), np.uint8), (10**9, 2, 2, 1))
    >>> made[np.array([0, 999_999_999])].shape
    (2, 2, 2, 1)
    """

    make: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, ...]
    dtype: Any = np.uint8

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = np.atleast_1d(np.arange(self.shape[0])[rows] if isinstance(rows, slice) else rows)
        made = np.asarray(self.make(wanted))
        if made.shape != (len(wanted), *self.shape[1:]):
            raise UserError(
                f"Expected images of shape {(len(wanted), *self.shape[1:])}, found {made.shape}."
            )
        return made.astype(self.dtype, copy=False)


def from_function(
    keys: Sequence[Any],
    load: Callable[[list[str]], np.ndarray],
    shape: tuple[int, ...],
    **fields: Any,
) -> KeyedImages:
    """Images of a function from keys to an array.

    Args:
      keys: all keys.
      load: from some keys to their images.
      shape: of one image, bands last.
      **fields: of `KeyedImages`; ``dtype`` of the images, by default float32.

    >>> images = from_function(["a", "b"], lambda keys: np.zeros((len(keys), 2, 2, 1)), (2, 2, 1))
    >>> images.images[np.array([1])].shape
    (1, 2, 2, 1)
    """
    names = texts(keys, "image keys")
    dtype = np.dtype(fields.pop("dtype", np.float32))
    source = Generated(
        lambda rows: load([str(key) for key in names[rows]]), (len(names), *shape), dtype
    )
    return KeyedImages(source, names, **fields)


def read_images(path: str | Path, keys: Any = None, **fields: Any) -> KeyedImages:
    """Images of a file of NumPy: ``.npz`` with ``images`` and ``keys``, or ``.npy`` (mapped).

    Args:
      path: the file; ``.tfrecord`` files are read by `tfrecord.open_tfrecord`.
      keys: of the images, where the file holds none; None then takes 0, 1, 2, ...
      **fields: of `KeyedImages`.

    Raises:
      UserError: no such file, another ending, a damaged one, or one without images.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Expected a file of images, found no file {path}.")
    if path.suffix not in (".npy", ".npz"):
        raise UserError(f"Expected a file ending in .npy or .npz, found {path}.")
    try:
        if path.suffix == ".npy":
            images = open_npy(path)
        else:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                if "images" not in file:
                    raise ValueError(f"no array images among {', '.join(file.files) or 'none'}")
                images = file["images"]
                keys = file["keys"] if keys is None and "keys" in file else keys
    except Exception as error:  # what a damaged archive raises is of many kinds
        text = readable(str(error)).strip().rstrip(".") or type(error).__name__
        raise UserError(f"Expected images in {path}, found: {text}.") from None
    if images.ndim < 1:
        raise UserError(f"Expected images in {path}, found an array of shape {images.shape}.")
    return KeyedImages(images, np.arange(len(images)) if keys is None else keys, **fields)


def texts(keys: Any, what: str = "keys") -> np.ndarray:
    """Keys of any kind as text; whole numbers as such, also where a table made floats of them.

    >>> texts(np.array([1.0, 20.0])).tolist(), texts(["a", 2]).tolist()
    (['1', '20'], ['a', '2'])

    Raises:
      UserError: missing ones, or another shape than a column.
    """
    if isinstance(keys, list | tuple):
        keys = np.asarray(keys, object)
    a = array_of(keys, f"the {what}")
    if a.ndim != 1:
        raise UserError(f"Expected a column of {what}, found an array of shape {a.shape}.")
    gone = missing(a)
    if gone.any():
        raise UserError(f"Expected {what} without missing ones, found {int(gone.sum())} missing.")
    if a.dtype.kind in "US":
        return a.astype(str)
    if a.dtype.kind == "f" and np.all(a == np.round(a)):
        a = a.astype(np.int64)
    if a.dtype.kind in "iu":
        return a.astype(str)
    return np.array([_text(key) for key in a.tolist()], str)


def _text(key: Any) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    whole = isinstance(key, float) and key == int(key)
    return str(int(key)) if whole else str(key)


def _some(keys: np.ndarray) -> str:
    shown = ", ".join(readable(str(key), 40) for key in keys[:_SHOWN])
    return shown if len(keys) <= _SHOWN else f"{shown} and {len(keys) - _SHOWN} more"
