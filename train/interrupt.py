"""Ask a run to stop at the end of a step, by SIGTERM or Ctrl-C."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from jaxcore.parallel import EXIT_PROCESS_GONE

__all__ = ["EXIT_INTERRUPTED", "EXIT_PROCESS_GONE", "StopRequest"]

EXIT_INTERRUPTED = 75
"""Exit code of a run that was asked to stop and has saved (``EX_TEMPFAIL``: start it again)."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While it is entered, the first SIGTERM or SIGINT only sets a flag; a second one acts.

    With several processes SIGTERM to any of them, the cluster's notice of preemption, is agreed on
    by all through JAX's coordination service, so that all stop after the same step; SIGINT is
    passed on as SIGTERM.
    """

    def __init__(self) -> None:
        self._asked = False
        self._previous: dict[int, Any] = {}
        self._alone = jax.process_count() == 1

    def __enter__(self) -> "StopRequest":
        # Python allows handlers in the main thread only; elsewhere the caller keeps its own.
        if threading.current_thread() is threading.main_thread():
            taken = _SIGNALS if self._alone else (signal.SIGINT,)  # JAX itself listens to SIGTERM
            self._previous = {s: signal.signal(s, self._handle) for s in taken}
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
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(self, step: int) -> bool:
        """Whether to stop after ``step``; every process must call it once per step."""
        if self._alone:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)
