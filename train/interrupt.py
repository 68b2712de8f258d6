"""Ask a run to stop at the end of a step, by SIGTERM or Ctrl-C."""

import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_INTERRUPTED = 75
"""Exit code of a run that was asked to stop and has saved (``EX_TEMPFAIL``: start it again)."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While it is entered, the first SIGTERM or SIGINT only sets a flag; a second one acts.

    With several processes the cluster's preemption notice (SIGTERM to any process) is agreed on
    by all of them through JAX's coordination service, so that all stop after the same step.
    """

    def __init__(self) -> None:
        self._asked = False
        self._previous: dict[int, Any] = {}
        self._alone = jax.process_count() == 1

    def __enter__(self) -> "StopRequest":
        # Python allows handlers in the main thread only; elsewhere the caller keeps its own.
        if self._alone and threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle) for s in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._restore()

    def asked(self, step: int) -> bool:
        """Whether to stop after ``step``; every process must call it once per step."""
        if self._alone:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)
