"""Cutting, turning and padding images, and their types; all in NumPy."""

import numpy as np
from jaxtyping import Shaped


def centre_crop(image: Shaped[np.ndarray, "h w c"], multiple: int) -> Shaped[np.ndarray, "h2 w2 c"]:
    """Crop to sides that are multiples: floor(rest / 2) goes at the top and left.

    A side shorter than ``multiple`` stays as it is.

    >>> centre_crop(np.zeros((37, 50, 3)), 16).shape
    (32, 48, 3)
    """
    rests = [side % multiple if side >= multiple else 0 for side in image.shape[:2]]
    top, left = (rest // 2 for rest in rests)
    height, width = (side - rest for side, rest in zip(image.shape, rests, strict=False))
    return image[top : top + height, left : left + width]


def turn(image: Shaped[np.ndarray, "h w c"], number: int) -> Shaped[np.ndarray, "h2 w2 c"]:
    """One of the eight turns of the protocol: ``number // 2`` quarter turns, odd ones flipped.

    Quarter turns are counter-clockwise and come first; the flip is up-down; 0 is the identity and
    5 the left-right flip.

    >>> turn(np.arange(4).reshape(2, 2, 1), 1)[..., 0]
    array([[2, 3],
           [0, 1]])
    """
    image = np.rot90(image, number // 2)
    return image[::-1] if number % 2 else image


def grow(image: np.ndarray, patch: int) -> np.ndarray:
    """Mirror at the bottom and right up to the size of a patch."""
    missing = [max(patch - side, 0) for side in image.shape[:2]]
    if not any(missing):
        return image
    return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="reflect")


def window(image: np.ndarray, top: int, left: int, patch: int, margin: int) -> np.ndarray:
    """A square with a margin, mirrored where the image ends."""
    pads, slices = [], []
    for start, side in zip((top, left), image.shape[:2], strict=True):
        low, high = start - margin, start + patch + margin
        slices.append(slice(max(low, 0), min(high, side)))
        pads.append((max(-low, 0), max(high - side, 0)))
    window = image[tuple(slices)]
    return np.pad(window, [*pads, (0, 0)], mode="reflect") if np.any(pads) else window


def eight_bits(image: np.ndarray) -> np.ndarray:
    """uint16 rounded to uint8."""
    return image if image.dtype == np.uint8 else np.round(image / 257).astype(np.uint8)


def to_float(image: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1]; floats stay as they are."""
    if image.dtype.kind == "f":
        return image.astype(np.float32)
    return np.divide(image, np.float32(np.iinfo(image.dtype).max), dtype=np.float32)
