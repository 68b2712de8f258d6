"""From a list of entries to batches: shuffled, seeded, shared among processes, resumable.

The list of an epoch is shuffled anew each epoch. A row of a batch depends on the seed and on its
position in this endless stream, and on nothing else: not on threads, processes or earlier rows. So
the number of batches given out is the whole state. grain prepares batches ahead in threads.
"""

import bisect
import functools
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar, cast

import numpy as np

from jaxcore.errors import UserError
from jaxcore.typing import Batch

# Kinds of random streams: none is ever shared between the order and a row.
_ORDER, _ROW = 0, 1


class Draw(NamedTuple):
    """What a row is made from."""

    entry: int  # place in the list of one epoch before it is shuffled
    rng: np.random.Generator  # of this row alone


class Part(Protocol):
    """A part of a training with batches of one size."""

    @property
    def steps(self) -> int | None:
        """None: for ever."""
        ...

    @property
    def batch_size(self) -> int:
        """Rows over all processes."""
        ...


P = TypeVar("P", bound=Part)


class Stream:
    """Iterator of `stream`; its state is JSON."""

    def __init__(self, iterator: Any, entries: Mapping[str, int]) -> None:
        self._iterator, self._entries = iterator, dict(entries)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """Batches given out, and the size of the data, which must not change in between."""
        return {"step": self._iterator.get_state()["next_index"], "entries": dict(self._entries)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to a position from `get_state`.

        Raises:
          UserError: the data have changed since, or this is no such position.
        """
        step = state.get("step") if isinstance(state, Mapping) else None
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < sys.maxsize:
            raise UserError(
                f"Expected the position of the data in the checkpoint, found {state!r}."
            )
        if state.get("entries") != self._entries:
            raise UserError(
                f"Expected the data of the checkpoint with {state.get('entries')} entries, found "
                f"{self._entries}."
            )
        self._iterator.set_state({"next_index": step})


def stream(
    make: Callable[[P, Sequence[Draw]], Batch],
    parts: Sequence[P],
    *,
    entries: Mapping[str, int],
    seed: int,
    start_step: int = 0,
    num_threads: int | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Stream:
    """Batches of random entries, endless if the last part is.

    Args:
      make: the rows of this process of one batch of a part, from one draw for each; called in
        threads.
      parts: batch sizes over time.
      entries: name of a group -> its entries in the list of one epoch.
      seed: of the order and of all draws.
      start_step: batches to skip, at no cost.
      num_threads: threads that prepare batches ahead; 0 prepares each when it is asked for. By
        default one per core, at most 8.
      process_index: of this process; by default JAX's.
      process_count: of all processes, each of which yields its part of the rows.

    Raises:
      UserError: no data, parts that cannot be, a seed out of range.

    >>> from types import SimpleNamespace
    >>> def make(part, draws):
    ...     return {"entry": np.array([draw.entry for draw in draws])}
    >>> batches = stream(
    ...     make, [SimpleNamespace(steps=None, batch_size=3)], entries={"all": 3}, seed=0
    ... )
    >>> sorted(next(batches)["entry"].tolist()), batches.get_state()
    ([0, 1, 2], {'step': 1, 'entries': {'all': 3}})
    """
    import grain

    if process_index is None or process_count is None:
        import jax

        process_index, process_count = jax.process_index(), jax.process_count()
    _check(parts, entries, seed, start_step, process_count)
    total = sum(entries.values())
    source = _Batches(make, tuple(parts), total, seed, process_index, process_count)
    threads = min(os.cpu_count() or 1, 8) if num_threads is None else num_threads
    ahead = threads + 2 if threads else 0  # batches; big ones are heavy
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    iterator = iter(grain.MapDataset.source(cast(Any, source)).to_iter_dataset(options))
    batches = Stream(iterator, entries)
    if start_step:
        batches.set_state({**batches.get_state(), "step": start_step})
    return batches


class _Batches(Generic[P]):
    """Batch number -> batch."""

    def __init__(
        self,
        make: Callable[[P, Sequence[Draw]], Batch],
        parts: tuple[P, ...],
        total: int,
        seed: int,
        process_index: int,
        process_count: int,
    ) -> None:
        self._make, self._parts, self._total, self._seed = make, parts, total, seed
        self._index, self._count = process_index, process_count
        # Not grain's shuffle: on short lists it takes 2 ms for each item. Rows that are prepared
        # at the same time may lie in a few epochs if the list is shorter than a batch.
        self._order = functools.lru_cache(maxsize=16)(self._shuffled)
        # First step and first row of each part, and the end of the last one.
        steps = [sys.maxsize if part.steps is None else part.steps for part in parts]
        rows = [part.batch_size * n for part, n in zip(parts, steps, strict=True)]
        self._first_step = [0, *itertools.accumulate(steps)]
        self._first_row = [0, *itertools.accumulate(rows)]

    def __len__(self) -> int:
        return min(self._first_step[-1], sys.maxsize)

    def __getitem__(self, step: int) -> Batch:
        number = bisect.bisect_right(self._first_step, step) - 1
        part = self._parts[number]
        begin = self._first_row[number]
        begin += (step - self._first_step[number]) * part.batch_size
        share = part.batch_size // self._count
        begin += self._index * share
        return self._make(part, [self._draw(begin + row) for row in range(share)])

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((_ORDER, self._seed, epoch)).permutation(self._total)

    def _draw(self, position: int) -> Draw:
        """What the row at a position of the stream is made from."""
        epoch, place = divmod(position, self._total)
        rng = np.random.default_rng((_ROW, self._seed, position))
        return Draw(int(self._order(epoch)[place]), rng)


def _check(
    parts: Sequence[Part],
    entries: Mapping[str, int],
    seed: int,
    start_step: int,
    process_count: int,
) -> None:
    empty = [name for name, count in entries.items() if count < 1]
    if empty or not entries:
        raise UserError(f"Expected groups with data, found none in {empty or 'the list'}.")
    if not parts or any(part.steps is None for part in parts[:-1]):
        raise UserError("Expected stages of which only the last may last for ever (steps None).")
    for part in parts:
        if part.batch_size < 1 or (part.steps is not None and part.steps < 1):
            raise UserError(f"Expected positive steps and batch size, found {part}.")
        if part.batch_size % process_count:
            raise UserError(
                f"Expected a batch size that divides over {process_count} processes, found "
                f"{part.batch_size}."
            )
    if not 0 <= seed < 2**32 or start_step < 0:
        raise UserError(
            f"Expected a seed of 32 bits and a step, found seed {seed} and step {start_step}."
        )
