"""Units that have an image each, and the order in which trainings see them."""

import dataclasses
import hashlib
import itertools
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxcore.typing import Batch

Draw: TypeAlias = Literal["units", "images"]
"""Rows of a batch: units one after another, or images and a random unit of each."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageUnits:
    """Units, their images, and what networks are to learn of them."""

    images: Any  # (N, h, w, c), or (N, t, h, w, c): of any real type, what gives rows
    image: Int[np.ndarray, " n"]  # row of the image of each unit
    target: Float[np.ndarray, "n o"]  # treatment, or outcome, or both in this order
    masks: Float[np.ndarray, "k n"]  # weight of each unit in each fit; 0 leaves it out
    mean: Float[np.ndarray, " c"]  # of each band
    sd: Float[np.ndarray, " c"]
    covariates: Float[np.ndarray, "n p"] | None = None  # standardised
    # Units that each fit is judged on; None: those that it leaves out
    judged: Bool[np.ndarray, "k n"] | None = None

    @property
    def left(self) -> Bool[np.ndarray, "k n"]:
        """Units that the loss of each fit is evaluated on."""
        return self.masks == 0 if self.judged is None else self.judged

    def fingerprint(self) -> str:
        """The same for the same data: whom a run belongs to."""
        found = hashlib.sha256()
        parts = [self.image, self.target, self.masks, self.mean, self.sd, self.covariates]
        parts += [] if self.judged is None else [self.judged]
        for part in (*parts, sampled(self.images)):
            a = np.ascontiguousarray(np.zeros(0) if part is None else part)
            found.update(f"{a.dtype}{a.shape}".encode() + a.tobytes())
        return found.hexdigest()[:32]


def sampled(images: Any) -> np.ndarray:
    """Some of many images, always the same: enough to tell one set from another.

    >>> sampled(np.arange(1000)).shape
    (64,)
    """
    rows = np.unique(np.linspace(0, images.shape[0] - 1, 64).astype(int))
    return np.asarray(images[rows])


class FitBatches:
    """Numbers of units (b, k) for each of k fits, epoch after epoch; see `Draw`.

    The order of a fit depends on the seed and its number alone.
    """

    def __init__(
        self,
        units: ImageUnits,
        numbers: tuple[int, ...],
        *,
        batch_size: int,
        draw: Draw,
        reading: bool,
        seed: int,
        start: int,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        self.units, self.batch_size, self.reading, self.next = units, batch_size, reading, start
        self._orders = [
            _Order(np.flatnonzero(mask > 0), units.image, draw, (seed, number))
            for number, mask in zip(numbers, units.masks, strict=True)
        ]
        self._rows = slice(process[0], None, process[1])

    def __next__(self) -> Batch:
        first = self.next * self.batch_size
        places = np.arange(first, first + self.batch_size)[self._rows]
        self.next += 1
        unit = np.stack([order.at(places) for order in self._orders], axis=1).astype(np.int32)
        if not self.reading:
            return {"unit": unit}
        pixels = np.asarray(self.units.images[self.units.image[unit].reshape(-1)])
        return {"unit": unit, "pixels": pixels.reshape(*unit.shape, *pixels.shape[1:])}

    def get_state(self) -> Any:
        """Batches given out so far."""
        return {"next": self.next}

    def set_state(self, state: Any) -> None:
        """Go to a position from `get_state`."""
        self.next = int(state["next"])


class _Order:
    """The units of one fit, in the order in which it sees them."""

    def __init__(
        self, rows: np.ndarray, image: np.ndarray, draw: Draw, seed: tuple[int, int]
    ) -> None:
        self.seed, self.groups = seed, None
        self.items = rows
        if draw == "images":
            order = rows[np.argsort(image[rows], kind="stable")]
            _, starts = np.unique(image[order], return_index=True)
            self.groups = np.split(order, starts[1:])
            self.items = np.arange(len(self.groups))
        self._epoch: tuple[int, np.ndarray] = (-1, rows[:0])

    def at(self, places: Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
        """Units at places of the endless order."""
        found = []
        for epoch, group in itertools.groupby(places, lambda place: place // len(self.items)):
            inside = np.fromiter(group, np.int64) % len(self.items)
            found.append(self._of(int(epoch))[inside])
        return np.concatenate(found)

    def _of(self, epoch: int) -> np.ndarray:
        if self._epoch[0] != epoch:
            rng = np.random.default_rng((*self.seed, epoch))
            order = rng.permutation(self.items)
            if self.groups is not None:
                order = np.array([rng.choice(self.groups[i]) for i in order])
            self._epoch = epoch, order
        return self._epoch[1]
