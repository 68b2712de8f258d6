"""Where images come from: folders and arrays, as random-access sequences of samples."""

import dataclasses
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxcore.data.images.read import read_rgb
from jaxcore.errors import UserError

IMAGE_ENDINGS = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))

Sample = dict[str, Any]
"""``clean``: uint8 or uint16 (h, w, 3); ``name``: str; and, unless it is made on the fly,
``degraded`` of the shape and type of ``clean``."""


class Source(Protocol):
    """A sequence of samples in a fixed order (by name, for folders); safe to read in threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclasses.dataclass(frozen=True)
class Group:
    """The data of one task, such as one degradation."""

    name: str  # shown in counts and metrics
    source: Source
    repeat: int = 1  # copies in the list of one epoch
    degradation: str | None = None  # made on the fly, see `degradations.degradation`
    note: str = ""  # how the images were found, where a user should see it

    @property
    def entries(self) -> int:
        """Items in the list of one epoch."""
        return self.repeat * len(self.source)


def list_images(
    folder: str | Path, *, recursive: bool = False, endings: Collection[str] = IMAGE_ENDINGS
) -> list[Path]:
    """Image files of a folder, sorted; hidden files and folders are passed over.

    Raises:
      UserError: no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"Expected a folder of images, found no folder {folder}.")
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in endings
        ]
    if not found:
        known = ", ".join(sorted(endings))
        raise UserError(f"Expected images ({known}), found none in {folder}.")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def by_stem(files: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Path below ``folder`` without ending -> file.

    Raises:
      UserError: two files differ in their ending only.
    """
    named: dict[str, Path] = {}
    for file in files:
        stem = file.relative_to(folder).with_suffix("").as_posix()
        if stem in named:
            raise UserError(
                f"Expected one image of each name, found {named[stem].name} and {file.name} in "
                f"{file.parent}."
            )
        named[stem] = file
    return named


class CleanFolder:
    """Clean images of a folder, or given files; they are degraded on the fly."""

    def __init__(self, folder: str | Path, files: Sequence[Path] | None = None) -> None:
        folder = Path(folder)
        listed = list_images(folder) if files is None else files
        self._files = list(by_stem(listed, folder).items())

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        name, path = self._files[index]
        return {"clean": read_rgb(path), "name": name}


class ArraySource:
    """Images in memory: name -> clean image, or name -> (degraded, clean).

    >>> pixel = np.ones((1, 1, 3), np.uint8)
    >>> source = ArraySource({"b": pixel, "a": pixel})
    >>> [sample["name"] for sample in source]
    ['a', 'b']

    Raises:
      UserError: no image, or one that is not uint8 or uint16 of shape (h, w, 3), or unequal pairs.
    """

    def __init__(self, images: Mapping[str, np.ndarray | tuple[np.ndarray, np.ndarray]]) -> None:
        self._samples: list[Sample] = []
        for name, given in sorted(images.items()):
            arrays = given if isinstance(given, tuple) else (given,)
            for array in arrays:
                _check_image(array, name)
            if len({(array.shape, array.dtype) for array in arrays}) != 1:
                raise UserError(
                    f"Expected a pair of equal shape and type, found "
                    f"{' and '.join(f'{a.shape} {a.dtype}' for a in arrays)} in {name!r}."
                )
            keys = ("degraded", "clean")[-len(arrays) :]
            self._samples.append({**dict(zip(keys, arrays, strict=True)), "name": name})
        if not self._samples:
            raise UserError("Expected at least one image, found none.")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


class Subset:
    """Some items of a source, by their indices."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self._source, self._indices = source, tuple(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._source[self._indices[index]]


def hold_out(source: Source, count: int) -> tuple[Source, Source]:
    """A source without ``count`` evenly spread items, and these items.

    Raises:
      UserError: nothing would be left.
    """
    if count <= 0:
        return source, Subset(source, ())
    total = len(source)
    if count >= total:
        raise UserError(f"Expected to hold out fewer than all {total} images, found {count}.")
    held = sorted({i * total // count for i in range(count)})
    kept = sorted(set(range(total)) - set(held))
    return Subset(source, kept), Subset(source, held)


def cached(groups: Sequence[Group], max_bytes: int) -> tuple[Group, ...]:
    """The same groups, which keep decoded images in memory until ``max_bytes`` are full.

    Groups that share a source share its images. Nothing is ever thrown out: an epoch reads
    every image once, so any fixed part serves as well as the latest one.
    """
    if max_bytes <= 0:
        return tuple(groups)
    budget = _Budget(max_bytes)
    sources = {id(g.source): _Cached(g.source, budget) for g in groups}
    return tuple(dataclasses.replace(g, source=sources[id(g.source)]) for g in groups)


class _Budget:
    def __init__(self, max_bytes: int) -> None:
        self._left, self._lock = max_bytes, threading.Lock()

    def take(self, size: int) -> bool:
        with self._lock:
            granted = size <= self._left
            self._left -= size if granted else 0
            return granted


class _Cached:
    def __init__(self, source: Source, budget: _Budget) -> None:
        self._source, self._budget = source, budget
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        if index in self._kept:
            return self._kept[index]
        sample = self._source[index]
        arrays = [value for value in sample.values() if isinstance(value, np.ndarray)]
        if self._budget.take(sum(array.nbytes for array in arrays)):
            for array in arrays:
                array.flags.writeable = False  # shared from now on
            self._kept[index] = sample
        return sample


def _check_image(array: np.ndarray, name: str) -> None:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"Expected a uint8 or uint16 image of shape (height, width, 3), found {array.dtype} "
            f"{array.shape} in {name!r}."
        )
