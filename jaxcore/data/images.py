"""Reading and writing photographs."""

import os
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jaxcore.errors import UserError


def read_rgb(path: str | Path, *, max_pixels: int = 100_000_000) -> UInt8[np.ndarray, "h w 3"]:
    """An 8-bit image as RGB, turned upright by its EXIF orientation.

    Raises:
      UserError: missing, damaged, too large, or not an 8-bit image without transparency.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise UserError(
                    f"Expected at most {max_pixels} pixels, found {image.width}x{image.height} "
                    f"in {path}."
                )
            if image.mode not in ("RGB", "L", "1", "P", "CMYK") or "transparency" in image.info:
                raise UserError(
                    f"Expected an opaque 8-bit grey or colour image, found mode {image.mode} "
                    f"in {path}."
                )
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"Expected an image, found no file {path}.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"Expected a readable image, found {path}: {error}.") from None


def write_image(
    path: str | Path, image: Float[np.ndarray, "h w 3"], *, overwrite: bool = False
) -> None:
    """Write an RGB image in [0, 1] with 8 bits, in the format of the file's ending.

    The file appears whole or not at all.

    Raises:
      UserError: the file exists and ``overwrite`` is not set, or it cannot be written.
    """
    from PIL import Image

    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(f"Expected a new file, found that {path} exists (use --overwrite).")
    pixels = np.round(np.clip(np.asarray(image), 0, 1) * 255).astype(np.uint8)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
        os.close(handle)
        Image.fromarray(pixels).save(temporary)
        os.replace(temporary, path)
    except (OSError, ValueError) as error:
        raise UserError(f"Expected to write {path}, found: {error}.") from None
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
