"""Texts of different lengths in rows of one length."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxcore.errors import UserError


def pack(
    texts: Sequence[Sequence[int]], length: int, *, pad: int = 0
) -> tuple[Int[np.ndarray, "b t"], Int[np.ndarray, "b t"]]:
    """Put texts one behind the other into rows, each into the first one with room.

    Args:
      texts: tokens of each; longer ones than a row are cut into several.
      length: of a row.
      pad: token at the end of a row that is not full.

    Returns:
      Tokens, and the number within the row of the text that each belongs to, from 1; 0 is padding.

    Raises:
      UserError: no token at all, or rows without length.

    >>> pack([[5, 6], [7, 8, 9], [4]], 4)
    (array([[5, 6, 4, 0],
           [7, 8, 9, 0]], dtype=int32), array([[1, 1, 2, 0],
           [1, 1, 1, 0]], dtype=int32))
    """
    if length < 1:
        raise UserError(f"Expected rows of at least 1 token, found length={length}.")
    pieces = [text[i : i + length] for text in texts for i in range(0, len(text), length)]
    if not pieces:
        raise UserError("Expected at least one token in the texts, found none.")
    rows: list[list[Sequence[int]]] = []
    room: list[int] = []
    first = [0] * (length + 1)  # no row before this one has room for so many tokens
    for piece in pieces:
        size = len(piece)
        row = first[size]
        while row < len(rows) and room[row] < size:
            row += 1
        first[size] = row
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append(piece)
        room[row] -= size
    tokens = np.full((len(rows), length), pad, np.int32)
    segments = np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        start = 0
        for number, piece in enumerate(row, 1):
            stop = start + len(piece)
            tokens[i, start:stop], segments[i, start:stop] = piece, number
            start = stop
    return tokens, segments
