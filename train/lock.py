"""One run at a time in a run directory.

The lock is the file ``.lock``. The kernel holds it (``flock``) as long as the process lives,
whatever it dies of, also for other hosts where the file system passes it on, as NFS does. What is
written in the file names the owner; where a file system has no ``flock``, it decides.
"""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxcore.errors import UserError
from jaxcore.json_files import parse_json
from jaxcore.train.integrity import writing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
_TAKEN = (errno.EAGAIN, errno.EACCES)
_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_LONGEST = 1000  # bytes of a sentence for the other processes


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run directory, which must exist; all processes of a job hold it together.

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
    held: int | None = None
    refused = ""
    if jax.process_index() == 0:
        try:
            with writing(run_dir):
                held = _take(run_dir / LOCK)
        except UserError as error:
            refused = str(error)
    if jax.process_count() > 1:  # the others wait for what the first one found
        sentence = np.frombuffer(refused.encode()[:_LONGEST].ljust(_LONGEST), np.uint8)
        told = np.asarray(multihost_utils.broadcast_one_to_all(sentence))
        refused = told.tobytes().decode(errors="replace").strip()
    if refused:
        raise UserError(refused)
    try:
        yield
    finally:
        if held is not None:
            with contextlib.suppress(OSError):  # before it is let go, so that it is still ours
                (run_dir / LOCK).unlink()
            os.close(held)


def _take(path: Path) -> int:
    """The open file of a lock that is now ours.

    Raises:
      UserError: it is another's.
      OSError: the folder cannot be written.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            free = _flock(file)
            owner = _owner(file)
            if free is False and _dead(owner):  # a child that outlived it has the open file
                path.unlink(missing_ok=True)
            elif free is False or (free is None and owner is not None and not _dead(owner)):
                raise UserError(_sentence(path, owner, certain=free is False))
            elif _is_at(file, path):  # else its owner has just taken it away
                _sign(file)
                return file
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


def _sign(file: int) -> None:
    owner = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "born": _born(os.getpid()),
        "since": time.time(),
    }
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(owner).encode(), 0)


def _owner(file: int) -> dict[str, Any] | None:
    """Who has signed; None when nobody has, or it cannot be understood."""
    try:
        found = parse_json(os.pread(file, 4096, 0), source="the owner of a lock")
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
