"""Where images come from: folders and arrays, as random-access sequences of samples."""

import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxcore.data.images.metadata import orientation_of
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


class PairedFolder:
    """Degraded images with their clean ones, paired by name.

    Args:
      degraded_dir: folder of degraded images.
      clean_dir: folder of clean images.
      match: name of the clean image (without ending) for that of a degraded one; equal names by
        default. Several degraded images may share a clean one.
      recursive: take degraded images of sub-folders too; the folder is not part of the name that
        is matched.
      spare_clean: allow clean images that no degraded one belongs to.
      clean_border: pixels cut off each side of a clean image that is larger by just these.
      check_sizes: how many pairs, evenly spread, have their sizes compared now, by the headers
        of the files; whatever is not looked at now is when it is read.
      progress: called with (checked, total) while sizes are compared.

    Raises:
      UserError: a missing or empty folder, images without a partner, unequal sizes, a file that
        is no image.
    """

    def __init__(
        self,
        degraded_dir: str | Path,
        clean_dir: str | Path,
        match: Callable[[str], str] = str,
        *,
        recursive: bool = False,
        spare_clean: bool = False,
        clean_border: int = 0,
        check_sizes: int = 2000,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        degraded_dir, clean_dir = Path(degraded_dir), Path(clean_dir)
        degraded = by_stem(list_images(degraded_dir, recursive=recursive), degraded_dir)
        clean = by_stem(list_images(clean_dir), clean_dir)
        partner = {name: match(name.rpartition("/")[2]) for name in degraded}
        lone = [degraded[name].name for name, other in partner.items() if other not in clean]
        spare: list[str] = []
        if not spare_clean:
            spare = [clean[name].name for name in clean.keys() - set(partner.values())]
        if lone or spare:
            raise UserError(
                f"Expected pairs of images, found {len(lone)} of {len(degraded)} images in "
                f"{degraded_dir} without a clean one{_first(lone)} and {len(spare)} of "
                f"{len(clean)} in {clean_dir} without a degraded one{_first(spare)}."
            )
        self._pairs = [(name, degraded[name], clean[partner[name]]) for name in degraded]
        self._clean_border = clean_border
        self._sizes = _check_sizes(self._pairs, check_sizes, clean_border, progress)

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def files(self) -> list[tuple[str, Path, Path]]:
        """``(name, degraded file, clean file)``, sorted."""
        return list(self._pairs)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Name -> width and height of the degraded images that were looked at."""
        return dict(self._sizes)

    def __getitem__(self, index: int) -> Sample:
        name, degraded_file, clean_file = self._pairs[index]
        degraded, clean = _same_type(read_rgb(degraded_file), read_rgb(clean_file))
        border = _border(degraded.shape[:2], clean.shape[:2], self._clean_border)
        if border is None:
            raise _unequal([(degraded_file, degraded.shape[1::-1], clean.shape[1::-1])], 1)
        if border:
            clean = clean[border:-border, border:-border]
        return {"degraded": degraded, "clean": clean, "name": name}


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


def _first(names: list[str], count: int = 3) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > count else ""
    return f" ({', '.join(sorted(names)[:count])}{more})"


def _check_image(array: np.ndarray, name: str) -> None:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"Expected a uint8 or uint16 image of shape (height, width, 3), found {array.dtype} "
            f"{array.shape} in {name!r}."
        )


def _same_type(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as 16 bits where only one is: 257 maps 255 to 65535 exactly."""
    if a.dtype == b.dtype:
        return a, b
    a, b = (x if x.dtype == np.uint16 else x.astype(np.uint16) * np.uint16(257) for x in (a, b))
    return a, b


def _header_size(path: Path, *, thorough: bool = False) -> tuple[int, int]:
    """Width and height as `read_rgb` would give them, without decoding.

    A PNG may state its orientation after the pixels; only ``thorough`` looks there, by decoding.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            told = thorough or image.format != "PNG" or "exif" in image.info
            # Pillow turns TIFF by itself, and states its size so.
            turned = told and image.format != "TIFF" and orientation_of(image) >= 5
            return (image.height, image.width) if turned else image.size
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"Expected a readable image, found {path}: {error}.") from None


def _border(degraded: tuple[int, ...], clean: tuple[int, ...], allowed: int) -> int | None:
    """Pixels around the clean image that the degraded one lacks: 0, ``allowed``, or no answer."""
    gaps = {b - a for a, b in zip(degraded, clean, strict=True)}
    return next((border for border in (0, allowed) if gaps == {2 * border}), None)


def _check_sizes(
    pairs: Sequence[tuple[str, Path, Path]],
    limit: int,
    border: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, tuple[int, int]]:
    total = min(limit, len(pairs))
    size = functools.lru_cache(maxsize=None)(_header_size)  # a clean image may stand for many
    seen, bad = {}, []
    for done in range(total):
        name, *files = pairs[done * len(pairs) // total]
        sizes = [size(file) for file in files]
        if _border(sizes[0], sizes[1], border) is None:
            sizes = [_header_size(file, thorough=True) for file in files]
            if _border(sizes[0], sizes[1], border) is None:
                bad.append((files[0], *sizes))
        seen[name] = sizes[0]
        if progress is not None:
            progress(done + 1, total)
    if bad:
        raise _unequal(bad, total)
    return seen


def _unequal(bad: list[tuple[Path, tuple[int, ...], tuple[int, ...]]], total: int) -> UserError:
    examples = [f"{path.name} {a[0]}x{a[1]} against {b[0]}x{b[1]}" for path, a, b in bad]
    return UserError(
        f"Expected pairs of equal size, found {len(bad)} of {total} looked at that differ"
        f"{_first(examples)} in {bad[0][0].parent}."
    )
