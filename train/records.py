"""What a run leaves to look at: ``metrics.jsonl``, sample pictures, TensorBoard files."""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxcore.atomic import whole_file
from jaxcore.errors import UserError, readable
from jaxcore.json_files import read_json_lines
from jaxcore.places import run_place


def strict(value: Any) -> Any:
    """A value that strict JSON can hold: NaN and infinities become None.

    >>> strict({"a": float("nan"), "b": 1})
    {'a': None, 'b': 1}
    """
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, np.generic) or (hasattr(value, "ndim") and value.ndim == 0):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class MetricsFile:
    """JSON lines, one per record, written at once so that a killed run loses nothing."""

    def __init__(self, path: Path, *, keep_to: int, again: Collection[str] = ()) -> None:
        """Open for appending; records after step ``keep_to`` and a torn last line are dropped.

        Args:
          path: the file, which need not exist.
          keep_to: a step.
          again: kinds of records that will be written once more for this step, and are dropped.

        Raises:
          UserError: the file holds something else than records.
        """
        if path.exists():
            with (
                whole_file(path, overwrite=True) as temporary,
                temporary.open("w", encoding="utf-8") as file,
            ):
                for record in _records(path):
                    kept = record["step"] < keep_to
                    if kept or (record["step"] == keep_to and record.get("kind") not in again):
                        file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file = path.open("a")

    def write(self, kind: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one record."""
        record = {"kind": kind, "step": step, **strict(metrics)}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The whole records of a file, one at a time."""
    for number, record in enumerate(
        read_json_lines(path, what="records of a run", growing=True), 1
    ):
        step = record.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            raise UserError(
                f"Expected a whole number as step of every record in {path}, found "
                f"{readable(repr(step))} in record {number}."
            )
        yield record


def read_metrics_file(path: str | Path) -> list[dict[str, Any]]:
    """All whole records of a ``metrics.jsonl``.

    Raises:
      UserError: no such file, or one that holds something else.
    """
    return list(_records(run_place(path)))


def evaluations(run_dir: Path, last: int) -> list[dict[str, Any]]:
    """The evaluations that a run has recorded up to step ``last``, in their order."""
    path = run_dir / "metrics.jsonl"
    found = _records(path) if last and path.exists() else ()
    return [record for record in found if record.get("kind") == "eval" and record["step"] <= last]


def write_sample(path: Path, picture: np.ndarray) -> None:
    """Write one picture as PNG under a temporary name, then rename.

    Args:
      path: ends in ``.png``.
      picture: uint8, (height, width, 3) or (height, width).

    Raises:
      UserError: not such an array.
    """
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
        raise UserError(
            f"A sample picture must be uint8 (height, width, 3), found {picture.dtype} "
            f"{picture.shape}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, overwrite=True) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


class TensorBoard:
    """Event files through tensorboardX; silent when the extra ``log`` is not installed."""

    def __init__(self, directory: Path, *, start: int, enabled: bool = True) -> None:
        self._writer: Any = None
        if not enabled:
            return
        try:
            from tensorboardX import SummaryWriter  # an extra, and slow to import
        except ImportError:
            return
        self._writer = SummaryWriter(str(directory), purge_step=start + 1 if start else None)

    def scalars(self, prefix: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Write one point of every curve."""
        if self._writer is not None:
            for name, value in metrics.items():
                # A degradation that no row of the window had has no loss: a gap in its curve.
                if isinstance(value, int | float) and math.isfinite(value):
                    self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        """Write one picture, uint8 (height, width, 3) or (height, width)."""
        if self._writer is not None:
            form = "HWC" if picture.ndim == 3 else "HW"
            self._writer.add_image(name, picture, step, dataformats=form)

    def flush(self) -> None:
        """Write what is waiting."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()
