"""JSON that somebody else has written, read within bounds.

A file of a few hundred kilobytes can hold brackets that are nested deeper than any stack, a number
that no float holds, or a list where fields are expected. Here all of that ends in one sentence.
What the fields mean is checked afterwards: by `jaxcore.serial.from_json` where there is a class.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxcore.errors import UserError, readable

MAX_BYTES = 2**24
"""Of one JSON text: settings have kilobytes; Python's objects take up to 30 times the text."""
MAX_DEPTH = 64
"""Lists and objects inside each other: settings have 10, and who walks the values may recurse."""
MAX_LINE_BYTES = 2**20
"""Of one line of a file of records: one of 1,000 metrics has about 40 kilobytes."""
_PIECE = 2**16  # bytes that are read together
_LARGEST = 2.0**1023
"""Numbers: what is larger overflows as soon as somebody computes with it."""


def read_json(
    path: str | os.PathLike[str],
    *,
    what: str = "a file of settings",
    expect: type | tuple[type, ...] = dict,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    finite: bool = True,
) -> Any:
    """The value of a JSON file; see `parse_json`.

    Args:
      path: the file.
      what: what it is, for messages: "Expected {what} in {path}, found ...".
      expect: type of the whole.
      max_bytes: of the file.
      max_depth: lists and objects inside each other.
      finite: refuse NaN and infinities.

    Raises:
      UserError: no file, one that cannot be read, or not such JSON.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.json")
    ...     _ = path.write_text('{"steps": 3}')
    ...     read_json(path)
    {'steps': 3}
    """
    file: Any = Path(path) if isinstance(path, str) else path  # may be a remote one of epath
    try:
        if not file.is_file():  # also a pipe, which would never end
            found = "something other than a file" if file.exists() else "no such file"
            raise UserError(f"Expected {what} in {path}, found {found}.")
        with file.open("rb") as stream:
            content = read_at_most(stream, max_bytes + 1)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Expected {what} in {path}, which cannot be read: {reason}.") from None
    return parse_json(
        content,
        source=f"{what} in {path}",
        expect=expect,
        max_bytes=max_bytes,
        max_depth=max_depth,
        finite=finite,
    )


def read_at_most(stream: BinaryIO, limit: int) -> bytes:
    """The rest of a file, or its first bytes; memory is taken for what is there.

    ``stream.read(limit)`` would reserve the limit at once.

    >>> import io
    >>> read_at_most(io.BytesIO(b"abc"), 2**40), read_at_most(io.BytesIO(b"abc"), 2)
    (b'abc', b'ab')
    """
    parts, size = [], 0
    while part := stream.read(min(_PIECE, limit - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def parse_json(
    content: str | bytes,
    *,
    source: str,
    expect: type | tuple[type, ...] = dict,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    finite: bool = True,
) -> Any:
    """The value of a JSON text of any origin.

    Args:
      content: the text, or its bytes in UTF-8.
      source: what it is and where, for messages: "Expected {source}, found ...".
      expect: type of the whole.
      max_bytes: of the text.
      max_depth: lists and objects inside each other.
      finite: refuse NaN and infinities, which strict JSON does not have.

    Raises:
      UserError: too long, not UTF-8, not JSON, too deep, a name twice in one object, a number that
        a float cannot hold, or another type than expected.

    >>> parse_json('{"a": [1, 2.5]}', source="settings")
    {'a': [1, 2.5]}
    >>> parse_json("[" * 200_000, source="settings")
    Traceback (most recent call last):
    jaxcore.errors.UserError: Expected settings, found JSON that is nested more than 64 levels deep.
    """
    try:
        if len(content) > max_bytes:
            raise _Found(f"more than {max_bytes:,} bytes")
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_object)
        _check(value, max_depth, finite)
        if not isinstance(value, expect):
            wanted = expect if isinstance(expect, tuple) else (expect,)
            names = " or ".join(_WORDS.get(kind, kind.__name__) for kind in wanted)
            raise _Found(f"{_WORDS.get(type(value), 'nothing')} instead of {names}")
    except _Found as found:
        reason = str(found)
    except RecursionError:  # Python's reader counts its levels
        reason = f"JSON that is nested more than {max_depth} levels deep"
    except UnicodeDecodeError:
        reason = "bytes that are not UTF-8"
    except ValueError as error:  # also a number of more than 4,300 digits
        reason = f"no JSON ({error})"
    else:
        return value
    raise UserError(f"Expected {source}, found {reason}.")


def read_json_lines(
    path: str | os.PathLike[str],
    *,
    what: str = "a file of records",
    growing: bool = False,
    max_bytes: int = MAX_LINE_BYTES,
) -> Iterator[dict[str, Any]]:
    r"""The objects of a file with one per line, one after the other.

    Args:
      path: the file.
      what: what it is, for messages.
      growing: lines were added one by one, and whoever did it may have been killed: a last line
        that is not whole is left out.
      max_bytes: of one line; the length of the file is not bounded, as one line is held at a time.

    Raises:
      UserError: no such file, or a line that is not an object of JSON, by its number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.jsonl")
    ...     _ = path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    ...     list(read_json_lines(path, growing=True))
    [{'step': 1}, {'step': 2}]
    """
    file: Any = Path(path) if isinstance(path, str) else path  # may be a remote one of epath
    number = 0
    try:
        if not file.is_file():
            raise UserError(f"Expected {what}, found no such file: {path}.")
        with file.open("rb") as stream:
            while line := stream.readline(max_bytes + 1):
                number += 1
                if not line.strip():
                    continue
                source = f"{what}, each line an object of JSON, in {path}"
                try:
                    record = parse_json(line, source=source, max_bytes=max_bytes)
                except UserError as error:
                    if growing and len(line) <= max_bytes and not stream.read(1):
                        return
                    raise UserError(f"{str(error).removesuffix('.')} in line {number}.") from None
                yield record
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


class _Found(Exception):
    """What was found instead; the end of a sentence."""


_WORDS: dict[type, str] = {
    dict: "an object with names",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are different; else readers would not agree on what it says."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise _Found(f"the name {readable(repr(twice))} twice in one object")
    return fields


def _check(value: Any, max_depth: int, finite: bool) -> None:
    """Refuse what is too deep or too large, level by level, without recursion."""
    level, depth = [value], 0
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            elif isinstance(item, float | int) and not abs(item) < _LARGEST:
                if isinstance(item, int):
                    raise _Found("a whole number beyond the range of floats")
                if finite:
                    raise _Found("a number that is not finite")
        depth += any(isinstance(item, dict | list) for item in level)
        if depth > max_depth:
            raise _Found(f"JSON that is nested more than {max_depth} levels deep")
        level = inner
