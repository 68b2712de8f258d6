"""Batches on the devices, the next ones drawn and put there while a step runs."""

import contextlib
import copy
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax

from jaxcore.train.task import BatchIterator
from jaxcore.typing import Batch


class Fed(NamedTuple):
    """One batch."""

    batch: Batch  # as the iterator gave it
    placed: Any  # on the devices
    position: Any  # of the iterator after it


class Feed:
    """Takes batches from an iterator ahead of those who use them; use it as a context manager.

    Each comes with the position after it, whatever has been drawn since; an exception of the
    iterator is raised in the place of the batch it could not give.

    >>> class Numbers:
    ...     position = 0
    ...     def __next__(self):
    ...         self.position += 1
    ...         return {"x": self.position}
    ...     def get_state(self):
    ...         return self.position
    >>> with Feed(Numbers(), lambda batch: batch, ahead=2, count=10) as feed:
    ...     first, second = next(feed), next(feed)
    >>> first.batch, first.position, second.position
    ({'x': 1}, 1, 2)
    """

    def __init__(
        self,
        iterator: BatchIterator,
        place: Callable[[Batch], Batch],
        *,
        ahead: int,
        count: int,
    ) -> None:
        """Nothing is drawn before the first batch is asked for.

        Args:
          iterator: nobody else may use it meanwhile.
          place: puts a batch on the devices.
          ahead: batches that may wait, on the devices, drawn by a thread; 0 draws each when it is
            asked for, by the thread that asks.
          count: no more than these are drawn.
        """
        self._iterator, self._place, self._ahead, self._count = iterator, place, ahead, count
        self._ready: queue.SimpleQueue[Fed | BaseException] = queue.SimpleQueue()
        self._room = threading.Semaphore(ahead)
        self._closed = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of what waits; a batch that is being drawn comes to its end."""
        self._closed = True
        self._room.release()
        if self._thread is not None:
            self._thread.join()

    def __next__(self) -> Fed:
        if not self._ahead:
            return self._draw(self._place)
        self._start()
        found = self._ready.get()
        self._room.release()
        if isinstance(found, BaseException):
            self._ready.put(found)  # for whoever asks again
            raise found
        return (
            found
            if found.placed is not None
            else Fed(found.batch, self._place(found.batch), found.position)
        )

    def _start(self) -> None:
        if self._thread is None:
            # Settings of the thread that trains, which another one would not know.
            config: Any = jax.config
            settings = config.jax_enable_x64, config.jax_default_device
            self._thread = threading.Thread(
                target=self._fill, args=settings, name="jaxcore-feed", daemon=True
            )
            self._thread.start()

    def _fill(self, x64: bool, device: Any) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(jax.enable_x64(x64))
            stack.enter_context(jax.default_device(device))
            for _ in range(self._count):
                self._room.acquire()
                if self._closed:
                    return
                try:
                    self._ready.put(self._draw(self._place_from_host))
                except BaseException as error:
                    self._ready.put(error)
                    return

    def _draw(self, place: Callable[[Batch], Batch | None]) -> Fed:
        batch = next(self._iterator)
        position = copy.deepcopy(self._iterator.get_state())
        return Fed(batch, place(batch), position)

    def _place_from_host(self, batch: Batch) -> Batch | None:
        """None: to move arrays between processes is for the thread whose steps they all follow."""
        moves = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(batch))
        return None if moves and jax.process_count() > 1 else self._place(batch)
