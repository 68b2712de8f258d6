"""A tokenizer with what a language model needs besides: special tokens, a template of chats."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxcore.errors import UserError
from jaxcore.tokenizers.template import render

if TYPE_CHECKING:
    import tokenizers

_HELD = 8  # tokens that may wait for the rest of a character, which has four bytes at most
_PRIVATE = 0xF0000  # characters that no text has: stand for special tokens inside a message


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to ids and back.

    Attributes:
      engine: of the library ``tokenizers``.
      bos: id of the token that begins a text, if there is one.
      eos: ids of the tokens that end an answer.
      pad: id of the token that fills a batch.
      template: of chats, in Jinja, if there is one.
      source: where the template comes from, for messages.
    """

    engine: "tokenizers.Tokenizer"
    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int = 0
    template: str | None = None
    source: str = ""

    def __len__(self) -> int:
        """Number of tokens."""
        return self.engine.get_vocab_size()

    def encode(self, text: str, *, start: bool = False) -> list[int]:
        """Ids of a text; special tokens that stand in it as text become these tokens.

        Args:
          text: any length; nothing is cut off.
          start: add the tokens with which this model's texts begin, if there are any.
        """
        return self.engine.encode(_whole(text), add_special_tokens=start).ids

    def encode_literally(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are but characters."""
        self.engine.encode_special_tokens = True
        try:
            return self.engine.encode(_whole(text), add_special_tokens=False).ids
        finally:
            self.engine.encode_special_tokens = False

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Text of ids; ids without a token are left out.

        Args:
          ids: of tokens.
          special: keep special tokens.
        """
        size = len(self)
        known = [int(i) for i in ids if 0 <= i < size]
        return self.engine.decode(known, skip_special_tokens=not special)

    def stream(self, *, special: bool = False) -> "TextStream":
        """The text of ids that come one after the other; see `TextStream`."""
        return TextStream(self, special=special)

    def id_of(self, token: str) -> int | None:
        """Id of a token by its text, such as ``<|im_end|>``."""
        return self.engine.token_to_id(token)

    @functools.cached_property
    def specials(self) -> dict[str, int]:
        """Special tokens by their text."""
        added = self.engine.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items() if token.special}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes with anything that changes ids or the text of chats; 16 hexadecimal digits."""
        parts = [self.engine.to_str(), self.bos, sorted(self.eos), self.pad, self.template]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def chat(self, messages: Sequence[Mapping[str, Any]], *, answer: bool = True) -> list[int]:
        """Ids of a chat by the template, special tokens inside messages being but characters.

        Args:
          messages: each with "role" (system, user, assistant) and "content" (text, or a list of
            parts such as ``{"type": "text", "text": "..."}`` and ``{"type": "image"}``).
          answer: end where the assistant begins to speak.

        Raises:
          UserError: there is no template, or it refuses these messages.
        """
        if self.template is None:
            raise UserError("Expected a tokenizer with a template of chats, found one without.")
        texts = sorted(self.specials, key=len, reverse=True)
        marks = {text: chr(_PRIVATE + i) for i, text in enumerate(texts)}
        pattern = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        hidden = _mapped(messages, lambda text: pattern.sub(lambda m: marks[m[0]], text))
        ids = {"bos_token": self.bos, "eos_token": next(iter(self.eos), None)}
        names = {n: self.engine.id_to_token(i) or "" for n, i in ids.items() if i is not None}
        text = render(self.template, hidden, answer=answer, tokens=names, source=self.source)
        literal = {mark: special for special, mark in marks.items()}
        out: list[int] = []
        for part in re.split(f"([{chr(_PRIVATE)}-{chr(_PRIVATE + len(texts))}])", text):
            if part:
                literally = part in literal
                out += self.encode_literally(literal[part]) if literally else self.encode(part)
        return out


def _whole(text: str) -> str:
    """Halves of characters, which operating systems hand over for bytes they cannot read."""
    return text.encode("utf-8", "replace").decode()


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(inner, change) for inner in value]
    return value


class TextStream:
    """Text of ids as they come: a character is given when all its bytes are there."""

    def __init__(self, tokenizer: Tokenizer, *, special: bool = False) -> None:
        """Begin at the start of a text."""
        self._decode = functools.partial(tokenizer.decode, special=special)
        self._shown: list[int] = []  # the last tokens whose text was given: spaces depend on them
        self._held: list[int] = []

    def add(self, ids: Iterable[int]) -> str:
        """The text that further ids complete."""
        return "".join(self._one(i) for i in ids)

    def _one(self, i: int) -> str:
        self._held.append(int(i))
        text = self._pending()
        if not text or (text.endswith("\N{REPLACEMENT CHARACTER}") and len(self._held) < _HELD):
            return ""
        self._shown, self._held = self._held, []
        return text

    def _pending(self) -> str:
        before = self._decode(self._shown)
        return self._decode([*self._shown, *self._held])[len(before) :]

    def end(self) -> str:
        """What is left at the end; bytes without the rest of their character are replaced."""
        text, self._shown, self._held = self._pending(), [], []
        return text
