"""Texts of a file with one object per line, as tokens in packed rows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from jaxtyping import Bool, Int

from jaxcore.data.packing import pack
from jaxcore.errors import UserError
from jaxcore.json_files import read_json_lines


class Rows(NamedTuple):
    """Packed texts.

    Attributes:
      tokens: rows of one length.
      segments: number of the text of each token within its row, 0 for padding.
      counted: tokens whose prediction counts.
    """

    tokens: Int[np.ndarray, "n t"]
    segments: Int[np.ndarray, "n t"]
    counted: Bool[np.ndarray, "n t"]


def read_texts(
    path: str | Path,
    length: int,
    *,
    vocab_size: int,
    encode: Callable[[str], Sequence[int]] | None = None,
) -> Rows:
    r"""Rows of the texts of a file, whose lines hold "tokens" or a "text".

    A line may say with "counted", one true or false per token, which tokens are to be learned: the
    answer, and not the prompt. By default all are.

    Args:
      path: JSON lines.
      length: of a row; longer texts are cut.
      vocab_size: tokens are below.
      encode: a tokenizer's, for texts.

    Raises:
      UserError: no such file, no text in it, or a line that does not fit, by its number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "texts.jsonl")
    ...     _ = path.write_text('{"tokens": [3, 1]}\n{"text": "ab", "counted": [false, true]}\n')
    ...     rows = read_texts(path, 5, vocab_size=256, encode=lambda text: list(text.encode()))
    >>> rows.tokens.tolist(), rows.segments.tolist(), rows.counted.tolist()
    ([[3, 1, 97, 98, 0]], [[1, 1, 2, 2, 0]], [[True, True, False, True, False]])
    """
    texts, marks = [], []
    for number, line in enumerate(read_json_lines(path, what="a file of texts"), 1):
        tokens: Any = line.get("tokens")
        if tokens is None and encode is not None and isinstance(line.get("text"), str):
            tokens = list(encode(line["text"]))
        counted = line.get("counted")
        if not _whole_numbers(tokens, vocab_size) or not _marks(counted, len(tokens)):
            kinds = '"tokens" or a "text"' if encode else '"tokens"'
            raise UserError(
                f"Expected {kinds} of whole numbers below {vocab_size} and, if there is "
                f'"counted", true or false for each, found another object {number} in {path}.'
            )
        texts.append(tokens)
        marks.append([True] * len(tokens) if counted is None else counted)
    if not any(texts):
        raise UserError(f"Expected at least one text, found none in {path}.")
    tokens, segments = pack(texts, length)
    counted, _ = pack(marks, length)  # the same lengths, so the same places
    return Rows(tokens, segments, counted.astype(bool))


def _whole_numbers(tokens: Any, limit: int) -> TypeGuard[list[int]]:
    if not isinstance(tokens, list):
        return False
    return all(type(token) is int and 0 <= token < limit for token in tokens)


def _marks(counted: Any, count: int) -> bool:
    if counted is None:
        return True
    whole = isinstance(counted, list) and all(type(mark) is bool for mark in counted)
    return whole and len(counted) == count
