"""What is printed while a run works."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxcore.errors import printable

_FOLLOWED = ("loss", "reward", "kl")  # shown while a run works, where there are such metrics


class Reporter(Protocol):
    """Receives the events of a run, in this order; must not fail."""

    def begin(self, step: int, total: int) -> None:
        """The loop starts at ``step`` of ``total``."""
        ...

    def advance(self, step: int) -> None:
        """A step was enqueued."""
        ...

    def train(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Means since the last call, with ``items_per_second`` and ``seconds_left``."""
        ...

    def evaluation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """An evaluation ended."""
        ...

    def message(self, text: str) -> None:
        """One sentence for the user."""
        ...

    def end(self) -> None:
        """The loop ended, in whatever way."""
        ...


class Silent:
    """Prints nothing."""

    def begin(self, step: int, total: int) -> None:
        """See `Reporter`."""

    def advance(self, step: int) -> None:
        """See `Reporter`."""

    def train(self, step: int, metrics: Mapping[str, Any]) -> None:
        """See `Reporter`."""

    def evaluation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """See `Reporter`."""

    def message(self, text: str) -> None:
        """See `Reporter`."""

    def end(self) -> None:
        """See `Reporter`."""


def format_metrics(metrics: Mapping[str, Any], names: tuple[str, ...] = ()) -> str:
    """``"psnr 27.31, ssim 0.8841"``.

    >>> format_metrics({"loss": 0.25, "n": 3})
    'loss 0.25, n 3'
    """
    chosen = {k: metrics[k] for k in names if k in metrics} if names else metrics
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in chosen.items()
    )


def format_seconds(seconds: float) -> str:
    """``"1:02:05"`` or ``"2:05"``.

    >>> format_seconds(125.4)
    '2:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Lines:
    """Plain lines for a log file or a pipe."""

    def __init__(self, stream: TextIO | None = None, *, items: str = "images") -> None:
        self._stream = stream
        self._items = items
        self._total = 0

    def begin(self, step: int, total: int) -> None:
        """See `Reporter`."""
        self._total = total

    def advance(self, step: int) -> None:
        """See `Reporter`."""

    def train(self, step: int, metrics: Mapping[str, Any]) -> None:
        """See `Reporter`."""
        text = format_metrics(metrics, (*_FOLLOWED, "grad_norm", "learning_rate"))
        if metrics.get("skipped"):
            text += f", {metrics['skipped']:.0f} steps skipped"
        rate = metrics.get("items_per_second")
        if rate is not None:
            text += f", {rate:.3g} {self._items}/s"
            text += f", {format_seconds(metrics['seconds_left'])} left"
        self.message(f"step {step}/{self._total}: {text}")

    def evaluation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """See `Reporter`."""
        self.message(f"step {step}/{self._total}: evaluation: {format_metrics(metrics)}")

    def message(self, text: str) -> None:
        """See `Reporter`."""
        print(printable(text), file=self._stream or sys.stderr, flush=True)

    def end(self) -> None:
        """See `Reporter`."""


class Bar:
    """A rich progress bar with loss, items per second, time left and the last evaluation."""

    def __init__(self, console: Console | None = None, *, items: str = "images") -> None:
        self._items = items
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            expand=True,
        )
        self._task: TaskID | None = None

    def begin(self, step: int, total: int) -> None:
        """See `Reporter`."""
        self._task = self._progress.add_task("", total=total, completed=step, text="compiling")
        self._progress.start()

    def advance(self, step: int) -> None:
        """See `Reporter`."""
        if self._task is not None:
            self._progress.update(self._task, completed=step)

    def train(self, step: int, metrics: Mapping[str, Any]) -> None:
        """See `Reporter`."""
        parts = [format_metrics({name: metrics[name]}) for name in _FOLLOWED if name in metrics]
        if metrics.get("skipped"):
            parts.append(f"{metrics['skipped']:.0f} skipped")
        if metrics.get("items_per_second") is not None:
            parts.append(f"{metrics['items_per_second']:.3g} {self._items}/s")
        if self._task is not None:
            self._progress.update(self._task, text=", ".join(parts))

    def evaluation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """See `Reporter`."""
        self.message(f"step {step}: {format_metrics(metrics)}")

    def message(self, text: str) -> None:
        """See `Reporter`."""
        self._progress.console.print(printable(text), highlight=False, markup=False)

    def end(self) -> None:
        """See `Reporter`."""
        self._progress.stop()


def default_reporter(items: str = "images") -> Reporter:
    """A bar on a terminal, lines elsewhere, nothing on processes other than the first."""
    if jax.process_index() != 0:
        return Silent()
    console = Console(stderr=True)
    return Bar(console, items=items) if console.is_terminal else Lines(items=items)


class Pace:
    """Items per second of training alone: compilation, evaluation and saving do not count."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._items = 0
        self._steps = 0

    def count(self, items: int) -> None:
        """One more step."""
        self._items += items
        self._steps += 1

    def pause(self, began: float) -> None:
        """Leave out the time since ``began`` (a value of `now`)."""
        self._since += self.now() - began

    def per_step(self) -> float:
        """Seconds of a step since the last call of `read`."""
        return (self.now() - self._since) / max(self._steps, 1)

    def read(self, steps_left: int) -> dict[str, float]:
        """Rate since the last call and the time left at that rate; starts anew."""
        seconds = max(self.now() - self._since, 1e-9)
        rate, per_step = self._items / seconds, seconds / max(self._steps, 1)
        measured = self._steps > 0
        self.restart()
        if not measured:
            return {}
        return {"items_per_second": rate, "seconds_left": per_step * steps_left}

    def restart(self) -> None:
        """Start anew from here."""
        self._since, self._items, self._steps = self.now(), 0, 0

    @staticmethod
    def now() -> float:
        """Seconds of a steady clock."""
        return time.perf_counter()
