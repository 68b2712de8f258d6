"""Where a run writes down what happens: records, pictures, event files, and its reporter."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from jaxcore.atomic import clear_left_overs
from jaxcore.train.integrity import writing
from jaxcore.train.logging import Reporter
from jaxcore.train.mirror import Mirror
from jaxcore.train.records import MetricsFile, TensorBoard, write_sample

_KINDS = {"log": "train", "evaluate": "eval"}


class Journal:
    """``metrics.jsonl``, ``samples/`` and ``tensorboard/`` of a run; use it as a context manager.

    Only the first of several processes writes files. Of a run in a bucket, records and event files
    are copied there by `copy`: before every checkpoint, and at the end.
    """

    def __init__(
        self,
        run_dir: Path,
        start: int,
        reporter: Reporter,
        *,
        tensorboard: bool = True,
        again: Collection[str] = (),
    ) -> None:
        """Open for the steps after ``start``; later records of an earlier attempt are dropped.

        Args:
          run_dir: the run directory.
          start: the last step that is done.
          reporter: hears everything that is written.
          tensorboard: write event files.
          again: what is done after ``start`` once more, "log" or "evaluate", and dropped here.
        """
        self.reporter = reporter
        self._run_dir = run_dir
        self._first = jax.process_index() == 0
        with writing(run_dir):
            self._mirror = Mirror(run_dir)
            if self._first:
                for folder in (self._mirror.folder, self._mirror.folder / "samples"):
                    clear_left_overs(folder)
            path = self._mirror.folder / "metrics.jsonl"
            kinds = [_KINDS[name] for name in again if name in _KINDS]
            self._file = MetricsFile(path, keep_to=start, again=kinds) if self._first else None
            self._board = TensorBoard(
                self._mirror.folder / "tensorboard",
                start=start,
                enabled=self._first and tensorboard,
            )

    @property
    def folder(self) -> Path:
        """A local folder for what grows: the run directory, or what is copied to it."""
        return self._mirror.folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reporter.end()
        self._board.close()
        if self._file is not None:
            self._file.close()
        with writing(self._run_dir):
            self._mirror.close()

    def copy(self) -> None:
        """Bring what was written to the bucket where the run lies; nothing for a local one."""
        with writing(self._run_dir):
            self._board.flush()
            self._mirror.copy()

    def train(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Means since the last record."""
        self._write("train", step, metrics)
        self.reporter.train(step, metrics)

    def evaluation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Metrics on held-out data."""
        self._write("eval", step, metrics)
        self.reporter.evaluation(step, metrics)

    def spike(self, step: int, found: Mapping[str, float]) -> None:
        """A loss far above the median of those before."""
        self._write("spike", step, found)
        self.reporter.message(
            f"Step {step}: the loss jumped to {found['loss']:.4g}, the median before is "
            f"{found['median']:.4g}."
        )

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Named pictures, uint8 (height, width, 3)."""
        for name, picture in pictures.items() if self._first else ():
            path = self._run_dir / "samples" / f"step_{step:07d}_{name}.png"
            with writing(path):
                write_sample(path, picture)
                self._board.picture(name, step, np.asarray(picture))

    def _write(self, kind: str, step: int, metrics: Mapping[str, Any]) -> None:
        if self._file is not None:
            with writing(self._run_dir / "metrics.jsonl"):
                self._file.write(kind, step, metrics)
                self._board.scalars(kind, step, metrics)
