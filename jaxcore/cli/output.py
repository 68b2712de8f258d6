"""What commands say on standard output and standard error."""

from typing import Any

from jaxcore.errors import printable


def show(text: object, **options: Any) -> None:
    r"""Print; control characters, which names from files may hold, as escape sequences.

    Args:
      text: what is said; may have several lines.
      **options: of ``print``.

    >>> show("\x1b[2Jpicture.png")
    \x1b[2Jpicture.png
    """
    print(printable(str(text)), **options)
