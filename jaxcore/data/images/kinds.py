"""Which images to train and evaluate on: one description, a JSON-able dataclass, per kind of data.

>>> data = CleanImages(root="photos", tasks=("rain", "rain+noise50"))
>>> ImageData.from_dict(data.to_dict()) == data
True
"""

import abc
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from jaxcore.bounds import AtLeast, Index
from jaxcore.data.images.broken import whole_files, without_broken
from jaxcore.data.images.degradations import CLEAN, CLEAN_ANY, degradation
from jaxcore.data.images.dehazing import dehazing
from jaxcore.data.images.layouts import (
    CDD11_TASKS,
    CELEBA_BOX,
    THREE_TASKS,
    adair_evaluation,
    adair_training,
    cdd11,
    celeba_files,
)
from jaxcore.data.images.pairing import AUTO, check_rule
from jaxcore.data.images.pairs import USUAL, Conditioned, PairedFolder, Unpaired, two_folders
from jaxcore.data.images.photos import demo_photos, photos_as_they_are
from jaxcore.data.images.preparation import Preparation, prepared
from jaxcore.data.images.sources import (
    ArraySource,
    CleanFolder,
    Group,
    Source,
    cached,
    hold_out,
    list_images,
)
from jaxcore.data.images.toy import toy_groups, toy_haze
from jaxcore.errors import UserError
from jaxcore.serial import Serial, from_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageData(Serial, abc.ABC):
    """What all kinds of images have in common; each kind is a class of its own."""

    condition_folder = ""  # of kinds without further images
    own_options: ClassVar[tuple[str, ...]] = ()  # names whose values mean nothing to other kinds

    kind: str
    tasks: tuple[str, ...] = ()  # names of groups or degradations; none: those of the kind
    prepare: Preparation = dataclasses.field(default_factory=Preparation)
    cache_gb: Annotated[float, AtLeast(0)] = 0.0  # decoded images kept in memory, 1e9 bytes
    skip_broken: bool = False  # leave images out that cannot be read, and count them

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.tasks)) < len(self.tasks):
            raise UserError(f"Expected different tasks, found {self.tasks}.")

    @property
    def comparable(self) -> bool:
        """Whether the degraded and the clean image of a sample show the same."""
        return True

    def wholly_evaluated(self) -> Self:
        """The same data, evaluated on the training part where no other is named."""
        return self

    @abc.abstractmethod
    def _groups(self, *, evaluation: bool) -> tuple[Group, ...]:
        """Groups to train or to evaluate on, as they are in the files."""

    @staticmethod
    def kinds() -> "dict[str, type[ImageData]]":
        """Name of a kind, as commands and files have it, and its class."""
        return {kind.kind: kind for kind in _KINDS}

    @staticmethod
    def of_kind(kind: str) -> "type[ImageData]":
        """The class of a kind.

        Raises:
          UserError: there is no such kind.
        """
        kinds = ImageData.kinds()
        if kind not in kinds:
            raise UserError(f"Expected data of kind {', '.join(kinds)}, found {kind!r}.")
        return kinds[kind]

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "ImageData":  # type: ignore[override]  # of any kind
        """Inverse of `to_dict`, for data of any kind.

        Raises:
          UserError: an unknown kind or field, or values that cannot be.
        """
        return from_json(cls.of_kind(fields.get("kind", "photos")), fields)

    @classmethod
    def migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Leave out the fields of other kinds: once, every kind had the fields of all."""
        if not {"denoise_list", "tfds_name"} <= data.keys():  # no kind has both
            return data
        other = {f.name for kind in _KINDS for f in dataclasses.fields(kind)}
        other -= {f.name for f in dataclasses.fields(cls)}
        return {name: value for name, value in data.items() if name not in other}


def training_groups(data: ImageData) -> tuple[Group, ...]:
    """Groups to train on.

    Raises:
      UserError: data that are missing or wrong, or an unknown task.
    """
    return cached(_prepared(data, evaluation=False), int(data.cache_gb * 1e9))


def evaluation_groups(data: ImageData) -> tuple[Group, ...]:
    """Groups to evaluate on; none where the description names no evaluation data.

    Pictures without a degradation are not among them: there is nothing to gain on them.

    Raises:
      UserError: data that are missing or wrong, or an unknown task.
    """
    groups = _prepared(data, evaluation=True)
    return tuple(group for group in groups if group.degradation not in (CLEAN, CLEAN_ANY))


def describe(groups: Iterable[Group]) -> list[tuple[str, int, int, int]]:
    """``(name, unique items, repeat, entries of one epoch)`` of every group.

    >>> import numpy as np
    >>> source = ArraySource({"a": np.zeros((2, 2, 3), np.uint8)})
    >>> describe([Group("haze", source, repeat=3)])
    [('haze', 1, 3, 3)]
    """
    return [(g.name, len(g.source), g.repeat, g.entries) for g in groups]


def _prepared(data: ImageData, *, evaluation: bool) -> tuple[Group, ...]:
    """Groups that share a source share its prepared images."""
    groups = data._groups(evaluation=evaluation)
    if data.skip_broken:
        groups = without_broken(groups, evaluation=evaluation)
    steps = data.prepare
    if isinstance(data, CelebA):
        steps = dataclasses.replace(steps, crop=steps.crop or CELEBA_BOX)
    sources = {id(g.source): prepared(g.source, steps, evaluation=evaluation) for g in groups}
    return tuple(dataclasses.replace(g, source=sources[id(g.source)]) for g in groups)


def _on_the_fly(source: Source, names: Iterable[str]) -> tuple[Group, ...]:
    """One group per degradation; an unknown one is an error now, not in a thread later."""
    for name in names:
        degradation(name)
    return tuple(Group(name, source, degradation=name) for name in names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photos(ImageData):
    """The photographs inside the wheels of scikit-image and scikit-learn.

    ``tasks`` are degradations made on the fly; noise25, noise50 and haze without them. For
    "clean" there are further photographs, and twice as many rows as for another task.
    """

    kind: Literal["photos"] = "photos"

    def _groups(self, *, evaluation: bool) -> tuple[Group, ...]:
        photos = demo_photos()[evaluation]
        source = ArraySource({photo.name: photo.image for photo in photos})
        groups = _on_the_fly(source, self.tasks or ("noise25", "noise50", "haze"))
        if evaluation or CLEAN not in self.tasks:
            return groups
        more = ArraySource({photo.name: photo.image for photo in photos_as_they_are()})
        return tuple(
            dataclasses.replace(group, source=more, repeat=2)
            if group.degradation == CLEAN
            else dataclasses.replace(group, repeat=round(len(more) / len(source)))
            for group in groups
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(ImageData):
    """Synthetic scenes with noise or haze, see `jaxcore.data.images.toy`; ``tasks`` may be haze."""

    kind: Literal["toy"] = "toy"

    def _groups(self, *, evaluation: bool) -> tuple[Group, ...]:
        seed, count = (2, 32) if evaluation else (1, 512)
        if self.tasks == ("haze",):
            return (toy_haze(seed, count),)
        if self.tasks:
            raise UserError(f"Expected the task haze or none of toy data, found {self.tasks}.")
        return toy_groups(seed, count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rooted(ImageData):
    root: str = ""  # folder of the training data, or of all data where eval_root is no option

    @property
    def folder(self) -> Path:
        """``root``, which must be given by now."""
        if not self.root:
            raise UserError(f"Expected a root folder for data of kind {self.kind}, found none.")
        return Path(self.root)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Folders(_Rooted):
    eval_root: str = ""  # folder of the evaluation data, laid out as root
    held_out: Index = 0  # images kept from training to evaluate on, without eval_root

    def wholly_evaluated(self) -> Self:
        if self.eval_root or self.held_out:
            return self
        return dataclasses.replace(self, eval_root=self.root)

    def _groups(self, *, evaluation: bool) -> tuple[Group, ...]:
        if evaluation and not (self.eval_root or self.held_out):
            return ()
        source = self._source(Path((evaluation and self.eval_root) or self.folder))
        note = source.note if isinstance(source, PairedFolder | Conditioned) else ""
        if not self.eval_root:
            source = hold_out(source, self.held_out)[evaluation]
        return tuple(dataclasses.replace(g, note=note) for g in self._of_source(source))

    def _source(self, folder: Path) -> Source:
        return CleanFolder(folder, whole_files(list_images(folder), self.skip_broken))

    def _of_source(self, source: Source) -> tuple[Group, ...]:
        return (Group(self.tasks[0] if self.tasks else self.kind, source),)


_UNPAIRED = "unpaired"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs(_Folders):
    """``root/degraded`` and ``root/clean``, or such folders of scenes; ``tasks`` may name them."""

    kind: Literal["pairs"] = "pairs"
    degraded_folder: str = USUAL[0]  # name below root, or below each folder of a scene
    clean_folder: str = USUAL[1]  # name beside it
    condition_folder: str = ""  # name below root of further images, such as masks
    # rule on names (`jaxcore.data.images.pairing`): auto, name, beginning (many to one), index,
    # '{}_hazy => {}_GT', 're: (\\d+)_.* => \\1'; unpaired for two kinds of pictures without pairs
    pair_by: str = AUTO
    check_sizes: Index = 2000  # pairs whose sizes are compared at the start

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pair_by != _UNPAIRED:
            check_rule(self.pair_by)
        elif self.condition_folder:
            raise UserError("Expected pairs beside a condition_folder, found unpaired images.")
        _check_one_task(self.tasks)

    @property
    def comparable(self) -> bool:
        """Not where pictures of two kinds have no pairs."""
        return self.pair_by != _UNPAIRED

    def _source(self, folder: Path) -> Source:
        if self.pair_by == _UNPAIRED:
            return Unpaired(folder / self.degraded_folder, folder / self.clean_folder)
        source = PairedFolder(
            *two_folders(folder, self.degraded_folder, self.clean_folder),
            self.pair_by,
            check_sizes=self.check_sizes,
            skip_broken=self.skip_broken,
        )
        if not self.condition_folder:
            return source
        names = [name for name, _, _ in source.files]
        return Conditioned(source, folder / self.condition_folder, names)


def _check_one_task(tasks: tuple[str, ...]) -> None:
    if len(tasks) > 1:
        raise UserError(f"Expected one task for one set of pairs, found {tasks}.")


def _check_degradations(tasks: tuple[str, ...]) -> None:
    if not tasks:
        raise UserError("Expected tasks (degradations) for clean images, found none.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleanImages(_Folders):
    """A folder ``root`` of clean images; ``tasks`` are degradations made on the fly."""

    kind: Literal["clean"] = "clean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_degradations(self.tasks)

    def _of_source(self, source: Source) -> tuple[Group, ...]:
        return _on_the_fly(source, self.tasks)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainImages(_Folders):
    """A folder ``root`` of images without degradation, to generate such images."""

    kind: Literal["images"] = "images"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CelebA(_Rooted):
    """Faces of CelebA below ``root``, cropped as for DDIM.

    ``tasks`` are degradations made on the fly, or none to generate faces.
    """

    kind: Literal["celeba"] = "celeba"

    def _groups(self, *, evaluation: bool) -> tuple[Group, ...]:
        files = celeba_files(self.folder, "test" if evaluation else "train")
        source = CleanFolder(self.folder / "img_align_celeba", files)
        return _on_the_fly(source, self.tasks) if self.tasks else (Group("celeba", source),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Published(_Rooted):
    own_options = ("tasks",)  # names of folders

    strict: bool = False  # counts other than the published ones are an error
    check_sizes: Index = 2000  # pairs whose sizes are compared at the start

    @property
    def _options(self) -> dict[str, Any]:
        names = ("strict", "check_sizes", "skip_broken")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllInOne(_Published):
    """The folders of the all-in-one papers, see `jaxcore.data.images.layouts`."""

    kind: Literal["adair"] = "adair"
    denoise_list: str = ""  # text file with one name per line; none: all images

    def _groups(self, *, evaluation: bool) -> tuple[Group, ...]:
        tasks = self.tasks or THREE_TASKS
        if evaluation:
            return adair_evaluation(self.folder, tasks, **self._options)
        names = self.denoise_list
        return adair_training(self.folder, tasks, denoise_list=names, **self._options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CDD11(_Published):
    """Composite degradations, see `jaxcore.data.images.layouts`."""

    kind: Literal["cdd11"] = "cdd11"

    def _groups(self, *, evaluation: bool) -> tuple[Group, ...]:
        split = "test" if evaluation else "train"
        return cdd11(self.folder, split, self.tasks or CDD11_TASKS, **self._options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dehazing(_Published):
    """RESIDE and Haze4K, ``tasks`` among its, ots, haze4k; see `jaxcore.data.images.dehazing`."""

    kind: Literal["dehazing"] = "dehazing"
    # clear images kept from training, with all their hazy versions, to evaluate on these instead
    # of the test set
    held_out: Index = 0

    def _groups(self, *, evaluation: bool) -> tuple[Group, ...]:
        split = "train" if not evaluation else "held_out" if self.held_out else "test"
        tasks = self.tasks or ("its",)
        return dehazing(self.folder, split, tasks, held_out=self.held_out, **self._options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TFDS(_Rooted):
    """A TFDS data set in array_record format, such as ``jaxcore data pack`` writes."""

    kind: Literal["tfds"] = "tfds"
    tfds_name: str = ""  # name below root, such as "pairs" or "pairs:1.0.0"
    split: str = "train"  # of training
    eval_split: str = ""  # of evaluation; none: no evaluation
    degraded_feature: str = "degraded"  # empty makes the degradation on the fly (tasks)
    clean_feature: str = "clean"  # name of the feature

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tfds_name:
            raise UserError("Expected tfds_name, the name of the data set, found none.")
        (_check_one_task if self.degraded_feature else _check_degradations)(self.tasks)

    def wholly_evaluated(self) -> Self:
        """``split`` where there is no ``eval_split``."""
        return dataclasses.replace(self, eval_split=self.eval_split or self.split)

    def _groups(self, *, evaluation: bool) -> tuple[Group, ...]:
        from jaxcore.data.images.tfds import tfds_source  # heavy, only for those who use it

        split = self.eval_split if evaluation else self.split
        if not split:
            return ()
        source = tfds_source(
            self.tfds_name,
            self.folder,
            split,
            degraded_feature=self.degraded_feature,
            clean_feature=self.clean_feature,
        )
        if not self.degraded_feature:
            return _on_the_fly(source, self.tasks)
        name = self.tasks[0] if self.tasks else self.tfds_name.split(":")[0].replace("/", "_")
        return (Group(name, source),)


_KINDS = (
    *(Photos, Toy, Pairs, CleanImages, PlainImages),
    *(CelebA, AllInOne, CDD11, Dehazing, TFDS),
)
