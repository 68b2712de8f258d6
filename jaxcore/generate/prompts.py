"""Prompts of different lengths as one batch."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from jaxcore.errors import UserError


def pad_left(
    prompts: Sequence[Sequence[int]], *, bucket: int = 64, pad: int = 0
) -> tuple[Int[np.ndarray, "b t"], Bool[np.ndarray, "b t"]]:
    """Rows of one length, which is a multiple of ``bucket``, so that few programs are compiled.

    Args:
      prompts: tokens of each, at least one.
      bucket: 1 pads to the longest prompt.
      pad: token in the place of padding, which no other token sees.

    Returns:
      Tokens, and where they are no padding.

    Raises:
      UserError: no prompt, or an empty one.

    >>> pad_left([[5, 6], [7]], bucket=3)
    (array([[0, 5, 6],
           [0, 0, 7]], dtype=int32), array([[False,  True,  True],
           [False, False,  True]]))
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise UserError("Expected at least one prompt, and a token in each, found an empty one.")
    length = -(-max(map(len, prompts)) // bucket) * bucket
    tokens = np.full((len(prompts), length), pad, np.int32)
    valid = np.zeros((len(prompts), length), bool)
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt) :] = np.asarray(prompt, np.int32)
        valid[row, length - len(prompt) :] = True
    return tokens, valid
