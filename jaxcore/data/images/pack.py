"""Folders of pairs as TFDS data sets in the array_record format: few big files, quick to shuffle.

The result holds its own description, so ``tfds.builder_from_directory`` opens it without this
library.
"""

import functools
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.atomic import whole_folder
from jaxcore.data.images.broken import say_left_out
from jaxcore.data.images.pairing import AUTO, check_rule
from jaxcore.data.images.pairs import USUAL, Listing, PairedFolder, two_folders
from jaxcore.data.images.read import open_image
from jaxcore.data.images.tfds import decode_rgb
from jaxcore.errors import UserError

VERSION = "1.0.0"
_WRITTEN_TOGETHER = 64  # examples between updates of the description


def pack(
    folder: str | Path,
    out: str | Path,
    *,
    degraded: str = USUAL[0],
    clean: str = USUAL[1],
    pair_by: str = AUTO,
    skip_broken: bool = False,
    split: str = "train",
    shard_examples: int = 1000,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, int]:
    """Write pairs of images as a TFDS data set.

    ``folder`` holds two folders of pairs, ``degraded`` and ``clean``, which may lie in folders of
    scenes (`jaxcore.data.images.pairs.two_folders`); or one folder for each split (called train,
    test, val ...) that holds these. The set is written to ``out/1.0.0`` and named
    after the last part of ``out``: read it with ``tfds_source(out.name, out.parent, split)``.

    The items keep the order of their names and have the features ``degraded``, ``clean`` and
    ``name``. PNG and JPEG files are stored as they are if they decode to the very pixels that
    `read_rgb` gives, else as PNG. If any image has 16 bits, all are stored as compressed
    tensors of uint16. What is read back equals what the folder gives.

    Args:
      folder: of pairs.
      out: new folder; it appears whole or not at all.
      degraded: name of the folders of degraded images.
      clean: name of the folders of clean images.
      pair_by: rule on names, see `jaxcore.data.images.pairing`.
      skip_broken: leave pairs out that cannot be read or differ in size, with a warning.
      split: name of the split if ``folder`` has no folders of splits.
      shard_examples: pairs in one file.
      overwrite: replace ``out`` if it exists.
      progress: called with (pairs done, pairs in all).
      say: called with how pairs were found, where names are not simply equal.

    Returns:
      Pairs of each split.

    Raises:
      UserError: wrong or missing pairs, a damaged image, ``out`` exists or cannot be written.
    """
    folder, out = Path(folder), Path(out).absolute()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", out.name):
        raise UserError(
            f"Expected a name of small letters, digits and _ for the data set, found {out.name!r}."
        )
    if shard_examples < 1:
        raise UserError(f"Expected at least one pair in a file, found {shard_examples}.")
    check_rule(pair_by)
    found = _splits(folder, degraded, clean, split)
    sources = {
        name: PairedFolder(*listings, pair_by, skip_broken=skip_broken)
        for name, listings in found.items()
    }
    for note in dict.fromkeys(source.note for source in sources.values()):
        if note and say is not None:
            say(note)
    with whole_folder(out, overwrite=overwrite) as temporary:
        write = functools.partial(
            _write,
            sources,
            temporary / VERSION,
            out.name,
            shard_examples=shard_examples,
            skip_broken=skip_broken,
            progress=progress,
        )
        try:
            return write(np.uint8)
        except _Deep:
            shutil.rmtree(temporary / VERSION)
            return write(np.uint16)


class _Deep(Exception):
    """An image of 16 bits was met in a set that was begun with 8."""


_SPLIT = re.compile(r"(train|test|val|eval|dev)[a-z]*", re.IGNORECASE)


def _splits(
    folder: Path, degraded: str, clean: str, split: str
) -> dict[str, tuple[Listing, Listing]]:
    """Name of a split -> its degraded and its clean images."""
    if not folder.is_dir():
        raise UserError(f"Expected a folder of pairs, found no folder {folder}.")
    found = {split: folder}
    if not (folder / degraded).is_dir() and not (folder / clean).is_dir():
        parts = [p for p in sorted(folder.iterdir()) if p.is_dir() and _SPLIT.match(p.name)]
        found = {part.name: part for part in parts} or found
    bad = [name for name in found if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)]
    if bad:
        raise UserError(
            f"Expected names of letters, digits and _ for splits, found {', '.join(bad)}."
        )
    return {name: two_folders(path, degraded, clean) for name, path in found.items()}


def _write(
    sources: dict[str, PairedFolder],
    directory: Path,
    name: str,
    dtype: type[np.uint8] | type[np.uint16],
    *,
    shard_examples: int,
    skip_broken: bool,
    progress: Callable[[int, int], None] | None,
) -> dict[str, int]:
    """Pairs that were written, of each split."""
    tfds = _tfds()
    image = tfds.features.Image(shape=(None, None, 3))
    if dtype is np.uint16:
        image = tfds.features.Tensor(shape=(None, None, 3), dtype=np.uint16, encoding="zlib")
    directory.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version(VERSION),
        data_dir=os.fspath(directory),
        module_name="jaxcore",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description="Pairs of degraded and clean images.",
        features=tfds.features.FeaturesDict(
            {"degraded": image, "clean": image, "name": tfds.features.Text()}
        ),
        supervised_keys=("degraded", "clean"),
        disable_shuffling=True,
    )
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=shard_examples, file_format="array_record"
    )
    writer.initialize_splits(list(sources))
    done, total = 0, sum(map(len, sources.values()))
    counts, faults = dict.fromkeys(sources, 0), []
    for split, source in sources.items():
        waiting = []
        for example in _examples(source, dtype):
            done += 1
            if isinstance(example, UserError):
                if not skip_broken:
                    raise example
                faults.append(str(example))
                continue
            waiting.append(example)
            counts[split] += 1
            if len(waiting) == _WRITTEN_TOGETHER:
                writer.add_examples({split: waiting})
                waiting = []
            if progress is not None:
                progress(done, total)
        if waiting:
            writer.add_examples({split: waiting})
        writer.close_splits([split])
    if faults:
        say_left_out(faults, total)
    return counts


def _examples(
    source: PairedFolder, dtype: type[np.uint8] | type[np.uint16]
) -> Iterator[dict[str, Any] | UserError]:
    """Examples, or why there is none."""
    for i, (name, *files) in enumerate(source.files):
        try:
            sample = source[i]
        except UserError as error:
            yield error
            continue
        example: dict[str, Any] = {"name": name}
        for key, file in zip(("degraded", "clean"), files, strict=True):
            pixels = sample[key]
            if dtype is np.uint16:
                scale = 1 if pixels.dtype == np.uint16 else 257
                example[key] = pixels.astype(np.uint16) * np.uint16(scale)
            elif pixels.dtype == np.uint16:
                raise _Deep
            else:
                example[key] = io.BytesIO(_encoded(file, pixels))
        yield example


def _encoded(file: Path, pixels: np.ndarray) -> bytes:
    """The file itself where any decoder gives these pixels, else a PNG of them."""
    from PIL import Image

    content = file.read_bytes()
    with open_image(io.BytesIO(content)) as image:
        plain = image.format in ("PNG", "JPEG") and image.mode == "RGB"
        plain = plain and "transparency" not in image.info
    if plain and np.array_equal(decode_rgb(content), pixels):
        return content
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _tfds() -> Any:
    try:
        import tensorflow_datasets
    except ImportError:
        raise UserError(
            "Expected tensorflow-datasets, found none: install jaxcore[data]."
        ) from None
    return tensorflow_datasets
