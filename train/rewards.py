"""What completions earn: functions under a name, of texts and of the lines their prompts are from.

A function of your own joins by `register`, in the process that trains:

>>> def politeness(completions):
...     return [float("please" in (found.text or "")) for found in completions]
>>> register("politeness", politeness)
>>> look_up("politeness")([Completion(text="Yes, please.", tokens=[4, 2], ended=True, line={})])
[1.0]
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from jaxcore.errors import UserError, readable


class Completion(NamedTuple):
    """A completion as a reward sees it.

    Attributes:
      text: without the token that ends it; None where there is no tokenizer.
      tokens: likewise.
      ended: False if it was cut short.
      line: of the file of prompts: "prompt", and whatever else stands there, such as an "answer".
    """

    text: str | None
    tokens: list[int]
    ended: bool
    line: Mapping[str, Any]


Reward: TypeAlias = Callable[[Sequence[Completion]], Sequence[float | None]]
"""Rewards of completions, None or NaN where it has none to give. The same ones must give the same
rewards again, or a run that is resumed goes another way."""


def _match(completions: Sequence[Completion]) -> list[float]:
    return [float(_said(found) == _wanted(found)) for found in completions]


def _contains(completions: Sequence[Completion]) -> list[float]:
    return [float(_within(_wanted(found), _said(found))) for found in completions]


def _brevity(completions: Sequence[Completion]) -> list[float]:
    return [-float(len(found.tokens)) for found in completions]


_registered: dict[str, Reward] = {"match": _match, "contains": _contains, "brevity": _brevity}


def names() -> tuple[str, ...]:
    """Names of all rewards: "match" and "contains" the "answer" of the line, "brevity", and yours.

    >>> sorted({"brevity", "contains", "match"} & set(names()))
    ['brevity', 'contains', 'match']
    """
    return tuple(sorted(_registered))


def register(name: str, reward: Reward) -> None:
    """Let trainings of this process find a reward by its name.

    Args:
      name: a new one; it is stored with the run.
      reward: the function.

    Raises:
      UserError: the name belongs to another reward.
    """
    if _registered.get(name, reward) is not reward:
        raise UserError(f"Expected a new name for a reward, found {name!r}, a known one.")
    _registered[name] = reward


def look_up(name: str) -> Reward:
    """The reward with a name.

    Raises:
      UserError: there is none.
    """
    if name not in _registered:
        raise UserError(f"Unknown reward {name!r}: expected one of {', '.join(names())}.")
    return _registered[name]


def check(name: str, lines: Sequence[Mapping[str, Any]], *, texts: bool) -> None:
    """See that there is a reward, and that lines of prompts have what the library's own need.

    Args:
      name: of the reward.
      lines: of the file of prompts.
      texts: whether there is a tokenizer, so that completions are compared as texts.

    Raises:
      UserError: there is no such reward, or a line without an "answer".
    """
    if look_up(name) in (_match, _contains):
        for line in lines:
            _wanted(Completion("" if texts else None, [], True, line))


def given(name: str, completions: Sequence[Completion]) -> Float[np.ndarray, " n"]:
    """What one reward gives, NaN where it gives none.

    Raises:
      UserError: it is unknown, or gives something else than a number for each completion.
    """
    values = look_up(name)(completions)
    try:
        found = np.array([math.nan if x is None else float(x) for x in values], np.float32)
    except (TypeError, ValueError):
        raise UserError(f"Expected numbers of the reward {name!r}, found others.") from None
    if len(found) != len(completions):
        raise UserError(
            f"Expected {len(completions)} numbers of the reward {name!r}, one for each completion, "
            f"found {len(found)}."
        )
    return found


def _said(found: Completion) -> str | list[int]:
    return found.tokens if found.text is None else found.text.strip()


def _wanted(found: Completion) -> str | list[int]:
    answer = found.line.get("answer")
    if isinstance(answer, str) and found.text is not None:
        return answer.strip()
    if isinstance(answer, list) and found.text is None:
        return answer
    kind = "tokens" if found.text is None else "a text"
    prompt = readable(repr(found.line.get("prompt")))[:60]
    raise UserError(
        f'Expected {kind} as "answer" of the prompt {prompt}, found {readable(repr(answer))[:60]}.'
    )


def _within(part: str | list[int], whole: str | list[int]) -> bool:
    if isinstance(part, str) and isinstance(whole, str):
        return part in whole
    size = len(part)
    return any(whole[i : i + size] == part for i in range(len(whole) - size + 1))
