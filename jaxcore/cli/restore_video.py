"""``jaxcore restore`` of a video, frame by frame."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.cli.output import show
from jaxcore.cli.restoring import Run
from jaxcore.errors import UserError


def check_video(pictures: tuple[str, ...], output: Path, unfit: dict[str, Any]) -> Path | None:
    """The one video that is to be restored; None where pictures are.

    Args:
      pictures: names that were given.
      output: where the result goes.
      unfit: options that mean nothing for a video -> whether they were given.

    Raises:
      UserError: several, no video as output, or such an option.
    """
    from jaxcore.data.video import VIDEO_FORMATS, is_video

    videos = [name for name in pictures if is_video(name)]
    if not videos:
        if is_video(output):
            raise UserError(f"Expected a video for the video {output}, found {pictures[0]!r}.")
        return None
    if len(pictures) > 1:
        raise UserError(f"Expected one video at a time, found {len(pictures)} names.")
    if not is_video(output):
        raise UserError(
            f"Expected a video ending in {', '.join(VIDEO_FORMATS)} as output, found {output}."
        )
    given = [name for name, value in unfit.items() if value]
    if given:
        raise UserError(f"Expected no --{given[0]} for a video, found one.")
    return Path(videos[0])


def restore_video(source: Path, output: Path, run: Run, *, overwrite: bool) -> None:
    """Restore every frame; the sound and the times are kept."""
    import time

    from jaxcore.cli.progress import steps
    from jaxcore.data.video import convert_video

    def restored(frame: np.ndarray) -> np.ndarray:
        values = run(frame.astype(np.float32) / np.float32(255), None)
        return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)

    start = time.perf_counter()
    with steps("restoring") as progress:
        found = convert_video(source, output, restored, overwrite=overwrite, progress=progress)
    for note in found.notes:
        show(note)
    seconds = time.perf_counter() - start
    rate = found.frames / seconds
    show(f"{found.frames} frames -> {output}  {seconds:.1f} s ({rate:.2f} frames/s)")
