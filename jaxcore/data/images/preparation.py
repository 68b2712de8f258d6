"""What is done to whole images when they are read: crop, padding, equalisation, one size.

The steps are those of diffusion models that train on squares of one size. They act on 8-bit
images, in the order of `Preparation`.
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Shaped, UInt8

from jaxcore.bounds import Count, Index
from jaxcore.data.images.crops import eight_bits
from jaxcore.data.images.sources import Sample, Source
from jaxcore.errors import UserError
from jaxcore.ops.padding import round_up
from jaxcore.serial import Serial

Resample = Literal["bicubic", "bilinear", "matlab"]
Role = Literal["degraded", "clean", "condition", "truth"]
"""What an image is; "truth" is a clean image that results are measured against."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation(Serial):
    """Steps for every image of a sample; the defaults do nothing.

    >>> Preparation.from_dict(Preparation(size=64).to_dict()).size
    64
    """

    crop: tuple[Index, Index, Index, Index] | None = None  # top, left, height, width in pixels
    pad: bool = False  # zeros at the bottom and right: up to size, then to a multiple of 8
    equalise: bool = False  # the histogram of each channel of the degraded image
    size: Count | None = None  # side of the square every image is resized to, pixels
    resample: Resample = "bicubic"  # Pillow's, with antialiasing; "matlab": MATLAB's bicubic
    truth: Resample | None = None  # of clean images in the evaluation, not padded; None as others

    def __call__(
        self, image: Shaped[np.ndarray, "h w 3"], role: Role = "clean", *, name: str = ""
    ) -> Shaped[np.ndarray, "h2 w2 3"]:
        """Prepare one image; a UserError names it if it is too small for the crop."""
        if self == _NOTHING:
            return image
        image = eight_bits(image)
        if self.crop is not None:
            top, left, height, width = self.crop
            if image.shape[0] < top + height or image.shape[1] < left + width:
                raise UserError(
                    f"Expected at least {left + width}x{top + height} pixels for the crop, found "
                    f"{image.shape[1]}x{image.shape[0]} in {name!r}."
                )
            image = image[top : top + height, left : left + width]
        truth = role == "truth" and self.truth is not None
        if self.pad and not truth:
            sides = (round_up(max(n, self.size or 0), 8) for n in image.shape[:2])
            missing = [(0, side - n) for side, n in zip(sides, image.shape, strict=False)]
            image = np.pad(image, [*missing, (0, 0)])
        if self.equalise and role == "degraded":
            image = equalise(image)
        if self.size is None:
            return image
        return resize_square(image, self.size, (truth and self.truth) or self.resample)


_NOTHING = Preparation()


def equalise(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
    """Flatten the histogram of every channel, as OpenCV's ``equalizeHist`` does.

    >>> equalise(np.array([[[10], [10], [20], [30]]], np.uint8)).ravel().tolist()
    [0, 0, 128, 255]
    """
    out = np.empty_like(image)
    for channel in range(image.shape[-1]):
        levels = image[..., channel]
        counts = np.bincount(levels.ravel(), minlength=256)
        first = int(np.argmax(counts > 0))
        above = levels.size - int(counts[first])
        if above == 0:  # one level only
            out[..., channel] = levels
            continue
        counts[: first + 1] = 0
        scale = np.float32(255) / np.float32(above)
        table = np.rint(np.cumsum(counts).astype(np.float32) * scale)
        out[..., channel] = np.clip(table, 0, 255).astype(np.uint8)[levels]
    return out


def resize_square(
    image: UInt8[np.ndarray, "h w 3"], side: int, resample: Resample = "bicubic"
) -> UInt8[np.ndarray, "s s 3"]:
    """Resize to a square with antialiasing; the aspect ratio is not kept.

    >>> resize_square(np.full((4, 6, 3), 9, np.uint8), 8).shape
    (8, 8, 3)
    """
    from PIL import Image

    if image.shape[:2] == (side, side):
        return image
    if resample == "matlab":
        return _matlab(image, side)
    kind = Image.Resampling.BICUBIC if resample == "bicubic" else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((side, side), kind))


def _matlab(image: np.ndarray, side: int) -> np.ndarray:
    """MATLAB's ``imresize``, bicubic, with one rounding at the end."""
    rows, columns = (_cubic_weights(n, side) for n in image.shape[:2])
    out = np.einsum("ih,hwc,jw->ijc", rows, image.astype(np.float64), columns, optimize=True)
    return np.clip(np.floor(out + 0.5), 0, 255).astype(np.uint8)


def _cubic_weights(length: int, side: int) -> np.ndarray:
    """Matrix (side, length) of Keys' cubic (a = -1/2), widened where it shrinks, mirrored."""
    scale = side / length
    shrink = min(scale, 1.0)
    width = 4 / shrink
    centre = (np.arange(side) + 0.5) / scale - 0.5
    first = np.floor(centre - width / 2).astype(int)
    at = first[:, None] + np.arange(int(np.ceil(width)) + 2)
    x = np.abs(shrink * (centre[:, None] - at))
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x <= 1, near, np.where(x <= 2, far, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])[at % (2 * length)]
    matrix = np.zeros((side, length))
    np.add.at(matrix, (np.arange(side)[:, None], mirrored), weights)
    return matrix


class Prepared:
    """A source whose images are prepared when they are read.

    Args:
      source: what is prepared.
      preparation: how.
      evaluation: clean images are what results are measured against.
    """

    def __init__(self, source: Source, preparation: Preparation, evaluation: bool) -> None:
        self._source, self._preparation = source, preparation
        self._roles: dict[str, Role] = {
            "degraded": "degraded",
            "clean": "truth" if evaluation else "clean",
            "condition": "condition",
        }

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        sample = dict(self._source[index])
        for key, role in self._roles.items():
            if key in sample:
                sample[key] = self._preparation(sample[key], role, name=sample["name"])
        return sample


def prepared(source: Source, preparation: Preparation, *, evaluation: bool = False) -> Source:
    """The source itself where there is nothing to do."""
    return source if preparation == _NOTHING else Prepared(source, preparation, evaluation)
