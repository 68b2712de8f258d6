"""Logs with known truth: linear designs, a trap, and headlines of a small grammar."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.typing import Key

DELTA = 2.0
"""What the confounder does to the outcome in the linear designs."""
LOADINGS = (-0.482, 0.146, -0.994, 0.394, 0.686, -0.272, 0.258, 0.151)
"""How the features of a text follow what was not recorded, in `linear`."""
EFFECTS = (-1.738, -1.337, -1.361, 0.0, 0.0, 0.0, 0.0, 0.0)
"""What the features do to the outcome, in `linear`."""


class Linear(NamedTuple):
    """A sample of a linear design."""

    Y: Float[Array, " n"]
    C: Float[Array, "n 1"]
    Z: Float[Array, "n 1"]
    features: Float[Array, "n d"]
    tau: Float[Array, " n"]  # what the text does


def linear(key: Key, n: int) -> Linear:
    """Text and confounder share a cause; the instrument moves the confounder alone.

    The outcome on the confounder alone has a slope near 3.6, where the truth is `DELTA`.

    >>> linear(jax.random.key(0), 5).features.shape
    (5, 8)
    """
    u, z, noise, text = _normals(key, n, len(LOADINGS))
    features = u[:, None] * jnp.asarray(LOADINGS, u.dtype)[None] + text
    c = 0.8 * u + 0.6 * z
    tau = features @ jnp.asarray(EFFECTS, u.dtype)
    return Linear(tau + DELTA * c + noise, c[:, None], z[:, None], features, tau)


def trap(key: Key, n: int, *, direct: float = 1.5) -> Linear:
    """The confounder moves the text, and what was not recorded moves confounder and outcome.

    The effect of the text's one feature is 1. Instruments measure the *total* effect of the
    confounder, and rewards from it keep what was not recorded: with ``direct`` = 1.5 their slope
    in the feature is 1.235. Adjusting for the text (route plm) gives 1, with another ``delta``.

    Args:
      key: PRNG key.
      n: rows.
      direct: effect of what was not recorded on the outcome.
    """
    u, z, noise, text = _normals(key, n, 1)
    c = 0.8 * u + 0.6 * z
    x = 0.7 * c + text[:, 0]
    return Linear(x + DELTA * c + direct * u + noise, c[:, None], z[:, None], x[:, None], x)


def _normals(key: Key, n: int, d: int) -> tuple[Array, Array, Array, Array]:
    drawn = jax.random.normal(key, (n, 3 + d))
    return drawn[:, 0], drawn[:, 1], drawn[:, 2], drawn[:, 3:]


# --- headlines ----------------------------------------------------------------------------------

TOPICS = ("science", "sports", "money", "health", "travel", "food", "music", "weather")
SUBJECTS = ("doctors", "players", "teachers", "farmers", "pilots", "voters")
VERBS = ("praise", "reject", "explain", "discover", "question", "welcome")
OBJECTS = ("plan", "study", "record", "rule", "idea")
FEATURES: Mapping[str, tuple[str, ...]] = {
    "a": ("calmly", "clearly", "plainly", "soberly"),
    "e": ("today", "tonight", "finally", "again"),
    "s": ("shocking", "stunning", "unreal", "insane"),
}
"""Words that carry a feature of a headline: a is masked, e entangled, s spurious."""
WORDS = ("<pad>", "<bos>", "<eos>", *TOPICS, *SUBJECTS, *VERBS, *OBJECTS)
WORDS = (*WORDS, *(word for words in FEATURES.values() for word in words))
PAD, BOS, EOS = 0, 1, 2
LENGTH = 10
"""Ids of the longest headline, with beginning and end."""
_PLACE = {word: i for i, word in enumerate(WORDS)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadlineDesign:
    """How headlines, confounder and outcome hang together.

    ``U`` and ``Z`` are standard normal, ``C = c_u U + c_z Z``, a headline has feature f with
    probability ``sigmoid(base + slope_f U)``, and the outcome is the sum of the effects of its
    features, plus ``delta C``, plus noise.
    """

    slopes: tuple[float, float, float] = (-1.8, 1.2, 1.8)  # of a, e, s in U: the entanglement
    base: float = -0.5
    effects: tuple[float, float, float] = (1.0, 0.8, -0.8)  # of a, e, s
    delta: float = 2.0
    c_u: float = 0.8
    c_z: float = 0.6
    noise: float = 1.0
    u_outcome: float = 0.0  # of U on the outcome by itself: instruments then mislead rewards

    @property
    def best(self) -> float:
        """The largest effect that a headline can have."""
        return sum(effect for effect in self.effects if effect > 0)


@dataclasses.dataclass(frozen=True)
class Headlines:
    """Simulated logs."""

    tokens: Int[np.ndarray, "n t"]
    C: Float[np.ndarray, " n"]
    Z: Float[np.ndarray, " n"]
    U: Float[np.ndarray, " n"]
    Y: Float[np.ndarray, " n"]
    tau: Float[np.ndarray, " n"]  # what the text does
    features: Float[np.ndarray, "n 3"]  # 0 or 1, in the order a, e, s

    def texts(self) -> list[str]:
        """The headlines as strings."""
        return [words_of(row) for row in self.tokens]


def entangled_headlines(
    n: int,
    *,
    seed: int = 0,
    design: HeadlineDesign = HeadlineDesign(),
    effect: Callable[[Int[np.ndarray, "n t"]], Float[np.ndarray, " n"]] | None = None,
) -> Headlines:
    """Logs of headlines whose features go with a confounder of their outcomes.

    A naive fit finds s good and a bad; the truth is the other way round. e is good and goes with
    the confounder as well: who takes out all that goes with it loses e.

    Args:
      n: rows.
      seed: of the draws.
      design: coefficients.
      effect: what a text does, from tokens, instead of the sum over its features.

    >>> logs = entangled_headlines(4, seed=1)
    >>> logs.tokens.shape, len(WORDS), bool(grammatical(logs.tokens).all())
    ((4, 10), 40, True)
    """
    if n < 1:
        raise UserError(f"Expected at least one row, found {n}.")
    rng = np.random.default_rng(seed)
    u, z, noise = rng.normal(size=(3, n))
    c = design.c_u * u + design.c_z * z
    chance = 1 / (1 + np.exp(-(design.base + u[:, None] * np.array(design.slopes)[None])))
    has = (rng.random((n, 3)) < chance).astype(np.float64)
    tokens = _written(rng, has)
    tau = has @ np.array(design.effects) if effect is None else np.asarray(effect(tokens))
    y = tau + design.delta * c + design.u_outcome * u + design.noise * noise
    return Headlines(tokens, c, z, u, y, tau, has)


def counterfactuals(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Headlines that differ in their features alone: every combination of each of ``n`` frames.

    Returns:
      Tokens ``(8 n, t)`` and features ``(8 n, 3)``; eight rows that follow each other belong
      together. With them effects of a reward model are measured on a balanced factorial.

    >>> tokens, features = counterfactuals(2)
    >>> features.mean(axis=0).tolist(), tokens.shape
    ([0.5, 0.5, 0.5], (16, 10))
    """
    rng = np.random.default_rng(seed)
    each = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], np.float64)
    has = np.tile(each, (n, 1))
    frames = _Frames.drawn(rng, n)
    return frames.repeated(8).write(has), has


class _Frames(NamedTuple):
    """What a headline says besides its features, and the words of these should it have them."""

    words: np.ndarray  # (n, 4): topic, subject, verb, object
    of_features: np.ndarray  # (n, 3)
    turned: np.ndarray  # whether the tail is in the other order

    @classmethod
    def drawn(cls, rng: np.random.Generator, n: int) -> "_Frames":
        kinds = (TOPICS, SUBJECTS, VERBS, OBJECTS)
        words = [rng.choice([_PLACE[w] for w in kind], n) for kind in kinds]
        own = [rng.choice([_PLACE[w] for w in kind], n) for kind in FEATURES.values()]
        return cls(np.stack(words, 1), np.stack(own, 1), rng.random(n) < 0.5)

    def repeated(self, times: int) -> "_Frames":
        return _Frames(*(np.repeat(part, times, axis=0) for part in self))

    def write(self, has: np.ndarray) -> np.ndarray:
        """``bos topic [s] subject verb object [e] [a] eos``, the last two turned or not."""
        absent = np.where(has > 0, self.of_features, -1)
        a, e, s = absent.T
        first, second = np.where(self.turned, a, e), np.where(self.turned, e, a)
        one = np.ones(len(has), np.int64)
        topic, subject, verb, thing = self.words.T
        slots = [BOS * one, topic, s, subject, verb, thing, first, second, EOS * one]
        out = np.full((len(has), LENGTH), PAD, np.int32)
        row = np.stack(slots, axis=1)
        place = np.cumsum(row >= 0, axis=1) - 1
        rows, columns = np.nonzero(row >= 0)
        out[rows, place[rows, columns]] = row[rows, columns]
        return out


def _written(rng: np.random.Generator, has: np.ndarray) -> np.ndarray:
    return _Frames.drawn(rng, len(has)).write(has)


def features_of(tokens: Int[np.ndarray, "n t"]) -> Float[np.ndarray, "n 3"]:
    """Whether a headline has each feature, grammatical or not, up to its end.

    >>> features_of(tokens_of(["science doctors praise plan today"])).tolist()
    [[0.0, 1.0, 0.0]]
    """
    tokens = np.asarray(tokens)
    alive = np.cumsum(tokens == EOS, axis=1) == 0
    out = []
    for words in FEATURES.values():
        out.append(np.any(np.isin(tokens, [_PLACE[w] for w in words]) & alive, axis=1))
    return np.stack(out, axis=1).astype(np.float64)


def grammatical(tokens: Int[np.ndarray, "n t"]) -> np.ndarray:
    """Whether each headline is one that the grammar can write.

    >>> grammatical(tokens_of(["science doctors praise plan again calmly",
    ...                        "doctors science praise plan"])).tolist()
    [True, False]
    """
    kinds = {"t": TOPICS, "j": SUBJECTS, "v": VERBS, "o": OBJECTS, **FEATURES}
    letter = np.full(len(WORDS), "?")
    letter[[PAD, BOS, EOS]] = ["_", "<", ">"]
    for name, words in kinds.items():
        letter[[_PLACE[w] for w in words]] = name
    import re

    form = re.compile(r"<ts?jvo(?:e|a|ea|ae)?>_*")
    tokens = np.asarray(tokens)
    known = (tokens >= 0) & (tokens < len(WORDS))
    told = np.where(known, letter[np.where(known, tokens, 0)], "?")
    return np.array([form.fullmatch("".join(row)) is not None for row in told], bool)


def words_of(tokens: Int[np.ndarray, " t"]) -> str:
    """A headline as a string, up to its end.

    >>> words_of(tokens_of(["money voters reject rule"])[0])
    'money voters reject rule'
    """
    out = []
    for token in np.asarray(tokens).tolist():
        if token == EOS:
            break
        if token not in (PAD, BOS):
            out.append(WORDS[token])
    return " ".join(out)


def tokens_of(texts: list[str]) -> Int[np.ndarray, "n t"]:
    """Ids of headlines, with beginning and end.

    Raises:
      UserError: a word that the vocabulary lacks, or too many of them.
    """
    out = np.full((len(texts), LENGTH), PAD, np.int32)
    for row, text in zip(out, texts, strict=True):
        words = text.split()
        unknown = [word for word in words if word not in _PLACE]
        if unknown or len(words) > LENGTH - 2:
            found = repr(unknown[0]) if unknown else f"{len(words)} words"
            raise UserError(
                f"Expected at most {LENGTH - 2} words of the vocabulary, found {found}."
            )
        row[: len(words) + 2] = [BOS, *(_PLACE[word] for word in words), EOS]
    return out
