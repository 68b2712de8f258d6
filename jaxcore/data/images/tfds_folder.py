"""What the folder of a TFDS data set says of itself, read without TFDS building anything from it.

TFDS imports the module of every class that a set's ``features.json`` names, and so runs code of a
stranger. Here both JSON files are data, and only features of the few classes below are made.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.errors import UserError, readable
from jaxcore.json_files import read_json

_NAME = re.compile(
    r"(?P<set>\w+)(/(?P<config>[\w+-][\w+.-]*))?(:(?P<version>(\d+|\*)(\.(\d+|\*)){2}))?", re.ASCII
)
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)", re.ASCII)
_WORD = re.compile(r"\w[\w+.-]*", re.ASCII)  # parts of file names: nothing that leaves the folder
_TEMPLATE = re.compile(r"(\{[A-Z_]+\}|[\w.-])*", re.ASCII)  # no widths, which can be gigabytes
_PACKAGE = "tensorflow_datasets.core.features."
IMAGE, TENSOR, TEXT = (
    _PACKAGE + name
    for name in ("image_feature.Image", "tensor_feature.Tensor", "text_feature.Text")
)
"""The classes that are known, as ``features.json`` names them."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """A set of one version: its place, format, splits and the description of its features."""

    path: Path
    file_format: str
    splits: Any  # of TFDS, by name or as "train[:90%]"
    features: Mapping[str, Any]  # name -> its proto: data, no code

    def make(self, name: str) -> Any:
        """The feature of a name, if its class is known and it can hold pictures or text.

        Raises:
          UserError: another class, or other numbers than 8 or 16 bits.
        """
        import tensorflow_datasets as tfds

        stored = self.features[name]
        kind = stored.python_class_name
        content = getattr(stored, stored.WhichOneof("content") or "text")
        dtype = getattr(content, "dtype", "") or "text"
        if kind == TEXT:
            return tfds.features.Text()
        if kind == IMAGE and dtype == "uint8" and stored.HasField("image"):
            form = content.encoding_format or None
            return tfds.features.Image(shape=_shape(content.shape), encoding_format=form)
        if kind == TENSOR and dtype in ("uint8", "uint16") and stored.HasField("tensor"):
            return tfds.features.Tensor(
                shape=_shape(content.shape),
                dtype=np.dtype(dtype).type,
                encoding=content.encoding or "none",
            )
        raise UserError(
            f"Expected feature {name!r} to be an Image of uint8 or a Tensor of uint8 or uint16, "
            f"found {readable(kind.rpartition('.')[2])} of {readable(dtype)}."
        )


def _shape(proto: Any) -> tuple[int | None, ...]:
    return tuple(None if size < 0 else size for size in proto.dimensions)


def open_folder(name: str, data_dir: str | Path) -> Folder:
    """Find a data set below a folder, and read what it says of itself.

    Args:
      name: "pairs", "pairs:1.0.0" (of which parts may be ``*``) or "pairs/config"; the newest
        version that fits is taken.
      data_dir: folder that holds the data set's folder.

    Raises:
      UserError: TFDS is missing, no such set, or files that do not describe one.
    """
    try:
        from etils import epath
        from google.protobuf import json_format
        from tensorflow_datasets.core import naming, proto, splits
    except ImportError:
        raise UserError(
            "Expected tensorflow-datasets, found none: install jaxcore[data]."
        ) from None
    if not Path(data_dir).is_dir():
        raise UserError(f"Expected a folder of TFDS data, found no folder {data_dir}.")
    try:
        path = _find(name, Path(data_dir))
        texts = [read_json(path / f"{part}.json") for part in ("dataset_info", "features")]
        known: Any = proto  # its classes are made when it is imported
        empty = known.dataset_info_pb2.DatasetInfo(), known.feature_pb2.Feature()
        info, features = (
            json_format.ParseDict(text, message, ignore_unknown_fields=True)
            for text, message in zip(texts, empty, strict=True)
        )
        _check_names(info)
        template = naming.ShardedFileTemplate(
            dataset_name=info.name,
            data_dir=epath.Path(path),
            filetype_suffix=info.file_format or "tfrecord",
        )
        return Folder(
            path,
            info.file_format or "tfrecord",
            splits.SplitDict.from_proto(info.splits, template),
            features.features_dict.features,
        )
    except (UserError, json_format.Error, ValueError) as error:
        raise UserError(
            f"Expected the TFDS data set {name!r} prepared in {data_dir}, found: "
            f"{str(error).removesuffix('.')}."
        ) from None


def _check_names(info: Any) -> None:
    """Refuse names that would lead out of the folder or grow without measure."""
    names = [info.name, info.file_format or "tfrecord", *(split.name for split in info.splits)]
    wrong = [text for text in names if not _WORD.fullmatch(text)]
    templates = [split.filepath_template for split in info.splits]
    wrong += [text for text in templates if not _TEMPLATE.fullmatch(text)]
    if wrong:
        raise UserError(f"the name {readable(repr(wrong[0]))} in dataset_info.json")


def _find(name: str, root: Path) -> Path:
    """The folder of the newest version that fits."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError("a name that is not like set, set/config or set:1.0.0")
    folder, config = root / match["set"], match["config"]
    if config is None and not _versions(folder) and (folder / ".config/metadata.json").is_file():
        config = read_json(folder / ".config/metadata.json").get("default_config_name")
    if config:
        if not isinstance(config, str) or not _WORD.fullmatch(config):
            raise UserError(f"the name {readable(repr(config))} in .config/metadata.json")
        folder /= config
    wanted = (match["version"] or "*.*.*").split(".")
    fitting = [
        version
        for version in _versions(folder)
        if all(w in ("*", str(v)) for w, v in zip(wanted, version, strict=True))
    ]
    if not fitting:
        raise UserError(f"no such version with features.json in {folder}")
    return folder / ".".join(map(str, max(fitting)))


def _versions(folder: Path) -> list[tuple[int, ...]]:
    names = [path.parent.name for path in folder.glob("*/features.json")]
    return [tuple(map(int, m.groups())) for m in map(_VERSION.fullmatch, names) if m]
