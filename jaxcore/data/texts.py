"""Texts of a file with one object per line, as tokens in packed rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxcore.data.completions import Answer, Encoder, are_tokens
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


def read_texts(path: str | Path, length: int, encoder: Encoder) -> Rows:
    r"""Rows of the texts of a file: whole ones, or completions of prompts.

    A line holds "tokens" or a "text", all of which is learned; with "counted", one true or false
    per token, only these tokens are. Or it holds a "prompt" and a "completion", which may be named
    "text" or "tokens" as well, or "messages" whose last one is the completion: that is learned, the
    prompt is not; see `Encoder` for their forms.

    Args:
      path: JSON lines.
      length: of a row; longer texts are cut.
      encoder: the tokenizer's and the network's tokens.

    Raises:
      UserError: no such file, no text in it, or a line that does not fit, by its number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "texts.jsonl")
    ...     _ = path.write_text('{"tokens": [3, 1]}\n{"prompt": [5], "completion": [7]}\n')
    ...     rows = read_texts(path, 5, Encoder(vocab_size=9))
    >>> rows.tokens.tolist(), rows.segments.tolist(), rows.counted.tolist()
    ([[3, 1, 5, 7, 0]], [[1, 1, 2, 2, 0]], [[True, True, False, True, False]])
    """
    texts, marks = [], []
    for number, line in enumerate(read_json_lines(path, what="a file of texts"), 1):
        tokens, counted = _text(line, encoder, number, path)
        texts.append(tokens)
        marks.append(counted)
    if not any(texts):
        raise UserError(f"Expected at least one text, found none in {path}.")
    return _packed(texts, marks, length)


def pack_completions(answers: Sequence[Answer], length: int) -> Rows:
    """Rows of completions with their prompts; the completions alone count.

    Args:
      answers: at least one.
      length: of a row; longer texts are cut.

    >>> pack_completions([Answer([5, 6, 7], 2)], 4).counted.tolist()
    [[False, False, True, False]]
    """
    texts = [answer.tokens for answer in answers]
    marks = [_marked(answer) for answer in answers]
    return _packed(texts, marks, length)


def _packed(texts: list[list[int]], marks: list[list[bool]], length: int) -> Rows:
    tokens, segments = pack(texts, length)
    counted, _ = pack(marks, length)  # the same lengths, so the same places
    return Rows(tokens, segments, counted.astype(bool))


def _marked(answer: Answer) -> list[bool]:
    return [place >= answer.start for place in range(len(answer.tokens))]


def _text(
    line: dict[str, Any], encoder: Encoder, number: int, path: str | Path
) -> tuple[list[int], list[bool]]:
    """Tokens of a line, and which of them count."""
    completion = line.get("completion", line.get("messages"))
    if completion is None and "prompt" in line:  # as logs have it
        completion = line.get("text", line.get("tokens"))
    if completion is not None:
        answer = encoder.answer(line.get("prompt"), completion, f"line {number} of {path}")
        return answer.tokens, _marked(answer)
    tokens: Any = line.get("tokens")
    counted, tokenizer = line.get("counted"), encoder.tokenizer
    if tokens is None and tokenizer is not None and isinstance(line.get("text"), str):
        whole = counted is None  # else each token has its mark
        tokens = tokenizer.encode(line["text"], start=whole)
        tokens = [*tokens, *tokenizer.eos[:1]] if whole and tokens else tokens
    if not are_tokens(tokens, encoder.vocab_size) or not _marks(counted, len(tokens)):
        kinds = '"tokens", a "text" or a "completion"' if encoder.tokenizer else '"tokens"'
        raise UserError(
            f"Expected {kinds} of whole numbers below {encoder.vocab_size} and, if there is "
            f'"counted", true or false for each, found another object {number} in {path}.'
        )
    return tokens, [True] * len(tokens) if counted is None else counted


def _marks(counted: Any, count: int) -> bool:
    if counted is None:
        return True
    whole = isinstance(counted, list) and all(type(mark) is bool for mark in counted)
    return whole and len(counted) == count
