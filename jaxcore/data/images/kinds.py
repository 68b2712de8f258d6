"""Which data: a JSON-able description, and the groups of images it stands for."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from jaxcore.data.images.degradations import degradation
from jaxcore.data.images.dehazing import dehazing
from jaxcore.data.images.layouts import (
    CDD11_TASKS,
    THREE_TASKS,
    adair_evaluation,
    adair_training,
    cdd11,
)
from jaxcore.data.images.photos import demo_photos
from jaxcore.data.images.preparation import (
    CELEBA_BOX,
    Conditioned,
    PairedByIndex,
    Preparation,
    celeba_files,
    prepared,
)
from jaxcore.data.images.sources import (
    ArraySource,
    CleanFolder,
    Group,
    PairedFolder,
    Source,
    cached,
    hold_out,
)
from jaxcore.data.images.toy import toy_groups, toy_haze
from jaxcore.errors import UserError

Kind = Literal[
    "photos", "toy", "pairs", "clean", "images", "celeba", "adair", "cdd11", "dehazing", "tfds"
]
PairBy = Literal["name", "index"]
_WITHOUT_ROOT = ("photos", "toy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Training and evaluation data of image restoration.

    * ``photos``: the photographs inside the wheels of scikit-image and scikit-learn; ``tasks``
      are degradations made on the fly (noise25, noise50, haze).
    * ``toy``: synthetic scenes with noise or haze (``tasks`` may be haze), see
      `jaxcore.data.images.toy`.
    * ``pairs``: ``root/degraded`` and ``root/clean`` with files of equal names.
    * ``clean``: a folder ``root`` of clean images; ``tasks`` are degradations made on the fly.
    * ``images``: a folder ``root`` of images without degradation, to generate such images.
    * ``celeba``: faces of CelebA below ``root``, cropped as for DDIM; ``tasks`` as for clean, or
      none to generate faces.
    * ``adair``: the folders of the all-in-one papers, see `jaxcore.data.images.layouts`.
    * ``cdd11``: composite degradations, see `jaxcore.data.images.layouts`.
    * ``dehazing``: RESIDE and Haze4K, ``tasks`` among its, ots and haze4k, see
      `jaxcore.data.images.dehazing`.
    * ``tfds``: a TFDS data set in array_record format, such as ``jaxcore data pack`` writes.

    >>> cfg = DataConfig(kind="clean", root="photos", tasks=("rain", "rain+noise50"))
    >>> DataConfig.from_dict(cfg.to_dict()) == cfg
    True
    """

    kind: Kind = "photos"
    root: str = ""  # folder of the training data (all data: adair, cdd11, dehazing, tfds)
    tasks: tuple[str, ...] = ()  # names of groups or degradations; none: those of the kind
    eval_root: str = ""  # pairs, clean: folder of the evaluation data, laid out as root
    # pairs, clean: without eval_root, images kept from training to evaluate; dehazing: clear
    # images kept, with all their hazy versions, to evaluate on instead of the test set
    held_out: int = 0
    degraded_folder: str = "degraded"  # pairs: name below root
    clean_folder: str = "clean"  # pairs: name below root
    condition_folder: str = ""  # pairs: name below root of further images, such as masks
    pair_by: PairBy = "name"  # pairs: by "index" for two kinds of pictures without pairs
    prepare: Preparation = dataclasses.field(default_factory=Preparation)  # not tfds, toy
    denoise_list: str = ""  # adair: text file with one name per line; none: all images
    strict: bool = False  # adair, cdd11, dehazing: unpublished counts are an error
    tfds_name: str = ""  # tfds: name below root, such as "pairs" or "pairs:1.0.0"
    split: str = "train"  # tfds: of training
    eval_split: str = ""  # tfds: of evaluation; none: no evaluation
    degraded_feature: str = "degraded"  # tfds: empty makes the degradation on the fly (tasks)
    clean_feature: str = "clean"  # tfds
    check_sizes: int = 2000  # pairs whose sizes are compared at the start
    cache_gb: float = 0.0  # decoded images kept in memory, 1e9 bytes

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(
                f"Expected data of kind {', '.join(get_args(Kind))}, found {self.kind!r}."
            )
        if self.root and self.kind in _WITHOUT_ROOT:
            raise UserError(
                f"Expected no root for data of kind {self.kind}, found {self.root}: name the kind "
                "of what is there, such as pairs."
            )
        if self.pair_by not in get_args(PairBy):
            raise UserError(f"Expected pair_by name or index, found {self.pair_by!r}.")
        if self.pair_by == "index" and self.condition_folder:
            raise UserError("Expected pairs by name beside a condition_folder, found by index.")
        if self.kind == "clean" and not self.tasks:
            raise UserError("Expected tasks (degradations) for clean images, found none.")
        paired = self.kind == "pairs" or (self.kind == "tfds" and self.degraded_feature)
        if paired and len(self.tasks) > 1:
            raise UserError(f"Expected one task for one set of pairs, found {self.tasks}.")
        if self.kind == "tfds" and not self.tfds_name:
            raise UserError("Expected tfds_name, the name of the data set, found none.")
        if self.kind == "tfds" and not self.degraded_feature and not self.tasks:
            raise UserError("Expected tasks (degradations) for clean images, found none.")
        if len(set(self.tasks)) < len(self.tasks):
            raise UserError(f"Expected different tasks, found {self.tasks}.")
        if self.held_out < 0 or self.check_sizes < 0 or self.cache_gb < 0:
            raise UserError(
                f"Expected held_out, check_sizes and cache_gb of at least 0, found "
                f"{self.held_out}, {self.check_sizes} and {self.cache_gb}."
            )

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON types."""
        own = {"tasks": list(self.tasks), "prepare": self.prepare.to_dict()}
        return {**dataclasses.asdict(self), **own}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; fields that are not given have their defaults.

        Raises:
          UserError: an unknown field, or values that cannot be.
        """
        unknown = fields.keys() - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise UserError(f"Expected fields of DataConfig, found {', '.join(sorted(unknown))}.")
        values = dict(fields)
        values["prepare"] = Preparation.from_dict(values.get("prepare", {}))
        return cls(**{**values, "tasks": tuple(values.get("tasks", ()))})


def training_groups(cfg: DataConfig) -> tuple[Group, ...]:
    """Groups to train on.

    Raises:
      UserError: data that are missing or wrong, or an unknown task.
    """
    return cached(_groups(cfg)[0](), int(cfg.cache_gb * 1e9))


def evaluation_groups(cfg: DataConfig) -> tuple[Group, ...]:
    """Groups to evaluate on; none where the config names no evaluation data.

    Raises:
      UserError: data that are missing or wrong, or an unknown task.
    """
    return _groups(cfg)[1]()


def describe(groups: Iterable[Group]) -> list[tuple[str, int, int, int]]:
    """``(name, unique items, repeat, entries of one epoch)`` of every group.

    >>> import numpy as np
    >>> source = ArraySource({"a": np.zeros((2, 2, 3), np.uint8)})
    >>> describe([Group("haze", source, repeat=3)])
    [('haze', 1, 3, 3)]
    """
    return [(g.name, len(g.source), g.repeat, g.entries) for g in groups]


_Groups = Callable[[], tuple[Group, ...]]


def _groups(cfg: DataConfig) -> tuple[_Groups, _Groups]:
    if cfg.kind not in _WITHOUT_ROOT and not cfg.root:
        raise UserError(f"Expected a root folder for data of kind {cfg.kind}, found none.")
    training, evaluation = _GROUPS[cfg.kind](cfg)
    return (
        lambda: _prepared(cfg, training(), evaluation=False),
        lambda: _prepared(cfg, evaluation(), evaluation=True),
    )


def _prepared(cfg: DataConfig, groups: tuple[Group, ...], *, evaluation: bool) -> tuple[Group, ...]:
    """Groups that share a source share its prepared images."""
    preparation = cfg.prepare
    if cfg.kind == "celeba":
        preparation = dataclasses.replace(preparation, crop=preparation.crop or CELEBA_BOX)
    sources = {
        id(group.source): prepared(group.source, preparation, evaluation=evaluation)
        for group in groups
    }
    return tuple(dataclasses.replace(g, source=sources[id(g.source)]) for g in groups)


def _on_the_fly(source: Source, names: Iterable[str]) -> tuple[Group, ...]:
    """One group per degradation; an unknown one is an error now, not in a thread later."""
    for name in names:
        degradation(name)
    return tuple(Group(name, source, degradation=name) for name in names)


def _photos(cfg: DataConfig) -> tuple[_Groups, _Groups]:
    names = cfg.tasks or ("noise25", "noise50", "haze")

    def groups(part: int) -> tuple[Group, ...]:
        source = ArraySource({photo.name: photo.image for photo in demo_photos()[part]})
        return _on_the_fly(source, names)

    return lambda: groups(0), lambda: groups(1)


def _toy(cfg: DataConfig) -> tuple[_Groups, _Groups]:
    if cfg.tasks == ("haze",):
        return lambda: (toy_haze(1, 512),), lambda: (toy_haze(2, 32),)
    if cfg.tasks:
        raise UserError(f"Expected the task haze or none of toy data, found {cfg.tasks}.")
    return lambda: toy_groups(1, 512), lambda: toy_groups(2, 32)


def _folders(
    cfg: DataConfig, load: Callable[[Path], Source], group: Callable[[Source], tuple[Group, ...]]
) -> tuple[_Groups, _Groups]:
    """Training and evaluation from two folders, or from one with images held out."""

    def training() -> tuple[Group, ...]:
        source = load(Path(cfg.root))
        return group(source if cfg.eval_root else hold_out(source, cfg.held_out)[0])

    def evaluation() -> tuple[Group, ...]:
        if cfg.eval_root:
            return group(load(Path(cfg.eval_root)))
        if cfg.held_out == 0:
            return ()
        return group(hold_out(load(Path(cfg.root)), cfg.held_out)[1])

    return training, evaluation


def _pairs(cfg: DataConfig) -> tuple[_Groups, _Groups]:
    def load(folder: Path) -> Source:
        degraded, clean = folder / cfg.degraded_folder, folder / cfg.clean_folder
        if cfg.pair_by == "index":
            return PairedByIndex(degraded, clean)
        source = PairedFolder(degraded, clean, check_sizes=cfg.check_sizes)
        if not cfg.condition_folder:
            return source
        names = [name for name, _, _ in source.files]
        return Conditioned(source, folder / cfg.condition_folder, names)

    name = cfg.tasks[0] if cfg.tasks else "pairs"
    return _folders(cfg, load, lambda source: (Group(name, source),))


def _clean(cfg: DataConfig) -> tuple[_Groups, _Groups]:
    return _folders(cfg, CleanFolder, lambda source: _on_the_fly(source, cfg.tasks))


def _images(cfg: DataConfig) -> tuple[_Groups, _Groups]:
    name = cfg.tasks[0] if cfg.tasks else "images"
    return _folders(cfg, CleanFolder, lambda source: (Group(name, source),))


def _celeba(cfg: DataConfig) -> tuple[_Groups, _Groups]:
    def groups(split: Literal["train", "test"]) -> tuple[Group, ...]:
        folder = Path(cfg.root, "img_align_celeba")
        source = CleanFolder(folder, celeba_files(cfg.root, split))
        return _on_the_fly(source, cfg.tasks) if cfg.tasks else (Group("celeba", source),)

    return lambda: groups("train"), lambda: groups("test")


def _adair(cfg: DataConfig) -> tuple[_Groups, _Groups]:
    tasks = cfg.tasks or THREE_TASKS
    options: dict[str, Any] = {"strict": cfg.strict, "check_sizes": cfg.check_sizes}
    return (
        lambda: adair_training(cfg.root, tasks, denoise_list=cfg.denoise_list, **options),
        lambda: adair_evaluation(cfg.root, tasks, **options),
    )


def _cdd11(cfg: DataConfig) -> tuple[_Groups, _Groups]:
    tasks = cfg.tasks or CDD11_TASKS
    options: dict[str, Any] = {"strict": cfg.strict, "check_sizes": cfg.check_sizes}
    return (
        lambda: cdd11(cfg.root, "train", tasks, **options),
        lambda: cdd11(cfg.root, "test", tasks, **options),
    )


def _dehazing(cfg: DataConfig) -> tuple[_Groups, _Groups]:
    load = functools.partial(
        dehazing,
        cfg.root,
        tasks=cfg.tasks or ("its",),
        held_out=cfg.held_out,
        strict=cfg.strict,
        check_sizes=cfg.check_sizes,
    )
    return lambda: load("train"), lambda: load("held_out" if cfg.held_out else "test")


def _tfds(cfg: DataConfig) -> tuple[_Groups, _Groups]:
    def groups(split: str) -> tuple[Group, ...]:
        from jaxcore.data.images.tfds import (
            tfds_source,  # a heavy import, only for those who use it
        )

        source = tfds_source(
            cfg.tfds_name,
            cfg.root,
            split,
            degraded_feature=cfg.degraded_feature,
            clean_feature=cfg.clean_feature,
        )
        if not cfg.degraded_feature:
            return _on_the_fly(source, cfg.tasks)
        name = cfg.tasks[0] if cfg.tasks else cfg.tfds_name.split(":")[0].replace("/", "_")
        return (Group(name, source),)

    return lambda: groups(cfg.split), lambda: groups(cfg.eval_split) if cfg.eval_split else ()


_GROUPS: dict[str, Callable[[DataConfig], tuple[_Groups, _Groups]]] = {
    "photos": _photos,
    "toy": _toy,
    "pairs": _pairs,
    "clean": _clean,
    "images": _images,
    "celeba": _celeba,
    "adair": _adair,
    "cdd11": _cdd11,
    "dehazing": _dehazing,
    "tfds": _tfds,
}
