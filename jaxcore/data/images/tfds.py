"""TensorFlow Datasets as a source, without TensorFlow.

Only data prepared in the array_record format can be read: it alone gives access to any item. Such
sets come from ``jaxcore data pack``, or from ``file_format="array_record"`` when a set is prepared
with TFDS. Nothing is downloaded and no code of a data set is run.
"""

import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.data.images.read import MAX_BYTES, check_size, open_image
from jaxcore.data.images.sources import Sample
from jaxcore.data.images.tfds_folder import Folder, open_folder
from jaxcore.errors import UserError, readable


def tfds_source(
    name: str,
    data_dir: str | Path,
    split: str,
    *,
    degraded_feature: str = "degraded",
    clean_feature: str = "clean",
) -> "TFDSSource":
    """A prepared TFDS data set.

    Args:
      name: as for ``tfds.builder``: "pairs", "pairs:1.0.0" or "pairs/config".
      data_dir: folder that holds the data set's folder.
      split: "train", or part of one, such as "train[:90%]".
      degraded_feature: feature of the degraded image; empty for sets of clean images.
      clean_feature: feature of the clean image.

    The features are images of 8 bits or tensors of 8 or 16 bits with shape (None, None, 3); a
    text feature ``name`` names the items, else their numbers do.

    Raises:
      UserError: TFDS is missing, there are no such data, another file format, no such split or
        feature.
    """
    folder = open_folder(name, data_dir)
    if folder.file_format != "array_record":
        raise UserError(
            f"Expected {folder.path} in the array_record format, found {folder.file_format}: "
            'prepare it with file_format="array_record".'
        )
    keys = {"degraded": degraded_feature, "clean": clean_feature}
    keys = {key: feature for key, feature in keys.items() if feature}
    return TFDSSource(folder, split, keys)


class TFDSSource:
    """Source of `tfds_source`.

    With ``bands`` None images may have any number of them; ``named`` is the feature of the names.
    """

    def __init__(
        self,
        folder: Folder,
        split: str,
        keys: dict[str, str],
        *,
        named: str = "name",
        bands: int | None = 3,
    ) -> None:
        import tensorflow_datasets as tfds
        from array_record.python import array_record_data_source

        missing = [feature for feature in keys.values() if feature not in folder.features]
        if missing:
            raise UserError(
                f"Expected features {', '.join(keys.values())} in {folder.path}, found "
                f"{', '.join(map(readable, sorted(folder.features)))}."
            )
        made = {feature: folder.make(feature) for feature in keys.values()}
        for feature in keys.values():
            if isinstance(made[feature], tfds.features.Text):
                raise UserError(
                    f"Expected feature {feature!r} to be an Image of uint8 or a Tensor of uint8 or "
                    "uint16, found Text."
                )
        self._named = named in folder.features and folder.features[named].HasField("text")
        self._name, self._bands = named, bands
        if self._named:
            made[named] = tfds.features.Text()
        self._keys, self._split, self._made = keys, split, made
        self._features = tfds.features.FeaturesDict(made)
        # Pictures are decoded here: decoders differ in JPEG, and TFDS unpacks without bounds.
        self._decoders = {feature: tfds.decode.SkipDecoding() for feature in keys.values()}
        try:
            parts = folder.splits[split].file_instructions
            self._source = array_record_data_source.ArrayRecordDataSource(parts)
            self._length = len(self._source)
        except Exception as error:  # TFDS raises many kinds for splits and files
            raise UserError(
                f"Expected split {split!r} of {folder.path} (which has "
                f"{', '.join(folder.splits) or 'none'}), found: {_first_line(error)}."
            ) from None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        try:
            record = self._source[index]
            item: Any = self._features.deserialize_example_np(record, decoders=self._decoders)
            name = item[self._name].decode() if self._named else f"{index:06d}"
        except Exception as error:  # damaged files
            raise UserError(
                f"Expected whole records in {self._split}, found item {index} unreadable: "
                f"{_first_line(error)}."
            ) from None
        sample: Sample = {
            key: self._array(item[feature], feature) for key, feature in self._keys.items()
        }
        shapes = {array.shape for array in sample.values()}
        if len(shapes) > 1 or any(len(s) != 3 or self._bands not in (None, s[2]) for s in shapes):
            raise UserError(
                f"Expected images of equal shape (height, width, {self._bands or 'bands'}), found "
                f"{' and '.join(map(str, shapes))} in item {name!r}."
            )
        return {**sample, "name": name}

    def _array(self, value: Any, name: str) -> np.ndarray:
        import tensorflow_datasets as tfds

        feature = self._made[name]
        if isinstance(feature, tfds.features.Image):
            return decode_rgb(value)
        try:
            shape, value = (
                (value["shape"], value["value"])
                if isinstance(value, dict)
                else (feature.shape, value)
            )
            return _tensor(value, tuple(map(int, shape)), np.dtype(feature.np_dtype))
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise UserError(f"Expected numbers as {name!r}, found: {_first_line(error)}.") from None


def _tensor(value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The numbers of a tensor: as they are, or their bytes, which may be compressed."""
    if not isinstance(value, bytes):
        return np.asarray(value, dtype).reshape(shape)
    if len(shape) != 3:
        raise ValueError(f"the shape {shape}")
    height, width, channels = shape
    check_size(width, height, channels * dtype.itemsize, MAX_BYTES, "a record")
    size = math.prod(shape) * dtype.itemsize
    if len(value) != size:
        value = zlib.decompressobj().decompress(value, size + 1)
    if len(value) != size:
        raise ValueError(f"other than the {size} bytes of shape {shape}")
    return np.frombuffer(value, dtype).reshape(shape)


def decode_rgb(content: bytes) -> np.ndarray:
    """An encoded 8-bit image as RGB, as it is stored: its EXIF orientation is not applied.

    Raises:
      UserError: damaged or too large.
    """
    try:
        with open_image(io.BytesIO(content)) as image:
            check_size(image.width, image.height, 3, MAX_BYTES, "a record")
            return np.array(image.convert("RGB"))
    except UserError:
        raise
    except Exception as error:  # the decoders raise nearly anything
        raise UserError(f"Expected an encoded image, found {_first_line(error)}.") from None


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__
