"""One run at a time in a run directory.

The lock is the file ``.lock``. The kernel holds it (``flock``) as long as the process lives,
whatever it dies of, also for other hosts where the file system passes it on, as NFS does. What is
written in the file names the owner; where there is no ``flock``, as in a bucket, it decides.
"""

import contextlib
import errno
import functools
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxcore.errors import UserError
from jaxcore.json_files import parse_json
from jaxcore.places import is_remote
from jaxcore.train.integrity import writing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
# What a writer that was killed leaves (`jaxcore.atomic.whole_file`); nobody else writes now.
_TEMPORARY = tuple(
    f"{name}.*.tmp"
    for name in (
        ".config.json",
        ".metrics.jsonl",
        "samples/.step_*.png",
        "checkpoints/*/loop/.metadata",
    )
)
_TAKEN = (errno.EAGAIN, errno.EACCES)
_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_LONGEST = 1000  # bytes of a sentence for the other processes


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run directory, which must exist; all processes of a job hold it together.

    Files that were half written when a run was killed are removed.

    Raises:
      UserError: another run has it, or the folder cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
    ...     try:
    ...         with locked(Path(folder)):
    ...             pass
    ...     except UserError as error:
    ...         print(str(error).partition(" (")[0].replace(folder, "runs/a"))
    Expected a run directory that no other run uses, found runs/a in use
    """
    release: Callable[[], None] | None = None
    refused = ""
    if jax.process_index() == 0:
        try:
            with writing(run_dir):
                release = (_take_remote if is_remote(run_dir) else _take)(run_dir / LOCK)
        except UserError as error:
            refused = str(error)
    if jax.process_count() > 1:  # the others wait for what the first one found
        sentence = np.frombuffer(refused.encode()[:_LONGEST].ljust(_LONGEST), np.uint8)
        told = np.asarray(multihost_utils.broadcast_one_to_all(sentence))
        refused = told.tobytes().decode(errors="replace").strip()
    if refused:
        raise UserError(refused)
    try:
        if release is not None:
            for pattern in _TEMPORARY:
                for left in run_dir.glob(pattern):
                    left.unlink(missing_ok=True)
        yield
    finally:
        if release is not None:
            release()


def _take(path: Path) -> Callable[[], None]:
    """Make a lock ours; returns how to let it go.

    Raises:
      UserError: it is another's.
      OSError: the folder cannot be written.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            free = _flock(file)
            owner = _owner(os.pread(file, 4096, 0))
            if free is False and _dead(owner):  # a child that outlived it has the open file
                path.unlink(missing_ok=True)
            elif free is False or (free is None and owner is not None and not _dead(owner)):
                raise UserError(_sentence(path, owner, certain=free is False))
            elif _is_at(file, path):  # else its owner has just taken it away
                os.ftruncate(file, 0)
                os.pwrite(file, _signature(), 0)
                return functools.partial(_release, path, file)
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _flock(file: int) -> bool | None:
    """Whether the kernel gives us the lock; None where the file system has none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno in _NO_FLOCK:
            return None
        raise
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _release(path: Path, file: int) -> None:
    with contextlib.suppress(OSError):  # before it is let go, so that it is still ours
        path.unlink()
    os.close(file)


def _take_remote(path: Path) -> Callable[[], None]:
    """The same in a bucket, where the owner that is written down is all there is."""
    owner = _owner(path.read_bytes()) if path.exists() else None
    if owner is not None and not _dead(owner):
        raise UserError(_sentence(path, owner, certain=False))
    path.write_bytes(_signature())
    return functools.partial(path.unlink, missing_ok=True)


def _signature() -> bytes:
    own = os.getpid()
    owner = {"host": socket.gethostname(), "process": own, "born": _born(own), "since": time.time()}
    return json.dumps(owner).encode()


def _owner(content: bytes) -> dict[str, Any] | None:
    """Who has signed; None when nobody has, or it cannot be understood."""
    try:
        found = parse_json(content, source="the owner of a lock")
    except UserError:
        return None
    good = isinstance(found.get("host"), str) and isinstance(found.get("process"), int)
    return found if good and isinstance(found.get("since"), int | float) else None


def _dead(owner: dict[str, Any] | None) -> bool:
    """Whether an owner is known to have ended: on this host only."""
    if owner is None or owner["host"] != socket.gethostname():
        return False
    try:
        os.kill(owner["process"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    born = _born(owner["process"])  # another process may have got its number since
    return None not in (born, owner.get("born")) and born != owner["born"]


def _born(process: int) -> str | None:
    """What tells processes of one number apart, where the system says it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return None


def _sentence(path: Path, owner: dict[str, Any] | None, *, certain: bool) -> str:
    text = f"Expected a run directory that no other run uses, found {path.parent} in use"
    if owner is None:
        return f"{text}; wait for the other run to end, or choose another directory."
    since = datetime.fromtimestamp(owner["since"]).astimezone().isoformat(" ", "seconds")
    text += f" (host {owner['host']}, process {owner['process']}, since {since})"
    if certain:
        return f"{text}; wait for that run to end, or choose another directory."
    return f"{text}; if that process has ended, remove {path} and start again."
