"""Folders of the data that dehazing is trained and measured on.

Below one root::

    ITS/train/{hazy,clear}       RESIDE indoor: <id>_<k>_<beta> belongs to <id>
    ITS/test/{hazy,clear}        SOTS indoor: 1400_1 belongs to 1400
    OTS/train/{hazy,clear}       RESIDE outdoor: <id>_<A>_<beta> belongs to <id>
    OTS/test/{hazy,clear}        SOTS outdoor: 0001_0.8_0.2 belongs to 0001
    Haze4K/{train,test}/{hazy,clear}

``SOTS/indoor`` and ``SOTS/outdoor`` are taken where there is no ``test``, ``ITS/hazy`` and
``OTS/hazy`` where there is no ``train``, and ``gt`` for ``clear``, as archives of RESIDE have it;
what was taken is the note of the group. Any image ending will do: the clear images of OTS are JPEG.

The "test" folder of some ITS archives is not SOTS indoor (a network good at one has 20 to 25 dB
on the other); names tell them apart. Decoders of JPEG differ, and outdoor scores with them.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jaxcore.data.images.pairs import PairedFolder
from jaxcore.data.images.sources import Group, Source, Subset
from jaxcore.errors import UserError

_INDOOR = (620, 460)  # width and height, pixels
_BORDER = 10  # pixels of white around clear indoor images as distributed: 640x480, hazy 620x460
_CLEAR = ("clear", "gt")


class _Part(NamedTuple):
    """One half of a set."""

    folders: tuple[str, ...]  # the first that is there is taken
    published: tuple[tuple[int, int], ...]  # (pairs, clear images) of each edition; 0: not stated
    size: tuple[int, int] | None = None  # width and height of all hazy images, pixels
    border: int = 0  # pixels around clear images that hazy ones lack
    names: str = ".+"  # of hazy images, without ending
    named: str = ""  # what such names stand for


_PARTS: dict[str, tuple[_Part, _Part]] = {  # training, test
    "its": (
        _Part(("ITS/train", "ITS"), ((13_990, 1399),), _INDOOR, _BORDER),
        _Part(
            ("ITS/test", "SOTS/indoor"),
            ((500, 50),),
            _INDOOR,
            _BORDER,
            r"14[0-4]\d_\d+",
            "SOTS indoor (1400_1 to 1449_10)",
        ),
    ),
    "ots": (
        _Part(("OTS/train", "OTS"), ((313_950, 8970), (72_135, 2061))),
        _Part(
            ("OTS/test", "SOTS/outdoor"),
            ((500, 0),),
            names=r"\d{4}_[\d.]+_[\d.]+",
            named="SOTS outdoor (such as 0001_0.8_0.2)",
        ),
    ),
    "haze4k": (
        _Part(("Haze4K/train",), ((3000, 0),), (400, 400)),
        _Part(("Haze4K/test",), ((1000, 0),), (400, 400)),
    ),
}
_OTS_BETA_SCENES = 2061
DEHAZING_TASKS = tuple(_PARTS)


def dehazing(
    root: str | Path,
    split: Literal["train", "held_out", "test"],
    tasks: Sequence[str] = ("its",),
    *,
    held_out: int = 0,
    strict: bool = False,
    check_sizes: int = 2000,
    skip_broken: bool = False,
) -> tuple[Group, ...]:
    """Groups of dehazing sets, one per task.

    Args:
      root: folder that holds the sets.
      split: "held_out" is what ``held_out`` takes from "train".
      tasks: of ``DEHAZING_TASKS``.
      held_out: clear images, evenly spread, that are kept from training with all their hazy
        versions. Published figures are the best of a training, chosen on the test set itself;
        with these scenes one can choose without it.
      strict: unpublished counts or sizes, and the names of another test set, are errors, not
        warnings.
      check_sizes: see `PairedFolder`; the published size is looked for in the same images.
      skip_broken: see `PairedFolder`.

    Raises:
      UserError: an unknown task, missing folders, files without a partner, unequal sizes.

    Warns:
      UserWarning: counts or sizes that differ from the published ones, names that are not those
        of the test set, an edition whose training scenes are in the test set too.
    """
    unknown = [task for task in tasks if task not in _PARTS]
    if unknown or not tasks:
        raise UserError(
            f"Expected tasks among {', '.join(_PARTS)}, found {', '.join(unknown) or 'none'}."
        )
    groups = []
    for task in tasks:
        part = _PARTS[task][split == "test"]
        folder, clear = _folders(Path(root), part)
        source = PairedFolder(
            folder / "hazy",
            clear,
            _scene,
            recursive=True,
            spare_clean=True,
            clean_border=part.border,
            check_sizes=check_sizes,
            skip_broken=skip_broken,
        )
        names = [name.rpartition("/")[2] for name, _, _ in source.files]
        scenes = [_scene(name) for name in names]
        for fault in _faults(task, part, names, len(set(scenes)), source.sizes):
            if strict:
                raise UserError(fault)
            warnings.warn(fault, stacklevel=2)
        if split == "train" and task == "ots" and len(set(scenes)) > _OTS_BETA_SCENES:
            warnings.warn(
                f"OTS with {len(set(scenes))} scenes: the edition of 8,970 is reported to contain "
                "those of SOTS outdoor, so scores there may be of scenes seen in training.",
                stacklevel=2,
            )
        held = split == "held_out"
        kept = source if split == "test" else _side(source, scenes, held_out, held=held)
        note = f"{task} from {folder / 'hazy'} and {clear.name}"
        groups.append(Group(task, kept, note=note))
    return tuple(groups)


def _scene(name: str) -> str:
    return name.partition("_")[0]


def _folders(root: Path, part: _Part) -> tuple[Path, Path]:
    """The folder of a part, which holds ``hazy``, and its clear images."""
    folder = next((root / n for n in part.folders if (root / n / "hazy").is_dir()), None)
    if folder is None:
        raise UserError(
            f"Expected a folder {' or '.join(f'{n}/hazy' for n in part.folders)} in {root}, found "
            "none."
        )
    clear = next((folder / name for name in _CLEAR if (folder / name).is_dir()), None)
    if clear is None:
        raise UserError(f"Expected a folder {' or '.join(_CLEAR)} in {folder}, found none.")
    return folder, clear


def _faults(
    task: str,
    part: _Part,
    names: Sequence[str],
    scenes: int,
    sizes: Mapping[str, tuple[int, int]],
) -> list[str]:
    """What makes figures incomparable with published ones."""
    faults = []
    found = (len(names), scenes)
    if not any(found[0] == n and m in (0, found[1]) for n, m in part.published):
        editions = " or ".join(
            f"{n:,} pairs" + (f" from {m:,} clear images" if m else "") for n, m in part.published
        )
        faults.append(
            f"Expected the published {editions} of {task}, found {found[0]:,} pairs from "
            f"{found[1]:,}: figures are not comparable with published ones."
        )
    odd = [name for name in sizes if part.size not in (None, sizes[name])]
    if part.size is not None and odd:
        faults.append(
            f"Expected the published {_by(part.size)} pixels of {task}, found {len(odd)} of "
            f"{len(sizes)} hazy images looked at of another size, such as {odd[0]} of "
            f"{_by(sizes[odd[0]])}: figures are not comparable with published ones."
        )
    others = [name for name in names if not re.fullmatch(part.names, name)]
    if others:
        faults.append(
            f"Expected names of {part.named} in the test set of {task}, found {len(others)} others "
            f"such as {others[0]}: the test folder of some archives is another set, on which "
            "scores differ by 20 dB."
        )
    return faults


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _side(source: Source, scenes: Sequence[str], held_out: int, *, held: bool) -> Source:
    """The pairs of the scenes that are held out, or of all others."""
    unique = sorted(set(scenes))
    if held_out >= len(unique):
        raise UserError(
            f"Expected to hold out fewer than all {len(unique)} clear images, found {held_out}."
        )
    chosen = {unique[i * len(unique) // held_out] for i in range(held_out)}
    return Subset(source, [i for i, scene in enumerate(scenes) if (scene in chosen) == held])
