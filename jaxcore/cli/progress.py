"""Progress of commands that take longer than two seconds."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield ``items`` with a bar on standard error; nothing is drawn where that is no terminal."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    yield from rich_track(
        items, what, total=total, console=console, disable=not console.is_terminal
    )
