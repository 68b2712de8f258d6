"""Pictures of four coloured cells and questions about them: all drawn, nothing read.

The smallest problem in which seeing and prior knowledge can contradict each other. A picture shows
four different colours out of eight, with noise; the question is whether one colour is among them.
How often the answer is yes may depend on the colour: then a network that sees little learns to
answer by the colour alone.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxcore.data.stream import Draw
from jaxcore.errors import UserError

COLOURS = {
    "red": (1, -1, -1),
    "green": (-1, 1, -1),
    "blue": (-1, -1, 1),
    "yellow": (1, 1, -1),
    "magenta": (1, -1, 1),
    "cyan": (-1, 1, 1),
    "orange": (1, 0, -1),
    "violet": (0, -1, 1),
}
"""Red, green and blue of each, in [-1, 1]; the prior favours the first four."""

WORDS = ("<pad>", "<s>", "<image>", "ask", "yes", "no", *COLOURS)
"""Tokens by their ids."""

BOS, IMAGE, ASK, YES, NO = (WORDS.index(w) for w in ("<s>", "<image>", "ask", "yes", "no"))

SIDE = 12  # of a picture, pixels
SPREAD = 4.0  # bytes of a picture stand for values from -4 to 4: noise needs room
_CELLS = 2  # along each side
_LIKELY = len(COLOURS) // 2

Answers: TypeAlias = Literal["balanced", "prior", "conflict"]
"""As often yes as no; as the prior expects; never as the prior expects."""


class Questions(NamedTuple):
    """Pictures with a question each.

    Attributes:
      images: red, green and blue in [-1, 1] before the noise.
      colours: which of `COLOURS` is asked for.
      answers: whether the picture shows it.
    """

    images: Float[np.ndarray, "n 12 12 3"]
    colours: Int[np.ndarray, " n"]
    answers: Bool[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking:
    """How questions are drawn.

    Attributes:
      noise: standard deviation of every pixel's normal noise.
      prior: how often the answer is yes for the first four colours, and no for the others; 0.5
        ties answers to no colour, 0 contradicts the prior every time.
    """

    noise: float = 0.3
    prior: float = 0.5

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, int, bool]:
        """One picture, the colour that is asked for, and the answer."""
        colour = int(rng.integers(len(COLOURS)))
        expected = colour < _LIKELY
        answer = bool(rng.random() < (self.prior if expected else 1 - self.prior))
        order = rng.permutation(len(COLOURS) - 1)
        shown = order + (order >= colour)  # all other colours
        cells = shown[: _CELLS**2]
        if answer:
            cells[rng.integers(len(cells))] = colour
        values = np.asarray(list(COLOURS.values()), np.float32)[cells]
        side = SIDE // _CELLS
        image = np.kron(values.reshape(_CELLS, _CELLS, 3), np.ones((side, side, 1), np.float32))
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(self.noise)
        return image + noise, colour, answer


def questions(
    count: int, *, seed: int = 0, noise: float = 2.0, answers: Answers = "balanced"
) -> Questions:
    """A set of questions for an evaluation.

    Args:
      count: of them.
      seed: of all draws.
      noise: see `Asking`.
      answers: whether they follow the prior.

    >>> found = questions(3, answers="conflict")
    >>> found.images.shape, (found.answers == (found.colours < 4)).tolist()
    ((3, 12, 12, 3), [False, False, False])
    """
    prior = {"balanced": 0.5, "prior": 1.0, "conflict": 0.0}
    if answers not in prior:
        raise UserError(f"Expected answers to be one of {', '.join(prior)}, found {answers!r}.")
    rng = np.random.default_rng((seed, count))
    asking = Asking(noise=noise, prior=prior[answers])
    return _joined([asking.draw(rng) for _ in range(count)])


def as_picture(image: Float[np.ndarray, "h w 3"], *, pixel: int = 1) -> UInt8[np.ndarray, "y x 3"]:
    """A drawn picture as bytes, to be written to a file and asked about.

    Args:
      image: of `Questions`.
      pixel: side of each of its pixels.

    >>> as_picture(np.array([[[-1.0, 0.0, 9.0]]])).tolist()
    [[[96, 128, 255]]]
    """
    unit = np.clip(0.5 + np.asarray(image) / (2 * SPREAD), 0, 1)
    picture = np.round(255 * unit).astype(np.uint8)
    return np.kron(picture, np.ones((pixel, pixel, 1), np.uint8))


def prompts(
    colours: Int[np.ndarray, " n"], image_tokens: int = _CELLS**2
) -> Int[np.ndarray, "n t"]:
    """Tokens of questions: the beginning, the picture, "ask", and the colour.

    Args:
      colours: that are asked for.
      image_tokens: vectors that a picture becomes.

    >>> prompts(np.array([0, 7])).tolist()
    [[1, 2, 2, 2, 2, 3, 6], [1, 2, 2, 2, 2, 3, 13]]
    """
    before = np.array([BOS, *[IMAGE] * image_tokens, ASK], np.int32)
    asked = np.asarray(colours, np.int32)[:, None] + WORDS.index("red")
    return np.concatenate([np.tile(before, (len(asked), 1)), asked], axis=1)


def rows(asking: Asking, draws: Sequence[Draw]) -> Questions:
    """Questions of a batch, each by the generator of its row."""
    return _joined([asking.draw(draw.rng) for draw in draws])


def _joined(drawn: Sequence[tuple[np.ndarray, int, bool]]) -> Questions:
    images, colours, answers = zip(*drawn, strict=True)
    return Questions(np.stack(images), np.asarray(colours, np.int32), np.asarray(answers))
