"""Prompts of a file with one object per line, as tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxcore.data.completions import Encoder
from jaxcore.errors import UserError
from jaxcore.generate import pad_left
from jaxcore.json_files import read_json_lines


class Prompts(NamedTuple):
    """Prompts in the order of their file.

    Attributes:
      tokens: padded on the left to the length of the longest.
      valid: false for padding.
      lines: what the file holds of each: "prompt", and whatever else a reward may look at.
    """

    tokens: Int[np.ndarray, "n t"]
    valid: Bool[np.ndarray, "n t"]
    lines: Sequence[dict[str, Any]]


def read_prompts(path: str | Path, encoder: Encoder, longest: int) -> Prompts:
    r"""The prompts of a file, whose lines hold a "prompt": a text, a chat or tokens.

    Args:
      path: JSON lines.
      encoder: the tokenizer's and the network's tokens.
      longest: prompt that is allowed, in tokens.

    Raises:
      UserError: no such file, no prompt in it, a line that does not fit, by its number, or a prompt
        that is empty or too long.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "prompts.jsonl")
    ...     _ = path.write_text('{"prompt": [3, 1], "answer": [4]}\n{"prompt": [5]}\n')
    ...     found = read_prompts(path, Encoder(vocab_size=9), 8)
    >>> found.tokens.tolist(), found.valid.tolist(), found.lines[0]["answer"]
    ([[3, 1], [0, 5]], [[True, True], [False, True]], [4])
    """
    prompts, lines = [], []
    for number, line in enumerate(read_json_lines(path, what="a file of prompts"), 1):
        where = f"line {number} of {path}"
        if "prompt" not in line:
            raise UserError(f'Expected a "prompt" in {where}, found none.')
        tokens = encoder.prompt(line["prompt"], where)
        if not 0 < len(tokens) <= longest:
            raise UserError(
                f"Expected a prompt of 1 to {longest} tokens in {where}, found {len(tokens)}."
            )
        prompts.append(tokens)
        lines.append(line)
    if not prompts:
        raise UserError(f"Expected at least one prompt, found none in {path}.")
    return Prompts(*pad_left(prompts, bucket=1), lines)
