"""Drawn pictures of coloured cells: answers are right, and follow the prior as often as asked."""

import numpy as np
import pytest

from jaxcore.data.images.colour_questions import COLOURS, WORDS, Asking, prompts, questions
from jaxcore.errors import UserError

VALUES = np.array(list(COLOURS.values()), np.float32)


def shown(image):
    """Which colours a picture without noise shows, cell by cell."""
    cells = image.reshape(2, 6, 2, 6, 3).transpose(0, 2, 1, 3, 4).reshape(4, 36, 3)
    assert (cells == cells[:, :1]).all()
    return [int(np.flatnonzero((cell[0] == VALUES).all(1))[0]) for cell in cells]


def test_the_answer_is_whether_the_picture_shows_the_colour():
    found = questions(300, noise=0.0)
    for image, colour, answer in zip(*found, strict=True):
        cells = shown(image)
        assert len(set(cells)) == 4 and (colour in cells) == answer
    assert 0.4 < found.answers.mean() < 0.6
    assert np.bincount(found.colours, minlength=8).min() > 15


def test_answers_follow_the_prior_or_contradict_it():
    likely = lambda found: found.colours < 4  # noqa: E731
    for answers, share in (("prior", 1), ("conflict", 0)):
        found = questions(100, answers=answers)
        assert (found.answers == likely(found)).mean() == share
    rng = np.random.default_rng(0)
    drawn = [Asking(prior=0.9).draw(rng)[1:] for _ in range(2000)]
    assert abs(np.mean([(colour < 4) == answer for colour, answer in drawn]) - 0.9) < 0.02
    with pytest.raises(UserError, match="balanced, prior, conflict, found 'wrong'"):
        questions(1, answers="wrong")


def test_noise_is_of_the_asked_size_and_seeds_decide():
    clean, noisy = (questions(200, noise=noise) for noise in (0.0, 2.0))
    np.testing.assert_array_equal(clean.colours[:1], noisy.colours[:1])
    again, other = questions(200, noise=2.0), questions(200, noise=2.0, seed=1)
    np.testing.assert_array_equal(noisy.images, again.images)
    assert np.abs(other.images - noisy.images).max() > 1
    assert abs(np.std(noisy.images[0] - clean.images[0]) - 2) < 0.2


def test_prompts_name_the_colour_behind_the_picture():
    tokens = prompts(np.arange(8))
    assert [[WORDS[i] for i in row] for row in tokens] == [
        ["<s>", *["<image>"] * 4, "ask", colour] for colour in COLOURS
    ]
