"""Pictures as the vision parts of language models were trained on them; NumPy and Pillow.

Two forms: a square of fixed side (CLIP, LLaVA), and patches in rows of as many as the picture's
own size asks for (Qwen2-VL). Resizing is Pillow's bicubic filter, antialiased, from bytes to
bytes: anything else moves the numbers.
"""

import dataclasses
import math
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

from jaxcore.data.images.crops import eight_bits
from jaxcore.data.images.read import Picture
from jaxcore.errors import UserError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Of each band of the pictures that CLIP was trained on, in [0, 1]."""
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)

Grid: TypeAlias = tuple[int, int, int]
"""Patches of a picture along time, height and width, before they are merged."""

_LONGEST = 200  # sides of a picture in patches may differ by this factor
_WHITE = 255


def as_bytes(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """A picture as a language model sees it: 8 bits, transparent parts on white.

    >>> grey = np.full((1, 2, 3), 100, np.uint8)
    >>> clear = np.array([[255, 0]], np.uint8)
    >>> as_bytes(Picture(pixels=grey, alpha=clear))[0, :, 0].tolist()
    [100, 255]
    """
    pixels, alpha = picture.pixels, picture.alpha
    if pixels.dtype.kind == "f":
        pixels = np.round(pixels * _WHITE).astype(np.uint8)
        alpha = None if alpha is None else np.round(alpha * _WHITE).astype(np.uint8)
    pixels = eight_bits(pixels)
    if alpha is None:
        return pixels
    share = eight_bits(alpha)[..., None].astype(np.float32) / _WHITE
    return np.round(pixels * share + _WHITE * (1 - share)).astype(np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquareInputs:
    """What CLIP and LLaVA see: the short side resized, and the middle cut out.

    Attributes:
      side: of the square, in pixels.
      pad: first make the picture a square with bars of the mean colour, so that nothing is cut
        off. LLaVA-1.5 was trained so; CLIP was not, nor does CausalMM's evaluation do it.
      mean: of each band, of values in [0, 1].
      deviation: of each band.

    References:
      Radford et al. 2021; Liu et al. 2024, "Improved baselines with visual instruction tuning".
    """

    side: int = 336
    pad: bool = False
    mean: tuple[float, ...] = CLIP_MEAN
    deviation: tuple[float, ...] = CLIP_DEVIATION

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "s s 3"]:
        """The normalised square, float32.

        Raises:
          UserError: not an RGB picture of 8 bits.

        >>> SquareInputs(side=4, pad=True)(np.zeros((6, 9, 3), np.uint8)).shape
        (4, 4, 3)
        """
        _check(image)
        if self.pad:
            image = _padded(image, tuple(int(m * _WHITE) for m in self.mean))
        height, width = image.shape[:2]
        short, long = min(height, width), max(height, width)
        other = int(self.side * long / short)
        height, width = (self.side, other) if height <= width else (other, self.side)
        image = _resized(image, height, width)
        top, left = (height - self.side) // 2, (width - self.side) // 2
        image = image[top : top + self.side, left : left + self.side]
        return _normalised(image, self.mean, self.deviation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchInputs:
    """What Qwen2-VL sees: patches of a picture that keeps its size and shape, more or less.

    Attributes:
      patch: side of a patch, in pixels.
      merge: patches along each side of a cell that becomes one token.
      frames: moments in a patch; a still picture is taken that many times.
      min_pixels: smaller pictures are enlarged to this.
      max_pixels: larger pictures are reduced to this.
      mean: of each band, of values in [0, 1].
      deviation: of each band.

    References:
      Wang et al. 2024, "Qwen2-VL", section 2.1.
    """

    patch: int = 14
    merge: int = 2
    frames: int = 2
    min_pixels: int = 3136
    max_pixels: int = 1_003_520
    mean: tuple[float, ...] = CLIP_MEAN
    deviation: tuple[float, ...] = CLIP_DEVIATION

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "n p"], Grid]:
        """Patches in rows, float32, cell after cell, and how many there are along each axis.

        A row holds band, moment, height and width of its patch, in that order.

        Raises:
          UserError: not an RGB picture of 8 bits, or a stripe.

        >>> rows, grid = PatchInputs()(np.zeros((60, 90, 3), np.uint8))
        >>> rows.shape, grid
        ((24, 1176), (1, 4, 6))
        """
        _check(image)
        height, width = self.size(*image.shape[:2])
        pixels = _normalised(_resized(image, height, width), self.mean, self.deviation)
        rows, columns = height // self.patch, width // self.patch
        side, cell = self.patch, self.merge
        shape = (rows // cell, cell, side, columns // cell, cell, side, -1)
        cells = pixels.reshape(shape).transpose(
            0, 3, 1, 4, 6, 2, 5
        )  # cell, place in it, band, y, x
        still = np.repeat(cells[..., None, :, :], self.frames, axis=-3)
        return still.reshape(rows * columns, -1), (1, rows, columns)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a picture is resized to: whole cells, about its own shape.

        Raises:
          UserError: one side is more than 200 times the other.

        >>> PatchInputs().size(1080, 1920)
        (728, 1316)
        """
        if max(height, width) > _LONGEST * min(height, width):
            raise UserError(
                f"Expected a picture whose sides differ by a factor of at most {_LONGEST}, found "
                f"{width}x{height}."
            )
        cell = self.patch * self.merge
        sides = [round(side / cell) * cell for side in (height, width)]
        if math.prod(sides) > self.max_pixels:
            factor = math.sqrt(height * width / self.max_pixels)
            sides = [max(cell, math.floor(s / factor / cell) * cell) for s in (height, width)]
        elif math.prod(sides) < self.min_pixels:
            factor = math.sqrt(self.min_pixels / (height * width))
            sides = [math.ceil(s * factor / cell) * cell for s in (height, width)]
        return sides[0], sides[1]


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
        raise UserError(
            "Expected a picture of 8 bits and shape (height, width, 3), found "
            f"{image.dtype} of shape {image.shape}."
        )


def _padded(image: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    height, width = image.shape[:2]
    side = max(height, width)
    out = np.empty((side, side, 3), np.uint8)
    out[:] = colour
    top, left = (side - height) // 2, (side - width) // 2
    out[top : top + height, left : left + width] = image
    return out


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _normalised(
    image: np.ndarray, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> np.ndarray:
    low, scale = (np.asarray(c, np.float32) for c in (mean, deviation))
    return (image.astype(np.float32) / _WHITE - low) / scale
