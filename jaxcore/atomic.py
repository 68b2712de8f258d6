"""Files and folders that appear whole or not at all."""

import contextlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxcore.errors import UserError
from jaxcore.places import is_remote

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)  # as made below


@contextlib.contextmanager
def whole_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it on success, remove it on any failure.

    Folders of ``path`` must exist. The file gets the permissions of any new file here. A file in a
    bucket is written in a local folder first, and copied when it is whole.

    Raises:
      UserError: the file exists and ``overwrite`` is not set, or the disk is full or read-only.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(Path(folder, "a.txt")) as temporary:
    ...         _ = temporary.write_text("all of it")
    ...     os.listdir(folder)
    ['a.txt']
    """
    if is_remote(path):
        _check_free(path, overwrite)
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, path.name)
            path.write_bytes(Path(folder, path.name).read_bytes())
        return
    temporary = path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}.tmp")
    try:
        _check_free(path, overwrite)
        temporary.touch(exist_ok=False)  # with the permissions a new file gets here
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes its files private
        with temporary.open("rb+") as file:  # on the disk before it gets its name
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _check_free(path: Path, overwrite: bool) -> None:
    """See that a file may get this name."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: expected the name of a file to write.")
    if path.exists() and not overwrite:
        raise UserError(
            f"{path} exists already: expected a new name, or --overwrite (overwrite=True)."
        )


@contextlib.contextmanager
def whole_folder(path: Path, *, overwrite: bool = False, among: bool = False) -> Iterator[Path]:
    """Give a temporary folder; what was written into it gets its name on success only.

    Args:
      path: the folder; those above it are made.
      overwrite: replace an older folder, with all that is in it.
      among: the folder may exist; the new files come among its others, in place of those of the
        same names.

    Raises:
      UserError: the folder exists and neither is set, or the disk is full or read-only.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as above:
    ...     with whole_folder(Path(above, "a")) as temporary:
    ...         _ = (temporary / "b.txt").write_text("all of it")
    ...     os.listdir(above), os.listdir(Path(above, "a"))
    (['a'], ['b.txt'])
    """
    there = os.path.lexists(path)
    if there and not (overwrite or among):
        raise UserError(
            f"{path} exists already: expected a new name, or --overwrite (overwrite=True)."
        )
    # Of a folder that stays, the one above may be on another disk, or read-only.
    beside = path / path.name if there and among else path
    mark = secrets.token_hex(4)
    temporary, old = (beside.with_name(f".{path.name[:64]}.{mark}.{end}") for end in ("tmp", "old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if there and among:
            for file in temporary.iterdir():
                os.replace(file, path / file.name)
            return
        if there:  # two renames: a folder cannot be replaced in one
            os.rename(path, old)
        try:
            os.rename(temporary, path)
        except OSError:
            if there:
                os.rename(old, path)
            raise
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        for left in (temporary, old):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            elif os.path.lexists(left):
                left.unlink()


def clear_left_overs(folder: Path) -> None:
    """Remove the temporary files and folders that processes which were killed have left.

    Only of a folder that nobody else writes to. An older folder that was being replaced (its name
    ends in ``.old``) stays: it may be all there is.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in (".metrics.jsonl.01ab23cd.tmp", "mine.tmp"):
    ...         Path(folder, name).touch()
    ...     clear_left_overs(Path(folder))
    ...     os.listdir(folder)
    ['mine.tmp']
    """
    for left in folder.iterdir() if folder.is_dir() else ():
        if _TEMPORARY.fullmatch(left.name):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    left.unlink()


def check_writable(folder: Path) -> None:
    """See that a folder, which need not exist, can be written, before long work for it.

    Raises:
      UserError: it cannot.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"Expected a folder that can be written, found {folder}.")


def check_folder(folder: Path, names: Iterable[str], *, overwrite: bool = False) -> None:
    """See that files of these names can be written into a folder, before long work for them.

    Raises:
      UserError: one is there and ``overwrite`` is not set, or the folder cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_folder(Path(folder), ("summary.txt",))
    """
    taken = [name for name in names if (folder / name).exists()]
    if taken and not overwrite:
        raise UserError(
            f"Expected a new folder, or --overwrite (overwrite=True), found {folder / taken[0]}."
        )
    check_writable(folder)


def write_json(path: Path, content: Any) -> None:
    r"""Write ``content`` as JSON, in place of an older file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(Path(folder, "a.json"), {"psnr": 26.5})
    ...     Path(folder, "a.json").read_text()
    '{\n  "psnr": 26.5\n}\n'
    """
    text = json.dumps(content, indent=2) + "\n"
    with whole_file(path, overwrite=True) as temporary:
        temporary.write_text(text)
