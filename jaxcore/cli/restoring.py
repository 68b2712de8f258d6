"""Restoring one picture or thousands: while one is in the network, others are read and written."""

import concurrent.futures
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.cli.output import show
from jaxcore.errors import UserError
from jaxcore.weights import Loaded

Run = Callable[..., np.ndarray]
"""(pixels, progress, **further) -> restored."""
_THREADS = 2  # that read, and that write
_AHEAD = 4  # pictures that are read or wait to be written; more would only take memory
_PROGRAMS = 8  # sizes that are compiled for a folder, at most where that can be had
_SIDES = (64, 128, 256, 512, 1024)  # pixels, to whose multiples pictures are padded
_LOOKED_AT = 2000  # headers of a folder, evenly spread
_GAP = 4  # pixels between the two halves of a comparison


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture to restore."""

    source: Path
    output: Path
    condition: Path | None = None  # a further picture the network is shown, such as a mask
    comparison: Path | None = None  # where degraded and restored are put side by side


@dataclasses.dataclass
class Summary:
    """What became of many pictures."""

    restored: int = 0
    skipped: int = 0  # whose result was there already
    failures: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)  # what was done to read pictures
    pixels: int = 0
    seconds: float = 0.0

    def line(self) -> str:
        """Restored, skipped, failed, and how fast."""
        parts = [f"{self.restored} restored"]
        parts += [f"{self.skipped} skipped (there already)"] if self.skipped else []
        parts += [f"{len(self.failures)} failed"] if self.failures else []
        rate = self.restored / self.seconds if self.seconds else 0.0
        speed = f"{rate:.2f} images/s, {self.pixels / 1e6 / max(self.seconds, 1e-9):.2f} Mpixel/s"
        return f"{', '.join(parts)}  {self.seconds:.1f} s ({speed})"


def restore_one(
    job: Job, run: Run, overwrite: bool, progress: Callable[[int, int], None] | None = None
) -> str:
    """Read, restore and write one picture; what was done to read it, where that is to be said."""
    done = _compute(job, _read(job, overwrite), run, progress)
    _write(job, done, overwrite)
    return done.picture.note


def restore_many(
    jobs: Sequence[Job],
    run: Run,
    overwrite: bool,
    shown: Callable[[Iterator[Any], int], Iterator[Any]] = lambda jobs, _: jobs,
    *,
    skip_existing: bool = False,
) -> Summary:
    """Restore pictures one after the other, in this thread; others read ahead and write behind.

    One that cannot be restored does not stop the others.

    Args:
      jobs: what to do, in this order.
      run: the network.
      overwrite: replace files.
      shown: given the finished pictures as they come and their number; gives them on.
      skip_existing: leave out what is there by the time it is its turn, so that several processes
        may share a folder.
    """
    summary = Summary()
    start = time.perf_counter()
    for job, error in shown(_finished(jobs, run, overwrite, summary), len(jobs)):
        if error is None:
            summary.restored += 1
        elif skip_existing and job.output.exists():
            summary.skipped += 1
        else:
            sentence = str(error)
            named = str(job.source) in sentence or str(job.output) in sentence
            summary.failures.append(sentence if named else f"{job.source}: {sentence}")
    summary.seconds = time.perf_counter() - start
    return summary


def _finished(
    jobs: Sequence[Job], run: Run, overwrite: bool, summary: Summary
) -> Iterator[tuple[Job, UserError | None]]:
    with (
        concurrent.futures.ThreadPoolExecutor(_THREADS) as readers,
        concurrent.futures.ThreadPoolExecutor(_THREADS) as writers,
    ):
        waiting = iter(jobs)
        reading: deque[tuple[Job, concurrent.futures.Future[Any]]] = deque()
        writing: deque[tuple[Job, concurrent.futures.Future[None]]] = deque()

        def read_ahead() -> None:
            while len(reading) < _AHEAD and (job := next(waiting, None)) is not None:
                reading.append((job, readers.submit(_read, job, overwrite)))

        try:
            read_ahead()
            while reading:
                job, picture = reading.popleft()
                try:
                    done = _compute(job, picture.result(), run, None)
                except UserError as error:
                    yield job, error
                else:
                    summary.pixels += done.restored.shape[0] * done.restored.shape[1]
                    if done.picture.note:
                        summary.notes.append(f"{job.source}: {done.picture.note}")
                    writing.append((job, writers.submit(_write, job, done, overwrite)))
                read_ahead()
                while len(writing) > _AHEAD or (writing and writing[0][1].done()):
                    yield _written(*writing.popleft())
            while writing:
                yield _written(*writing.popleft())
        finally:  # after Ctrl-C what waits is left, what is being written is ended
            for _, future in (*reading, *writing):
                future.cancel()


def _written(job: Job, future: "concurrent.futures.Future[None]") -> tuple[Job, UserError | None]:
    try:
        future.result()
    except UserError as error:
        return job, error
    return job, None


@dataclasses.dataclass(frozen=True, eq=False)
class _Done:
    picture: Any  # of `jaxcore.data.images`
    restored: np.ndarray


def _read(job: Job, overwrite: bool) -> tuple[Any, dict[str, Any]]:
    """The picture, and what else the network is shown."""
    from jaxcore.data.images import check_fits, read_image

    if not overwrite and job.output.exists():  # since the jobs were planned
        raise UserError(f"{job.output} exists.")
    picture = read_image(job.source)
    check_fits(job.output, picture)
    further = {} if job.condition is None else {"condition": read_image(job.condition).unit()}
    return picture, further


def _compute(
    job: Job,
    found: tuple[Any, dict[str, Any]],
    run: Run,
    progress: Callable[[int, int], None] | None,
) -> _Done:
    import jax

    picture, further = found
    try:
        return _Done(picture, run(picture.unit(), progress, **further))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        height, width = picture.pixels.shape[:2]
        raise UserError(
            f"{job.source} of {width}x{height} pixels does not fit into the memory: use --tile "
            "with a smaller side."
        ) from None


def _write(job: Job, done: _Done, overwrite: bool) -> None:
    from jaxcore.data.images import write_image

    write_image(job.output, done.restored, like=done.picture, overwrite=overwrite)
    if job.comparison is not None:
        write_image(
            job.comparison, side_by_side(done.picture.unit(), done.restored), overwrite=True
        )


def side_by_side(degraded: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Two pictures of one size beside each other, a white line between them.

    >>> side_by_side(np.zeros((2, 3, 3), "f4"), np.ones((2, 3, 3), "f4")).shape
    (2, 10, 3)
    """
    line = np.ones((degraded.shape[0], _GAP, 3), np.float32)
    return np.concatenate([degraded, line, restored], axis=1)


def chosen_bucket(sizes: Sequence[tuple[int, int]], tile: int | None, multiple: int) -> int:
    """Side to whose multiples pictures are padded, so that few sizes are compiled.

    Args:
      sizes: width and height of the pictures whose headers tell.
      tile: pictures that are larger are cut into tiles of one size.
      multiple: of the sides that the network takes.

    >>> chosen_bucket([(100 + 10 * i, 100) for i in range(9)], None, 8)
    64
    >>> chosen_bucket([(100 + 100 * i, 100) for i in range(12)], None, 8)
    256
    """
    sides = [side for side in _SIDES if side % multiple == 0] or [multiple]
    whole = {size for size in sizes if tile is None or max(size) <= tile}
    for side in sides:
        if len({tuple(-(-n // side) for n in size) for size in whole}) <= _PROGRAMS:
            return side
    return sides[-1]


def header_sizes(jobs: Sequence[Job]) -> list[tuple[int, int]]:
    """Width and height of pictures, evenly spread, whose headers tell."""
    from jaxcore.data.images.headers import header_size, look

    found, _ = look(jobs, _LOOKED_AT, lambda job: header_size(job.source))
    return [size for _, size in found]


_TILES = (2048, 1536, 1024, 768, 512, 384, 256, 128, 64)  # pixels
_SHARE = 0.5  # of the free memory, which others use too
_TRIED = 128  # side in pixels of the picture that is counted with
_SMALL = 2**20  # pixels; what fits anywhere is not counted


def chosen_tile(
    sizes: Sequence[tuple[int, int]], need: Callable[[int], int], multiple: int
) -> tuple[int | None, str]:
    """Side of tiles that fit into the free memory, None for whole pictures; and what to say.

    Args:
      sizes: width and height of the pictures.
      need: side of a square picture in pixels -> bytes the network takes for it.
      multiple: of the sides that the network takes.
    """
    from jaxcore.memory import free_memory

    largest = max((width * height for width, height in sizes), default=0)
    free = free_memory() if largest > _SMALL else None
    if free is None:
        return None, ""
    side = -(-_TRIED // multiple) * multiple
    pixel = need(side) / side**2
    if pixel * largest <= _SHARE * free:
        return None, ""
    fitting = [tile for tile in _TILES if tile % multiple == 0 and pixel * tile**2 <= _SHARE * free]
    tile = fitting[0] if fitting else max(multiple, _TILES[-1] // multiple * multiple)
    return tile, (
        f"in tiles of {tile} pixels: the largest picture would take about "
        f"{pixel * largest / 1e9:.1f} GB as a whole, and {free / 1e9:.1f} GB are free (--tile 0 "
        "does not cut)"
    )


def runner(
    loaded: Loaded, options: dict[str, Any], sizes: Sequence[tuple[int, int]], *, several: bool
) -> Run:
    """The network as a function of pictures; what it chooses for them is said.

    Args:
      loaded: network with weights.
      options: of ``Network.restore``; a tile of None is chosen from the memory, of 0 is none.
      sizes: width and height of the pictures, as far as they are known.
      several: pad them to few sizes.

    Raises:
      UserError: no network for pictures, or options that do not fit.
    """
    from jaxcore.models.base import ImageNetwork
    from jaxcore.tiling import check_options

    network, cfg, params = loaded.network, loaded.cfg, loaded.params
    channels = network.channels(cfg)
    if not network.restores(cfg) or channels not in (1, 3):
        raise UserError("Expected weights of a network for grey or RGB pictures, found others.")
    multiple = network.multiple(cfg)
    tile = options["tile"] or None
    check_options(multiple, tile, options["overlap"], "linear", options["bucket"])
    if network.deploy is not None:  # once, not for each picture
        params, cfg = network.deploy(params, cfg)
    if options["tile"] is None and isinstance(network, ImageNetwork):
        tile, said = chosen_tile(sizes, _need(network, params, cfg), multiple)
        if said:
            show(said)
    if options["bucket"] is None and several:
        options = {**options, "bucket": chosen_bucket(sizes, tile, multiple)}
    options = {**options, "tile": tile}

    def run(pixels: np.ndarray, progress: Any, **further: Any) -> np.ndarray:
        if "condition" in further:
            further["condition"] = further["condition"][..., : cfg.condition_channels]
        if channels == 1:
            return _by_channel(pixels, progress)
        return network.restore(params, pixels, cfg, progress=progress, **options, **further)

    def _by_channel(pixels: np.ndarray, progress: Any) -> np.ndarray:
        """Grey networks see one channel of a grey picture, and each of one in colour."""
        grey = (pixels == pixels[..., :1]).all()
        planes = np.moveaxis(pixels[..., :1] if grey else pixels, -1, 0)[..., None]
        found = network.restore(params, planes, cfg, progress=progress, **options)
        return np.repeat(found[0], 3, axis=-1) if grey else np.moveaxis(found[..., 0], 0, -1)

    return run


def _need(network: Any, params: Any, cfg: Any) -> Callable[[int], int]:
    """Side of a square picture -> bytes that the network takes for it."""
    from jaxcore.memory import working_bytes

    def need(side: int) -> int:
        import jax

        picture = jax.ShapeDtypeStruct((1, side, side, network.channels(cfg)), np.float32)
        return working_bytes(lambda x: network.apply(params, x, cfg), picture)

    return need
