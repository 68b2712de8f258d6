"""What is done to whole images when they are read: crop, padding, equalisation, one size.

The steps are those of diffusion models that train on squares of one size. They act on 8-bit
images, in the order of `Preparation`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from jaxtyping import Shaped, UInt8

from jaxcore.data.images.crops import eight_bits
from jaxcore.data.images.read import read_rgb
from jaxcore.data.images.sources import Sample, Source, by_stem, list_images
from jaxcore.errors import UserError
from jaxcore.ops.padding import round_up

Resample = Literal["bicubic", "bilinear", "matlab"]
Role = Literal["degraded", "clean", "condition", "truth"]
"""What an image is; "truth" is a clean image that results are measured against."""

CELEBA_BOX = (57, 25, 128, 128)
"""Top, left, height, width of the face in an aligned image of CelebA (DDIM's crop)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """Steps for every image of a sample; the defaults do nothing.

    >>> Preparation.from_dict(Preparation(size=64).to_dict()).size
    64
    """

    crop: tuple[int, int, int, int] | None = None  # top, left, height, width in pixels
    pad: bool = False  # zeros at the bottom and right: up to size, then to a multiple of 8
    equalise: bool = False  # the histogram of each channel of the degraded image
    size: int | None = None  # side of the square every image is resized to, pixels
    resample: Resample = "bicubic"  # Pillow's, with antialiasing; "matlab": MATLAB's bicubic
    truth: Resample | None = None  # of clean images in the evaluation, not padded; None as others

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise UserError(f"Expected a size of at least 1 pixel, found {self.size}.")
        for kind in (self.resample, self.truth or self.resample):
            if kind not in get_args(Resample):
                raise UserError(
                    f"Expected resampling among {', '.join(get_args(Resample))}, found {kind!r}."
                )
        if self.crop is not None and (len(self.crop) != 4 or min(self.crop) < 0):
            raise UserError(f"Expected a crop (top, left, height, width), found {self.crop}.")

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON types."""
        crop = None if self.crop is None else list(self.crop)
        return {**dataclasses.asdict(self), "crop": crop}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        crop = fields.get("crop")
        return cls(**{**fields, "crop": None if crop is None else tuple(crop)})

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


def celeba_files(root: str | Path, split: Literal["train", "test"]) -> list[Path]:
    """Aligned images of a split of CelebA: ``img_align_celeba`` and ``list_eval_partition.txt``.

    Raises:
      UserError: a file is missing, or a listed image.
    """
    root = Path(root)
    table = root / "list_eval_partition.txt"
    if not table.is_file():
        raise UserError(f"Expected the splits of CelebA, found no file {table}.")
    wanted = {"train": "0", "test": "2"}[split]
    rows = [line.split() for line in table.read_text().splitlines() if line.strip()]
    names = [row[0] for row in rows if len(row) == 2 and row[1] == wanted]
    files = [root / "img_align_celeba" / name for name in names]
    absent = next((file for file in files if not file.is_file()), None)
    if absent is not None or not files:
        raise UserError(
            f"Expected images of the split {split} of CelebA, found no {absent or root}."
        )
    return files
