"""``jaxcore restore``."""

import dataclasses
import glob
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from jaxcore.cli.output import show
from jaxcore.cli.paths import RunPlace
from jaxcore.errors import UserError
from jaxcore.weights import Loaded, Which

_BUCKET = 64  # pixels; of several pictures, by default


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture to restore."""

    source: Path
    output: Path
    condition: Path | None = None  # a further picture the network is shown, such as a mask


def restore(
    pictures: tyro.conf.Positional[tuple[str, ...]],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    weights: RunPlace | None = None,
    model: str | None = None,
    tile: int | None = None,
    overlap: int = 32,
    ensemble: bool = False,
    bucket: int | None = None,
    stat_window: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    condition: Path | None = None,
    preset: str | None = None,
    which: Which = "best",
    part: Annotated[str | None, tyro.conf.arg(name="set")] = None,
    overwrite: bool = False,
) -> None:
    """Restore pictures with a run or with official weights.

    Names, sub-folders, formats, metadata, bit depth, transparency and grey are kept. A picture
    that cannot be restored does not stop the others; it is named at the end.

    Args:
      pictures: a file, a folder (everything below it), a quoted pattern, or several files.
      output: a file for one file, else a folder.
      weights: run directory, or weight file (PyTorch or safetensors), or the name of weights in
        jaxcore/weights; the first of these without it, if there are any.
      model: name of the network, where it cannot be read from the weights.
      tile: side of tiles in pixels, for pictures too large for the memory; whole ones without it.
      overlap: pixels shared by neighbouring tiles.
      ensemble: average over eight flips and turns.
      bucket: pad to multiples of this, so that a folder of many sizes compiles a few times only;
        64 for several pictures, and the least the network needs for a single one. Networks that
        look at the whole picture see the padding too, which changes the result slightly.
      stat_window: take statistics over windows of this side in pixels, not over the whole picture.
      steps: calls of a diffusion model's networks; those of its experiment without it.
      seed: of the noise that a diffusion model starts from.
      condition: picture (or folder of pictures of the same names) that the network is shown
        beside the picture, such as a mask.
      preset: published configuration, for official files that do not hold theirs (RDDM).
      which: checkpoint of a run directory.
      part: name of a set of weights in a file of several (net_g_ema); without it the one that fits
        the network, and of several that do a moving average.
      overwrite: replace existing files.
    """
    import time

    from jaxcore.weights import load, shipped

    jobs = plan(pictures, output, overwrite=overwrite)
    jobs = [dataclasses.replace(job, condition=_condition(job, condition)) for job in jobs]
    loaded = load(weights, model=model, preset=preset, which=which, part=part)
    for note in loaded.notes:
        show(note)
    if weights is None:
        own = shipped()
        show(f"weights {own.name} of jaxcore ({loaded.cfg.title}): for {own.what}")
    if stat_window is not None:
        loaded = _with_window(loaded, stat_window)
    if bucket is None and len(jobs) > 1:
        bucket = _BUCKET
    options = {"tile": tile, "overlap": overlap, "ensemble": ensemble, "bucket": bucket}
    own = {"steps": steps, "seed": seed, "condition": condition}
    given = {name: value for name, value in own.items() if value is not None}
    unknown = [name for name in given if name not in loaded.network.restore_options]
    if unknown:
        name = loaded.network.name
        raise UserError(f"The network {name} has no {unknown[0]}: leave --{unknown[0]} out.")
    if condition is not None and not loaded.cfg.condition_channels:
        raise UserError("Expected no --condition for networks without further channels, found one.")
    options |= {name: value for name, value in given.items() if name != "condition"}
    run = _runner(loaded, options)
    start = time.perf_counter()
    if len(jobs) == 1:
        _restore_one(jobs[0], run, overwrite)
        show(f"{jobs[0].output}  {time.perf_counter() - start:.1f} s")
        return
    failures = _restore_many(jobs, run, overwrite)
    seconds, done = time.perf_counter() - start, len(jobs) - len(failures)
    show(f"{done} of {len(jobs)} pictures -> {output}  {seconds:.1f} s")
    if failures:
        raise UserError(f"{len(failures)} of {len(jobs)} pictures were not restored:", failures)


Run = Callable[..., np.ndarray]  # (pixels, progress, **further) -> restored


def _condition(job: Job, given: Path | None) -> Path | None:
    """The further picture of a job."""
    if given is None or given.is_file():
        return given
    found = sorted(given.glob(f"{glob.escape(job.source.stem)}.*"))
    if len(found) != 1:
        raise UserError(
            f"Expected one picture named {job.source.stem} in {given}, found {len(found)}."
        )
    return found[0]


def _with_window(loaded: Loaded, window: int) -> Loaded:
    if "stat_window" not in loaded.network.restore_changes:
        name = loaded.network.name
        raise UserError(
            f"The network {name} has no windows of statistics: leave --stat-window out."
        )
    try:
        cfg = dataclasses.replace(loaded.cfg, stat_window=window)
    except UserError as error:
        raise UserError(f"--{str(error).replace('stat_window', 'stat-window')}") from None
    return dataclasses.replace(loaded, cfg=cfg)


def _runner(loaded: Loaded, options: dict[str, Any]) -> Run:
    from jaxcore.tiling import check_options

    network, cfg = loaded.network, loaded.cfg
    if not network.restores(cfg) or network.channels(cfg) != 3:
        raise UserError("Expected weights of a network for RGB pictures, found others.")
    multiple = network.multiple(cfg)
    check_options(multiple, options["tile"], options["overlap"], "linear", options["bucket"])

    def run(pixels: np.ndarray, progress: Any, **further: Any) -> np.ndarray:
        if "condition" in further:
            further["condition"] = further["condition"][..., : cfg.condition_channels]
        return network.restore(loaded.params, pixels, cfg, progress=progress, **options, **further)

    return run


def _restore_one(job: Job, run: Run, overwrite: bool) -> None:
    from jaxcore.cli.progress import steps

    with steps("restoring") as progress:
        _restore(job, run, overwrite, progress)


def _restore_many(jobs: list[Job], run: Run, overwrite: bool) -> list[str]:
    from jaxcore.cli.progress import track

    failures = []
    for job in track(jobs, len(jobs), "restoring"):
        try:
            _restore(job, run, overwrite)
        except UserError as error:
            sentence = str(error)
            named = str(job.source) in sentence or str(job.output) in sentence
            failures.append(sentence if named else f"{job.source}: {sentence}")
    return failures


def _restore(
    job: Job, run: Run, overwrite: bool, progress: Callable[[int, int], None] | None = None
) -> None:
    import jax

    from jaxcore.data.images import check_fits, read_image, write_image

    picture = read_image(job.source)
    check_fits(job.output, picture)
    further = {} if job.condition is None else {"condition": read_image(job.condition).unit()}
    try:
        restored = run(picture.unit(), progress, **further)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        height, width = picture.pixels.shape[:2]
        raise UserError(
            f"{job.source} of {width}x{height} pixels does not fit into the memory: use --tile."
        ) from None
    write_image(job.output, restored, like=picture, overwrite=overwrite)


def plan(pictures: tuple[str, ...], output: Path, *, overwrite: bool) -> list[Job]:
    """What is to be restored into what; every conflict of names is found here.

    Raises:
      UserError: no pictures, an output that exists, two pictures for one output, or an output
        that cannot be written.
    """
    from jaxcore.data.images import check_ending
    from jaxcore.data.images.formats import FORMATS

    if not pictures:
        raise UserError("Expected pictures, a folder or a pattern, found none.")
    for name in pictures:
        if not Path(name).exists() and not glob.has_magic(name):
            raise UserError(f"Expected a picture, a folder or a pattern, found nothing at {name}.")
    single = len(pictures) == 1 and Path(pictures[0]).is_file() and not _is_folder(output)
    if not single and not output.is_dir() and (output.exists() or output.suffix.lower() in FORMATS):
        raise UserError(f"Expected a folder as output for several pictures, found {output}.")
    sources = [found for name in pictures for found in _find(name, output)]
    jobs = [Job(source, output if single else output / below) for source, below in sources]
    for job in jobs:
        check_ending(job.output)
    _check_outputs(jobs, overwrite)
    return jobs


def _is_folder(output: Path) -> bool:
    return output.is_dir() or not output.suffix


def _find(name: str, output: Path) -> list[tuple[Path, Path]]:
    """Files, and their names below the output folder."""
    from jaxcore.data.images.formats import FORMATS
    from jaxcore.data.images.sources import list_images

    path = Path(name)
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        root, files = path, list_images(path, recursive=True, endings=FORMATS)
    else:
        parts = path.parts
        fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), 0)
        root = Path(*parts[:fixed])
        files = [Path(f) for f in sorted(glob.glob(name, recursive=True)) if Path(f).is_file()]
        files = [f for f in files if f.suffix.lower() in FORMATS]
    below = output.resolve()
    if below != root.resolve() and below.is_relative_to(root.resolve()):
        # Results of an earlier call are no input.
        files = [f for f in files if not f.resolve().is_relative_to(below)]
    if not files:
        raise UserError(f"Expected pictures ({', '.join(FORMATS)}), found none in {name}.")
    return [(f, f.relative_to(root)) for f in files]


def _check_outputs(jobs: list[Job], overwrite: bool) -> None:
    from jaxcore.atomic import check_writable

    origin: dict[Path, Path] = {}
    for job in jobs:
        if job.output in origin:
            raise UserError(
                f"Expected one picture per output, found {origin[job.output]} and {job.source} "
                f"for {job.output}."
            )
        origin[job.output] = job.source
    taken = [output for output in origin if output.exists()]
    if taken and not overwrite:
        more = f" and {len(taken) - 1} others exist" if len(taken) > 1 else " exists"
        raise UserError(f"Expected new files, found that {taken[0]}{more} (use --overwrite).")
    for folder in {output.parent for output in origin}:
        check_writable(folder)
