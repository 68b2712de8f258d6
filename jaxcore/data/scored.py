"""Completions with outcomes, and pairs of which one is preferred, from JSON lines.

A line of outcomes is what `jaxcore estimate deconfound` writes: ``{"prompt": "...", "text": "...",
"reward": 0.3, "confounders": {"hour": 9}, "groups": {"author": "ann"}}``. The text may also be
named "completion", or be "tokens", and a "weight" may stand beside. A line of pairs is ``{"prompt":
"...", "chosen": "...", "rejected": "..."}``, with a "margin" if there is one. What prompts and
completions can be: see `jaxcore.data.completions.Encoder`.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxcore.data.completions import Completions, Encoder
from jaxcore.data.logs import from_outcomes
from jaxcore.errors import UserError, readable
from jaxcore.json_files import read_json_lines

LENGTH = "length"
"""Name of a confounder that every completion has: how many tokens it is long."""


class Scored(NamedTuple):
    """Completions with outcomes.

    Attributes:
      completions: with their prompts.
      outcome: of each; missing where ``completions`` came as pairs.
      weight: of each.
      prompts: one label for each prompt.
      columns: further numbers and labels of each, by name: confounders and groups.
    """

    completions: Completions
    outcome: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]
    prompts: Sequence[str]
    columns: dict[str, list[Any]]

    def column(self, name: str) -> list[Any]:
        """One of the columns, or `LENGTH`.

        Raises:
          UserError: no such name.
        """
        if name == LENGTH:
            return self.completions.lengths.tolist()
        if name not in self.columns:
            there = ", ".join([LENGTH, *self.columns])
            raise UserError(f"Expected a confounder or a group among {there}, found {name!r}.")
        return self.columns[name]

    def numbers(self, name: str) -> Float[np.ndarray, " n"]:
        """A column of numbers.

        Raises:
          UserError: no such name, or labels.
        """
        values = self.column(name)
        if not all(isinstance(value, int | float) for value in values):
            raise UserError(f"Expected a number as {readable(name)} in every line, found others.")
        return np.array(values, np.float64)

    def highest(self, share: float) -> Int[np.ndarray, " m"]:
        """Numbers of the completions with the highest outcomes of each prompt, at least one.

        Args:
          share: of the completions of a prompt, in (0, 1].
        """
        _, prompt, count = np.unique(
            np.asarray(self.prompts), return_inverse=True, return_counts=True
        )
        order = np.lexsort((-self.outcome, prompt))
        first = np.cumsum(count) - count
        place = np.arange(len(order)) - first[prompt[order]]
        wanted = np.maximum(1, np.round(share * count))[prompt[order]]
        return np.sort(order[place < wanted])


class Preferred(NamedTuple):
    """Pairs of completions.

    Attributes:
      scored: all completions.
      chosen: number of the better one of each pair.
      rejected: of the other.
      margin: how much better; 0 where lines of pairs do not say it.
    """

    scored: Scored
    chosen: Int[np.ndarray, " m"]
    rejected: Int[np.ndarray, " m"]
    margin: Float[np.ndarray, " m"]


def read_scored(path: str | Path, encoder: Encoder, *, outcome: str = "reward") -> Scored:
    r"""Completions with outcomes; lines whose outcome is null are left out.

    Args:
      path: JSON lines; see the head of this module.
      encoder: from texts to tokens.
      outcome: name of the outcome in the lines.

    Raises:
      UserError: no such file, a line that does not fit, by its number, or outcomes that are all
        the same.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "logs.jsonl")
    ...     _ = path.write_text('{"tokens": [1], "reward": 2}\n{"tokens": [3], "reward": 4}\n')
    ...     read_scored(path, Encoder(vocab_size=9)).outcome.tolist()
    [2.0, 4.0]
    """
    rows = _Rows(path)
    for number, line in enumerate(read_json_lines(path, what="a file of outcomes"), 1):
        where = f"line {number} of {path}"
        if outcome not in line:
            names = readable(", ".join(map(str, list(line)[:10]))) or "no names"
            raise UserError(
                f"Expected a number named {outcome!r} in {where}, found {names}; --outcome names "
                "another."
            )
        found = _number(line[outcome], f"{outcome!r}", where)
        if not math.isnan(found):
            answer = line.get("completion", line.get("text", line.get("tokens")))
            rows.add(encoder, line, answer, found, where)
    made = rows.scored()
    if np.ptp(made.outcome) == 0:
        raise UserError(
            f"Expected outcomes that differ in {path}, found {made.outcome[0]:g} "
            f"{len(made.outcome)} times."
        )
    return made


def read_preferred(
    path: str | Path,
    encoder: Encoder,
    *,
    outcome: str = "reward",
    least_gap: float = 0.0,
    within: str | None = None,
    seed: int = 0,
) -> Preferred:
    r"""Pairs: as lines say them, or random ones of the same prompt, ordered by an outcome.

    Args:
      path: JSON lines, all of pairs or all of outcomes; see the head of this module.
      encoder: from texts to tokens.
      outcome: name of the outcome in the lines.
      least_gap: outcomes of a pair differ by more.
      within: name of a confounder or group that both of a pair share.
      seed: of the draws.

    Raises:
      UserError: no such file, a line that does not fit, by its number, or no pair.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "pairs.jsonl")
    ...     _ = path.write_text('{"prompt": [1], "chosen": [2], "rejected": [3, 4]}\n')
    ...     found = read_preferred(path, Encoder(vocab_size=9))
    >>> found.scored.completions[int(found.chosen[0])].tokens
    [1, 2]
    """
    first = next(read_json_lines(path, what="a file of pairs"), {})
    if "chosen" not in first and "rejected" not in first:
        scored = read_scored(path, encoder, outcome=outcome)
        shared = None if within is None else scored.column(within)
        pairs = from_outcomes(
            scored.outcome, scored.prompts, margin=least_gap, within=shared, seed=seed
        )
        gap = scored.outcome[pairs.chosen] - scored.outcome[pairs.rejected]
        return Preferred(scored, pairs.chosen, pairs.rejected, gap)
    rows, margins = _Rows(path), []
    for number, line in enumerate(read_json_lines(path, what="a file of pairs"), 1):
        where = f"line {number} of {path}"
        if "chosen" not in line or "rejected" not in line:
            raise UserError(f'Expected "chosen" and "rejected" in {where}, found one or none.')
        if line["chosen"] == line["rejected"]:
            raise UserError(f"Expected two different completions in {where}, found one twice.")
        for name in ("chosen", "rejected"):
            rows.add(encoder, line, line[name], float("nan"), where)
        margins.append(_number(line.get("margin", 0), "a margin", where))
    scored = rows.scored()
    places = np.arange(len(scored.outcome))
    return Preferred(scored, places[::2], places[1::2], np.array(margins, np.float64))


class _Rows:
    """What lines hold, one after the other."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._answers: list[Any] = []
        self._prompts: list[str] = []
        self._outcome: list[float] = []
        self._weight: list[float] = []
        self._columns: dict[str, list[Any]] = {}

    def add(
        self, encoder: Encoder, line: dict[str, Any], completion: Any, outcome: float, where: str
    ) -> None:
        prompt = line.get("prompt")
        self._answers.append(encoder.answer(prompt, completion, where))
        self._prompts.append("" if prompt is None else json.dumps(prompt))
        self._outcome.append(outcome)
        weight = _number(line.get("weight", 1), "a weight", where)
        if not weight >= 0:
            raise UserError(f"Expected a weight of at least 0 in {where}, found {weight}.")
        self._weight.append(weight)
        given = {}
        for role in ("confounders", "groups"):
            found = line.get(role, {})
            if not isinstance(found, dict):
                raise UserError(f"Expected {role} by name in {where}, found another kind.")
            given |= found
        if len(self._answers) == 1:
            self._columns = {name: [] for name in given}
        if given.keys() != self._columns.keys():
            raise UserError(
                f"Expected the confounders and groups of the first line in {where}, found others."
            )
        for name, value in given.items():
            self._columns[name].append(value)

    def scored(self) -> Scored:
        if not self._answers:
            raise UserError(f"Expected at least one completion in {self._path}, found none.")
        return Scored(
            Completions(self._answers),
            np.array(self._outcome, np.float64),
            np.array(self._weight, np.float64),
            self._prompts,
            self._columns,
        )


def _number(value: Any, what: str, where: str) -> float:
    if value is None:
        return float("nan")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UserError(
            f"Expected a number as {what} in {where}, found {readable(repr(value))[:40]}."
        )
    return float(value)
