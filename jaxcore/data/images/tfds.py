"""TensorFlow Datasets as a source, without TensorFlow.

Only data prepared in the array_record format can be read: it alone gives access to any item. Such
sets come from ``jaxcore data pack``, or from ``file_format="array_record"`` when a set is prepared
with TFDS. Nothing is downloaded and no code of a data set is run.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.data.images.sources import Sample
from jaxcore.errors import UserError


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
    builder = _builder(name, data_dir)
    info = builder.info
    file_format = getattr(info.file_format, "value", info.file_format)
    if file_format != "array_record":
        raise UserError(
            f"Expected {info.full_name} in the array_record format, found {file_format}: prepare "
            'it with file_format="array_record".'
        )
    keys = {"degraded": degraded_feature, "clean": clean_feature}
    keys = {key: feature for key, feature in keys.items() if feature}
    return TFDSSource(builder, split, keys)


class TFDSSource:
    """Source of `tfds_source`."""

    def __init__(self, builder: Any, split: str, keys: dict[str, str]) -> None:
        import tensorflow_datasets as tfds

        features = builder.info.features
        missing = [feature for feature in keys.values() if feature not in features]
        if missing:
            raise UserError(
                f"Expected features {', '.join(keys.values())} in {builder.info.full_name}, found "
                f"{', '.join(sorted(features))}."
            )
        for feature in keys.values():
            _check_feature(features[feature], feature)
        self._keys, self._split = keys, split
        self._named = "name" in features and isinstance(features["name"], tfds.features.Text)
        # Images are decoded here, and only those asked for: decoders differ in JPEG.
        self._images = frozenset(
            f for f in features if isinstance(features[f], tfds.features.Image)
        )
        decoders = {feature: tfds.decode.SkipDecoding() for feature in self._images}
        try:
            self._source = builder.as_data_source(split=split, decoders=decoders)
            self._length = len(self._source)
        except Exception as error:  # TFDS raises many kinds for splits and files
            raise UserError(
                f"Expected split {split!r} of {builder.info.full_name} (which has "
                f"{', '.join(builder.info.splits) or 'none'}), found: {_first_line(error)}."
            ) from None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        try:
            item = self._source[index]
        except Exception as error:  # damaged files
            raise UserError(
                f"Expected whole records in {self._split}, found item {index} unreadable: "
                f"{_first_line(error)}."
            ) from None
        sample: Sample = {
            key: self._array(item[feature], feature) for key, feature in self._keys.items()
        }
        name = item["name"].decode() if self._named else f"{index:06d}"
        shapes = {array.shape for array in sample.values()}
        if len(shapes) > 1 or any(len(s) != 3 or s[2] != 3 for s in shapes):
            raise UserError(
                f"Expected images of equal shape (height, width, 3), found "
                f"{' and '.join(map(str, shapes))} in item {name!r}."
            )
        return {**sample, "name": name}

    def _array(self, value: Any, feature: str) -> np.ndarray:
        return decode_rgb(value) if feature in self._images else np.asarray(value)


def decode_rgb(content: bytes) -> np.ndarray:
    """An encoded 8-bit image as RGB, as it is stored: its EXIF orientation is not applied.

    Raises:
      UserError: damaged content.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.array(image.convert("RGB"))
    except Exception as error:
        raise UserError(f"Expected an encoded image, found {_first_line(error)}.") from None


def _builder(name: str, data_dir: str | Path) -> Any:
    try:
        from tensorflow_datasets.core import read_only_builder
    except ImportError:
        raise UserError(
            "Expected tensorflow-datasets, found none: install jaxcore[data]."
        ) from None
    if not Path(data_dir).is_dir():
        raise UserError(f"Expected a folder of TFDS data, found no folder {data_dir}.")
    try:
        return read_only_builder.builder_from_files(name, data_dir=str(data_dir))
    except Exception as error:  # not found, or metadata that cannot be read
        raise UserError(
            f"Expected the TFDS data set {name!r} prepared in {data_dir}, found: "
            f"{_first_line(error)}."
        ) from None


def _check_feature(feature: Any, name: str) -> None:
    import tensorflow_datasets as tfds

    kind, dtype = type(feature).__name__, np.dtype(feature.np_dtype)
    eight = isinstance(feature, tfds.features.Image) and dtype == np.uint8
    if not eight and not (kind == "Tensor" and dtype in (np.uint8, np.uint16)):
        raise UserError(
            f"Expected feature {name!r} to be an Image of uint8 or a Tensor of uint8 or uint16, "
            f"found {kind} of {dtype}."
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__
