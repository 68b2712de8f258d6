"""``jaxcore restore``."""

import dataclasses
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxcore.cli.output import show
from jaxcore.cli.paths import RunPlace
from jaxcore.cli.restoring import Job, Run, Summary
from jaxcore.errors import UserError
from jaxcore.weights import Loaded, Which


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
    compare: bool = False,
    which: Which = "best",
    part: Annotated[str | None, tyro.conf.arg(name="set")] = None,
    overwrite: bool = False,
    skip_existing: bool = False,
) -> None:
    """Restore pictures with a run or with official weights.

    Or a video, frame by frame, with its sound and times. Names, sub-folders, formats, metadata, bit
    depth, transparency and grey are kept. A picture that cannot be restored does not stop the
    others; it is named at the end.

    Args:
      pictures: a file, a folder (everything below it), a quoted pattern, several files, or a video.
      output: a file for one file, else a folder.
      weights: run directory, or weight file (PyTorch or safetensors), or the name of weights in
        jaxcore/weights; the first of these without it, if there are any.
      model: name of the network, where it cannot be read from the weights.
      tile: side of tiles in pixels; 0 restores whole pictures. Without it pictures that are too
        large for the free memory are cut, and that is said.
      overlap: pixels shared by neighbouring tiles.
      ensemble: average over eight flips and turns.
      bucket: pad to multiples of this, so that a folder of many sizes compiles a few times only;
        64 or more for several pictures, as their sizes ask for, and the least the network needs
        for a single one. Networks that look at the whole picture see the padding too, which
        changes the result slightly.
      stat_window: take statistics over windows of this side in pixels, not over the whole picture.
      steps: calls of a diffusion model's networks; those of its experiment without it.
      seed: of the noise that a diffusion model starts from.
      condition: picture (or folder of pictures of the same names) that the network is shown
        beside the picture, such as a mask.
      preset: published configuration, for official files that do not hold theirs (RDDM).
      compare: write the degraded and the restored picture side by side too, as NAME.compare.png.
      which: checkpoint of a run directory.
      part: name of a set of weights in a file of several (net_g_ema); without it the one that fits
        the network, and of several that do a moving average.
      overwrite: replace existing files.
      skip_existing: go on where an earlier call was broken off: leave out what is there.
    """
    from jaxcore.cli.restore_video import check_video, restore_video
    from jaxcore.cli.restoring import header_sizes, runner
    from jaxcore.data.video import frame_size
    from jaxcore.weights import SHIPPED, load, shipped

    if overwrite and skip_existing:
        raise UserError("Expected --overwrite or --skip-existing, found both.")
    replace = overwrite or skip_existing
    video = check_video(pictures, output, {"compare": compare, "condition": condition})
    if video is None:
        jobs = plan(pictures, output, overwrite=replace, compare=compare)
    else:
        jobs = [Job(video, output)]
        _check_outputs(jobs, replace)
    planned = len(jobs)
    if skip_existing:
        jobs = [job for job in jobs if not job.output.exists()]
        if not jobs:
            show(f"0 restored, {planned} skipped (there already)")
            return
    jobs = [dataclasses.replace(job, condition=_condition(job, condition)) for job in jobs]
    sizes = header_sizes(jobs) if video is None else [frame_size(video)]
    loaded = load(weights, model=model, preset=preset, which=which, part=part)
    for note in loaded.notes:
        show(note)
    if weights is None:
        own = shipped()
        others = (f"--weights {one.name} for {one.what}" for one in SHIPPED.values() if one != own)
        also = "".join(f"; {other}" for other in others)
        show(f"weights {own.name} of jaxcore ({loaded.cfg.title}): for {own.what}{also}")
    if stat_window is not None:
        loaded = _with_window(loaded, stat_window)
    own = {"steps": steps, "seed": seed, "condition": condition}
    given = {name: value for name, value in own.items() if value is not None}
    unknown = [name for name in given if name not in loaded.network.restore_options]
    if unknown:
        name = loaded.network.name
        raise UserError(f"The network {name} has no {unknown[0]}: leave --{unknown[0]} out.")
    if condition is not None and not loaded.cfg.condition_channels:
        raise UserError("Expected no --condition for networks without further channels, found one.")
    options = {name: value for name, value in given.items() if name != "condition"}
    options |= {"tile": tile, "overlap": overlap, "ensemble": ensemble, "bucket": bucket}
    run = runner(loaded, options, sizes, several=len(jobs) > 1)
    if video is not None:
        restore_video(video, output, run, overwrite=overwrite)
        return
    if len(jobs) == planned == 1:
        _restore_one(jobs[0], run, overwrite)
        return
    summary = _restore_many(jobs, run, overwrite, skip_existing)
    summary.skipped += planned - len(jobs)
    for note in summary.notes:
        show(note)
    show(f"{summary.line()} -> {output}")
    if summary.failures:
        raise UserError(
            f"{len(summary.failures)} of {len(jobs)} pictures were not restored:", summary.failures
        )


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


def _restore_one(job: Job, run: Run, overwrite: bool) -> None:
    import time

    from jaxcore.cli.progress import steps
    from jaxcore.cli.restoring import restore_one

    start = time.perf_counter()
    with steps("restoring") as progress:
        note = restore_one(job, run, overwrite, progress)
    if note:
        show(note)
    show(f"{job.output}  {time.perf_counter() - start:.1f} s")


def _restore_many(jobs: list[Job], run: Run, overwrite: bool, skip_existing: bool) -> Summary:
    from jaxcore.cli.progress import track
    from jaxcore.cli.restoring import restore_many

    def shown(done: Iterator[Any], total: int) -> Iterator[Any]:
        return track(done, total, "restoring")

    return restore_many(jobs, run, overwrite, shown, skip_existing=skip_existing)


def plan(
    pictures: tuple[str, ...], output: Path, *, overwrite: bool, compare: bool = False
) -> list[Job]:
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
    if compare:
        jobs = [
            dataclasses.replace(job, comparison=job.output.with_suffix(".compare.png"))
            for job in jobs
        ]
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
    if path.is_dir():
        _say_foreign(path, below)
    if not files:
        raise UserError(f"Expected pictures ({', '.join(FORMATS)}), found none in {name}.")
    return [(f, f.relative_to(root)) for f in files]


# Files that a user may take for pictures, by their endings.
_FOREIGN = frozenset(
    (".avif", ".gif", ".heic", ".heif", ".jxl", ".psd", ".cr2", ".cr3", ".nef", ".arw", ".dng")
)


def _say_foreign(folder: Path, output: Path) -> None:
    """Name what lies among the pictures of a folder and is none that is read."""
    from jaxcore.data.images.sources import list_images
    from jaxcore.data.video import VIDEO_FORMATS

    try:
        found = list_images(folder, recursive=True, endings=_FOREIGN | VIDEO_FORMATS.keys())
    except UserError:  # there is none
        return
    found = [file for file in found if not file.resolve().is_relative_to(output)]
    if found:
        names = ", ".join(str(file) for file in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        show(f"left out, no pictures that are read (videos one at a time): {names}{more}")


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
    for job in jobs:
        if job.comparison in origin:
            raise UserError(f"Expected a name for the comparison, found {job.comparison} taken.")
        if job.comparison is not None:
            origin[job.comparison] = job.source
    taken = [output for output in origin if output.exists()]
    if taken and not overwrite:
        more = f" and {len(taken) - 1} others exist" if len(taken) > 1 else " exists"
        raise UserError(
            f"Expected new files, found that {taken[0]}{more} (use --overwrite or --skip-existing)."
        )
    for folder in {output.parent for output in origin}:
        check_writable(folder)
