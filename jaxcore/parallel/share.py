"""Share work that is not one compiled program, such as an evaluation, over devices and processes.

A task's evaluation in three lines, with the same result on any number of devices and processes::

    copies = local_copies(state.eval_params)  # a collective, where parameters are split
    mine = together(lambda: list(spread(score, items[index::count], copies)))  # a list per process
    scores = dealt_back(mine)  # in the order of the items
"""

import json
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from jaxcore.errors import UserError
from jaxcore.parallel.mesh import replicated

T = TypeVar("T")
R = TypeVar("R")


def local_copies(tree: Any) -> list[Any]:
    """The whole tree on each device of this process that holds a part of it.

    Leaves that are split over devices are gathered: every process must call it.

    Args:
      tree: of arrays on one device or mesh.

    >>> import jax.numpy as jnp
    >>> len(local_copies({"w": jnp.ones(3)}))
    1
    """
    arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    places = [leaf.sharding for leaf in arrays if isinstance(leaf.sharding, NamedSharding)]
    mesh = places[0].mesh if places else None
    if not isinstance(mesh, Mesh) or mesh.size == 1:
        return [tree]
    everywhere = replicated(mesh)
    if not all(leaf.is_fully_replicated for leaf in arrays):
        tree = jax.jit(lambda x: x, out_shardings=everywhere)(tree)
    return [
        jax.tree.map(lambda leaf, d=device: _on(leaf, d), tree)
        for device in mesh.local_devices or ()
    ]


def _on(leaf: Any, device: Any) -> Any:
    if not isinstance(leaf, jax.Array):
        return leaf
    found = {shard.device: shard.data for shard in leaf.addressable_shards}
    return found[device] if device in found else jax.device_put(leaf, device)


def spread(
    function: Callable[[Any, T], R], items: Iterable[T], copies: Sequence[Any]
) -> Iterator[R]:
    """``function(copy, item)`` of every item, in their order; each device works on one at a time.

    Args:
      function: computes on the device of its first argument; called in a thread for each device.
      items: read in the calling thread, as they are needed.
      copies: of `local_copies`.

    >>> list(spread(lambda copy, item: copy * item, [1, 2, 3], [10]))
    [10, 20, 30]
    """
    if len(copies) == 1:
        yield from (function(copies[0], item) for item in items)
        return
    free: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def work(item: T) -> R:
        copy = free.get()
        try:
            (device,) = next(x for x in jax.tree.leaves(copy) if isinstance(x, jax.Array)).devices()
            with jax.default_device(device):
                return function(copy, item)
        finally:
            free.put(copy)

    pool = ThreadPoolExecutor(len(copies))
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > len(copies):  # one more is ready, few are in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def together(function: Callable[[], Any]) -> list[Any]:
    """What ``function()`` returns in every process, in their order; all must call it.

    An exception in one of them is one in all, so that none waits for another in vain.

    Args:
      function: of this process alone, without collectives; returns JSON (NaN is allowed).

    Raises:
      UserError: in the processes where ``function`` has not failed itself; names the one where it
        has.

    >>> together(lambda: [1.5])
    [[1.5]]
    """
    failure: Exception | None = None
    mine: dict[str, Any] = {}
    try:
        mine["value"] = function()
    except Exception as error:
        if jax.process_count() == 1:
            raise
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        failure, mine["error"] = error, f"{kind}{error}"
    found = _gather(mine)
    if failure is not None:
        raise failure
    for index, one in enumerate(found):
        if "error" in one:
            raise UserError(f"Process {index} of {len(found)} has failed: {one['error']}")
    return [one["value"] for one in found]


def dealt_back(hands: Sequence[Sequence[T]]) -> list[T]:
    """Undo ``items[index::count]``: the items in their order.

    >>> dealt_back([[0, 2, 4], [1, 3]])
    [0, 1, 2, 3, 4]
    """
    rounds = range(max(map(len, hands), default=0))
    return [hand[i] for i in rounds for hand in hands if i < len(hand)]


def _gather(value: Any) -> list[Any]:
    text = json.dumps(value).encode()
    if jax.process_count() == 1:
        return [json.loads(text)]
    lengths = multihost_utils.process_allgather(np.array(len(text), np.int32))
    size = 1 << int(np.max(lengths)).bit_length()  # few sizes, so few programs
    padded = np.zeros(size, np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [
        json.loads(np.asarray(row)[: int(length)].tobytes())
        for row, length in zip(rows, lengths, strict=True)
    ]
