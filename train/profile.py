"""A trace of a few steps, which xprof and TensorBoard open."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import jax

from jaxcore.errors import UserError


def profiled_steps(text: str, steps: int | None = None) -> tuple[int, int]:
    """First and last step of ``"FIRST:LAST"``.

    Args:
      text: of `TrainConfig.profile`.
      steps: of the run; None where they are not known yet.

    Raises:
      UserError: not two numbers of steps in order, or some that the run does not have.

    >>> profiled_steps("10:13")
    (10, 13)
    """
    first, _, last = text.partition(":")
    numbers = first.isdecimal() and last.isdecimal()
    if not numbers or not 1 <= int(first) <= int(last):
        raise UserError(f"profile must be FIRST:LAST, steps such as 10:13, found {text!r}.")
    if steps is not None and int(last) > steps:
        raise UserError(f"profile must name steps up to {steps}, the last one, found {text!r}.")
    return int(first), int(last)


class Profiler:
    """Traces the steps it is told of; use it as a context manager.

    The trace is ended where the run ends before its last step.
    """

    def __init__(self, steps: str | None, folder: Path) -> None:
        """Nothing is traced without ``steps``, and by processes other than the first.

        Args:
          steps: ``"FIRST:LAST"``, both are traced.
          folder: receives ``plugins/profile/<time>/``.
        """
        wanted = steps is not None and jax.process_index() == 0
        self._first, self._last = profiled_steps(steps) if steps and wanted else (1, 0)
        self._folder = folder
        self._running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @contextlib.contextmanager
    def step(self, number: int, wait: Callable[[], None]) -> Iterator[None]:
        """Around the call of a step.

        Args:
          number: of the step.
          wait: returns when all steps given to the devices are done.
        """
        if not self._first <= number <= self._last:
            yield
            return
        if not self._running:
            wait()  # what is before the first one is not in the trace
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if number == self._last:
            wait()
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
