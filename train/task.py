"""What the loop needs to know of a training problem."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import numpy as np

from jaxcore.typing import Batch, Key, Params


@runtime_checkable
class BatchIterator(Protocol):
    """A resumable stream of batches, such as a grain ``DatasetIterator``."""

    def __next__(self) -> Batch: ...

    def get_state(self) -> Any:
        """JSON-able (or bytes) position in the stream, after the last batch handed out."""
        ...

    def set_state(self, state: Any) -> None:
        """Go to a position from `get_state`."""
        ...


class Task(Protocol):
    """A frozen dataclass that defines what is trained.

    Optional attributes, read through `Hooks` only:

    * ``samples(params) -> dict[str, np.ndarray]``: named uint8 pictures, (height, width, 3).
    * ``trainable(params) -> tree of bools``: False leaves get neither update nor decay; it is
      called with shapes (``jax.ShapeDtypeStruct``), not values. None trains everything.
    * ``finished(params) -> bool``: asked whenever metrics are logged; True ends the run.
    * ``items_per_batch: int``: what is counted per second; default the rows of the batch.
    * ``collections() -> dict``: arrays the state carries besides parameters.
    * ``frozen() -> tree of arrays or None``: what ``loss`` takes as a fourth argument, such as the
      weights of a network that does not learn. Every device gets a copy, no checkpoint does: it
      is asked for again when a run goes on.
    * ``make_step(mesh) -> step``: a pure ``(state, batch) -> (state, metrics)`` that stands in for
      the gradient step; for jobs that fill ``collections`` instead of descending a loss. It must
      count ``state.step`` up.
    * ``sharding_rules``: ``(regular expression, PartitionSpec)`` pairs for a mesh with a tensor
      axis, see `jaxcore.parallel.state_shardings`.
    """

    name: ClassVar[str]  # name in `jaxcore.registry`

    def init_params(self, key: Key) -> Params:
        """Fresh parameters."""
        ...

    def loss(self, params: Params, batch: Batch, key: Key) -> tuple[jax.Array, Mapping[str, Any]]:
        """Mean loss over the rows of a batch, and a dict of scalars to log."""
        ...

    def batches(self, seed: int, start_step: int) -> BatchIterator:
        """The endless stream of batches, standing before batch ``start_step``.

        With several processes every process yields its own rows.
        """
        ...

    def evaluate(self, params: Params) -> dict[str, float]:
        """Metrics on held-out data."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description, enough to build the task again."""
        ...


class Hooks:
    """The optional parts of a task with their defaults filled in."""

    def __init__(self, task: Any) -> None:
        self.samples: Callable[[Params], dict[str, np.ndarray]] | None = getattr(
            task, "samples", None
        )
        self.trainable: Callable[[Params], Any] = getattr(task, "trainable", lambda params: None)
        self.finished: Callable[[Params], bool] = getattr(task, "finished", lambda params: False)
        self.collections: Callable[[], dict[str, Any]] = getattr(task, "collections", dict)
        self.frozen: Callable[[], Any] = getattr(task, "frozen", lambda: None)
        self.make_step: Callable[[Any], Callable[..., Any]] | None = getattr(
            task, "make_step", None
        )
        self.sharding_rules: tuple[Any, ...] = getattr(task, "sharding_rules", ())
        self._items: int | None = getattr(task, "items_per_batch", None)

    def items(self, batch: Batch) -> int:
        """How many items (images, units) one batch holds."""
        if self._items is not None:
            return self._items
        leaves = jax.tree.leaves(batch)
        return int(np.shape(leaves[0])[0]) if leaves and np.ndim(leaves[0]) else 1
