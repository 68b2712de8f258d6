"""Words of texts as numbers, where no network makes features of them."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jaxcore.errors import UserError

_WORD = re.compile(r"\w+", re.UNICODE)
_LONGEST = 40  # letters of a word that are told apart


def bag_of_words(texts: Sequence[str], size: int = 256) -> np.ndarray:
    """Whether each text has each of the words that most texts have.

    Args:
      texts: of any length; case does not count.
      size: words at most. Those that all texts have, or one alone, say nothing and are left out.

    Returns:
      Zeros and ones, ``(n, words)``.

    Raises:
      UserError: no word is in several texts and not in all.

    >>> bag_of_words(["The cat.", "the dog", "a cat"], 2).tolist()
    [[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    """
    if size < 1:
        raise UserError(f"Expected at least one word, found size={size}.")
    rows = [{word[:_LONGEST] for word in _WORD.findall(text.lower())} for text in texts]
    known = Counter(word for row in rows for word in row)
    said = [(word, count) for word, count in known.items() if 1 < count < len(texts)]
    if not said:
        raise UserError(
            f"Expected words that several of the {len(texts)} texts have and others have not, "
            "found none: give features of the texts."
        )
    chosen = sorted(said, key=lambda pair: (-pair[1], pair[0]))[:size]
    place = {word: j for j, (word, _) in enumerate(chosen)}
    out = np.zeros((len(texts), len(place)))
    for i, row in enumerate(rows):
        out[i, [place[word] for word in row if word in place]] = 1
    return out
