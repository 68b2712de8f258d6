"""What is looked at in many image files before a long job: sizes, and whether files are whole."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxcore.data.images.metadata import orientation_of
from jaxcore.data.images.read import MAX_BYTES, check_size, open_image, read_rgb
from jaxcore.errors import UserError

T = TypeVar("T")


def header_size(path: Path, *, thorough: bool = False) -> tuple[int, int]:
    """Width and height as `read_rgb` would give them, without decoding whole files.

    A PNG may state its orientation after the pixels; only ``thorough`` looks there, by decoding.

    Raises:
      UserError: no image, or one that was cut off.
    """
    try:
        with path.open("rb") as file, open_image(file) as image:
            check_size(image.width, image.height, 3, MAX_BYTES, path)
            whole = _ends(file, image.format)
            read = thorough or image.format != "PNG" or "exif" in image.info
            # Pillow turns TIFF by itself, and states its size so.
            turned = read and image.format != "TIFF" and orientation_of(image) >= 5
            size = (image.height, image.width) if turned else image.size
    except UserError:
        raise
    except Exception as error:  # damaged files make the decoders raise nearly anything
        raise UserError(f"Expected a readable image, found {path}: {error}.") from None
    if not whole:
        read_rgb(path)  # cut off, or something harmless was added: decoding tells
    return size


def _ends(file: Any, kind: str | None) -> bool:
    """Whether a file ends as files of its format do."""
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}.get(kind or "")
    if end is None:
        return True
    file.seek(-len(end), os.SEEK_END)
    return file.read() == end


def look(
    items: Sequence[T],
    limit: int,
    at: Callable[[T], Any],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[tuple[T, Any]], list[tuple[T, str]]]:
    """Look at so many items, evenly spread: those that are right with what was found, and faults.

    Args:
      items: what is looked at.
      limit: at most so many.
      at: raises a `UserError` for a wrong item.
      progress: called with (looked at, of how many).
    """
    total = min(limit, len(items))
    right, wrong = [], []
    for done in range(total):
        item = items[done * len(items) // total]
        try:
            right.append((item, at(item)))
        except UserError as error:
            wrong.append((item, str(error)))
        if progress is not None:
            progress(done + 1, total)
    return right, wrong
