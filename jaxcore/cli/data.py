"""``jaxcore data``."""

from pathlib import Path
from typing import Literal

import tyro

from jaxcore.cli.output import show


def data(
    action: tyro.conf.Positional[Literal["pack"]],
    folder: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    degraded: str = "degraded",
    clean: str = "clean",
    pair_by: str = "auto",
    skip_broken: bool = False,
    split: str = "train",
    shard_examples: int = 1000,
    overwrite: bool = False,
) -> None:
    """Pack a folder of pairs as a TFDS data set (array_record format).

    FOLDER holds two folders of pairs, or folders of scenes that hold these two, or one folder for
    each split (train, test, val) that holds such. Train on the result with --data.kind tfds.

    Args:
      action: what to do.
      folder: of pairs.
      out: new folder; its last part names the data set (small letters, digits and _).
      degraded: name of the folders of degraded images.
      clean: name of the folders of clean images.
      pair_by: rule on names: auto (guessed, and said), name (equal ones), beginning (many to one),
        index, '{}_hazy => {}_GT', or a regular expression.
      skip_broken: leave pairs out that cannot be read or differ in size, and count them.
      split: name of the split if FOLDER has no folders of splits.
      shard_examples: pairs in one file.
      overwrite: replace OUT if it exists.
    """
    from jaxcore.cli.progress import steps
    from jaxcore.cli.shell import quoted
    from jaxcore.data.images.pack import pack

    del action  # there is one so far
    with steps("packing") as progress:
        counts = pack(
            folder,
            out,
            degraded=degraded,
            clean=clean,
            pair_by=pair_by,
            skip_broken=skip_broken,
            split=split,
            shard_examples=shard_examples,
            overwrite=overwrite,
            progress=progress,
            say=show,
        )
    for name, count in counts.items():
        show(f"{name:12}{count:8} pairs")
    root = out.absolute()
    show(f"written: {out}")
    options = ["--data.kind", "tfds", "--data.root", root.parent, "--data.tfds-name", root.name]
    show(f"use: {quoted(options)}")
