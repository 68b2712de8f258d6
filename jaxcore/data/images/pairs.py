"""Pairs of images in two folders, by a rule on names, with further images beside them."""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcore.data.images.broken import broken_files, say_left_out
from jaxcore.data.images.headers import header_size, look
from jaxcore.data.images.pairing import AUTO, NAME, guess, partners, unknown_pairs
from jaxcore.data.images.read import read_rgb
from jaxcore.data.images.sources import Sample, Source, by_stem, list_images
from jaxcore.errors import UserError

Pair = tuple[str, Path, Path]
"""Name, degraded file, clean file."""


class UnequalSizes(NamedTuple):
    """A pair whose images are not of one size."""

    file: Path  # the degraded one
    degraded: tuple[int, ...]  # width, height
    clean: tuple[int, ...]


class Listing(NamedTuple):
    """Images by name, a path without ending, in its order."""

    where: str  # for messages
    files: dict[str, Path]


def listing(folder: str | Path, *, recursive: bool = True) -> Listing:
    """The images of a folder.

    Raises:
      UserError: a missing or empty folder, or files that differ in their ending only.
    """
    folder = Path(folder)
    return Listing(str(folder), by_stem(list_images(folder, recursive=recursive), folder))


# Names of folders in published data, in small letters.
_DEGRADED = frozenset(
    "degraded hazy haze foggy rainy rain input low blur blurry train_blur val_blur noisy lq "
    "data".split()
)
_CLEAN = frozenset(
    "clean clear gt target high normal sharp train_sharp val_sharp hq groundtruth norain".split()
)
USUAL = ("degraded", "clean")


def two_folders(root: str | Path, degraded: str, clean: str) -> tuple[Listing, Listing]:
    """The images of two folders below a root, or of such two in each folder of a scene.

    ``root/degraded/...`` and ``root/clean/...``, or ``root/SCENE/degraded`` and
    ``root/SCENE/clean``, whose images are named ``SCENE/...``. Where the usual names are asked for
    and not there, other known ones (hazy and clear, blur and sharp, Low and Normal, ...) are taken
    if there is only one of each kind.

    Raises:
      UserError: no such folders, or several.
    """
    root = Path(root)
    guessing = (degraded, clean) == USUAL
    for scenes in ("", "*", "*/*"):  # the nearest to the root
        above = sorted(p for p in root.glob(scenes) if p.is_dir()) if scenes else [root]
        holding = [f for f in above if (f / degraded).is_dir() and (f / clean).is_dir()]
        found = {(degraded, clean): holding} if holding else _known(above) if guessing else {}
        real = {tuple(os.path.realpath(f / n) for f in fs for n in c) for c, fs in found.items()}
        if len(real) > 1:  # links may give one folder two names
            names = " and ".join("/".join(choice) for choice in list(found)[:3])
            raise UserError(
                f"Expected one folder of degraded and one of clean images in {root}, found "
                f"{names}: "
                "name them as degraded_folder and clean_folder."
            )
        for (first, second), folders in found.items():
            return _of_scenes(root, folders, first), _of_scenes(root, folders, second)
    if root.is_dir() and not (root / degraded).is_dir() and not (root / clean).is_dir():
        raise UserError(
            f"Expected folders {degraded} and {clean} in {root}, or in one folder for each scene, "
            "found neither."
        )
    return listing(root / degraded), listing(root / clean)


def _known(above: Sequence[Path]) -> dict[tuple[str, str], list[Path]]:
    """Known names of degraded and clean images -> the folders that hold two of these names."""
    found: dict[tuple[str, str], list[Path]] = {}
    for folder in above:
        names = sorted(path.name for path in folder.glob("*") if path.is_dir())
        first, second = ([n for n in names if n.lower() in known] for known in (_DEGRADED, _CLEAN))
        for choice in itertools.product(first, second):
            found.setdefault(choice, []).append(folder)
    return found


def _of_scenes(root: Path, folders: Sequence[Path], name: str) -> Listing:
    if list(folders) == [root]:
        return listing(root / name)
    files = {
        f"{folder.relative_to(root).as_posix()}/{key}": file
        for folder in folders
        for key, file in listing(folder / name).files.items()
    }
    return Listing(f"{root}/*/{name}", files)


class PairedFolder:
    """Degraded images with their clean ones, paired by name.

    Args:
      degraded: folder of degraded images, or these themselves.
      clean: folder of clean images, or these themselves.
      match: rule of `jaxcore.data.images.pairing`; or a function that gives the name of the clean
        image (without ending) for the last part of that of a degraded one. Several degraded images
        may share a clean one.
      recursive: take images of sub-folders of folders too, for a function degraded ones only.
      spare_clean: allow clean images that no degraded one belongs to.
      clean_border: pixels cut off each side of a clean image that is larger by just these.
      check_sizes: how many pairs, evenly spread, have their sizes compared now, by the headers
        of the files; whatever is not looked at now is when it is read.
      skip_broken: leave pairs out that are seen now to be broken or of unequal size, with a
        warning that counts them.
      progress: called with (checked, total) while sizes are compared.

    Raises:
      UserError: a missing or empty folder, images without a partner, unequal sizes, a file that
        is no image.
    """

    def __init__(
        self,
        degraded: str | Path | Listing,
        clean: str | Path | Listing,
        match: Callable[[str], str] | str = NAME,
        *,
        recursive: bool = False,
        spare_clean: bool = False,
        clean_border: int = 0,
        check_sizes: int = 2000,
        skip_broken: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if not isinstance(degraded, Listing):
            degraded = listing(degraded, recursive=recursive)
        if not isinstance(clean, Listing):
            clean = listing(clean, recursive=recursive and isinstance(match, str))
        names, others = list(degraded.files), clean.files
        if not isinstance(match, str):
            wanted = {name: match(name.rpartition("/")[2]) for name in names}
            partner = {name: other for name, other in wanted.items() if other in others}
        elif match == AUTO:
            match, partner = guess(names, others)
            if not partner:
                raise UserError(
                    f"Expected pairs of images in {degraded.where} and {clean.where}, found "
                    f"{unknown_pairs(names, others)}."
                )
        else:
            partner = partners(match, names, others)
        self.rule = match if isinstance(match, str) else ""
        lone = [degraded.files[name].name for name in names if name not in partner]
        spare = set() if spare_clean else others.keys() - set(partner.values())
        if lone or spare:
            by = "" if self.rule in ("", NAME) else f" by the rule {self.rule!r}"
            raise UserError(
                f"Expected pairs of images{by}, found {len(lone)} of {len(names)} images in "
                f"{degraded.where} without a clean one{_first(lone)} and {len(spare)} of "
                f"{len(others)} in {clean.where} without a degraded one"
                f"{_first([others[name].name for name in spare])}."
            )
        pairs = [(name, degraded.files[name], others[partner[name]]) for name in names]
        self._clean_border = clean_border
        self._pairs, self._sizes = _checked(pairs, check_sizes, clean_border, skip_broken, progress)

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

    @property
    def note(self) -> str:
        """How the images were paired, where names are not simply equal."""
        if self.rule in ("", NAME):
            return ""
        _, degraded, clean = self._pairs[0]
        return f"paired by {self.rule!r}, such as {degraded.name} and {clean.name}"

    def __getitem__(self, index: int) -> Sample:
        name, degraded_file, clean_file = self._pairs[index]
        degraded, clean = _same_type(read_rgb(degraded_file), read_rgb(clean_file))
        border = _border(degraded.shape[:2], clean.shape[:2], self._clean_border)
        if border is None:
            sizes = (degraded.shape[1::-1], clean.shape[1::-1])
            raise _unequal([UnequalSizes(degraded_file, *sizes)], 1)
        if border:
            clean = clean[border:-border, border:-border]
        return {"degraded": degraded, "clean": clean, "name": name}


class Unpaired:
    """Images of two folders beside each other by their place in the sorted lists, of any sizes.

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
        files = listing(folder).files
        lone = [name for name in names if name not in files]
        if lone:
            raise UserError(
                f"Expected an image in {folder} for each of {len(names)} samples, found none for "
                f"{len(lone)} of them, such as {lone[0]!r}."
            )
        self._source, self._files = source, files

    def __len__(self) -> int:
        return len(self._source)

    @property
    def note(self) -> str:
        """That of the source."""
        return self._source.note if isinstance(self._source, PairedFolder) else ""

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


def _border(degraded: tuple[int, ...], clean: tuple[int, ...], allowed: int) -> int | None:
    """Pixels around the clean image that the degraded one lacks: 0, ``allowed``, or no answer."""
    gaps = {b - a for a, b in zip(degraded, clean, strict=True)}
    return next((border for border in (0, allowed) if gaps == {2 * border}), None)


def _checked(
    pairs: list[Pair],
    limit: int,
    border: int,
    skip_broken: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Pair], dict[str, tuple[int, int]]]:
    """The pairs, without broken ones where these may be left out, and sizes that were seen."""
    size = functools.lru_cache(maxsize=None)(header_size)  # a clean image may stand for many

    def sizes(pair: Pair) -> tuple[int, int] | UnequalSizes:
        files = pair[1:]
        found = [size(file) for file in files]
        if _border(found[0], found[1], border) is None:
            found = [header_size(file, thorough=True) for file in files]
            if _border(found[0], found[1], border) is None:
                return UnequalSizes(files[0], *found)
        return found[0]

    right, broken = look(pairs, limit, sizes, progress)
    unequal = [(pair, found) for pair, found in right if isinstance(found, UnequalSizes)]
    total = len(right) + len(broken)
    if not skip_broken:
        if broken:
            raise broken_files([why for _, why in broken], total)
        if unequal:
            raise _unequal([found for _, found in unequal], total)
    faults = [(pair, why) for pair, why in broken]
    faults += [(pair, str(_unequal([found], 1))) for pair, found in unequal]
    left_out = {pair[0] for pair, _ in faults}
    if left_out:
        say_left_out([why for _, why in faults], len(pairs))
    kept = [pair for pair in pairs if pair[0] not in left_out]
    if not kept:
        raise broken_files([why for _, why in faults], total)
    return kept, {pair[0]: size for pair, size in right if pair[0] not in left_out}


def _unequal(bad: Sequence[UnequalSizes], total: int) -> UserError:
    examples = [f"{path.name} {a[0]}x{a[1]} against {b[0]}x{b[1]}" for path, a, b in bad]
    return UserError(
        f"Expected pairs of equal size, found {len(bad)} of {total} looked at that differ"
        f"{_first(examples)} in {bad[0][0].parent}."
    )
