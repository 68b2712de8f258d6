"""Images of units: whose is which, and the scale of their bands."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxcore.data.geo.bands import moments
from jaxcore.data.geo.keyed import KeyedImages, Rows
from jaxcore.errors import UserError, readable


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images, and which of them each unit has.

    >>> pixels = np.arange(8.0).reshape(2, 2, 2, 1)
    >>> Images.of(KeyedImages(pixels, ["a", "b"]), ["b", "a", "b"], 3).row.tolist()
    [1, 0, 1]
    """

    keyed: KeyedImages
    row: Int[np.ndarray, " n"]  # of the units
    mean: Float[np.ndarray, " c"]  # of each band
    sd: Float[np.ndarray, " c"]

    @classmethod
    def of(cls, images: Any, image: Any, n: int) -> "Images":
        """Images of ``n`` units.

        Args:
          images: `KeyedImages`, or an array whose images (or embeddings, (N, d)) have the keys
            0, 1, ...
          image: key of the image of each unit; None: one image per unit, in the same order.
          n: units.

        Raises:
          UserError: images or keys that do not fit, missing pixels, or bands without variation.
        """
        if not isinstance(images, KeyedImages):
            images = images if hasattr(images, "shape") else np.asarray(images)
            if len(images.shape) == 2:  # embeddings: as bands of one pixel
                images = np.asarray(images)[:, None, None]
            images = KeyedImages(images, np.arange(len(images) if images.ndim else 0))
        if image is None and len(images) != n:
            raise UserError(
                f"Expected an image for each of {n} units, or the key of each unit's image, found "
                f"{len(images)} images."
            )
        row = np.arange(n) if image is None else images.rows_of(image)
        if len(row) != n:
            raise UserError(f"Expected {n} keys, one for each unit, found {len(row)}.")
        scale = moments(_whole(images))
        return cls(images, row, np.asarray(scale.mean), np.asarray(scale.sd))

    def of_units(self, kept: Bool[np.ndarray, " n"]) -> "Images":
        """The same images, for some of the units."""
        return dataclasses.replace(self, row=self.row[kept])

    @property
    def keys(self) -> np.ndarray:
        """Key of the image of each unit."""
        return np.asarray(self.keyed.keys)[self.row]

    @property
    def pixels(self) -> Rows:
        """(N, h, w, c), or (N, t, h, w, c), by rows."""
        return self.keyed.images

    @property
    def bands(self) -> int:
        """Number of bands."""
        return int(self.pixels.shape[-1])

    @property
    def side(self) -> int:
        """The smaller of height and width, in pixels."""
        return int(min(self.pixels.shape[-3:-1]))

    def statistics(self) -> tuple[str, ...]:
        """Names of `representations.band_stats` of single images."""
        spec = self.keyed.bands
        bands = [f"band {j + 1}" for j in range(self.bands)] if spec is None else spec.names
        parts = ("mean", "deviation", "10 % quantile", "90 % quantile")
        return tuple(f"{part} of {band}" for part in parts for band in bands)


def _whole(images: KeyedImages) -> Iterator[np.ndarray]:
    """All images in order; the first batch with missing pixels is refused with the keys."""
    start = 0
    for batch in images.batches():
        bad = np.flatnonzero(~np.isfinite(batch).all(axis=tuple(range(1, batch.ndim))))
        if len(bad):
            keys = ", ".join(readable(str(images.keys[start + i]), 40) for i in bad[:5])
            more = ", ..." if len(bad) > 5 else ""
            raise UserError(
                f"Expected images without missing pixels, found some (keys {keys}{more}): fill "
                "them or leave these images out."
            )
        start += len(batch)
        yield batch
