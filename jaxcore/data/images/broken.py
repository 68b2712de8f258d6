"""Images that cannot be read: named together, or left out and counted."""

import dataclasses
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

from jaxcore.data.images.headers import header_size, look
from jaxcore.data.images.sources import Group, Sample, Source, Subset
from jaxcore.errors import UserError

_SHOWN = 3
_HOW = "--data.skip-broken leaves them out"


def broken_files(faults: Sequence[str], total: int) -> UserError:
    """One sentence on images that were looked at and are broken.

    Args:
      faults: a sentence for each.
      total: how many were looked at.
    """
    if len(faults) == 1:
        return UserError(faults[0])
    return UserError(
        f"Expected images that can be read, found {len(faults)} of {total} looked at that cannot "
        f"({_HOW}):",
        _some(faults),
    )


def whole_files(files: Sequence[Path], skip_broken: bool, limit: int = 2000) -> list[Path]:
    """Image files, of which at most ``limit`` are looked at by their headers.

    Raises:
      UserError: some are broken; with ``skip_broken`` these are left out with a warning.
    """
    right, broken = look(files, limit, header_size)
    if broken and not skip_broken:
        raise broken_files([why for _, why in broken], len(right) + len(broken))
    if broken:
        say_left_out([why for _, why in broken], len(files))
    wrong = {file for file, _ in broken}
    return [file for file in files if file not in wrong]


def say_left_out(faults: Sequence[str], total: int) -> None:
    """Warn that images were left out."""
    lines = "\n  ".join(_some(faults))
    warnings.warn(
        f"{len(faults)} of {total} images are broken and left out:\n  {lines}", stacklevel=2
    )


def _some(faults: Sequence[str]) -> list[str]:
    more = len(faults) - _SHOWN
    return [*faults[:_SHOWN], *([f"and {more} others"] if more > 0 else [])]


def without_broken(groups: Sequence[Group], *, evaluation: bool) -> tuple[Group, ...]:
    """The same groups, whose samples can all be read.

    In training the next sample that can be read stands for a broken one, whenever it turns up, so
    that what is drawn depends on the files alone. To evaluate, all are read once now, and those
    that are broken are not among the samples.

    Warns:
      UserWarning: names what is left out, once.

    Raises:
      UserError: nothing can be read.
    """
    make = _readable if evaluation else Readable
    sources = {id(group.source): make(group.source) for group in groups}
    return tuple(dataclasses.replace(g, source=sources[id(g.source)]) for g in groups)


class Readable:
    """A source in which the next sample that can be read stands for a broken one."""

    def __init__(self, source: Source) -> None:
        self._source, self._broken, self._lock = source, set[int](), threading.Lock()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        total = len(self._source)
        for step in range(total):
            at = (index + step) % total
            if at in self._broken:
                continue
            try:
                return self._source[at]
            except UserError as error:
                with self._lock:
                    new = at not in self._broken
                    self._broken.add(at)
                    count = len(self._broken)
                if new:
                    warnings.warn(
                        f"Image {count} of {total} that is broken and left out: {error}",
                        stacklevel=2,
                    )
        raise UserError(f"Expected images that can be read, found none among {total}.")


def _readable(source: Source) -> Source:
    kept, faults = [], []
    for index in range(len(source)):
        try:
            source[index]
            kept.append(index)
        except UserError as error:
            faults.append(str(error))
    if not faults:
        return source
    if not kept:
        raise UserError(f"Expected images that can be read, found none among {len(source)}.")
    say_left_out(faults, len(source))
    return Subset(source, kept)
