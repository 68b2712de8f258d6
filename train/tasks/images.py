"""What training on pictures has in common: data, evaluation on whole images, sample pictures."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore import registry
from jaxcore.bounds import AtLeast, Count, Index
from jaxcore.data.images.kinds import (
    ImageData,
    Photos,
    describe,
    evaluation_groups,
    training_groups,
)
from jaxcore.data.images.pipeline import (
    Augment,
    Images,
    evaluation_samples,
    training_batches,
)
from jaxcore.data.images.sources import Group, Sample
from jaxcore.errors import UserError
from jaxcore.figures import grid
from jaxcore.metrics import PROTOCOLS
from jaxcore.parallel import dealt_back, local_copies, spread, together
from jaxcore.places import read_once
from jaxcore.tiling import check_options
from jaxcore.train.state import TrainState
from jaxcore.train.task import BatchIterator, Frozen
from jaxcore.train.tasks.network import NetworkTask
from jaxcore.typing import Params


class Restored(NamedTuple):
    """One image of the evaluation; all arrays are float32 (h, w, 3)."""

    group: str
    name: str
    degraded: np.ndarray
    restored: np.ndarray  # clipped to [0, 1], not quantised
    clean: np.ndarray


# Directory listings and photographs are read once per configuration, not at every evaluation.
_training_groups = read_once(8)(training_groups)
_evaluation_groups = read_once(8)(evaluation_groups)

_OVERLAP = 32  # pixels; of every network's ``restore`` without an argument
_LEAST_SIDE = 11  # pixels; of the larger of the windows of SSIM


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTask(NetworkTask):
    """Train a network of `jaxcore.registry` on crops, evaluate it on whole images.

    A subclass has a ``name``, a ``loss`` and, where a row is more than a pair, ``images``.
    """

    changeable: ClassVar[tuple[str, ...]] = (
        "eval_images",
        "eval_tile",
        "eval_side",
        "eval_seed",
        "eval_legacy_rng",
        "eval_protocol",
        "data.eval_root",
        "data.eval_split",
    )
    data: ImageData = dataclasses.field(default_factory=Photos)
    # turns: all eight, "official" without the identity, left-right "flip", always ("mirror"),
    # quarter turns ("rotate")
    augment: Augment = "all"
    eval_images: Index | None = None  # evaluate at most so many images per degradation
    eval_tile: int | None = None  # evaluate in tiles of this side, pixels
    # evaluate central squares of this side, pixels
    eval_side: Annotated[int, AtLeast(_LEAST_SIDE)] | None = None
    eval_seed: int = 0  # of the degradations made on the fly, and of samplers
    eval_legacy_rng: bool = False  # noise 15, 25, 50 from the official tester's one stream
    # whole images are first cropped centrally to sides of multiples of this; 1 keeps all
    crop_multiple: Count = 16
    # what is measured: rgb, rgb_gaussian (dehazing), y (8-bit luma) or matlab_rgb
    eval_protocol: str = "rgb"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_protocol not in PROTOCOLS:
            raise UserError(
                f"Unknown protocol {self.eval_protocol!r}: expected one of {', '.join(PROTOCOLS)}."
            )

    @property
    def _crop_multiple(self) -> int:
        """Images that are resized to one size are not cropped to multiples first."""
        return self.crop_multiple if self.data.prepare.size is None else 1

    @property
    def images(self) -> Images:
        """Images of a row."""
        return ("degraded", "clean")

    def check(self) -> None:
        """Look for the data, and whatever else the run will need, before anything is written.

        An evaluation that cannot be would otherwise show at the end of the training.

        Raises:
          UserError: something is missing or damaged, or patches or tiles do not fit the network
            or the data.
        """
        super().check()
        size = self.data.prepare.size
        wide = [stage.patch for stage in self.stages if size is not None and stage.patch > size]
        if wide:
            raise UserError(
                f"Expected patches of at most {size} pixels, to which images are resized, found "
                f"{wide[0]}."
            )
        check_options(self.multiple, self.eval_tile, _OVERLAP, "linear", None)
        _training_groups(self.data)
        _evaluation_groups(self.data)

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the degradations in training."""
        return tuple(group.name for group in _training_groups(self.data))

    def counts(self) -> list[tuple[str, int, int, int]]:
        """Name, unique items, repetitions and entries per epoch of every degradation."""
        return describe(_training_groups(self.data))

    def notes(self) -> tuple[str, ...]:
        """How images were found, where a user should see it."""
        groups = _training_groups(self.data) or _evaluation_groups(self.data)
        return tuple(dict.fromkeys(group.note for group in groups if group.note))

    def batches(self, seed: int, start_step: int) -> BatchIterator:
        """Random crops of the training images; rows of this process only."""
        return training_batches(
            _training_groups(self.data),
            stages=self.stages,
            seed=seed,
            start_step=start_step,
            augment=self.augment,
            crop_multiple=self._crop_multiple,
            images=self.images,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def brief(self) -> Self:
        """Evaluate one image per degradation."""
        return dataclasses.replace(self, eval_images=min(1, self.evaluation_size()))

    def evaluation_size(self) -> int:
        """How many images `restored` yields."""
        sizes = [len(group.source) for group in _evaluation_groups(self.data)]
        limit = self.eval_images
        return sum(sizes if limit is None else (min(n, limit) for n in sizes))

    def evaluation_samples(
        self, limit: int | None = None, *, first: int = 0, stride: int = 1
    ) -> Iterator[tuple[str, Sample]]:
        """Name of the degradation and whole images, at most ``limit`` of each.

        Of all of them in a row, those from the number ``first`` in steps of ``stride``.
        """
        for group in _evaluation_groups(self.data):
            count = len(group.source) if limit is None else min(limit, len(group.source))
            for sample in self._of_group(group, first, stride, count):
                yield group.name, sample
            first = first - count if first >= count else (first - count) % stride

    def _of_group(self, group: Group, first: int, stride: int, count: int) -> Iterator[Sample]:
        samples = evaluation_samples(
            group,
            seed=self.eval_seed,
            side=self.eval_side,
            legacy_rng=self.eval_legacy_rng,
            images=self.images,
            crop_multiple=self._crop_multiple,
            first=first,
            stride=stride,
        )
        return itertools.islice(samples, len(range(first, count, stride)))

    def restore(self, params: Params, sample: Sample) -> np.ndarray:
        """Restore one image of the evaluation."""
        return self.entry.restore(params, sample["degraded"], self.network, tile=self.eval_tile)

    def restored(self, params: Params, limit: int | None = None) -> Iterator[Restored]:
        """Restore the evaluation images, in their order.

        Args:
          params: of the network; one image at a time is restored on each device where they are.
          limit: at most so many images per degradation; by default ``eval_images``.
        """
        limit = self.eval_images if limit is None else limit
        samples = self.evaluation_samples(limit)
        return spread(self._restored, samples, local_copies(params))

    def _restored(self, params: Params, found: tuple[str, Sample]) -> Restored:
        group, sample = found
        out = np.clip(self.restore(params, sample), 0, 1)
        return Restored(group, sample["name"], sample["degraded"], out, sample["clean"])

    def score(self, image: "Restored") -> "Score":
        """Quality of one restored image under the protocol of this task.

        Raises:
          UserError: names the image that is too small for the protocol.
        """
        try:
            return score(image, self.eval_protocol)
        except UserError as error:
            raise UserError(f"{image.name} of {image.group}: {error}") from None

    def evaluate(self, state: TrainState, frozen: Frozen = None) -> dict[str, float]:
        """PSNR (dB) and SSIM before and after, per degradation; see `summarise`.

        Images are shared over the processes and, in each, over the devices of the parameters.
        """

        def scored(params: Params, _: int, found: tuple[str, Sample]) -> Score:
            return self.score(self._restored(params, found))

        return summarise(Score(*row) for row in self.shared(scored, state.eval_params))

    def shared(
        self, function: Callable[[Params, int, tuple[str, Sample]], Any], params: Params
    ) -> list[Any]:
        """``function(params, number, (degradation, image))`` of every evaluation image, in order.

        Args:
          function: returns JSON. It is called in one of the processes only, for one image at a
            time on each device; its parameters are on that device.
          params: as the state holds them.

        Raises:
          UserError: an image cannot be read or evaluated, in whatever process.
        """
        index, count = jax.process_index(), jax.process_count()
        copies = local_copies(params)

        def mine() -> list[Any]:
            samples = self.evaluation_samples(self.eval_images, first=index, stride=count)
            numbered = zip(itertools.count(index, count), samples, strict=False)
            return list(spread(lambda params, found: function(params, *found), numbered, copies))

        return dealt_back(together(mine))

    def metric_names(self) -> tuple[str, ...]:
        """Those of `summarise`."""
        groups = dict.fromkeys(group.name for group in _evaluation_groups(self.data))
        return tuple(summarise(Score(name, "", 1, 1, 1, 1) for name in groups))

    def pictures(self, state: TrainState, frozen: Frozen = None) -> dict[str, np.ndarray]:
        """The first evaluation images: degraded | restored | clean, a row per degradation.

        By the first process, which writes them; the others have none.
        """
        restored = self.restored(state.eval_params, limit=1)
        if jax.process_index():
            return {}
        images = list(restored)
        return {"restored": comparison(iter(images))} if images else {}

    @classmethod
    def field_types(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """The network's configuration is of the class of its model, the data of their kind's."""
        stored = data.get("data")
        kind = stored.get("kind", "photos") if isinstance(stored, Mapping) else "photos"
        config_class = registry.network(data.get("model", cls.model)).config_class
        return {"network": config_class, "data": ImageData.of_kind(kind)}


class Score(NamedTuple):
    """Quality of one image before and after."""

    group: str
    name: str
    psnr_in: float  # dB
    psnr: float  # dB
    ssim_in: float
    ssim: float


def score(image: Restored, protocol: str = "rgb") -> Score:
    """PSNR and SSIM of one restored image.

    Args:
      image: degraded, restored and clean.
      protocol: name in `jaxcore.metrics.PROTOCOLS`.
    """
    clean = jnp.asarray(image.clean)
    values = [
        float(metric(jnp.asarray(pixels), clean))
        for metric in PROTOCOLS[protocol]
        for pixels in (image.degraded, image.restored)
    ]
    return Score(image.group, image.name, *values)


def summarise(scores: Iterable[Score]) -> dict[str, float]:
    """Means over the images of each degradation, then over degradations.

    Returns:
      ``<group>/psnr_in``, ``<group>/psnr``, ``<group>/ssim_in``, ``<group>/ssim`` and
      ``<group>/gain`` (dB); and ``psnr``, ``ssim`` and ``gain``: means over the degradations,
      each counted once whatever its number of images. Nothing for no images.

    >>> summarise(iter([Score("haze", "a", 10.0, 14.0, 0.5, 0.7)]))["gain"]
    4.0
    """
    groups: dict[str, list[Score]] = {}
    for one in scores:
        groups.setdefault(one.group, []).append(one)
    metrics: dict[str, float] = {}
    for group, found in groups.items():
        for field in ("psnr_in", "psnr", "ssim_in", "ssim"):
            metrics[f"{group}/{field}"] = float(np.mean([getattr(s, field) for s in found]))
        metrics[f"{group}/gain"] = metrics[f"{group}/psnr"] - metrics[f"{group}/psnr_in"]
    for field in ("psnr", "ssim", "gain") if groups else ():
        metrics[field] = float(np.mean([metrics[f"{group}/{field}"] for group in groups]))
    return metrics


def _decibels(psnr: float) -> str:
    """Nothing for equal images."""
    return f"  {psnr:.2f} dB" if np.isfinite(psnr) else ""


def comparison(images: Iterator[Restored]) -> np.ndarray:
    """Picture: degraded | restored | clean with PSNR under each, one row per image (uint8)."""
    rows = []
    for image in images:
        quality = score(image)
        rows.append(
            [
                (image.degraded, f"{image.group}{_decibels(quality.psnr_in)}"),
                (image.restored, f"restored  {quality.psnr:.2f} dB"),
                (image.clean, f"clean  {image.name}"),
            ]
        )
    if not rows:
        raise UserError("Expected at least one image to show, found none.")
    return grid(rows)
