"""The one exception that stands for a user's mistake, and text that a terminal may be shown."""

import re
from collections.abc import Iterable

# Characters of a message; a hostile file can hold a name of megabytes.
_LONGEST_MESSAGE = 2000


class UserError(ValueError):
    r"""A mistake the user can mend: one sentence with what was expected and what was found.

    The command line prints its message and exits with code 2, without a stack trace. Names and
    values from files stand in messages, so every message is made `readable`.

    >>> str(UserError("Expected a column 'y', found '\x1b[2J'."))
    "Expected a column 'y', found '\\x1b[2J'."
    """

    def __init__(self, message: object = "", details: Iterable[str] = ()) -> None:
        """The sentence, and further ones for lines of their own, such as one per file."""
        lines = [readable(str(text), _LONGEST_MESSAGE) for text in (message, *details)]
        super().__init__("\n  ".join(lines))


def readable(text: str, limit: int = 200) -> str:
    r"""Text that comes from a file, for a message: no control characters, not too long.

    Args:
      text: anything; a character that cannot be printed (escape, bell, line feed, half a
        surrogate pair, ...) becomes its escape sequence.
      limit: characters that are kept.

    >>> readable("a\x1bb\n"), readable("abcdef", 3)
    ('a\\x1bb\\n', 'abc...')
    """
    text = text if len(text) <= limit else text[:limit] + "..."
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def printable(text: str) -> str:
    r"""Text of several lines for a terminal: names in it that come from files can do nothing to it.

    >>> printable("a\x1b]0;b\x07\n\tc")
    'a\\x1b]0;b\\x07\n\tc'
    """
    parts = re.split(r"([\n\t])", text)
    return "".join(part if part in ("\n", "\t") else readable(part, len(part)) for part in parts)
