"""Prompts with completions, as tokens: where a completion begins, and rows of one length."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np
from jaxtyping import Bool, Int

from jaxcore.errors import UserError, readable

if TYPE_CHECKING:
    from jaxcore.tokenizers import Tokenizer


class Answer(NamedTuple):
    """A prompt and its completion."""

    tokens: list[int]  # of both
    start: int  # where the completion begins


class CompletionRows(NamedTuple):
    """Rows of one length, padded on the right.

    Attributes:
      tokens: of prompt and completion.
      valid: false for padding.
      mask: tokens of the completion.
    """

    tokens: Int[np.ndarray, "n t"]
    valid: Bool[np.ndarray, "n t"]
    mask: Bool[np.ndarray, "n t"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """From what the lines of a file hold to tokens.

    A prompt is a text, a chat (messages with "role" and "content") or tokens; a completion a text
    or tokens, or a chat whose last message it is. Texts of prompts take the template of chats where
    the tokenizer has one, and completions that are texts end with the token that ends an answer.
    Tokens are taken as they are.

    >>> Encoder(vocab_size=9).answer([1, 2], [3], "line 1")
    Answer(tokens=[1, 2, 3], start=2)
    """

    vocab_size: int  # tokens are below
    tokenizer: "Tokenizer | None" = None  # None: files hold tokens alone
    chat: bool = True  # whether prompts take the template of chats

    def __post_init__(self) -> None:
        if self.tokenizer is not None and len(self.tokenizer) > self.vocab_size:
            raise UserError(
                f"Expected a tokenizer of at most {self.vocab_size:,} tokens, as many as the "
                f"network knows, found {len(self.tokenizer):,}."
            )

    def answer(self, prompt: Any, completion: Any, where: str) -> Answer:
        """Tokens of a prompt and its completion.

        Args:
          prompt: a text, a chat or tokens; None where texts have no prompt.
          completion: a text, a chat or tokens.
          where: the line, for messages.

        Raises:
          UserError: they are of another kind, or the completion is empty.
        """
        if is_chat(completion):
            if prompt is not None and not is_chat(prompt):
                raise UserError(f"Expected chats as prompt and completion in {where}, found one.")
            prompt, completion = [*(prompt or []), *completion[:-1]], completion[-1]["content"]
        before = self.prompt(prompt, where)
        after = self.completion(completion, where)
        return Answer(before + after, len(before))

    def prompt(self, value: Any, where: str) -> list[int]:
        """Tokens of a prompt, up to where the completion begins."""
        if isinstance(value, list) and not is_chat(value):
            return self._tokens(value, "a prompt", where)
        if value is None or value == "" or value == []:
            return [] if self.tokenizer is None else self.tokenizer.encode("", start=True)
        tokenizer = self._tokenizer(value, "a prompt", where)
        if is_chat(value):
            return tokenizer.chat(value)
        text = str(value)
        if self.chat and tokenizer.template is not None:
            return tokenizer.chat([{"role": "user", "content": text}])
        return tokenizer.encode(text, start=True)

    def completion(self, value: Any, where: str) -> list[int]:
        """Tokens of a completion, at least one."""
        if isinstance(value, list):
            found = self._tokens(value, "a completion", where)
        else:
            tokenizer = self._tokenizer(value, "a completion", where)
            found = tokenizer.encode_literally(value)
            found += tokenizer.eos[:1] if found else ()
        if not found:
            raise UserError(
                f"Expected a completion of at least one token in {where}, found an empty one."
            )
        return found

    def _tokenizer(self, value: Any, what: str, where: str) -> "Tokenizer":
        if not isinstance(value, str) and not is_chat(value):
            raise UserError(
                f"Expected {what} as a text, a chat or tokens in {where}, found "
                f"{readable(repr(value))[:60]}."
            )
        if self.tokenizer is None:
            raise UserError(
                f"Expected tokens in {where}, as there is no tokenizer, found {what} as text."
            )
        return self.tokenizer

    def _tokens(self, value: list[Any], what: str, where: str) -> list[int]:
        if not are_tokens(value, self.vocab_size):
            raise UserError(
                f"Expected {what} of whole numbers below {self.vocab_size} in {where}, found "
                f"{readable(repr(value))[:60]}."
            )
        return value


def are_tokens(value: Any, limit: int) -> TypeGuard[list[int]]:
    """Whether a value is a list of whole numbers from 0 to below a limit.

    >>> are_tokens([0, 3], 4), are_tokens([4], 4), are_tokens("text", 4)
    (True, False, False)
    """
    if not isinstance(value, list):
        return False
    return all(type(token) is int and 0 <= token < limit for token in value)


def is_chat(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether a value is a list of messages, at least one.

    >>> is_chat([{"role": "user", "content": "Hello"}])
    True
    """
    if not isinstance(value, list) or not value:
        return False
    return all(
        isinstance(message, Mapping)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
        for message in value
    )


class Completions:
    """Many prompts with completions, in memory without padding.

    >>> both = Completions([Answer([5, 6, 7], 1), Answer([8, 9], 1)])
    >>> rows = both.rows([1, 0], 4)
    >>> rows.tokens.tolist(), rows.mask.astype(int).tolist()
    ([[8, 9, 0, 0], [5, 6, 7, 0]], [[0, 1, 0, 0], [0, 1, 1, 0]])
    """

    def __init__(self, answers: Sequence[Answer]) -> None:
        """Keep the answers."""
        sizes = [len(answer.tokens) for answer in answers]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._starts = np.array([answer.start for answer in answers], np.int32)
        self._tokens = np.fromiter(
            (token for answer in answers for token in answer.tokens), np.int32, sum(sizes)
        )

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> Answer:
        if not 0 <= number < len(self):
            raise IndexError(number)
        begin = int(self._ends[number - 1]) if number else 0
        tokens = self._tokens[begin : int(self._ends[number])]
        return Answer(tokens.tolist(), int(self._starts[number]))

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """Tokens of each completion, without its prompt."""
        return (np.diff(self._ends, prepend=0) - self._starts).astype(np.int64)

    def fitting(self, length: int) -> int:
        """Length of rows that is enough for all, a multiple of 16, but at most ``length``."""
        longest = int(np.diff(self._ends, prepend=0).max(initial=1))
        return min(length, -(-longest // 16) * 16)

    def longer(self, length: int) -> int:
        """How many have more tokens than a row."""
        return int(np.sum(np.diff(self._ends, prepend=0) > length))

    def rows(self, which: Sequence[int] | np.ndarray, length: int) -> CompletionRows:
        """Some of them, each in a row; the start of a prompt gives way to its completion.

        Args:
          which: their numbers.
          length: of a row. A completion that is longer alone is cut at its end.
        """
        tokens = np.zeros((len(which), length), np.int32)
        valid, mask = np.zeros(tokens.shape, bool), np.zeros(tokens.shape, bool)
        for row, number in enumerate(which):
            end = int(self._ends[number])
            begin = int(self._ends[number - 1]) if number else 0
            start = int(self._starts[number])
            # One token of the prompt stays, if there is one: it foresees the first of the answer.
            kept = max(min(start, 1), length - (end - begin - start))
            found = self._tokens[begin + max(0, start - kept) : end][:length]
            tokens[row, : len(found)], valid[row, : len(found)] = found, True
            mask[row, min(start, kept) : len(found)] = True
        return CompletionRows(tokens, valid, mask)
