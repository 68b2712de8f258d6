"""Guards around files: full disks, failed reads, foreign parameters."""

import contextlib
import errno
import gc
import logging
import sys
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
        gc.collect()
        raise UserError(message)


def _from_bucket(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _OF_BUCKETS


def first_line(error: Exception) -> str:
    """What an error says, on one line and without a full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Keep Orbax from printing about a failure that also arrives as an exception.

    Drops its log lines, and the complaints of requests that outlived a failed read or write.
    """
    logger = logging.getLogger("absl")
    previous = sys.unraisablehook

    def keep(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    def hook(unraisable: Any) -> None:
        about = f"{unraisable.exc_value} {unraisable.object}"
        if not any(text in about for text in _LEFT_BEHIND):
            previous(unraisable)

    logger.addFilter(keep)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        logger.removeFilter(keep)
        if sys.unraisablehook is hook:
            sys.unraisablehook = previous


def attempt(read: Callable[[], T]) -> tuple[T | None, str]:
    """Call ``read``; a failure (other than a `UserError`) becomes None and its reason.

    A damaged file provokes exceptions of all kinds in Orbax; call it within `quiet_orbax`.
    """
    try:
        return read(), ""
    except UserError:
        raise
    except Exception as error:
        reason = first_line(error).split(". See full TensorStore details")[0]
    gc.collect()  # what the failed read left behind complains when it is collected: now
    return None, reason


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
