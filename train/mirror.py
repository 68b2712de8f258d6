"""Files of a run that grow; beside a run in a bucket, where nothing grows, they lie locally."""

import shutil
import tempfile
from pathlib import Path

from jaxcore.places import is_remote

_RECORDS = "metrics.jsonl"  # grows on when a run goes on


class Mirror:
    """A local folder whose files `copy` brings to a run directory; that directory, if it is local.

    >>> mirror = Mirror(Path("runs/first"))
    >>> mirror.folder
    PosixPath('runs/first')
    """

    def __init__(self, run_dir: Path) -> None:
        """Take along what the run has written so far."""
        self._run_dir = run_dir
        self._remote = is_remote(run_dir)
        self.folder = Path(tempfile.mkdtemp(prefix="jaxcore-")) if self._remote else run_dir
        self._copied: dict[Path, tuple[int, int]] = {}
        if self._remote and (run_dir / _RECORDS).exists():
            records = self.folder / _RECORDS
            records.write_bytes((run_dir / _RECORDS).read_bytes())
            self._copied[records] = _mark(records)

    def copy(self) -> None:
        """Bring what is new, each file as a whole."""
        for file in self.folder.rglob("*") if self._remote else ():
            if file.is_file():
                mark = _mark(file)
                if self._copied.get(file) != mark:
                    place = self._run_dir / file.relative_to(self.folder).as_posix()
                    place.write_bytes(file.read_bytes())
                    self._copied[file] = mark

    def close(self) -> None:
        """Copy, and remove the local folder."""
        try:
            self.copy()
        finally:
            if self._remote:
                shutil.rmtree(self.folder, ignore_errors=True)


def _mark(file: Path) -> tuple[int, int]:
    """Size and time, by which a change shows."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns
