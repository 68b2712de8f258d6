"""Where a run lies: in a local folder, or in a bucket (``gs://bucket/folder``).

A place in a bucket is an `etils.epath.Path`. It has the methods of a `pathlib.Path`; but nothing in
a bucket can be appended to or renamed, and a file is there, whole, once it has been closed.
"""

import functools
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from jaxcore.errors import UserError

_F = TypeVar("_F", bound=Callable[..., Any])

# Orbax hands arrays to TensorStore, and knows this one driver besides that of local files.
_STORE = "gs"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters or more: C: is a drive


def run_place(where: str | os.PathLike[str]) -> Path:
    """The place of a run, from what a user names.

    Args:
      where: a local folder, ``file:///folder`` or ``gs://bucket/folder``; need not exist.

    Returns:
      A `pathlib.Path`, or for a bucket an `etils.epath.Path`, see the head of this module.

    Raises:
      UserError: a kind of place that runs cannot lie in, or one that needs a package that is not
        installed.

    >>> run_place("runs/first").name, run_place("file:///data/first").as_posix()
    ('first', '/data/first')
    >>> run_place("s3://bucket/first")
    Traceback (most recent call last):
    ...
    jaxcore.errors.UserError: Expected a local folder or gs://BUCKET/FOLDER, found \
s3://bucket/first: checkpoints cannot lie in s3:// (mount the bucket as a folder).
    """
    text = os.fspath(where)
    if isinstance(where, pathlib.Path) and _SCHEME.fullmatch(where.parts[0] if where.parts else ""):
        raise UserError(
            f"Expected a place in a bucket as text, such as 'gs://bucket/run', found the path "
            f"{where}, from which pathlib has taken a slash."
        )
    scheme, address, rest = text.partition("://")
    if not address:
        return Path(where)
    if scheme == "file" and rest.startswith("/"):
        return Path(rest)
    if scheme != _STORE:
        raise UserError(
            f"Expected a local folder or gs://BUCKET/FOLDER, found {text}: checkpoints cannot lie "
            f"in {scheme}:// (mount the bucket as a folder)."
        )
    if not rest.strip("/") or rest.startswith("/"):
        raise UserError(f"Expected gs://BUCKET/FOLDER, found {text}.")
    import fsspec
    from etils import epath

    try:
        fsspec.get_filesystem_class("gcs")
    except ImportError:
        raise UserError(
            f"Expected the package gcsfs for {text}, which is not installed: "
            "pip install 'jaxcore[gcs]'."
        ) from None
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what fails arrives as an exception
    return cast(Path, epath.Path(text))


def local_place(where: str | os.PathLike[str]) -> Path:
    """A local path, from what a user names.

    Raises:
      UserError: it is an address, of which `pathlib` would make a folder such as ``gs:``.

    >>> local_place("gs://bucket/fit")
    Traceback (most recent call last):
    ...
    jaxcore.errors.UserError: Expected a local path, found gs://bucket/fit.
    """
    if "://" in os.fspath(where):
        raise UserError(f"Expected a local path, found {os.fspath(where)}.")
    return Path(where)


def is_remote(place: os.PathLike[str]) -> bool:
    """Whether a place is in a bucket.

    >>> is_remote(Path("runs/first"))
    False
    """
    return not isinstance(place, pathlib.Path)


def absolute(place: Path) -> Path:
    """A place that does not depend on the current folder."""
    return place if is_remote(place) else place.absolute()


def remove_folder(place: Path) -> None:
    """Remove a folder and all that is in it; locally, what cannot be removed stays."""
    if is_remote(place):
        from etils import epath

        epath.Path(place).rmtree(missing_ok=True)
    else:
        shutil.rmtree(place, ignore_errors=True)


def read_once(count: int) -> Callable[[_F], _F]:
    """Decorator that keeps the last results of a function that reads files, by its arguments.

    And by the working directory, from which relative paths start.

    Args:
      count: of the results that are kept.

    >>> read = read_once(2)(lambda name: object())
    >>> read("a") is read("a"), read("a") is read("b")
    (True, False)
    """

    def decorate(read: _F) -> _F:
        @functools.lru_cache(maxsize=count)
        def kept(_: Path, *args: Any, **options: Any) -> Any:
            return read(*args, **options)

        @functools.wraps(read)
        def once(*args: Any, **options: Any) -> Any:
            return kept(Path.cwd(), *args, **options)

        return cast(_F, once)

    return decorate
