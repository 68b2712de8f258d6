"""Which stamps to train and evaluate on: one description, and the rows of a batch."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt32

from jaxcore.bounds import Count, Positive
from jaxcore.data.astro.galaxies import Population
from jaxcore.data.astro.stamps import Stamps, read_catalogue, read_folder
from jaxcore.data.astro.telescopes import Telescope
from jaxcore.data.images.crops import turn
from jaxcore.data.images.pipeline import Stage
from jaxcore.data.stream import Draw, Stream, stream
from jaxcore.errors import UserError
from jaxcore.serial import Serial
from jaxcore.typing import Batch

_EVALUATION = 2  # of the streams of seeds; `jaxcore.data.stream` has its own for training


@dataclasses.dataclass(frozen=True, kw_only=True)
class StampData(Serial):
    """Simulated galaxies, or a folder of stamps.

    Stamps without observations of their own are looked at through the telescope; pairs from ground
    and space are taken as they are.

    >>> data = StampData(telescope=Telescope(factor=2))
    >>> StampData.from_dict(data.to_dict()) == data
    True
    """

    root: str = ""  # folder of stamps, see `jaxcore.data.astro.stamps`; none simulates galaxies
    eval_root: str = ""  # folder of stamps to evaluate on, instead of the last ones of root
    held_out: Count = 100  # stamps to evaluate on, and not to train on
    count: Count = 25_000  # simulated galaxies that make an epoch; each is seen once
    shrink: Count = 1  # pixels of stamps that are added up along each axis
    # .npz of COSMOS galaxies whose shapes are drawn and whose HST PSFs are those of the targets
    catalog: str = ""
    scale: Positive = 0.1  # side of a restored pixel in arcsec, for the catalogue
    turns: bool = True  # turn and mirror stamps of files at random
    galaxies: Population = dataclasses.field(default_factory=Population)
    telescope: Telescope = dataclasses.field(default_factory=Telescope)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_root and not self.root:
            raise UserError("Expected --data.root beside --data.eval-root, found none.")


class Known(NamedTuple):
    """What is read from a catalogue; None without one."""

    shapes: Float[np.ndarray, "n 3"]
    psfs: Float[np.ndarray, "n h w"]


@functools.lru_cache(maxsize=4)
def known(data: StampData, side: int) -> Known | None:
    """Shapes and PSFs of the catalogue, on the pixels of the stamps.

    Raises:
      UserError: the file is missing or another one.
    """
    if not data.catalog:
        return None
    catalogue = read_catalogue(data.catalog)
    psfs = catalogue.psfs(data.scale, side).astype(np.float32)
    return Known(catalogue.shapes(data.scale).astype(np.float32), psfs)


@functools.lru_cache(maxsize=4)
def split(data: StampData, side: int) -> tuple[Stamps, Stamps] | None:
    """Stamps to train and to evaluate on; None where galaxies are simulated.

    Raises:
      UserError: files that are missing or wrong, or too few stamps to hold some out.
    """
    if not data.root:
        return None
    stamps = read_folder(data.root, side, data.shrink)
    if data.eval_root:
        other = read_folder(data.eval_root, side, data.shrink)
        if (other.observed is None) != (stamps.observed is None):
            raise UserError(
                "Expected pairs in --data.root and --data.eval-root, found them in one."
            )
        return stamps, _part(other, slice(0, data.held_out))
    if len(stamps.target) <= data.held_out:
        raise UserError(
            f"Expected more than {data.held_out} stamps, which are held out to evaluate on, found "
            f"{len(stamps.target)} in {data.root}: lower --data.held-out."
        )
    cut = len(stamps.target) - data.held_out
    return _part(stamps, slice(0, cut)), _part(stamps, slice(cut, None))


def _part(stamps: Stamps, rows: slice) -> Stamps:
    observed, psf = (None if a is None else a[rows] for a in (stamps.observed, stamps.psf))
    return Stamps(stamps.target[rows], observed, psf)


def entries(data: StampData, side: int) -> dict[str, int]:
    """Name of the data -> rows of an epoch."""
    found = split(data, side)
    return {"simulated": data.count} if found is None else {"stamps": len(found[0].target)}


def training_rows(
    data: StampData,
    stages: Sequence[Stage],
    *,
    seed: int,
    start_step: int = 0,
    num_threads: int | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Stream:
    """Batches of rows from which a step makes stamps.

    A row is the ``seed`` of a galaxy and of its observation, with its ``truth`` where that comes
    from a file; or a pair ``observed``, ``target``, ``psf``.

    Args:
      data: what is trained on.
      stages: side and batch size; all of one side.
      seed: of the order and of all draws.
      start_step: batches to skip.
      num_threads: threads that prepare batches ahead.
      process_index: of this process; by default JAX's.
      process_count: of all processes.

    >>> rows = training_rows(StampData(), [Stage(patch=64, batch_size=3)], seed=0)
    >>> next(rows)["seed"].shape
    (3, 2)
    """
    side = stages[0].patch
    found = split(data, side)
    return stream(
        functools.partial(_rows, None if found is None else found[0], data.turns),
        stages,
        entries=entries(data, side),
        seed=seed,
        start_step=start_step,
        num_threads=num_threads,
        process_index=process_index,
        process_count=process_count,
    )


def _rows(stamps: Stamps | None, turns: bool, stage: Stage, draws: Sequence[Draw]) -> Batch:
    rows = [_row(stamps, turns, draw.entry, draw.rng) for draw in draws]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _row(stamps: Stamps | None, turns: bool, entry: int, rng: np.random.Generator) -> Any:
    seed = _seed(rng)
    if stamps is None:
        return {"seed": seed}
    number = int(rng.integers(8)) if turns else 0
    found = {name: a[entry] for name, a in stamps._asdict().items() if a is not None}
    turned = {name: _turned(a, number, about_middle=name == "psf") for name, a in found.items()}
    if stamps.observed is None:
        return {"seed": seed, "truth": turned["target"]}
    return turned


def _turned(image: np.ndarray, number: int, *, about_middle: bool) -> np.ndarray:
    """One of the eight turns; a PSF keeps its middle, the pixel ``(h // 2, w // 2)``."""
    out = turn(image[..., None], number)[..., 0]
    if about_middle:
        middle = np.zeros(image.shape, bool)
        middle[image.shape[0] // 2, image.shape[1] // 2] = True
        (row,), (col,) = np.nonzero(turn(middle[..., None], number)[..., 0])
        out = np.roll(out, (out.shape[0] // 2 - row, out.shape[1] // 2 - col), (0, 1))
    return np.ascontiguousarray(out)


def _seed(rng: np.random.Generator) -> UInt32[np.ndarray, "2"]:
    return rng.integers(0, 2**32, 2, dtype=np.uint32)


def evaluation_rows(data: StampData, side: int, seed: int, limit: int | None = None) -> Batch:
    """All rows to evaluate on, always the same; as `training_rows` has them.

    Args:
      data: what is evaluated on.
      side: of the stamps.
      seed: of simulated galaxies and observations.
      limit: at most so many.
    """
    found = split(data, side)
    stamps = None if found is None else found[1]
    count = data.held_out if stamps is None else len(stamps.target)
    count = count if limit is None else min(count, limit)
    rngs = [np.random.default_rng((_EVALUATION, seed, i)) for i in range(count)]
    rows = [_row(stamps, False, i, rng) for i, rng in enumerate(rngs)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
