"""Questions about pictures, of any benchmark."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcore.errors import UserError
from jaxcore.json_files import read_at_most

_MAX_BYTES = 2**24  # of a file of questions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """One question.

    Attributes:
      text: as the model reads it.
      truth: the right answer, in small letters.
      image: the picture, None for a question about text alone.
      group: what the question counts for: a task, an instance.
      part: which of the questions of its group.
    """

    text: str
    truth: str
    image: Path | None = None
    group: str = ""
    part: str = ""


class Benchmark(NamedTuple):
    """How questions are read, and answers scored.

    Attributes:
      load: from the published file or folder, and the folder of pictures.
      score: from questions and answers to numbers by name.
    """

    load: Callable[[Path, Path | None], list[Question]]
    score: Callable[[Sequence[Question], Sequence[str]], dict[str, float]]


def check_pairs(questions: Sequence[Question], answers: Sequence[str]) -> None:
    """Refuse answers that are not as many as the questions, and nothing at all."""
    if len(questions) != len(answers) or not questions:
        raise UserError(
            f"Expected an answer to each of {len(questions)} questions, found {len(answers)}."
        )


def text_of(record: Mapping[str, Any], name: str, where: str) -> str:
    """A field that must be a text.

    Raises:
      UserError: there is none.
    """
    value = record.get(name)
    if not isinstance(value, str):
        raise UserError(f"Expected a text as {name!r} in {where}, found {value!r}.")
    return value


def inside(folder: Path, name: str, where: str) -> Path:
    """A file below a folder, by a name that comes from a stranger's file.

    Raises:
      UserError: the name leads out of the folder.

    >>> inside(Path("a"), "b/c.jpg", "x.json").as_posix()
    'a/b/c.jpg'
    """
    parts = Path(name)
    if parts.is_absolute() or ".." in parts.parts or not name:
        raise UserError(f"Expected the name of a file inside {folder} in {where}, found {name!r}.")
    return folder / parts


def lines_of(path: Path, what: str) -> list[str]:
    """Lines of a text of someone else, within bounds.

    Raises:
      UserError: it cannot be read, is too long, or no text.
    """
    try:
        with path.open("rb") as stream:
            content = read_at_most(stream, _MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise UserError(f"Expected {what} in {path}, found more than {_MAX_BYTES:,} bytes.")
        return content.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise UserError(f"Expected {what} in {path}, found bytes that are not UTF-8.") from None


def ratio(part: float, whole: float) -> float:
    """0 where nothing was counted."""
    return part / whole if whole else 0.0
