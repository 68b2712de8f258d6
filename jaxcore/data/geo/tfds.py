"""Image sets of TensorFlow Datasets in the array_record format, by key, without TensorFlow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.data.images.tfds import TFDSSource
from jaxcore.data.images.tfds_folder import open_folder
from jaxcore.errors import UserError


def open_tfds(
    name: str,
    data_dir: str | Path,
    split: str,
    *,
    image: str = "image",
    key: str = "key",
    progress: Callable[[int, int], None] | None = None,
    **fields: Any,
) -> KeyedImages:
    """Images of a prepared data set; nothing is downloaded and no code of the set is run.

    Keys are read once, which decodes every image; pixels when they are asked for.

    Args:
      name: as for ``tfds.builder``.
      data_dir: folder that holds the data set's folder.
      split: "train", or part of one.
      image: feature of the images: an Image, or a Tensor of 8 or 16 bits with any number of bands.
      key: text feature of the keys.
      progress: called with (images read, images in all) while keys are collected.
      **fields: of `KeyedImages`.

    Raises:
      UserError: no such data, split or feature, another file format, images that differ in size or
        type, damaged records.
    """
    folder = open_folder(name, data_dir)
    if folder.file_format != "array_record":
        raise UserError(
            f"Expected {folder.path} in the array_record format, found {folder.file_format}."
        )
    if key not in folder.features or not folder.features[key].HasField("text"):
        raise UserError(f"Expected a text feature {key!r} in {folder.path}, found none.")
    source = TFDSSource(folder, split, {"image": image}, named=key, bands=None)
    if not len(source):
        raise UserError(f"Expected images in split {split!r} of {folder.path}, found none.")
    first, keys = source[0]["image"], []
    for i in range(len(source)):
        sample = source[i]
        pixels = sample["image"]
        if (pixels.shape, pixels.dtype) != (first.shape, first.dtype):
            raise UserError(
                f"Expected images of equal shape and type in {folder.path}, found {first.shape} "
                f"{first.dtype} and {pixels.shape} {pixels.dtype} (key {sample['name']!r})."
            )
        keys.append(sample["name"])
        if progress is not None:
            progress(i + 1, len(source))
    return KeyedImages(TFDSRows(source, first), keys, **fields)


class TFDSRows:
    """Pixels of `open_tfds`."""

    def __init__(self, source: TFDSSource, first: np.ndarray) -> None:
        self._source, self.shape, self.dtype = source, (len(source), *first.shape), first.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = np.arange(self.shape[0])[rows]
        images = [self._source[int(i)]["image"] for i in np.atleast_1d(wanted)]
        out = np.stack(images) if images else np.zeros((0, *self.shape[1:]), self.dtype)
        return out if wanted.ndim else out[0]
