"""From groups of images to batches, exactly repeatable and resumable (`jaxcore.data.stream`).

The list of an epoch holds every item of every group ``repeat`` times. A row is made in the order of
the protocol: both images are cropped centrally to multiples of 16, the same random window is cut
from both, both are turned alike, and only then is a degradation made on the fly. Noise, haze, rain
and low light are therefore those of the patch as the network sees it (rain falls downwards in
turned patches too, and a patch has a depth of its own); motion blur reads the clean pixels around
the window, which is cut a margin larger for it.
"""

import bisect
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from jaxcore.data.images.crops import centre_crop, eight_bits, grow, to_float, turn, window
from jaxcore.data.images.degradations import (
    LEGACY_SIGMAS,
    degradation,
    gaussian_noise,
    legacy_noise,
)
from jaxcore.data.images.sources import Group, Sample
from jaxcore.data.stream import Draw, Stream, stream
from jaxcore.errors import UserError

Augment = Literal["all", "official", "none", "flip", "mirror", "rotate"]

_FLIP = 5  # of `turn`: left-right
# Numbers drawn for `turn`. "official" never draws the identity (AdaIR), "mirror" always flips
# (RDDM, whose released code sets a probability of one), "rotate" never flips (DEA-Net).
_TURNS: dict[str, tuple[int, ...]] = {
    "all": tuple(range(8)),
    "official": tuple(range(1, 8)),
    "none": (0,),
    "flip": (0, _FLIP),
    "mirror": (_FLIP,),
    "rotate": (0, 2, 4, 6),
}
Images = tuple[str, ...]
"""Names of the images of a row: "clean", and of "degraded" and "condition" those that are used."""
_LEGACY = {f"noise{sigma}": sigma for sigma in LEGACY_SIGMAS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a training with patches of one size (progressive training has several)."""

    steps: int | None = None  # None: for ever, allowed in the last stage
    patch: int  # side of a patch, pixels; of texts the tokens of a row
    batch_size: int  # rows over all processes


def training_batches(
    groups: Sequence[Group],
    *,
    stages: Sequence[Stage],
    seed: int,
    start_step: int = 0,
    augment: Augment = "all",
    crop_multiple: int = 16,
    images: Images = ("degraded", "clean"),
    num_threads: int | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Stream:
    """Batches of random patches, endless if the last stage is.

    Images smaller than the patch are mirrored at the bottom and right until it fits.

    Args:
      groups: what is trained on; the index of a group is the ``task`` of its rows.
      stages: patch and batch size over time.
      seed: of the order and of all draws.
      start_step: batches to skip, at no cost.
      augment: "all" draws among the eight turns, "official" never draws the identity, as the
        official code; "none" leaves patches as they are; "flip" draws the left-right flip with
        probability one half, "mirror" always takes it; "rotate" draws among the quarter turns.
      crop_multiple: sides of images are first cropped centrally to multiples of this.
      images: what a row holds; all are cut and turned alike.
      num_threads: threads that prepare batches ahead; 0 prepares each when it is asked for. By
        default one per core, at most 8.
      process_index: of this process; by default JAX's.
      process_count: of all processes, each of which yields its part of the rows.

    Returns:
      Iterator over ``{"degraded": float32 (b, patch, patch, 3) in [0, 1], "clean": the same,
      "task": int32 (b,)}``, or with other ``images``; ``b`` is the stage's batch size over the
      number of processes.

    Raises:
      UserError: no data, stages that cannot be, an unknown degradation, a seed out of range.

    >>> from jaxcore.data.images.sources import ArraySource
    >>> photo = np.full((40, 50, 3), 128, np.uint8)
    >>> groups = [Group("noise25", ArraySource({"a": photo}), degradation="noise25")]
    >>> batches = training_batches(groups, stages=[Stage(patch=32, batch_size=2)], seed=0)
    >>> next(batches)["degraded"].shape, batches.get_state()
    ((2, 32, 32, 3), {'step': 1, 'entries': {'noise25': 1}})
    """
    _check(groups, stages, augment, images)
    patches = _Patches(tuple(groups), augment, crop_multiple, images)
    return stream(
        patches,
        stages,
        entries={group.name: group.entries for group in groups},
        seed=seed,
        start_step=start_step,
        num_threads=num_threads,
        process_index=process_index,
        process_count=process_count,
    )


def evaluation_samples(
    group: Group,
    *,
    seed: int = 0,
    crop_multiple: int = 16,
    side: int | None = None,
    legacy_rng: bool = False,
    images: Images = ("degraded", "clean"),
    first: int = 0,
    stride: int = 1,
) -> Iterator[Sample]:
    """Whole images of a group, one after the other, as float32 in [0, 1], with their name.

    Images are cropped centrally to multiples of ``crop_multiple`` and never padded. Degradations
    made on the fly depend on the seed, the name of the image and the degradation, so an image has
    the same noise whatever else is evaluated.

    Args:
      group: what is evaluated.
      seed: of degradations made on the fly.
      crop_multiple: 1 keeps the whole image.
      side: evaluate the central square of this side only, pixels.
      legacy_rng: take noise 15, 25, 50 from the stream of the official tester (in the order of
        the source); other degradations are not concerned.
      images: what a sample holds.
      first: number of the first one to yield.
      stride: yield every so manieth; the others are not read.
    """

    def crop(image: np.ndarray) -> np.ndarray:
        if side is not None:
            top, left = (max(n - side, 0) // 2 for n in image.shape[:2])
            image = image[top : top + side, left : left + side]
        return centre_crop(image, crop_multiple)

    name = group.degradation
    degrade = None if name is None or "degraded" not in images else degradation(name)
    draws: Iterator[np.ndarray] | None = None
    if legacy_rng and name in _LEGACY:  # the shapes of all, before the first draw
        shapes = [crop(group.source[i]["clean"]).shape for i in range(len(group.source))]
        draws = legacy_noise(shapes, _LEGACY[name])
    for i in range(len(group.source)):
        drawn = None if draws is None else next(draws)
        if i < first or (i - first) % stride:
            continue
        sample = group.source[i]
        absent = [key for key in images if key not in sample and (key != "degraded" or not degrade)]
        if absent:
            raise UserError(
                f"Expected images of the kind {absent[0]} in group {group.name!r}, found none for "
                f"{sample['name']!r}."
            )
        found = {key: crop(sample[key]) for key in images if key != "degraded" or degrade is None}
        if degrade is not None:
            clean = found["clean"] = eight_bits(found["clean"])
            if drawn is not None:
                found["degraded"] = gaussian_noise(clean, _LEGACY[str(name)], drawn)
            else:
                text = f"{seed}/{name}/{sample['name']}".encode()
                entropy = int.from_bytes(hashlib.sha256(text).digest()[:16])
                found["degraded"] = degrade(clean, np.random.default_rng(entropy))
        yield {"name": sample["name"], **{key: to_float(found[key]) for key in images}}


class _Patches:
    """Makes the rows of a batch."""

    def __init__(
        self, groups: tuple[Group, ...], augment: Augment, crop_multiple: int, images: Images
    ) -> None:
        self._groups, self._images = groups, images
        self._turns, self._multiple = _TURNS[augment], crop_multiple
        self._degrade = [
            None if g.degradation is None else degradation(g.degradation) for g in groups
        ]
        self._ends = list(itertools.accumulate(g.entries for g in groups))

    def __call__(self, stage: Stage, draws: Sequence[Draw]) -> dict[str, np.ndarray]:
        shape = (len(draws), stage.patch, stage.patch, 3)
        batch = {name: np.empty(shape, np.float32) for name in self._images}
        task = np.empty(len(draws), np.int32)
        for row, draw in enumerate(draws):
            rows = {name: images[row] for name, images in batch.items()}
            task[row] = self._fill(draw, stage.patch, rows)
        return {**batch, "task": task}

    def _fill(self, draw: Draw, patch: int, rows: dict[str, np.ndarray]) -> int:
        """Write a row; its task."""
        task, rng = bisect.bisect_right(self._ends, draw.entry), draw.rng
        group, degrade = self._groups[task], self._degrade[task]
        sample = group.source[(draw.entry - self._ends[task]) % len(group.source)]
        margin = 0 if degrade is None else degrade.margin
        names = [n for n in self._images if degrade is None or n != "degraded"]
        if degrade is not None:
            sample = {**sample, "clean": eight_bits(sample["clean"])}
        windows = self._windows([sample[name] for name in names], patch, margin, rng)
        found = dict(zip(names, windows, strict=True))
        if degrade is not None and degrade.look is not None:
            found["clean"] = degrade.look(found["clean"], rng)
        if degrade is not None and "degraded" in rows:
            found["degraded"] = degrade(found["clean"], rng)
        inner = slice(margin, margin + patch)
        for name, out in rows.items():
            image = found[name][inner, inner]
            np.divide(image, np.float32(np.iinfo(image.dtype).max), out=out)
        return task

    def _windows(
        self, images: list[np.ndarray], patch: int, margin: int, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """The same turned random window of all images, a margin larger on each side."""
        images = [grow(centre_crop(image, self._multiple), patch) for image in images]
        height, width = images[0].shape[:2]
        top, left = rng.integers(height - patch + 1), rng.integers(width - patch + 1)
        number = self._turns[int(rng.integers(len(self._turns)))]
        windows = [window(image, top, left, patch, margin) for image in images]
        return [np.ascontiguousarray(turn(window, number)) for window in windows]


def _check(groups: Sequence[Group], stages: Sequence[Stage], augment: str, images: Images) -> None:
    for group in groups:
        if not group.entries:
            continue  # the stream refuses it
        present = group.source[0]
        if "condition" in images and "condition" not in present:
            raise UserError(
                f"Expected images of a further condition, such as masks, found none in group "
                f"{group.name!r}."
            )
        if "degraded" in images and group.degradation is None and "degraded" not in present:
            raise UserError(
                f"Expected degraded images or a degradation to make on the fly, found neither in "
                f"group {group.name!r}."
            )
    if len({group.name for group in groups}) < len(groups):
        raise UserError(f"Expected groups of different names, found {[g.name for g in groups]}.")
    small = [stage for stage in stages if stage.patch < 1]
    if small:
        raise UserError(f"Expected positive steps, patch and batch size, found {small[0]}.")
    if augment not in _TURNS:
        raise UserError(f"Expected augment among {', '.join(_TURNS)}, found {augment!r}.")
