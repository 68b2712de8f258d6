"""Writing pictures in every format that is read; a file appears whole or not at all."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxcore.atomic import whole_file
from jaxcore.data.images.crops import to_float
from jaxcore.data.images.formats import FORMATS
from jaxcore.data.images.read import Picture
from jaxcore.errors import UserError


def write_image(
    path: str | Path,
    image: Float[np.ndarray, "h w 3"],
    *,
    like: Picture | None = None,
    overwrite: bool = False,
) -> None:
    """Write an RGB picture in the format of the file's ending; it appears whole or not at all.

    JPEG is written with quality 95 and full colour resolution, WebP without loss. Values are
    clipped to [0, 1] and rounded.

    Args:
      path: the file; its folders are made.
      image: floats in [0, 1].
      like: a picture whose alpha, metadata and bit depth the file shall have, as far as its
        format can (JPEG has 8 bits), and which decides whether it is grey: then the mean of the
        channels is written. Without it 8 bits.
      overwrite: replace a file that exists.

    Raises:
      UserError: the file exists and ``overwrite`` is not set, cannot be written, or cannot hold
        the transparency; or there are values that are not finite.
    """
    path = Path(path)
    array = np.asarray(image, np.float32)
    if array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise UserError(f"Expected a picture (height, width, 3), found {array.shape}.")
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise UserError(f"Expected finite values for {path}, found {bad} NaN or infinite ones.")
    like = like or Picture(pixels=np.empty((0, 0, 3), np.uint8))
    content = _encode(path, np.clip(array, 0, 1), like)
    with _folder(path.parent), whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


def check_ending(path: Path) -> None:
    """Refuse the name of a picture whose ending says no format that is written."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"Expected a picture ending in {', '.join(FORMATS)}, found {path.name!r}.")


def check_fits(path: Path, like: Picture) -> None:
    """Refuse a name whose format cannot hold the transparency or the colour of a picture."""
    check_ending(path)
    channels = FORMATS[path.suffix.lower()].channels
    if 4 not in channels and like.alpha is not None and (to_float(like.alpha) < 1).any():
        raise UserError(f"Expected an ending whose format has transparency, found {path.name}.")
    if 3 not in channels and not like.grey:
        raise UserError(f"Expected an ending whose format has colour, found {path.name}.")


def _encode(path: Path, array: np.ndarray, like: Picture) -> bytes:
    check_fits(path, like)
    form = FORMATS[path.suffix.lower()]
    if like.grey and 1 in form.channels:
        array = array.mean(axis=-1, keepdims=True)
    if like.alpha is not None and like.alpha.shape != array.shape[:2]:
        raise UserError(f"Expected a picture of {like.alpha.shape}, found {array.shape}.")
    if like.alpha is not None and 4 in form.channels:
        array = np.concatenate([array, to_float(like.alpha)[..., None]], axis=-1)
    depth = max(d for d in form.depths if d <= like.depth)
    if depth < 32:
        array = np.round(array * (2**depth - 1)).astype(np.uint16 if depth == 16 else np.uint8)
    about = like.about
    if about.icc and about.icc[16:20] != (b"RGB " if array.shape[-1] >= 3 else b"GRAY"):
        about = dataclasses.replace(about, icc=None)  # it belongs to other channels
    try:
        return form.encode(array, about)
    except (OSError, ValueError) as error:
        raise UserError(f"Expected to write {path}, found: {error}.") from None


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; on failure the new ones go again."""
    new = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be made: {error.strerror or error}.") from None
        yield
    except BaseException:
        for made in new:
            with contextlib.suppress(OSError):
                made.rmdir()
        raise
