"""Pairs of images in two folders, by name or by place, with further images beside them."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxcore.data.images.metadata import orientation_of
from jaxcore.data.images.read import MAX_BYTES, check_size, open_image, read_rgb
from jaxcore.data.images.sources import Sample, Source, by_stem, list_images
from jaxcore.errors import UserError


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


class PairedByIndex:
    """Images of two folders paired by their place in the sorted lists, of any sizes.

    For translation between two kinds of pictures, where no pair belongs together: as many samples
    as there are degraded (source) images; the clean (target) ones are repeated if they are fewer.
    """

    def __init__(self, degraded_dir: str | Path, clean_dir: str | Path) -> None:
        self._degraded, self._clean = list_images(degraded_dir), list_images(clean_dir)

    def __len__(self) -> int:
        return len(self._degraded)

    def __getitem__(self, index: int) -> Sample:
        degraded = self._degraded[index]
        clean = self._clean[index % len(self._clean)]
        images = {"degraded": read_rgb(degraded), "clean": read_rgb(clean)}
        return {**images, "name": degraded.stem}


class Conditioned:
    """A source with a further image (such as a mask) of the same name beside each sample.

    Raises:
      UserError: a missing folder, or samples without such an image.
    """

    def __init__(self, source: Source, folder: str | Path, names: Sequence[str]) -> None:
        folder = Path(folder)
        files = by_stem(list_images(folder), folder)
        lone = [name for name in names if name not in files]
        if lone:
            raise UserError(
                f"Expected an image in {folder} for each of {len(names)} samples, found none for "
                f"{len(lone)} of them, such as {lone[0]!r}."
            )
        self._source, self._files = source, files

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        condition = read_rgb(self._files[sample["name"]])
        if condition.shape != sample["clean"].shape:
            raise UserError(
                f"Expected a condition of the size of its image, found {condition.shape[:2]} for "
                f"{sample['clean'].shape[:2]} in {sample['name']!r}."
            )
        return {**sample, "condition": condition}


def _first(names: list[str], count: int = 3) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > count else ""
    return f" ({', '.join(sorted(names)[:count])}{more})"


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
    try:
        with path.open("rb") as file, open_image(file) as image:
            check_size(image.width, image.height, 3, MAX_BYTES, path)
            read = thorough or image.format != "PNG" or "exif" in image.info
            # Pillow turns TIFF by itself, and states its size so.
            turned = read and image.format != "TIFF" and orientation_of(image) >= 5
            return (image.height, image.width) if turned else image.size
    except UserError:
        raise
    except Exception as error:  # damaged files make the decoders raise nearly anything
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
