"""Texts in rows: nothing is lost, nothing is mixed."""

import numpy as np
import pytest

from jaxcore.data.packing import pack
from jaxcore.errors import UserError


def test_every_token_is_there_once_and_texts_stay_whole():
    rng = np.random.default_rng(0)
    texts = [rng.integers(1, 99, size).tolist() for size in rng.integers(1, 30, 200)]
    tokens, segments = pack(texts, 32)
    found = []
    for row, numbers in zip(tokens, segments, strict=True):
        assert np.all(np.diff(numbers[numbers > 0]) >= 0) and numbers[0] == 1
        found += [row[numbers == n].tolist() for n in range(1, numbers.max() + 1)]
    assert sorted(found) == sorted(texts)
    assert np.all(tokens[segments == 0] == 0)
    assert (segments > 0).mean() > 0.9


def test_long_texts_are_cut():
    tokens, segments = pack([list(range(1, 8))], 3, pad=-1)
    assert tokens.tolist() == [[1, 2, 3], [4, 5, 6], [7, -1, -1]]
    assert segments.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(("texts", "length"), [([], 3), ([[]], 3), ([[1]], 0)])
def test_nothing_to_pack_is_refused(texts, length):
    with pytest.raises(UserError, match="Expected"):
        pack(texts, length)
