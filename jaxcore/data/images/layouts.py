"""Folders of published restoration data, with the repetitions and counts of the papers.

All-in-one restoration (PromptIR, AdaIR and their successors) has one tree::

    Train/Denoise                            BSD400 and WED, clean
    Train/Derain/{rainy,gt}                  Rain100L: rain-<k> belongs to norain-<k>
    Train/Dehaze/{synthetic/part*,original}  RESIDE OTS: <id>_<A>_<beta> belongs to <id>
    Train/Deblur/{blur,sharp}                GoPro
    Train/Enhance/{low,gt}                   LOL-v1
    test/denoise/{bsd68,urban100,kodak24}
    test/derain/Rain100L/{input,target}
    test/dehaze/{input,target}               SOTS outdoor: <id>_<A>_<beta> belongs to <id>
    test/deblur/gopro/{input,target}
    test/enhance/lol/{input,target}

CDD-11 (OneRestore) has ``CDD-11_train`` and ``CDD-11_test`` (or ``train`` and ``test``), each with
``clear`` and a folder of the same names for each of its eleven single and composite degradations.

The official code loads noise only when ``denoise_15`` is among its tasks; here each level stands
for itself.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxcore.data.images.broken import whole_files
from jaxcore.data.images.pairs import PairedFolder
from jaxcore.data.images.sources import CleanFolder, Group, Source, by_stem, list_images
from jaxcore.errors import UserError

THREE_TASKS = ("denoise_15", "denoise_25", "denoise_50", "derain", "dehaze")
FIVE_TASKS = (*THREE_TASKS, "deblur", "enhance")
CDD11_TASKS = (
    *("haze", "rain", "snow", "low"),
    *("haze_rain", "haze_snow", "low_haze", "low_rain", "low_snow"),
    *("low_haze_rain", "low_haze_snow"),
)
CELEBA_BOX = (57, 25, 128, 128)
"""Top, left, height, width of the face in an aligned image of CelebA (DDIM's crop)."""
_CDD11_COUNTS = {"train": 1183, "test": 200}  # clear images: 13,013 and 2,200 pairs


class _Folders(NamedTuple):
    """Degraded images, clean images (none: the same folder, noise on the fly), their number."""

    degraded: str
    clean: str = ""
    published: int = 0
    match: Callable[[str], str] = str
    spare_clean: bool = False  # clean images without a degraded one are no mistake


class _Task(NamedTuple):
    repeat: int  # copies in the list of one epoch
    train: _Folders
    test: dict[str, _Folders]  # by the name of the test set


def _before_underscore(name: str) -> str:
    return name.partition("_")[0]


def _without_rain(name: str) -> str:
    return name.replace("rain-", "norain-", 1) if name.startswith("rain-") else name


def _pair(folder: str, published: int, **options: Any) -> _Folders:
    return _Folders(f"{folder}/input", f"{folder}/target", published, **options)


_OTS = {"match": _before_underscore, "spare_clean": True}
_DENOISE = _Task(
    3,
    _Folders("Denoise", published=5144),
    {
        "bsd68": _Folders("denoise/bsd68", published=68),
        "urban100": _Folders("denoise/urban100", published=100),
        "kodak24": _Folders("denoise/kodak24", published=24),
    },
)
_TASKS = {
    "denoise_15": _DENOISE,
    "denoise_25": _DENOISE,
    "denoise_50": _DENOISE,
    "derain": _Task(
        120,
        _Folders("Derain/rainy", "Derain/gt", 200, _without_rain),
        {"rain100l": _pair("derain/Rain100L", 100)},
    ),
    "dehaze": _Task(
        1,
        _Folders("Dehaze/synthetic", "Dehaze/original", 72135, **_OTS),
        {"sots": _pair("dehaze", 500, **_OTS)},
    ),
    "deblur": _Task(
        5, _Folders("Deblur/blur", "Deblur/sharp", 2103), {"gopro": _pair("deblur/gopro", 1111)}
    ),
    "enhance": _Task(
        20, _Folders("Enhance/low", "Enhance/gt", 485), {"lol": _pair("enhance/lol", 15)}
    ),
}


def adair_training(
    root: str | Path,
    tasks: Sequence[str] = THREE_TASKS,
    *,
    denoise_list: str | Path = "",
    strict: bool = False,
    check_sizes: int = 2000,
    skip_broken: bool = False,
) -> tuple[Group, ...]:
    """Groups of the all-in-one training, repeated as in the papers.

    Args:
      root: folder that holds ``Train``.
      tasks: of ``FIVE_TASKS``.
      denoise_list: text file with one image name per line, such as the published one, to choose
        from ``Train/Denoise``; a leading ``a`` of a name and the ending do not matter, since
        public archives of BSD400 lack the ``a`` of the list. None takes all images.
      strict: counts other than the published ones are an error instead of a warning.
      check_sizes: see `PairedFolder`.
      skip_broken: see `PairedFolder`.

    Raises:
      UserError: an unknown task, missing folders, files without a partner.
    """
    _check_tasks(tasks, FIVE_TASKS)
    train = Path(root) / "Train"
    sources: dict[str, Source] = {}  # the three noise levels share one
    groups = []
    for name in tasks:
        task = _TASKS[name]
        if task.train.degraded not in sources:
            listed = denoise_list if task is _DENOISE else ""
            sources[task.train.degraded] = _source(
                train, task.train, check_sizes, skip_broken, listed
            )
        source = sources[task.train.degraded]
        groups.append(Group(name, source, task.repeat, _noise(name)))
    _check_counts(groups, [_TASKS[name].train.published for name in tasks], strict)
    return tuple(groups)


def adair_evaluation(
    root: str | Path,
    tasks: Sequence[str] = THREE_TASKS,
    *,
    strict: bool = False,
    check_sizes: int = 2000,
    skip_broken: bool = False,
) -> tuple[Group, ...]:
    """Groups of the all-in-one evaluation, named ``<task>_<test set>``.

    Of the three sets for noise those that are there are taken; other tasks have one, which must
    be there.

    Raises:
      UserError: an unknown task, missing folders, files without a partner.
    """
    _check_tasks(tasks, FIVE_TASKS)
    test = Path(root) / "test"
    sources: dict[str, Source] = {}
    groups, published = [], []
    for name in tasks:
        sets = _TASKS[name].test
        there = {key: f for key, f in sets.items() if (test / f.degraded).is_dir()} or sets
        for key, folders in there.items():
            if folders.degraded not in sources:
                sources[folders.degraded] = _source(test, folders, check_sizes, skip_broken, "")
            group = Group(f"{name}_{key}", sources[folders.degraded], degradation=_noise(name))
            groups.append(group)
            published.append(folders.published)
    _check_counts(groups, published, strict)
    return tuple(groups)


def cdd11(
    root: str | Path,
    split: str,
    tasks: Sequence[str] = CDD11_TASKS,
    *,
    strict: bool = False,
    check_sizes: int = 2000,
    skip_broken: bool = False,
) -> tuple[Group, ...]:
    """Groups of CDD-11, one per single or composite degradation.

    Args:
      root: folder that holds the two parts.
      split: "train" or "test".
      tasks: of ``CDD11_TASKS``.
      strict: counts other than the published ones are an error instead of a warning.
      check_sizes: see `PairedFolder`.
      skip_broken: see `PairedFolder`.

    Raises:
      UserError: an unknown task, missing folders, files without a partner.
    """
    _check_tasks(tasks, CDD11_TASKS)
    folder = Path(root) / f"CDD-11_{split}"
    if not folder.is_dir() and (Path(root) / split).is_dir():
        folder = Path(root) / split
    options = {"check_sizes": check_sizes, "skip_broken": skip_broken}
    groups = [
        Group(name, PairedFolder(folder / name, folder / "clear", **options)) for name in tasks
    ]
    _check_counts(groups, [_CDD11_COUNTS[split]] * len(groups), strict)
    return tuple(groups)


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


def listed_images(folder: str | Path, names_file: str | Path) -> list[Path]:
    """Images of a folder that a text file names, with or without a leading ``a``.

    Raises:
      UserError: no such list, or names that no image bears.
    """
    folder = Path(folder)
    try:
        lines = Path(names_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Expected a text file of names, found {names_file}: {error}.") from None
    names = [Path(line.strip()).stem for line in lines if line.strip()]
    files = by_stem(list_images(folder), folder)
    found: dict[Path, None] = {}  # ordered, each once
    missing = []
    for name in names:
        file = next(
            (files[n] for n in (name, name.removeprefix("a"), f"a{name}") if n in files), None
        )
        if file is None:
            missing.append(name)
        else:
            found[file] = None
    if missing or not names:
        raise UserError(
            f"Expected the {len(names)} images of {names_file} in {folder}, found "
            f"{len(names) - len(missing)}; missing are {', '.join(missing[:3]) or 'all'}"
            f"{', ...' if len(missing) > 3 else ''}."
        )
    return sorted(found)


def _noise(task: str) -> str | None:
    return f"noise{task.removeprefix('denoise_')}" if task.startswith("denoise_") else None


def _source(
    root: Path,
    folders: _Folders,
    check_sizes: int,
    skip_broken: bool,
    names_file: str | Path,
) -> Source:
    if not folders.clean:
        folder = root / folders.degraded
        files = listed_images(folder, names_file) if names_file else list_images(folder)
        return CleanFolder(folder, whole_files(files, skip_broken, check_sizes))
    return PairedFolder(
        root / folders.degraded,
        root / folders.clean,
        folders.match,
        recursive=True,
        spare_clean=folders.spare_clean,
        check_sizes=check_sizes,
        skip_broken=skip_broken,
    )


def _check_tasks(tasks: Sequence[str], known: Sequence[str]) -> None:
    unknown = [task for task in tasks if task not in known]
    if unknown or not tasks:
        raise UserError(
            f"Expected tasks among {', '.join(known)}, found {', '.join(unknown) or 'none'}."
        )


def _check_counts(groups: Sequence[Group], published: Sequence[int], strict: bool) -> None:
    other = [
        f"{group.name} {len(group.source)} instead of {count}"
        for group, count in zip(groups, published, strict=True)
        if len(group.source) != count
    ]
    if not other:
        return
    text = f"Expected the published numbers of images, found {', '.join(other)}"
    if strict:
        raise UserError(f"{text}.")
    warnings.warn(f"{text}: figures are not comparable with published ones.", stacklevel=3)
