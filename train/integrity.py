"""Guards around files: full disks, failed reads, foreign parameters."""

import asyncio
import concurrent.futures
import contextlib
import errno
import gc
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax

from jaxcore.errors import UserError
from jaxcore.places import is_remote
from jaxcore.train.optim import parameter_path

T = TypeVar("T")

_FORBIDDEN = (
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOENT,
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Codes that say how files lie, not whether the disk answers.
_STRUCTURE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
# How TensorStore and XLA say that they could not do it now, and TensorStore what the disk said.
_PASSING = re.compile(
    r"\b(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|PERMISSION_DENIED|RESOURCE_EXHAUSTED|"
    r"UNAUTHENTICATED|UNAVAILABLE): |bad_alloc"
)
_OS_CODE = re.compile(r"os_error_code='(\d+)'")
_PAUSES = (0.1, 0.5, 2.0)  # seconds between attempts to read
_LEFT_BEHIND = ("Event loop is closed", "_read_array_index", "_write_array")
_DISK_FULL = ("no space left", "disk quota exceeded", "file too large")
_OF_BUCKETS = ("gcsfs", "google", "aiohttp")  # packages whose errors tell of a bucket
_NO_ACCESS = ("read-only file system", "permission denied", "operation not permitted")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a forbidden folder into a `UserError` that names ``path``."""
    message = ""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore report the disk in several classes
        text = str(error).lower()
        code = error.errno if isinstance(error, OSError) else None
        if code in _FULL or any(t in text for t in _DISK_FULL):
            message = f"No space is left to write {path}: what was complete before is still valid."
        elif code in _FORBIDDEN or any(t in text for t in _NO_ACCESS):
            message = f"Expected a folder that can be written, found {path}: {error}."
        elif is_remote(path) and _from_bucket(error):
            message = f"Expected a bucket that can be written, found {path}: {first_line(error)}."
        else:
            raise
    if message:  # outside of the handler, so that what the error holds on to can be collected
        _collect()
        raise UserError(message)


def _from_bucket(error: Exception) -> bool:
    """Whether a package that reaches buckets failed; TensorStore names the address only."""
    known = isinstance(error, OSError) or type(error).__module__.split(".")[0] in _OF_BUCKETS
    return known or "gs://" in str(error)


def first_line(error: BaseException) -> str:
    """What an error says, on one line and without a full stop."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.split(". See full TensorStore details")[0][:300].rstrip(".")


class _Hush:
    """A hook that drops the complaints of requests that outlived a failed read or write."""

    def __init__(self, previous: Callable[[Any], object]) -> None:
        self.previous = previous
        self.stays = False  # such a request may end, and complain, long afterwards

    def __call__(self, unraisable: Any) -> None:
        about = f"{unraisable.exc_value} {unraisable.object}"
        if not any(text in about for text in _LEFT_BEHIND):
            self.previous(unraisable)


def _collect() -> None:
    """What a failed read or write has left behind complains when it is collected: now, or later."""
    gc.collect()
    if isinstance(sys.unraisablehook, _Hush):
        sys.unraisablehook.stays = True


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Keep Orbax from printing about a failure that also arrives as an exception.

    Drops its log lines, and the complaints of requests that outlived a failed read or write.
    """
    logger = logging.getLogger("absl")
    outer = sys.unraisablehook
    hook = outer if isinstance(outer, _Hush) else _Hush(outer)

    def keep(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logger.addFilter(keep)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        logger.removeFilter(keep)
        if sys.unraisablehook is hook and hook is not outer and not hook.stays:
            sys.unraisablehook = hook.previous


class Damaged(Exception):
    """The files of a checkpoint cannot be what was written; the message is the reason."""


def read_surely(read: Callable[[], T], *, what: str) -> T:
    """Call ``read`` until it succeeds, or its failure proves something.

    Damaged files provoke exceptions of all kinds in Orbax, but so do a machine without memory and
    a disk that is away: those are waited for a little. Call it within `quiet_orbax`.

    Args:
      read: reads files; a `UserError` of it goes through.
      what: what is read, begins the sentence.

    Raises:
      Damaged: twice it failed because of what is in the files.
      UserError: something else was in its way, every time.
    """
    proofs, reason = 0, ""
    for pause in (*_PAUSES, None):
        try:
            return read()
        except UserError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            reason, passing = first_line(error), _passes(error)
        _collect()
        proofs += not passing
        if proofs == 2:
            raise Damaged(reason)
        if passing and pause is not None:
            time.sleep(pause)
    raise UserError(
        f"{what} could not be read ({reason}), which need not be the fault of the files: nothing "
        "was changed; try again when there is memory and the disk answers."
    )


def _passes(error: BaseException | None) -> bool:
    """Whether a failed read, or what it was caused by, says nothing about the files."""
    if error is None:
        return False
    if isinstance(error, MemoryError | asyncio.CancelledError | concurrent.futures.CancelledError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno not in _STRUCTURE
    if isinstance(error, TimeoutError) or _PASSING.search(str(error)):
        return True
    found = _OS_CODE.search(str(error))
    if found and int(found[1]) not in _STRUCTURE:
        return True
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return any(map(_passes, (*inner, error.__cause__, error.__context__)))


def check_tree(found: Any, expected: Any, *, source: str) -> None:
    """Compare the leaves of two parameter trees by path and shape.

    Args:
      found: tree of things with ``shape``, from a file or the user.
      expected: tree of things with ``shape``, from the network.
      source: what ``found`` is, for the message.

    Raises:
      UserError: names the first leaves that differ.

    >>> import numpy as np
    >>> check_tree({"w": np.ones(3)}, {"w": np.ones(2)}, source="x.npz")
    Traceback (most recent call last):
    ...
    jaxcore.errors.UserError: x.npz does not fit this network: w expected (2,), found (3,).
    """
    have, want = _shapes(found), _shapes(expected)
    differing = [name for name in want if have.get(name) != want[name]]
    differing += [name for name in have if name not in want]
    if not differing:
        return
    parts = [
        f"{name} expected {want.get(name, 'nothing')}, found {have.get(name, 'nothing')}"
        for name in differing[:3]
    ]
    rest = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
    raise UserError(f"{source} does not fit this network: {'; '.join(parts)}{rest}.")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    return {parameter_path(path): tuple(leaf.shape) for path, leaf in leaves}
